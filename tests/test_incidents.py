"""The fold: one incident for the innermost end, none for what was wanted."""

import msgspec
import pytest

from agentscope.evidence import Scene
from agentscope.evidence.actor import collect
from agentscope.incidents import Incidents, stopped_on_purpose
from agentscope.model import Agent, AgentSeen, Ancestor, ProcessExec, ProcessExit, ProcessFork, SignalSent

S = 1_000_000_000
MS = 1_000_000


def agent(pid=100, argv=("python3", "agent.py")):
    return AgentSeen(
        at_ns=0, agent=Agent(name="a", pid=pid, start_ns=pid * S, start_time="", command=" ".join(argv)), because="test"
    )


def started(pid, ppid, argv, at_ns=0, ancestors=()):
    return ProcessExec(
        at_ns=at_ns,
        pid=pid,
        start_ns=pid * S,
        ppid=ppid,
        comm=argv[0],
        argv=argv,
        exe=f"/bin/{argv[0]}",
        uid=0,
        ancestors=ancestors,
    )


def forked(pid, ppid, at_ns=0):
    return ProcessFork(at_ns=at_ns, pid=pid, start_ns=pid * S, ppid=ppid, comm="x")


def ended(pid, status, at_ns=200 * S, ppid=0):
    return ProcessExit(at_ns=at_ns, pid=pid, start_ns=pid * S, ppid=ppid, comm="x", status=status, uid=0)


def sent(
    pid, signal, sender, *, at_ns=199 * S, code=0, handler="default", exe="/bin/bash", ancestors=(), exiting=False, group=True
):
    return SignalSent(
        at_ns=at_ns, signal=signal, code=code, group=group, result=0, pid=pid, tid=pid, start_ns=pid * S, comm="x", handler=handler,
        sender_pid=sender, sender_tid=sender, sender_start_ns=1, sender_comm=exe.rsplit("/", 1)[-1], sender_uid=0, sender_exe=exe,
        sender_ancestors=ancestors, sender_exiting=exiting,
    )  # fmt: skip


def fold(*events):
    incidents, told = Incidents(), []
    for event in events:
        told += incidents.apply(event)
    return incidents, told


def why_not(told):
    scene = Scene(
        agent=told.agent, process=told.process, scope=told.scope, exit=told.exit, engine="core", signals=told.signals, family=told.family,
        ancestors=told.ancestors,
    )  # fmt: skip
    return stopped_on_purpose(told, collect(scene))


def test_an_agents_death_is_told_once_with_what_came_before():
    """The end of an agent carries the signals it was sent."""
    _, told = fold(agent(), started(100, 1, ("python3", "agent.py")), sent(100, 9, 555), ended(100, 9))
    assert [(end.scope, end.is_root, len(end.signals)) for end in told] == [("agent", True, 1)]
    assert why_not(told[0]) is None


def test_a_wrapper_that_mirrors_its_child_is_no_second_incident():
    """A child's exit code below a wrapper waits for the wrapper, is told once, and the wrapper's own end repeats it."""
    _, told = fold(
        agent(argv=("timeout", "9", "agent")),
        started(100, 1, ("timeout", "9", "agent")),
        forked(101, 100),
        started(101, 100, ("agent",)),
        ended(101, 3 << 8, 200 * S),
        ended(100, 3 << 8, 200 * S + MS),
    )
    assert [(end.process.pid, end.scope, end.mirrors) for end in told] == [(101, "agent", None), (100, "agent", 101)]
    assert why_not(told[1])


def test_a_step_of_a_script_is_not_the_agents_end():
    """Where the wrapper goes on after its child failed, the child was one step, and the wrapper's later end is its own."""
    incidents, told = fold(
        agent(argv=("bash", "-c", "x")),
        started(100, 1, ("bash", "-c", "x")),
        forked(101, 100),
        started(101, 100, ("grep", "x")),
        ended(101, 1 << 8, 200 * S),
    )
    assert told == []
    assert incidents.overdue(201 * S) == []
    steps = incidents.overdue(201 * S + MS)
    assert [(step.scope, step.step) for step in steps] == [("tool", True)]
    own = incidents.apply(ended(100, 1 << 8, 201 * S))
    assert [end.mirrors for end in own] == [None]


@pytest.mark.parametrize("next_step", [forked(102, 100, 200 * S + MS), started(100, 1, ("sleep", "9"), at_ns=200 * S + MS)])
def test_a_script_that_starts_its_next_step_has_gone_on(next_step):
    """The step is told at once, and the wrapper's later end is its own."""
    incidents, told = fold(
        agent(argv=("bash", "-c", "x")),
        started(100, 1, ("bash", "-c", "x")),
        forked(101, 100),
        started(101, 100, ("grep", "x")),
        ended(101, 1 << 8, 200 * S),
        next_step,
    )
    assert [(step.process.pid, step.scope, step.step) for step in told] == [(101, "tool", True)]
    assert [end.mirrors for end in incidents.apply(ended(100, 1 << 8, 200 * S + 2 * MS))] == [None]


