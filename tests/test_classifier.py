"""The classifier: exactly one verdict for each end, never a wrong class, and nothing can make it fail."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentscope.causes import Cause, causes
from agentscope.classifier import LINE_CHARACTERS, applies, ask, classify, one_line
from agentscope.evidence import Collected, Missing, Scene, collect_all, kinds
from agentscope.evidence.actor import OUTSIDE
from agentscope.evidence.cpu_time import CpuTime
from agentscope.evidence.fault import CORE_SIGNALS
from agentscope.model import Agent, Fault, OomVictim, Process, ProcessExit, SignalSent
from agentscope.readers.kernel_fault import FaultLine
from tests.evidence_builders import (
    GIB,
    MIB,
    chosen,
    diagnose,
    died,
    earlier,
    exited,
    faulted,
    gather,
    limits,
    logged,
    memcg_report,
    python,
    read,
    sent,
    stack,
    traceback,
    verdict,
    words,
)

SELF, OTHER, START_NS, END_NS = 100, 812, 1_000_000_000, 9_000_000_000
SUGGESTIONS = (
    None,
    "oom/cgroup", "oom/runtime-heap", "oom/gpu", "oom/userspace-killer", "drift/python-import", "drift/missing-library",
    "exception/uncaught", "exception/network", "exception/disk-full", "exception/fd-exhausted", "exception/panic",
    "crash/segfault", "crash/abort", "crash/stack-overflow", "killed/sigkill", "hang/deadlock",
)  # fmt: skip


def signal(number: int, code: int, *, by: int = SELF, comm: str = "python3", **more: object) -> SignalSent:
    """A row of the measured truth table: the signal as signal_generate saw it."""
    stated: dict[str, object] = {"at_ns": END_NS - 1_000_000, "group": True, "result": 0, "handler": "default"}
    stated |= {"sender_exe": f"/usr/bin/{comm}"} | more
    return SignalSent(
        signal=number, code=code, pid=SELF, tid=SELF, start_ns=START_NS, comm="python3",
        sender_pid=by, sender_tid=by, sender_start_ns=1, sender_comm=comm, sender_uid=0, **stated,  # type: ignore[arg-type]
    )  # fmt: skip


def fault(number: int, code: int, *, address: int | None = 0, handler: str = "default", before_ns: int = 1_000_000) -> Fault:
    """A fault signal as signal_deliver saw it."""
    return Fault(
        at_ns=END_NS - before_ns, signal=number, code=code, address=address, pid=SELF, tid=SELF, start_ns=START_NS,
        comm="python3", handler=handler, registers={16: 0x7F0000067AD8, 7: 0x7FFC00001000},  # type: ignore[arg-type]
    )  # fmt: skip


def scene(status: int, *events: SignalSent | Fault | OomVictim, ancestors: tuple[int, ...] = (1,)) -> Scene:
    """One end as the engine tells it: the raw wait status and what was observed before."""
    victim = next((event for event in events if isinstance(event, OomVictim)), None)
    return Scene(
        agent=Agent(name="a", pid=SELF, start_ns=START_NS, start_time="", command="a"),
        process=Process(pid=SELF, start_ns=START_NS, ppid=50),
        scope="agent",
        exit=ProcessExit(at_ns=END_NS, pid=SELF, start_ns=START_NS, ppid=50, comm="python3", status=status, uid=0),
        engine="core",
        signals=tuple(event for event in events if isinstance(event, SignalSent)),
        faults=tuple(event for event in events if isinstance(event, Fault)),
        victim=victim,
        kernel_lines=(),
        family=(SELF,),
        ancestors=ancestors,
    )


VICTIM = OomVictim(
    at_ns=END_NS - 900_000, pid=SELF, start_ns=START_NS, comm="python3", uid=0, anon_rss_bytes=40 * MIB, file_rss_bytes=MIB,
    shmem_rss_bytes=0, total_vm_bytes=None, pgtables_bytes=None, oom_score_adj=0, cgroup="/agents/x", trigger_pid=SELF,
    trigger_comm="python3",
)  # fmt: skip

# The ground truth measured on 6.18 (signal_generate, signal_deliver, mark_victim, wait status), row by row.
TRUTH = {
    "kill -9 by bash": (scene(9, signal(9, 0, by=OTHER, comm="bash")), "killed/sigkill", "process"),
    "cgroup.kill": (scene(9, signal(9, 0, by=OTHER, comm="bash", group=False)), "killed/sigkill", "process"),
    "memcg OOM": (scene(9, signal(9, 128, by=SELF), VICTIM), "oom/cgroup", "kernel"),
    "memcg OOM, a stranger allocating": (scene(9, signal(9, 128, by=OTHER, comm="rg"), VICTIM), "oom/cgroup", "kernel"),
    "memcg OOM, earlyoom allocating": (scene(9, signal(9, 128, by=OTHER, comm="earlyoom"), VICTIM), "oom/cgroup", "kernel"),
    "RLIMIT_CPU, hard": (scene(9, signal(24, 128, handler="caught"), signal(9, 128)), "killed/limit", "kernel"),
    "RLIMIT_CPU, soft": (scene(24, signal(24, 128)), "killed/limit", "kernel"),
    "PID-namespace init exits": (
        scene(9, signal(9, 128, by=OTHER, sender_exiting=True, sender_is_pidns_init=True)), "killed/sigkill", "process",
    ),
    "PR_SET_PDEATHSIG": (scene(9, signal(9, 0, by=50, sender_exiting=True)), "killed/sigkill", "process"),
    "NULL dereference": (scene(11 | 0x80, signal(11, 1), fault(11, 1)), "crash/segfault", "self"),
    "the same with faulthandler": (
        scene(
            11, signal(11, 1, handler="caught"), signal(11, -6),
            fault(11, 1, handler="caught", before_ns=2_000_000), fault(11, -6, address=None),
        ), "crash/segfault", "self",
    ),
    "kill -11 by bash": (
        scene(11, signal(11, 0, by=OTHER, comm="bash"), fault(11, 0, address=None)), "killed/signal", "process",
    ),
    "os.abort": (scene(6, signal(6, -6), fault(6, -6, address=None)), "crash/abort", "self"),
    "MemoryError, uncaught, rejection: no signal": (scene(1 << 8), "exit/status", None),
    "SIGPIPE default death": (scene(13, signal(13, 0)), "killed/signal", "self"),
    "SIGTERM default death": (scene(15, signal(15, 0, by=OTHER, comm="bash")), "killed/sigterm", "process"),
    "SIGHUP default death": (scene(1, signal(1, 0, by=OTHER, comm="bash")), "killed/hangup", "process"),
    "a second SIGKILL changes nothing": (
        scene(9, signal(9, 0, by=OTHER, comm="bash", at_ns=END_NS - 2), signal(9, 0, by=7, comm="late", at_ns=END_NS - 1, result=2)),
        "killed/sigkill", "process",
    ),
    "an ignored SIGTERM, then exit 3": (scene(3 << 8, signal(15, 0, by=OTHER, result=1, handler="ignore")), "exit/status", None),
    "missing library at exec": (scene(127 << 8), "exit/status", None),
}  # fmt: skip


@pytest.mark.parametrize("row", TRUTH)
def test_truth_table(row):
    """Each row of the measured truth table, from raw events, has its cause, its actor, and no other verdict."""
    happened, cause, actor = TRUTH[row]
    collected = collect_all(happened)
    diagnosis = classify(collected)
    assert [finding.cause for finding in diagnosis.findings] == [cause]
    seen = collected["actor"]
    assert (seen.actor.kind if seen is not None else None) == actor
    if row in {"kill -9 by bash", "a second SIGKILL changes nothing"}:
        assert diagnosis.findings[0].culprit == "bash (pid 812, uid 0)"
    if row == "memcg OOM, earlyoom allocating":
        assert seen.oom_daemon is None


@pytest.mark.parametrize("events", [(), (signal(15, 0, by=OTHER, handler="caught"),)], ids=["normal", "answers SIGTERM"])
def test_truth_table_clean_ends(events):
    """SIGTERM answered by exit 0, and a multi-threaded normal exit, have no verdict at all."""
    assert classify(collect_all(scene(0, *events))).findings == ()


@st.composite
def ends(draw):
    """A consistent end with any evidence around it: there, absent, or missing."""
    number = draw(st.one_of(st.none(), st.sampled_from([*range(1, 32), 34, 64])))
    status = exited(draw(st.integers(1, 255))) if number is None else died(number)
    relation = draw(st.sampled_from([*sorted(OUTSIDE), "self", "kernel", "unattributed"]))
    code = {"kernel": 128, "unattributed": None, "self": draw(st.sampled_from([0, -6, 1]))}.get(relation, 0)
    if relation == "self" and number not in CORE_SIGNALS and code == 1:
        code = 0
    asked = draw(st.sampled_from([1, 2, 3, 15]))
    outside = relation in OUTSIDE - {"terminal"}
    actor = sent(
        asked if number is None else number,
        relation,
        code=code,
        answered=number is None,
        before_end_ns=draw(st.sampled_from([0, 5_000_000_000, 25_000_000_000])),
        oom_daemon=draw(st.sampled_from([None, "earlyoom"])) if outside else None,
        manager=draw(st.sampled_from([None, "systemd"])) if outside else None,
        cgroup_kill=draw(st.booleans()),
        earlier=(earlier(draw(st.sampled_from(["SIGXCPU", "SIGTERM"]))),),
    )
    readers = st.sampled_from(["python", "node", "go", "rust", "jvm", "gpu", "native"])
    said = [
        read(draw(st.sampled_from(SUGGESTIONS)), draw(readers), excerpt=f"word {n}") for n in range(draw(st.integers(0, 3)))
    ]
    tail = "\nafter" * draw(st.sampled_from([0, 3, 40]))
    possible = {
        "actor": actor,
        "last-words": words(*said, text="\n".join(r.excerpt for r in said) + tail),
        "oom-victim": chosen(draw(st.sampled_from([None, "/", "/a/x"])), anon_rss_bytes=draw(st.sampled_from([None, MIB]))),
        "memory-limits": limits(draw(st.sampled_from([None, 64 * MIB])), available=draw(st.sampled_from([None, 8 * GIB, MIB]))),
        "kernel-log": logged(
            oom=draw(st.sampled_from([None, memcg_report(), memcg_report(constraint="CONSTRAINT_NONE")])),
            fault=draw(st.sampled_from([None, FaultLine(cause="crash/segfault", pid=SELF, address="zz", sp="7f")])),
        ),
        "cpu-time": CpuTime(
            source="", used_ns=draw(st.sampled_from([0, 5_000_000_000])), limit_s=draw(st.sampled_from([None, 2]))
        ),
        "python-stack": python(("f", "/srv/a.py", 3)),
        "native-stack": stack(("f", "/srv/a"), complete=draw(st.booleans())),
    }
    if number in CORE_SIGNALS:
        synchronous = draw(st.booleans()) and relation in {"self", "kernel", "unattributed"}
        possible["fault"] = faulted(number, 1 if synchronous else draw(st.sampled_from([0, -6])), near=draw(st.booleans()))
    choices = {kind: draw(st.sampled_from(["there", "absent", "missing"])) for kind in possible}
    if number is None and not draw(st.booleans()):
        choices["actor"] = "absent"
    return gather(
        status,
        *(evidence for kind, evidence in possible.items() if choices[kind] == "there"),
        missing=tuple(kind for kind, choice in choices.items() if choice == "missing"),
    )


def memory_is_unknown(collected: dict[str, Collected]) -> bool:
    """Whether it was ended by SIGKILL and nobody could look whether the OOM killer chose it."""
    return collected["wait-status"].signal == 9 and isinstance(collected["oom-victim"], Missing)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ends())
def test_one_verdict_for_every_failing_end(collected):
    """Whatever evidence is there, absent or missing: one finding, and every cause of an end has answered.

    Only a SIGKILL of which nobody knows whether the OOM killer sent it has none, and killed/sigkill says that it was not checked.
    """
    diagnosis = classify(collected)
    answered = [each.cause for each in (*diagnosis.findings, *diagnosis.ruled_out, *diagnosis.not_checked)]
    assert sorted(answered) == sorted(slug for slug, cause in causes().items() if applies(cause, collected))
    assert not any(slug.startswith("hang/") for slug in answered)
    if memory_is_unknown(collected) and not diagnosis.findings:
        assert "killed/sigkill" in {each.cause for each in diagnosis.not_checked}
        return
    assert len(diagnosis.findings) == 1, [(finding.cause, finding.headline) for finding in diagnosis.findings]
    finding = diagnosis.findings[0]
    assert all(collected[kind] is not None and not isinstance(collected[kind], Missing) for kind in finding.cites)
    assert finding.headline
    assert finding.culprit


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ends())
def test_never_the_wrong_class(collected):
    """No OOM kill without the kernel's choice, no crash by a signal that somebody sent, no exception by SIGKILL."""
    cause = next((finding.cause for finding in classify(collected).findings), "" if memory_is_unknown(collected) else None)
    assert cause is not None
    victim, actor, status = collected["oom-victim"], collected["actor"], collected["wait-status"]
    has_victim = victim is not None and not isinstance(victim, Missing)
    if cause in {"oom/cgroup", "oom/global"}:
        assert has_victim
        assert status.signal == 9
    if cause.startswith("crash/"):
        assert status.signal in CORE_SIGNALS
        assert actor is None or isinstance(actor, Missing) or not actor.outside
    if cause.startswith("exception/"):
        assert status.signal in {None, 4, 5, 6}
    if cause == "exit/status":
        assert status.signal is None


