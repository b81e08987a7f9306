"""`agentscope diagnose`: one report, of a process that lives, of one that is dead, or of a pasted log."""

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agentscope.agents import (
    Target,
    agent_of,
    is_kernel_thread,
    live_processes,
    matches,
    process_of,
    read_process,
    roots,
    start_ns_of,
)
from agentscope.classifier import classify
from agentscope.commandlines import program_name
from agentscope.distributions import plain
from agentscope.durations import span
from agentscope.errors import AgentscopeError, BadInput, ExitStatus, NoSuchProcess, NotPermitted, UsageError
from agentscope.evidence import Collected, Evidence, HangScene, Missing, Scene, binding_of, collect_all
from agentscope.incidents import Ended
from agentscope.model import Agent, IncidentOpened, KernelLine, Process, ProcessExit, Pulse, RuledOut
from agentscope.pipeline import boot_wall_ns, incident_of, now_ns
from agentscope.state import state_dir
from agentscope.symbols.signals import signal_name

if TYPE_CHECKING:
    from agentscope.aftermath import Traces, Wanted
    from agentscope.enclosed import Inside
    from agentscope.examining import Examined
    from agentscope.sources.ahead import Ahead

LOG_LIMIT_BYTES = 4 << 20


def diagnose_log(name: str, as_json: bool) -> tuple[ExitStatus, str]:
    """What a pasted log says. Exit status 10 if it names a death, 0 if all it names is harmless, 20 if nothing was recognised.

    Raises:
        BadInput: the file cannot be read.
    """
    from agentscope import readers

    try:
        if name == "-":
            raw = sys.stdin.buffer.read(LOG_LIMIT_BYTES)
        else:
            with Path(name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - LOG_LIMIT_BYTES))
                raw = file.read(LOG_LIMIT_BYTES)
    except OSError as error:
        raise BadInput(f"cannot read {name}", error.strerror or str(error), "agentscope diagnose --log - < FILE") from None
    text = raw.decode("utf-8", "replace")
    found = readers.diagnose_text(text)
    readings = readers.read(text)
    status = ExitStatus.FAULT_FOUND if found["findings"] else ExitStatus.HEALTHY if readings else ExitStatus.UNDETERMINED
    if as_json:
        return status, json.dumps(found, ensure_ascii=False) + "\n"
    from agentscope.views.report import render_log_findings, wants_color, width_of

    return status, render_log_findings(readings, width=width_of(sys.stdout), color=wants_color(sys.stdout))


def diagnose_process(
    who: str, state: str | None, as_json: bool, patience_s: float, ahead: "Ahead | None" = None
) -> tuple[ExitStatus, str]:
    """What is known of one process: live, recorded by a watcher, or reconstructed from what others wrote down. `ahead` has the probes.

    Raises:
        NoSuchProcess: nothing of this name or number is there, and nothing recorded it. NotPermitted: it belongs to another user.
    """
    if not (who.isascii() and who.isdigit()):
        try:
            return diagnose_live(pid_of(who), state, as_json, patience_s, ahead)
        except NoSuchProcess:
            from agentscope.enclosed import meant

            found = meant(who)
            return (
                diagnose_live(found, state, as_json, patience_s, ahead) if found is not None else afterwards(who, None, as_json)
            )
    pid = int(who)
    if pid <= 0 or pid >= 1 << 22:
        raise UsageError(f"{who} is not a process number", "a pid is a number from 1 to 4194303", "agentscope diagnose PID")
    from agentscope.enclosed import insides, the_one

    inside = insides(pid)
    if start_ns_of(pid) is not None and not (inside and is_kernel_thread(pid)):
        status, text = diagnose_live(pid, state, as_json, patience_s, ahead)
        return status, text if as_json else text + also_inside(pid, inside)
    if inside and (dead := ended_since(pid, state, inside)) is not None:
        status, text = told(dead, as_json)
        return status, text if as_json else text + also_inside(pid, inside)
    if (enclosed := the_one(who, inside)) is not None:
        return diagnose_live(enclosed, state, as_json, patience_s, ahead)
    from agentscope.ledger import Ledger

    incident = Ledger(state_dir(state)).incident_of(pid)
    return told(incident, as_json) if incident is not None else afterwards(who, pid, as_json)