def test_a_wrapper_that_got_no_cpu_mirrors_late():
    """Most of a second after its child, on a full machine, a wrapper that did nothing else still repeats its child's end."""
    incidents, told = fold(
        agent(argv=("timeout", "9", "agent")),
        started(100, 1, ("timeout", "9", "agent")),
        forked(101, 100),
        started(101, 100, ("agent",)),
        ended(101, 3 << 8, 200 * S),
    )
    assert told == incidents.overdue(200 * S + 900 * MS) == []
    told = incidents.apply(ended(100, 3 << 8, 200 * S + 910 * MS))
    assert [(end.process.pid, end.scope, end.mirrors) for end in told] == [(101, "agent", None), (100, "agent", 101)]


def test_a_wrapper_whose_child_was_killed_repeats_it():
    """A shell that exits 137 because its child was killed repeats that end."""
    _, told = fold(
        agent(),
        started(100, 1, ("bash", "-c", "x")),
        forked(101, 100),
        started(101, 100, ("agent",)),
        ended(101, 9, 200 * S),
        ended(100, 137 << 8, 200 * S + MS),
    )
    assert [(end.process.pid, end.mirrors) for end in told] == [(101, None), (100, 101)]


def test_a_tool_is_never_the_agent():
    """What an agent starts dies with scope tool, and its clean ends are not told at all."""
    _, told = fold(
        agent(),
        started(100, 1, ("agent",)),
        forked(101, 100),
        started(101, 100, ("cc",)),
        ended(101, 11),
        forked(102, 100),
        ended(102, 0),
    )
    assert [(end.process.pid, end.scope) for end in told] == [(101, "tool")]


def test_a_tool_ended_by_its_own_agent_is_no_incident():
    """An agent may kill what it started."""
    _, told = fold(
        agent(), started(100, 1, ("agent",)), forked(101, 100), started(101, 100, ("cc",)), sent(101, 9, 100), ended(101, 9)
    )
    assert "own agent" in why_not(told[0])


def test_a_stranger_that_kills_a_tool_is_an_incident():
    """The near miss: the same signal from outside the agent's tree."""
    _, told = fold(
        agent(), started(100, 1, ("agent",)), forked(101, 100), started(101, 100, ("cc",)), sent(101, 9, 4000), ended(101, 9)
    )
    assert why_not(told[0]) is None


@pytest.mark.parametrize(("status", "wanted"), [(0, True), (143 << 8, True), (1 << 8, False)])
def test_sigterm_answered_by_a_clean_exit_is_wanted(status, wanted):
    """Exit 0 or 143 after a caught SIGTERM is an answer; another code is not."""
    _, told = fold(agent(), started(100, 1, ("agent",)), sent(100, 15, 4000, handler="caught"), ended(100, status))
    assert (why_not(told[0]) is not None) is wanted


def test_a_service_manager_may_stop_what_it_owns():
    """SIGKILL by the systemd that is above the agent is wanted."""
    above = (Ancestor(pid=1, comm="systemd"),)
    root = started(100, 1, ("agent",), ancestors=above)
    _, told = fold(agent(), root, sent(100, 9, 1, exe="/lib/systemd/systemd"), ended(100, 9))
    assert "stopped by systemd" in why_not(told[0])


def test_a_manager_that_owns_another_process_is_a_stranger():
    """The near miss: a container runtime that is not above this agent has no business with it."""
    _, told = fold(agent(), started(100, 1, ("agent",)), sent(100, 9, 4000, exe="/usr/bin/podman"), ended(100, 9))
    assert why_not(told[0]) is None


def test_ctrl_c_is_wanted():
    """SIGINT from the terminal, raised again by the interpreter, is no incident."""
    key = sent(100, 2, 33, code=128, handler="caught", exe="/kworker")
    again = sent(100, 2, 100, handler="default", at_ns=199 * S + MS)
    _, told = fold(agent(), started(100, 1, ("agent",)), key, again, ended(100, 2))
    assert "Ctrl-C" in why_not(told[0])


def test_sigint_from_a_stranger_is_an_incident():
    """The near miss: the same signal by kill(2) from a process with no terminal."""
    _, told = fold(agent(), started(100, 1, ("agent",)), sent(100, 2, 4000), ended(100, 2))
    assert why_not(told[0]) is None


def test_events_of_a_used_again_pid_are_not_mixed_up():
    """A signal for an earlier process of the same number is not this one's."""
    other = msgspec.structs.replace(sent(100, 9, 4000), start_ns=5 * S)
    _, told = fold(agent(), started(100, 1, ("agent",)), other, ended(100, 1 << 8))
    assert told[0].signals == ()


def test_a_daemon_that_forks_away_stays_the_agent():
    """When the first process exits 0 and leaves its copy, the copy is the agent."""
    incidents, told = fold(agent(), started(100, 1, ("agent",)), forked(101, 100), ended(100, 0))
    assert told == []
    own = incidents.apply(ended(101, 11))
    assert [(end.scope, end.is_root, end.agent.pid) for end in own] == [("agent", True, 101)]


def test_exec_keeps_the_identity_and_changes_the_role():
    """A wrapper that becomes its command by exec is the agent from then on."""
    _, told = fold(agent(), started(100, 1, ("env", "A=1", "agent")), started(100, 1, ("agent",)), ended(100, 3 << 8))
    assert [(end.process.role, end.scope) for end in told] == [("agent", "agent")]
