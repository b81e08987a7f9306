"""Discovery: which processes are agents, and, above all, which are not."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from agentscope import agents, discovery
from agentscope.model import ProcessExec

SECRET = "sk-very-secret-0123456789"


def seen(*argv: str, exe: str | None = None, comm: str | None = None) -> ProcessExec:
    """A process as an exec event."""
    name = argv[0].rsplit("/", 1)[-1]
    return ProcessExec(
        at_ns=1,
        pid=10,
        start_ns=1,
        ppid=1,
        comm=(comm or name)[:15],
        argv=argv,
        exe=exe or f"/usr/bin/{name}",
        uid=0,
        cgroup="/",
    )


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (seen("claude", exe="/usr/bin/node"), "claude"),
        (seen("claude", "-p", "fix it", exe="/home/me/.local/share/claude/versions/2.1.0"), "claude"),
        (seen("node", "/usr/bin/claude", "--continue"), "claude"),
        (seen("node", "--max-old-space-size=4096", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"), "claude"),
        (seen("node", "--require", "/x/y.js", "/usr/bin/claude"), "claude"),
        (seen("/usr/local/bin/codex", "exec", "do it"), "codex"),
        (seen("node", "/usr/bin/codex"), "codex"),
        (seen("opencode"), "opencode"),
        (seen("node", "--no-warnings=DEP0040", "/usr/bin/gemini", "-p", "hi"), "gemini"),
        (seen("gemini", exe="/usr/bin/node"), "gemini"),
        (seen("node", "/usr/bin/qwen"), "qwen"),
        (seen("python3", "/srv/venv/bin/aider", "--model", "sonnet"), "aider"),
        (seen("python3", "-X", "dev", "/srv/venv/bin/aider"), "aider"),
        (seen("python3.12", "-m", "aider"), "aider"),
        (seen("goose", "session"), "goose"),
        (seen("goose"), "goose"),
        (seen("goosed", "agent"), "goosed"),
        (seen("openclaw-gateway", exe="/usr/bin/node"), "openclaw-gateway"),
        (seen("node", "/usr/bin/openclaw", "gateway"), "openclaw"),
        (seen("python3", "-m", "langgraph_cli", "dev"), "langgraph_cli"),
        (seen("python3", "/v/bin/langgraph", "dev"), "langgraph"),
        (seen("python3", "-m", "autogen.agentchat"), "autogen"),
        (seen("python3", "-m", "crewai", "run"), "crewai"),
        (seen("python3", "/v/bin/crewai", "run"), "crewai"),
        (seen("python3", "-m", "openai_agents.run"), "openai_agents"),
        (seen("python3", "/v/bin/interpreter"), "interpreter"),
        (seen("node", "/usr/lib/node_modules/npm/bin/npx-cli.js", "-y", "@openai/codex@latest", "exec"), "codex"),
        (seen("npm exec @anthropic-ai/claude-code", exe="/usr/bin/node"), "claude"),
        (seen("npm", "exec", "--", "@google/gemini-cli"), "gemini"),
        (seen("npx", "-p", "@qwen-code/qwen-code", "qwen"), "qwen"),
        (seen("bunx", "opencode-ai"), "opencode"),
        (seen("uvx", "--python", "3.12", "--from", "aider-chat[browser]", "aider"), "aider"),
        (seen("uvx", "aider-chat==0.86.1"), "aider"),
        (seen("uv", "tool", "run", "crewai", "run"), "crewai"),
        (seen("uv", "run", "--with", "langgraph-cli", "langgraph", "dev"), "langgraph"),
        (seen("pipx", "run", "open-interpreter"), "interpreter"),
        (seen("mcp-server-fetch"), "mcp-server-fetch"),
        (seen("python3", "-u", "/tmp/agentscope-drill-x1/drill-oom"), "drill-oom"),
    ],
    ids=lambda value: " ".join(value.argv) if isinstance(value, ProcessExec) else "",
)
def test_a_known_agent_is_found_by_its_command_line(process, name):
    """Every way to start a known agent is found, and the reason names it."""
    because = agents.matches(agents.Target(kind="signature", value=""), process)
    assert because is not None
    assert because.startswith(f"{name} by ")
    assert "command line" in because


def test_what_a_launcher_starts_gives_the_agent_its_name():
    """An agent that npx or uvx started is called by its own name, not by that of a package or of the launcher."""
    assert agents.inner_name(("node", "/usr/bin/npx", "-y", "@openai/codex@latest"), "node") == "codex"
    assert agents.inner_name(("npm exec @anthropic-ai/claude-code",), "npm exec @anthr") == "claude"
    assert agents.inner_name(("uvx", "--from", "aider-chat", "aider"), "uvx") == "aider"


@pytest.mark.parametrize(
    "process",
    [
        seen("claude-monitor"),
        seen("claudette"),
        seen("python3", "/v/bin/claude-monitor"),
        seen("grep", "claude"),
        seen("grep", "-r", "claude", "/usr/bin/claude"),
        seen("vim", "claude.txt"),
        seen("vim", "/usr/bin/claude"),
        seen("tail", "-f", "/var/log/claude"),
        seen("man", "claude"),
        seen("ssh", "host", "claude"),
        seen("tmux", "new", "-s", "claude"),
        seen("bash", "claude.sh"),
        seen("bash", "-c", "claude -p hi"),
        seen("python3", "claude.py"),
        seen("python3", "claude_stats.py"),
        seen("/opt/claude/bin/worker"),
        seen("python3", "/opt/codex/server.py"),
        seen("/srv/claude/.venv/bin/python", "worker.py"),
        seen("/srv/agent/.venv/bin/pip", "install", "crewai"),
        seen("/srv/agent/.venv/bin/python", "/srv/agent/.venv/bin/pip", "install", "aider-chat"),
        seen("python3", "-m", "pip", "install", "openai-agents"),
        seen("python3", "-m", "venv", "claude"),
        seen("python3", "-m", "agents"),
        seen("python3", "-c", "import crewai"),
        seen("npm", "install", "-g", "@openai/codex"),
        seen("npm", "run", "claude"),
        seen("npm install @openai/codex", exe="/usr/bin/node"),
        seen("npx", "-y", "@modelcontextprotocol/server-filesystem", "/"),
        seen("npx", "./codex"),
        seen("uv", "tool", "install", "aider-chat"),
        seen("uv", "pip", "install", "crewai"),
        seen("uv", "run", "agent.py"),
        seen("uvx", "ruff", "check", "aider"),
        seen("apt", "install", "codex"),
        seen("docker", "run", "claude"),
        seen("goose", "up"),
        seen("goose", "postgres", "dsn", "status"),
        seen("gemini", exe="/usr/sbin/gemini"),
        seen("amp", "file.txt", exe="/usr/bin/amp"),
        seen("interpreter", exe="/usr/bin/interpreter"),
        seen("python3", "/v/bin/crewai", "create", "crew", "x"),
        seen("claude", "--version"),
        seen("claude", "mcp", "list"),
        seen("node", "/usr/bin/codex", "login"),
        seen("/usr/lib/claude/claude", "--type=renderer", "--lang=en"),
        seen("python3", "/v/bin/agentscope", "watch"),
        seen("drill-oom"),
        seen("rg", "--json", "claude", exe="/usr/local/bin/claude"),
        seen("sleep", "60"),
    ],
    ids=lambda value: " ".join(value.argv),
)
def test_a_near_miss_is_left_alone(process):
    """What only mentions an agent, installs one, or has another program's name of the same letters is no agent."""
    assert agents.matches(agents.Target(kind="signature", value=""), process) is None


