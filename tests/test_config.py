"""The config file: what it asks about agents is read into typed values, and what is not right is said so that it can be put right."""

import os
from pathlib import Path

import pytest

from agentscope.config import Config, HealthConfig, ProgressConfig, read_config
from agentscope.errors import BadInput, UsageError
from agentscope.policy import Policy

MATCH = '[agent.researcher]\nmatch = { name = "researcher" }\n'


def config(folder: Path, text: str) -> Config:
    path = folder / "agentscope.toml"
    path.write_text(text)
    path.chmod(0o600)
    return read_config(str(path))


def health(folder: Path, text: str) -> HealthConfig:
    found = config(folder, f"{MATCH}health = {text}\n").agents["researcher"].health
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ('"http://127.0.0.1:8080/health"', "http", "http://127.0.0.1:8080/health"),
        ('"https://agent.internal/ok?deep=1"', "http", "https://agent.internal/ok?deep=1"),
        ('"http://[::1]:8080"', "http", "http://[::1]:8080"),
        ('"tcp:127.0.0.1:6379"', "tcp", "127.0.0.1:6379"),
        ('"tcp:[::1]:6379"', "tcp", "[::1]:6379"),
        ('"tcp:localhost:80"', "tcp", "localhost:80"),
        ('"unix:/run/agent.sock"', "unix", "/run/agent.sock"),
    ],
)
def test_a_check_as_text(text, kind, target, tmp_path):
    """Each form of address that the design names is a check with 500 ms, every 2 s, three strikes."""
    assert health(tmp_path, text) == HealthConfig(kind=kind, target=target, timeout_s=0.5, interval_s=2.0, strikes=3)


@pytest.mark.parametrize("text", ['\'exec:["/bin/check", "--deep"]\'', '{ exec = ["/bin/check", "--deep"] }'])
def test_a_command_is_a_list(text, tmp_path):
    """A command is written as a list, in text after `exec:` or in a table, and its words stay apart."""
    assert health(tmp_path, text) == HealthConfig(kind="exec", command=("/bin/check", "--deep"))


def test_the_times_of_a_check(tmp_path):
    """A table gives a check times and strikes of its own."""
    found = health(tmp_path, '{ url = "tcp:127.0.0.1:1", timeout = "1.5s", interval = "1m", strikes = 5 }')
    assert (found.timeout_s, found.interval_s, found.strikes) == (1.5, 60.0, 5)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('"ftp://x/"', "http:"),
        ('"127.0.0.1:80"', "http:"),
        ('""', "http:"),
        ('"http:/health"', "http:"),
        ('"http:///health"', "no host"),
        ('"http://127.0.0.1:99999/"', "ort"),
        ('"http://127.0.0.1:0/"', "no host"),
        ('"http://a b/"', "characters"),
        ('"http://127.0.0.1/\\u001b[2J"', "characters"),
        ('"tcp:127.0.0.1"', "tcp:HOST:PORT"),
        ('"tcp:127.0.0.1:80/x"', "tcp:HOST:PORT"),
        ('"tcp:127.0.0.1:none"', "ort"),
        ('"unix:agent.sock"', "path from /"),
        (f'"unix:/{"x" * 107}"', "107 bytes"),
        ('"exec:/bin/check --deep"', "a list"),
        ('"exec:[1]"', "a list"),
        ('"exec:[]"', "begins with a program"),
        ("{ exec = [] }", "begins with a program"),
        ('{ exec = ["./check"] }', "begins with a program"),
        ('{ exec = ["/bin/check", "a\\u0000b"] }', "begins with a program"),
        ('{ exec = "/bin/check" }', "array"),
        ("{ }", "either url or exec"),
        ('{ url = "tcp:a:1", exec = ["x"] }', "either url or exec"),
        ('{ url = "tcp:a:1", retries = 3 }', "retries"),
        ('{ url = "tcp:a:1", timeout = "0.5" }', "no duration"),
        ('{ url = "tcp:a:1", timeout = 0.5 }', "str"),
        ('{ url = "tcp:a:1", timeout = "5 minutes" }', "no duration"),
        ('{ url = "tcp:a:1", timeout = "2h" }', "60 s"),
        ('{ url = "tcp:a:1", interval = "1ms" }', "0.1 s"),
        ('{ url = "tcp:a:1", interval = "-1s" }', "no duration"),
        ('{ url = "tcp:a:1", strikes = 0 }', "1 to 100"),
        ('{ url = "tcp:a:1", strikes = true }', "int"),
        ("3", "health"),
    ],
)  # fmt: skip
def test_a_check_that_is_not_right(text, part, tmp_path):
    """A wrong check is refused with the file, the agent, what is wrong with it and what to type."""
    with pytest.raises(BadInput) as raised:
        health(tmp_path, text)
    said = str(raised.value)
    assert str(tmp_path / "agentscope.toml") in said
    assert "agent researcher" in said
    assert part in said
    assert "Try: " in said
    assert said.isprintable()


@pytest.mark.parametrize("signal", ["io", "stdout", "sd_notify"])
def test_a_rule_of_progress(signal, tmp_path):
    """A rule of progress names a signal and a time."""
    found = config(tmp_path, f'{MATCH}progress = {{ within = "2m", signal = "{signal}" }}\n')
    assert found.agents["researcher"].progress == ProgressConfig(within_s=120.0, signal=signal)