def also_inside(pid: int, inside: "list[Inside]") -> str:
    """Who else has this number, in a pid namespace of their own; empty where nobody has."""
    others = ", ".join(each.says() for each in inside if each.pid != pid)
    return f"\n{pid} is also the number, inside, of {others}.\n" if others else ""


def ended_since(pid: int, state: str | None, inside: "list[Inside]") -> IncidentOpened | None:
    """What became of the process that had this number here, if that came after those who have it inside now had begun.

    What ended before them is not what is meant: the number has been theirs since.
    """
    from agentscope.ledger import Ledger

    since_ns = boot_wall_ns() + max(start_ns_of(each.pid) or 0 for each in inside)
    recorded = Ledger(state_dir(state)).incident_of(pid)
    if recorded is not None and ended_wall_ns(recorded) > since_ns:
        return recorded
    from agentscope.aftermath import Wanted
    from agentscope.aftermath.gathering import ThisMachine, gather

    wanted = Wanted(who=str(pid), pid=pid)
    try:
        _, incident = put_together(gather(wanted, ThisMachine()), wanted)
    except NoSuchProcess:
        return None
    return incident if incident is not None and ended_wall_ns(incident) > since_ns else None


def ended_wall_ns(incident: IncidentOpened) -> int:
    """When it ended, by the wall clock: of another boot, whose clock is not ours, by when its agent had begun."""
    try:
        began = datetime.fromisoformat(incident.agent.start_time)
    except ValueError:  # nobody knows when; an end that is put together is told by the clock of this boot
        return boot_wall_ns() + incident.at_ns
    return int(began.timestamp() * 1e9) + incident.at_ns - incident.agent.start_ns


def pid_of(who: str) -> int:
    """The one live process of this name or unit.

    Raises:
        NoSuchProcess: there is none. UsageError: there are several.
    """
    wanted = (Target(kind="unit", value=who), Target(kind="name", value=who))
    found = [
        (seen, who) for seen in live_processes() if any(matches(target, seen) for target in wanted) and seen.pid != os.getpid()
    ]
    chosen = [seen for seen, _ in roots(found)]
    if not chosen:
        raise NoSuchProcess(f"no process is called {who}, and no unit", "nothing that runs has this name", f"pgrep -a {who}")
    if len(chosen) > 1:
        listed = ", ".join(f"{seen.pid} ({program_name(seen.argv, seen.comm)})" for seen in chosen[:8])
        raise UsageError(f"{len(chosen)} processes are called {who}", listed, f"agentscope diagnose {chosen[0].pid}")
    return chosen[0].pid


def diagnose_live(
    pid: int, state: str | None, as_json: bool, patience_s: float, ahead: "Ahead | None" = None
) -> tuple[ExitStatus, str]:
    """A process that is there, examined: a hang as its incident, else what it is and does; a zombie's end is told from its status.

    Raises:
        NotPermitted: it belongs to another user and we are not root. UsageError: it is a kernel thread.
    """
    if is_kernel_thread(pid):
        raise UsageError(
            f"process {pid} is a thread of the kernel", "it runs no program that could be an agent", "agentscope diagnose PID"
        )
    owner = Path(f"/proc/{pid}").stat().st_uid
    if os.geteuid() not in {0, owner}:
        raise NotPermitted(
            f"process {pid} belongs to user {owner}", "its files in /proc are closed to you", f"sudo agentscope diagnose {pid}"
        )
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    if fields[0] == "Z":
        return zombie(pid, int(fields[-1]), as_json)
    from agentscope.examining import examine
    from agentscope.pipeline import hang_of

    found = examine(pid, patience_s, load_marks if as_json else load_views, ahead)
    from agentscope.enclosed import asked
    from agentscope.marks import with_standing

    scene = msgspec.structs.replace(found.scene, enclosure=asked(found.scene.process.cgroup))
    found = found._replace(scene=with_standing(scene, state_dir(state)))
    collected = collect_all(found.scene)
    diagnosis = classify(collected)
    incident = hang_of(found.scene, collected, diagnosis)
    if incident is not None:
        return told(incident, as_json)
    return alive(found, collected, as_json)