def test_a_process_without_a_command_line_is_no_agent():
    """A process whose command line is empty is judged by its name alone, and found only if that is whole."""
    assert discovery.known_by(seen("x", comm="x")) is None
    assert discovery.known_by(ProcessExec(at_ns=1, pid=1, start_ns=1, ppid=0, comm="kworker", argv=(), exe=None, uid=0)) is None


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        (b"OPENAI_API_KEY=sk-1\0PATH=/bin\0", ("OPENAI_API_KEY",)),
        (b"ANTHROPIC_AUTH_TOKEN=x\0GEMINI_API_KEY=y\0", ("ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY")),
        (b"OPENAI_API_KEY=\0", ()),
        (b"OPENAI_API_KEY= \0", ()),
        (b"MY_OPENAI_API_KEY=x\0", ()),
        (b"NOTE=OPENAI_API_KEY=x\0", ()),
        (b"OPENAI_API_KEYS=x\0", ()),
        (b"\xff\xfe\0" * 1000, ()),
        (b"", ()),
    ],
)
def test_of_a_key_only_the_name_is_kept(environ, names):
    """A key counts if it has a value, and the value is in nothing that comes back."""
    assert discovery.keys_in(environ) == names


@pytest.mark.parametrize(
    ("argv", "comm", "exe"),
    [
        (("-bash",), "bash", "/usr/bin/bash"),
        (("bash", "--login"), "bash", "/usr/bin/bash"),
        (("/usr/lib/firefox/firefox",), "firefox", "/usr/lib/firefox/firefox"),
        (("/opt/google/chrome/chrome", "--type=utility"), "chrome", "/opt/google/chrome/chrome"),
        (("nvim", "x.py"), "nvim", "/usr/bin/nvim"),
        (("/usr/share/code/code",), "code", "/usr/share/code/code"),
        (("node", "/root/.vscode-server/bin/x/out/server-main.js"), "node", "/root/.vscode-server/bin/x/node"),
        (("/v/bin/python", "/v/bin/pip", "install", "x"), "pip", "/usr/bin/python3.11"),
        (("python", "-m", "pip", "install", "x"), "python", "/usr/bin/python3.11"),
        (("curl", "https://api.anthropic.com"), "curl", "/usr/bin/curl"),
        (("npm install x",), "npm install x", "/usr/bin/node"),
        (("python", "/v/bin/agentscope", "events"), "agentscope", "/usr/bin/python3.11"),
    ],
)
def test_who_has_a_key_for_another_reason_is_no_agent(argv, comm, exe):
    """Shells, browsers, editors, installers, downloaders and agentscope may hold a key and a connection, and are never picked."""
    assert discovery.is_another(argv, comm, exe) or agents.is_wrapper(argv)


