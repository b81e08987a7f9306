"""Agents: identity, roles, targets."""

import os
import subprocess
import sys

import pytest

from agentscope import agents
from agentscope.errors import NoSuchProcess, UsageError
from agentscope.model import Ancestor, ProcessExec


def seen(pid=10, argv=("python3", "agent.py"), comm="python3", cgroup="/", ancestors=(), exe="/usr/bin/python3"):
    return ProcessExec(
        at_ns=1, pid=pid, start_ns=1, ppid=1, comm=comm, argv=argv, exe=exe, uid=0, cgroup=cgroup, ancestors=ancestors
    )


@pytest.mark.parametrize(
    ("argv", "wrapper"),
    [
        (("bash", "-c", "python agent.py"), True),
        (("/bin/sh", "-ec", "exec x"), True),
        (("bash", "agent.sh"), False),
        (("bash", "--rcfile", "x"), False),
        (("timeout", "60", "python", "agent.py"), True),
        (("env", "A=1", "python", "agent.py"), True),
        (("uv", "run", "agent.py"), True),
        (("uv", "pip", "list"), False),
        (("node", "/usr/lib/node_modules/npm/bin/npx-cli.js", "claude"), True),
        (("node", "agent.js"), False),
        (("npm", "run", "start"), True),
        (("npm", "install"), False),
        (("sudo", "-u", "me", "claude"), True),
        (("tini", "--", "python"), True),
        (("python3", "-c", "x"), False),
        ((), False),
    ],
)
def test_a_wrapper_is_what_only_starts_another_program(argv, wrapper):
    """A command line is a wrapper exactly where it starts another program and mirrors its end."""
    assert agents.is_wrapper(argv) is wrapper


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("python3", "-m", "langgraph.cli"), "langgraph"),
        (("/usr/bin/python3.11", "-u", "/srv/agent.py"), "agent.py"),
        (("node", "/usr/bin/claude", "-p"), "claude"),
        (("/opt/codex", "exec"), "codex"),
        (("python3", "-c", "pass"), "python3"),
        (("-bash",), "bash"),
    ],
)
def test_the_program_of_an_interpreter_is_its_script(argv, name):
    """A person calls a program by its script, not by its interpreter."""
    assert agents.program_name(argv) == name


def test_roles_follow_the_line_from_the_root():
    """The process below nothing but wrappers is the agent; what it starts is a tool, and a tool's shell is a wrapper."""
    wrapper, line = agents.role_of(("timeout", "9", "agent"), None, True)
    agent, below = agents.role_of(("agent",), wrapper, line)
    shell, tools = agents.role_of(("bash", "-c", "make"), agent, below)
    tool, _ = agents.role_of(("make",), shell, tools)
    assert (wrapper, agent, shell, tool) == ("wrapper", "agent", "wrapper", "tool")


def test_a_used_again_pid_is_another_process():
    """Two start times more than a clock tick apart are two processes."""
    assert agents.same_identity(1_000_000_000, 1_004_000_000)
    assert not agents.same_identity(1_000_000_000, 1_500_000_000)


def test_start_time_survives_a_hostile_name(tmp_path):
    """A comm with spaces and parentheses does not move the fields of /proc/PID/stat."""
    process = tmp_path / "7"
    process.mkdir()
    process.joinpath("stat").write_text("7 (a) S 1) R " + " ".join(["0"] * 18) + " 4242 " + " ".join(["0"] * 30))
    assert agents.start_ns_of(7, str(tmp_path)) == 4242 * agents.TICK_NS


def test_our_own_process_is_read_whole():
    """A live process is read with its command line, parents and where its stderr goes."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], stderr=subprocess.PIPE)
    try:
        found = agents.read_process(child.pid)
        assert found.ppid == os.getpid()
        assert found.ancestors[0].pid == os.getpid()
        assert found.stderr == "pipe"
    finally:
        child.kill()
        child.wait()
        child.stderr.close()


def test_a_pid_that_is_not_there_is_said():
    """Asking for a pid that nobody has names the pid and what to type."""
    with pytest.raises(NoSuchProcess, match="no process 4194303"):
        agents.check_pid("4194303")


def test_a_kernel_thread_is_refused():
    """A kernel thread cannot be an agent, and the message says so."""
    with pytest.raises(UsageError, match="thread of the kernel"):
        agents.check_pid("2")


def test_a_pid_must_be_a_number():
    """What is no number is refused before anything is looked up."""
    with pytest.raises(UsageError, match="not a process number"):
        agents.check_pid("1; rm")


def test_a_wrong_pattern_is_refused():
    """A name that is no regular expression is refused with the reason."""
    with pytest.raises(UsageError, match="not a regular expression"):
        agents.Target(kind="name", value="[").pattern()


def test_one_tree_is_one_agent():
    """Of matching processes that descend from each other only the first is an agent's root."""
    parent, child = seen(pid=10), seen(pid=11, ancestors=(Ancestor(pid=10, comm="python3"),))
    assert [found.pid for found, _ in agents.roots([(child, "x"), (parent, "x")])] == [10]


@pytest.mark.parametrize("given", ["/sys/fs/cgroup/memory/agents/x", "/sys/fs/cgroup/agents/x/", "/agents/x", "agents/x"])
def test_a_cgroup_is_named_as_the_kernel_does(given):
    """A cgroup may be given by any path that a person would copy."""
    assert agents.cgroup_path(given) == "/agents/x"


def test_a_sibling_cgroup_is_not_inside():
    """A cgroup target takes the processes below it, not those of a cgroup whose name begins alike."""
    target = agents.Target(kind="cgroup", value="/agents/x")
    assert agents.matches(target, seen(cgroup="/agents/x/y"))
    assert not agents.matches(target, seen(cgroup="/agents/xy"))


def test_signatures_pick_no_unrelated_process():
    """Known agents are found by the program's whole name, never by a part of another's."""
    target = agents.Target(kind="signature", value="")
    assert agents.matches(target, seen(argv=("node", "/usr/bin/claude")))
    assert not agents.matches(target, seen(argv=("vim", "claude.txt"), comm="vim", exe="/usr/bin/vim"))
    assert not agents.matches(target, seen(argv=("claudette",), comm="claudette", exe="/usr/bin/claudette"))


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        ("/system.slice/agent.service", "agent.service", None),
        (f"/system.slice/docker-{'a' * 64}.scope", None, "a" * 12),
        (f"/docker/{'b' * 64}", None, "b" * 12),
        (f"/libpod_parent/libpod-{'c' * 64}", None, "c" * 12),
        ("/user.slice/user-0.slice/session-1.scope", "session-1.scope", None),
    ],
)
def test_unit_and_container_are_read_off_the_cgroup(cgroup, unit, container):
    """A cgroup path names the unit or the container that owns it."""
    assert (agents.unit_of(cgroup), agents.container_of(cgroup)) == (unit, container)
