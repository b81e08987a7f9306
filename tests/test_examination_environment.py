"""Which model APIs an environment names: hosts and ports, and nothing else of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from agentscope.examination.environment import HOST_LIMIT, llm_hosts_in, read_llm_hosts


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("OPENAI_BASE_URL=https://llm.example/v1", "llm.example:443"),
        ("OPENAI_BASE_URL=http://llm.example/v1", "llm.example:80"),
        ("OPENAI_API_BASE=http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("ANTHROPIC_BASE_URL=HTTPS://API.Example.COM", "api.example.com:443"),
        ("MY_OWN_BASE_URL=https://[fd00:0::7]:8443/x?y#z", "[fd00::7]:8443"),
        ("X_BASE_URL=http://[::ffff:10.0.0.7]:1/", "10.0.0.7:1"),
        ("LITELLM_API_BASE=proxy:4000", "proxy:4000"),
        ("AZURE_OPENAI_ENDPOINT=https://me.openai.azure.com/", "me.openai.azure.com:443"),
        ("OLLAMA_HOST=127.0.0.1", "127.0.0.1:11434"),
        ("OLLAMA_HOST=http://gpu", "gpu:80"),
        ("OLLAMA_HOST=0.0.0.0:9", "0.0.0.0:9"),
        ("OLLAMA_HOST=:8080", "localhost:8080"),
        ("OPENAI_BASE_URL=https://user:secret@llm.example:444/v1", "llm.example:444"),
        ("OPENAI_BASE_URL=https://user:p@ss@llm.example", "llm.example:443"),
    ],
)
def test_a_url_is_reduced_to_host_and_port(entry, host):
    """The port is the scheme's where none is given; path, query and credentials are dropped."""
    assert llm_hosts_in(entry.encode()) == (host,)


@pytest.mark.parametrize(
    "entry",
    [
        "OPENAI_API_KEY=sk-secret",
        "PATH=/bin",
        "BASE_URLS=http://x",
        "openai base_url=http://x",
        "OPENAI_BASE_URL=",
        "OPENAI_BASE_URL=https://",
        "OPENAI_BASE_URL=unix:/run/x",
        "OPENAI_BASE_URL=http://a b",
        "OPENAI_BASE_URL=http://x:0/",
        "OPENAI_BASE_URL=http://x:99999/",
        "OPENAI_BASE_URL=http://[zz]/",
        "OPENAI_BASE_URL=http://[:::::]/",
        "OPENAI_BASE_URL=http://user:1234@bad host/",
        "OPENAI_BASE_URL=http://e\x1b[2Jvil/",
        "OPENAI_BASE_URL=http://" + "a" * 5000,
    ],
)
def test_what_is_no_address_of_a_model_api_is_not_kept(entry):
    """Other variables, and values that are no address, leave nothing behind."""
    assert llm_hosts_in(entry.encode()) == ()


def test_hosts_are_named_once_and_are_few():
    """A process may name as many as it likes."""
    entries = [f"A{number}_BASE_URL=http://h{number % 40}:1" for number in range(1000)]
    hosts = llm_hosts_in("\0".join(entries).encode() + b"\0\xff\xfe=\0")
    assert len(hosts) == HOST_LIMIT == len(set(hosts))


def test_the_environment_of_a_process_is_read():
    """A live process: only the host of its variable comes back."""
    environ = {"OPENAI_BASE_URL": "https://k:v@llm.example:8443/v1", "OPENAI_API_KEY": "sk-secret", "FILL": "x" * 100_000}
    victim = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import time; time.sleep(30)"], env=environ, stdout=subprocess.PIPE
    )
    try:
        assert victim.stdout is not None
        victim.stdout.readline()
        assert read_llm_hosts(victim.pid) == ("llm.example:8443",)
    finally:
        victim.kill()
        victim.communicate()
    assert read_llm_hosts(victim.pid) == ()


def test_of_a_process_that_may_not_be_read_there_are_none():
    """No such process, and a kernel thread, which has no environment."""
    assert read_llm_hosts(0) == ()
    assert read_llm_hosts(2 if Path("/proc/2").exists() else 0) == ()