def test_a_heartbeat_file(tmp_path):
    """A heartbeat file has a path."""
    found = config(tmp_path, f'{MATCH}progress = {{ within = "30s", signal = "heartbeat-file", path = "/run/beat" }}\n')
    assert found.agents["researcher"].progress == ProgressConfig(within_s=30.0, signal="heartbeat-file", path="/run/beat")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{ within = "30s" }', "signal"),
        ('{ signal = "io" }', "within"),
        ('{ within = "30s", signal = "vibes" }', "vibes"),
        ('{ within = "10ms", signal = "io" }', "1 s"),
        ('{ within = "30s", signal = "heartbeat-file" }', "path from /"),
        ('{ within = "30s", signal = "heartbeat-file", path = "beat" }', "path from /"),
        ('{ within = "30s", signal = "io", path = "/run/beat" }', "no path"),
        ('{ within = "30s", signal = "io", every = "1s" }', "every"),
        ('"30s"', "progress"),
    ],
)
def test_a_rule_that_is_not_right(text, part, tmp_path):
    """A wrong rule is refused with the file, the agent, what is wrong and what to type."""
    with pytest.raises(BadInput) as raised:
        config(tmp_path, f"{MATCH}progress = {text}\n")
    said = str(raised.value)
    assert str(tmp_path / "agentscope.toml") in said
    assert "agent researcher" in said
    assert part in said
    assert "Try: " in said


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "é", "x" * 65, "a b"])
def test_a_name_that_is_no_file_name(name, tmp_path):
    """An agent that reports to a socket has a name that can be one of a file; other agents may have any name."""
    entry = f'[agent."{name}"]\nmatch = {{ pid = 1 }}\nprogress = {{ within = "30s", signal = "%s" }}\n'
    assert name in config(tmp_path, entry % "io").agents
    with pytest.raises(BadInput, match="letters"):
        config(tmp_path, entry % "sd_notify")


def test_targets_lead_to_their_entry(tmp_path):
    """Every target of the file carries the name under which its agent's entry is found."""
    found = config(tmp_path, f'{MATCH}health = "tcp:127.0.0.1:1"\n[agent.coder]\nmatch = {{ unit = "coder", user = 1000 }}\n')
    assert [(target.kind, target.value, target.name) for target in found.targets] == [
        ("name", "researcher", "researcher"),
        ("unit", "coder", "coder"),
        ("user", "1000", "coder"),
    ]
    assert found.agents["researcher"].health is not None
    assert found.agents["coder"].health is None
    assert found.owner_uid == (tmp_path / "agentscope.toml").stat().st_uid


@pytest.mark.parametrize(
    "path", ["uv.lock", "/srv/agent/requirements-prod.txt", "locks/pylock.agent.toml", "package-lock.json"]
)
def test_a_lock_file_of_a_known_form(path, tmp_path):
    """Its form is known by its name; where it stands is looked up when an agent is there."""
    assert config(tmp_path, f'{MATCH}lockfile = "{path}"\n').agents["researcher"].lockfile == path


@pytest.mark.parametrize("path", ["", "yarn.lock", "uv.lock/", "/etc/passwd", "a\\u0007/uv.lock"])
def test_a_lock_file_that_could_not_be_compared(path, tmp_path):
    """It is refused at once, with the forms that are known, and not silently passed over at the first death."""
    with pytest.raises(BadInput, match=r"lockfile.* is none of uv\.lock, poetry\.lock"):
        config(tmp_path, f'{MATCH}lockfile = "{path}"\n')


def test_a_warning_of_memory(tmp_path):
    """The limit is read as a size and the share as a share; without a table there is nothing of the owner's own."""
    found = config(tmp_path, f'{MATCH}memory = {{ limit = "4G", warn = 0.8 }}\n').agents["researcher"].memory
    assert (found.limit_bytes, found.warn) == (4 << 30, 0.8)
    assert config(tmp_path, MATCH).agents["researcher"].memory is None


@pytest.mark.parametrize("table", ['limit = "much"', "limit = 4", "warn = 70", 'warn = "70 %"', "warns = 0.7"])
def test_a_warning_of_memory_that_is_none(table, tmp_path):
    """A size or share that is none is refused, with a table that would do."""
    with pytest.raises(BadInput, match=r"agent researcher.*4G"):
        config(tmp_path, f"{MATCH}memory = {{ {table} }}\n")


def test_fields_of_later_versions(tmp_path):
    """What this version does not act on is kept, not refused."""
    text = f'{MATCH}lockfile = "uv.lock"\nmemory = {{ limit = "4G" }}\n[agent.researcher.recovery]\nrestart = ["systemctl"]\n'
    assert config(tmp_path, text).agents["researcher"].recovery == Policy(restart=("systemctl",))


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_config_that_others_may_write(mode, tmp_path):
    """Who may write the config chooses what root does: one that others may write is refused with a sentence, and what to type."""
    path = tmp_path / "agentscope.toml"
    path.write_text(MATCH)
    path.chmod(mode)
    with pytest.raises(UsageError) as raised:
        read_config(str(path))
    assert "can be written by others" in str(raised.value)
    assert f"its mode is {mode:o}. Try: chmod go-w {path}" in str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_config_of_another_user(tmp_path, monkeypatch):
    """A config of somebody else than root and the caller is refused with a sentence; that of who called sudo is theirs."""
    path = tmp_path / "agentscope.toml"
    path.write_text(MATCH)
    path.chmod(0o600)
    os.chown(path, 1001, 1001)
    with pytest.raises(UsageError) as raised:
        read_config(str(path))
    assert f"belongs to another user: its owner is uid 1001. Try: sudo chown root {path}" in str(raised.value)
    monkeypatch.setenv("SUDO_UID", "1001")
    assert read_config(str(path)).owner_uid == 1001


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_config_that_is_no_file(kind, tmp_path):
    """A folder or a pipe in the place of a config is refused, and nobody waits for it."""
    path = tmp_path / "agentscope.toml"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(BadInput) as raised:
        read_config(str(path))
    assert "not a regular file" in str(raised.value) or "cannot read" in str(raised.value)