def load_marks() -> None:
    """Load what tells whether it stands on what it stood on when it was well, and whether it is a tool that keeps transcripts."""
    import agentscope.marks
    import agentscope.transcripts

    assert agentscope.marks
    agentscope.transcripts.readers()


def load_views() -> None:
    """The same, and what the report is drawn with."""
    from agentscope.views import drawing, report  # noqa: F401 - as above

    load_marks()
    drawing.warm()


def told(incident: IncidentOpened, as_json: bool) -> tuple[ExitStatus, str]:
    """An incident as a report or as JSON, with the exit status that its verdict has."""
    status = ExitStatus.UNDETERMINED if incident.cause == "undetermined" else ExitStatus.FAULT_FOUND
    if as_json:
        return status, msgspec.json.encode(incident).decode() + "\n"
    from agentscope.views.report import render_report, wants_color, width_of

    return status, render_report(
        incident, width=width_of(sys.stdout), color=wants_color(sys.stdout), when_ns=boot_wall_ns() + incident.at_ns
    )


def alive(found: "Examined", collected: dict[str, Collected], as_json: bool) -> tuple[ExitStatus, str]:
    """A process in which no hang was found: what it waits for, and what was looked at."""
    scene = found.scene
    shown = [(kind, each) for kind, each in collected.items() if isinstance(each, Evidence)]
    evidence = tuple(each.record("context") for _, each in shown)
    missing = tuple(RuledOut(cause=kind, because=each.because) for kind, each in collected.items() if isinstance(each, Missing))
    pulse = pulse_of(scene, found.state, found.cpu_percent)
    if as_json:
        living = {
            "agent": msgspec.to_builtins(scene.agent),
            "alive": True,
            "state": found.state,
            "outstanding": list(found.outstanding),
            "pulse": msgspec.to_builtins(pulse),
            "evidence": msgspec.to_builtins(evidence),
            "not_checked": msgspec.to_builtins(missing),
        }
        return ExitStatus.HEALTHY, json.dumps(living) + "\n"
    from agentscope.views.report import render_live, wants_color, width_of

    return ExitStatus.HEALTHY, render_live(
        scene.agent,
        pulse=pulse,
        evidence=evidence,
        not_checked=missing,
        width=width_of(sys.stdout),
        color=wants_color(sys.stdout),
    )


def pulse_of(scene: HangScene, state: str, cpu_percent: float) -> Pulse:
    """One pulse of a live process and its descendants, from /proc."""
    from agentscope.lastseen import usage_of

    agent = scene.agent
    rss, threads = usage_of(agent.pid)
    binding = binding_of(scene.last_seen.cgroups if scene.last_seen else ())
    return Pulse(
        at_ns=now_ns(),
        agent_pid=agent.pid,
        agent_start_ns=agent.start_ns,
        state=state,
        rss_bytes=rss,
        cpu_percent=cpu_percent,
        threads=threads,
        cgroup_bytes=binding.usage_bytes if binding else None,
        limit_bytes=binding.limit_bytes if binding else None,
        limit_path=binding.path if binding else None,
    )


def zombie(pid: int, status: int, as_json: bool) -> tuple[ExitStatus, str]:
    """A process that has ended and that its parent has not read yet: its status is still there (proc_pid_stat(5), field 52)."""
    seen = read_process(pid)
    incident = opened_from(process_of(seen), agent_of(seen, boot_wall_ns()), status, past_kernel_lines())
    if status == 0:
        return (
            ExitStatus.HEALTHY,
            f"Process {pid} has ended with status 0; its parent (pid {seen.ppid}) has not read that yet.\n",
        )
    return told(incident, as_json)


def past_kernel_lines() -> tuple[KernelLine, ...] | None:
    """What the kernel log still holds; None where it cannot be read."""
    from agentscope.sources.kmsg import read_past

    try:
        return tuple(read_past())
    except (AgentscopeError, OSError):
        return None