# --- real processes ------------------------------------------------------------------------------------------------------------

CLIENT = "import socket, sys, time; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print('ready', flush=True); time.sleep(20)"
IDLE = "import time; print('ready', flush=True); time.sleep(20)"


@pytest.fixture
def port() -> Iterator[int]:
    """A server that takes connections and answers none: a model API, as far as the kernel can tell."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def running(*argv: str, **environment: str) -> Iterator[int]:
    """A process that has said ready; its pid."""
    env = {"PATH": os.environ["PATH"], **environment}
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def reasons(pid: int) -> list[str]:
    """Why a look picks this process."""
    return [found.because for found in discovery.Scan().look() if found.pid == pid]


def test_a_key_and_a_connection_to_a_model_api_make_an_agent(port):
    """A program with a key that has opened a connection to the model API of its environment is found, and the key is not told."""
    there = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    with running(sys.executable, "-c", CLIENT, str(port), **there) as pid:
        assert reasons(pid) == [f"OPENAI_API_KEY in its environment and a connection to 127.0.0.1:{port}"]
        assert SECRET not in repr(discovery.Scan().look())


def test_the_address_of_a_model_api_in_the_environment_serves_as_well(port):
    """A local model needs no key: the variable that names it and a connection to it are enough."""
    with running(sys.executable, "-c", CLIENT, str(port), OLLAMA_HOST=f"127.0.0.1:{port}") as pid:
        assert reasons(pid) == [f"OLLAMA_HOST in its environment and a connection to 127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("code", "environment"),
    [(IDLE, {"OPENAI_API_KEY": SECRET}), (CLIENT, {}), (CLIENT, {"OPENAI_API_KEY": SECRET}), (CLIENT, {"OPENAI_BASE_URL": "http://127.0.0.1:9"})],
    ids=["a key alone", "a connection alone", "a key and a connection to something else", "the address of another API"],
)  # fmt: skip
def test_one_sign_alone_makes_no_agent(port, code, environment):
    """A key without a connection, or a connection that is not to a model, says nothing."""
    with running(sys.executable, "-c", code, str(port), **environment) as pid:
        assert reasons(pid) == []


def test_a_shell_that_holds_the_connection_is_no_agent(port):
    """A shell with the key in its environment is passed over even while it has a connection to the API."""
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo ready; read -t 20 <&3"
    there = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}"}
    with running("bash", "-c", script, **there) as pid:
        assert reasons(pid) == []


def test_a_server_that_was_connected_to_is_no_client():
    """Whoever serves at the address of the model API that its environment names is not found for the connections that it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    code = (
        "import os, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print('ready', flush=True); a = s.accept(); time.sleep(20)"
    )
    there = {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{number}"}
    with running(sys.executable, "-c", code, str(number), **there) as pid, socket.create_connection(("127.0.0.1", number)):
        assert reasons(pid) == []


def test_a_second_look_finds_what_connects_later(port):
    """A process that was of no interest is found by the next look once it has connected, and one that ended is forgotten."""
    code = f"import socket, sys, time; print('ready', flush=True); sys.stdin.readline(); {CLIENT.partition(';')[2].strip()}"
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}"}
    argv = [sys.executable, "-c", f"import socket, sys, time\n{code}", str(port)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    try:
        scan = discovery.Scan()
        assert child.stdout.readline() == b"ready\n"
        assert [found for found in scan.look() if found.pid == child.pid] == []
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"ready\n"
        assert [found.pid for found in scan.look() if found.pid == child.pid] == [child.pid]
        assert [found for found in scan.look({child.pid}) if found.pid == child.pid] == []
    finally:
        child.kill()
        child.communicate()
    scan.look()
    assert child.pid not in scan.known


def test_a_look_is_cheap():
    """A second look at the processes of this machine costs less than a tenth of a second of processor time."""
    scan = discovery.Scan()
    scan.look()
    began = time.thread_time()
    scan.look()
    assert time.thread_time() - began < 0.1