def test_missing_is_not_checked_and_absent_is_ruled_out():
    """What could not be had is said with its reason; what was not there rules a cause out with the kind's own sentence."""
    diagnosis = diagnose(died(9), sent(9), missing=("last-words",))
    assert {each.cause: each.because for each in diagnosis.not_checked}["exception/uncaught"] == "this test withholds it"
    assert {each.cause: each.because for each in diagnosis.ruled_out}["oom/cgroup"] == kinds()["oom-victim"].absent


def test_nothing_is_said_of_a_process_that_lives():
    """Without an end no cause of an end matches."""
    assert diagnose().findings == ()


def test_hostile_names_stay_on_one_line():
    """Names and words of the examined process reach the finding without control characters, line breaks or great length."""
    evil = "a\x1b[31m\nroot: all is well\u202e" + "x" * 5000
    for found in (
        verdict(died(9), sent(9, comm=evil)),
        verdict(exited(1), words(traceback(message=evil, file=evil, culprit=evil))),
        verdict(exited(3), words(text=evil)),
    ):
        for line in (found.headline, found.culprit, *found.advice):
            assert line.isprintable()
            assert len(line) <= LINE_CHARACTERS


def test_one_line_costs_little_whatever_it_is_given():
    """Only a bounded piece of a text is looked at."""
    assert len(one_line("y" * 10_000_000)) == LINE_CHARACTERS


def test_a_cause_that_fails_costs_its_own_answer():
    """An error inside one cause is said as "not checked" and silences no other."""

    def match(**_: object) -> None:
        raise KeyError("hostile")

    answer = ask(Cause("x/y", "", match, {}), gather(exited(1)))
    assert isinstance(answer, Missing)
    assert "KeyError" in answer.because


def test_findings_are_replayed_equal():
    """Evidence that went through its record gives the same diagnosis."""
    collected = gather(died(9), sent(9, "kernel", code=128), chosen(), limits())
    again = {
        kind: None if evidence is None else msgspec.convert(msgspec.to_builtins(evidence), kinds()[kind].struct)
        for kind, evidence in collected.items()
    }
    assert classify(again) == classify(collected)