def afterwards(who: str, pid: int | None, as_json: bool) -> tuple[ExitStatus, str]:
    """An end that nobody watched, put together from what is left of it.

    Raises:
        NoSuchProcess: no source tells of an end of this process.
    """
    from agentscope.aftermath import Wanted
    from agentscope.aftermath.gathering import ThisMachine, gather

    told_of, incident = put_together(gather(wanted := Wanted(who=who, pid=pid), ThisMachine()), wanted)
    if incident is not None:
        return told(incident, as_json)
    status = ExitStatus.HEALTHY if told_of["incident"] is False else ExitStatus.UNDETERMINED
    if as_json:
        return status, json.dumps(told_of) + "\n"
    from agentscope.views import safe

    return status, f"{safe(told_of['agent']['name'], 80)} has ended, reconstructed: {safe(told_of['says'], 300)}.\n"


def put_together(traces: "Traces", wanted: "Wanted") -> tuple[dict[str, Any], IncidentOpened | None]:
    """The end of whoever is meant: its incident; or why it is none, with `incident` False, or None where that could not be told.

    Raises:
        NoSuchProcess: no source tells of an end of this process.
    """
    from agentscope.aftermath.joining import join, says_how
    from agentscope.aftermath.telling import CLEAN_FOR_SYSTEMD, on_purpose, scene_of

    joined = join(traces, wanted)
    if joined is None:
        raise untold(traces, wanted)
    ended, scene = scene_of(traces, joined, wanted)
    planned = on_purpose(traces, joined)
    if planned is None and says_how(joined.end):
        collected = collect_all(scene)
        return {}, incident_of(ended, scene, collected, classify(collected))
    end = joined.end
    return {
        "agent": msgspec.to_builtins(scene.agent),
        "alive": False,
        "reconstructed": True,
        "incident": None if planned is None else False,
        "exit": {"code": end.code, "signal": signal_name(end.signal) if end.signal else None, "core_dumped": end.core},
        "says": planned or CLEAN_FOR_SYSTEMD,
    }, None


def untold(traces: "Traces", wanted: "Wanted") -> NoSuchProcess:
    """That nothing tells of this end; and which were told of last, since what a person calls it may not be what the kernel calls it."""
    from agentscope.aftermath.joining import told_last

    closed = "; ".join(f"{each.kind}: {each.because}" for each in traces.unread)
    why = f"no watcher saw it, and no end of it is told by {', '.join(traces.read) or 'anything'}{f' (not to be had: {closed})' if closed else ''}"
    retry = "sudo agentscope watch, before it happens again"
    if last := told_last(traces, wanted):
        places = [f" in {plain(each.cgroup, 80)}" if each.cgroup.strip("/") else "" for each in last]
        ended = [
            f"{each.pid} ({plain(each.comm, 15)}{place}, {span(max(0, now_ns() - each.at_ns))} ago)"
            for each, place in zip(last, places, strict=True)
        ]
        why += f". The last ends told of: {', '.join(ended)}"
        retry = f"agentscope diagnose {last[0].pid}, if it was that one; else {retry}"
    return NoSuchProcess(f"there is no process {wanted.who}, and nothing recorded its end", why, retry)


def opened_from(
    process: Process, agent: Agent, status: int, lines: tuple[KernelLine, ...] | None, at_ns: int | None = None
) -> IncidentOpened:
    """An incident of a process that nobody watched: what the kernel log and the wait status tell, and no more."""
    from agentscope.marks import NOT_SEEN

    end = ProcessExit(
        at_ns=at_ns or now_ns(), pid=process.pid, start_ns=process.start_ns, ppid=process.ppid or 0, comm=process.comm, status=status,
        uid=process.uid or 0, engine="none",
    )  # fmt: skip
    ended = Ended(agent=agent, process=process, scope="agent", exit=end)
    scene = Scene(
        agent=agent, process=process, scope="agent", exit=end, engine="none", kernel_lines=lines,
        words_missing="nobody watched it when it wrote", baseline_missing=NOT_SEEN,
    )  # fmt: skip
    collected = collect_all(scene)
    return incident_of(ended, scene, collected, classify(collected))
