"""Goes back to what the agent last worked on: by the policy's own command, or by switching the snapshot of a folder back.

It starts nothing: a ladder has a restart behind it, and a supervisor starts the agent by itself. Said of it are the versions before
and after, who else lives on the folder, and whether an update of unattended-upgrades, which brings security fixes, is undone.
"""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from agentscope.agents import children_by_parent, descendants_of
from agentscope.changes import Change, Place, change_of, read_changes
from agentscope.commands import run_command
from agentscope.examination.proc import link_of, numbers_in, plain, read_proc
from agentscope.model import EvidenceRecord
from agentscope.remedies import Done, Order
from agentscope.remedies._telling import environment_of, words_of
from agentscope.snapshots import CannotSwitch, switch
from agentscope.supervisors import rights_of

NOTHING = (
    'the config names nothing to go back with. Try: rollback = ["nixos-rebuild", "switch", "--rollback"] '
    'or snapshot = "/srv/agent/venv"'
)
BEFORE_NS = 14 * 86_400 * 1_000_000_000
SWITCH_S = 120.0
START_S = 5.0
TOLD = 8
OTHERS_S = 1.0
OTHERS_LIMIT = 5
PROCESSES_LIMIT = 20_000
MAPS_LIMIT = 4 << 20


def intent(order: Order) -> str:
    """With what it would go back, and what that may undo."""
    policy = order.policy
    if policy.rollback:
        what = f"roll back by {' '.join(policy.rollback)}"
    elif policy.snapshot is not None:
        what = f"switch {policy.snapshot} back to its last snapshot"
    else:
        return "roll back, but to nothing: the config names neither a command nor a snapshot"
    risk = fixes_told(order.incident.evidence) if policy.rollback else ""
    return f"{what}{f', which may undo {risk}, an update of unattended-upgrades' if risk else ''}"


async def act(order: Order) -> Done:
    """Go back."""
    if order.policy.rollback:
        work, limit_s = partial(by_command, order), order.policy.rollback_s + START_S + 5.0
    elif order.policy.snapshot is not None:
        work, limit_s = partial(by_snapshot, order, Path(order.policy.snapshot)), SWITCH_S
    else:
        return Done(outcome="refused", says=NOTHING)
    try:
        return await asyncio.wait_for(asyncio.to_thread(work), limit_s)
    except TimeoutError:
        return Done(outcome="failed", says=f"the rollback did not come to its end within {limit_s:g} s")


# --- by a snapshot -----------------------------------------------------------------------------------------------------------


def by_snapshot(order: Order, folder: Path) -> Done:
    """Switch the snapshot back; blocks."""
    others = living_on(folder, order.agent.pid)
    try:
        switched = switch(folder, order.state, owner_uid=order.owner_uid)
    except CannotSwitch as error:
        return Done(outcome="refused", says=str(error))
    return Done(outcome="done", says=f"{switched.says()}{shared(others)}")


def shared(others: list[str]) -> str:
    """That others live on the same folder: they keep what they have loaded, and find the rest changed under them."""
    if not others:
        return ""
    more = f" and {len(others) - OTHERS_LIMIT} more" if len(others) > OTHERS_LIMIT else ""
    return f"; it is shared with {', '.join(others[:OTHERS_LIMIT])}{more}, which should be restarted too"


def living_on(folder: Path, agent_pid: int) -> list[str]:
    """Who else runs, has loaded or stands in something below a folder, in words; bounded in time."""
    until = time.monotonic() + OTHERS_S
    names = {str(folder), os.path.realpath(folder)}
    own = {agent_pid, os.getpid(), *(process.pid for process in descendants_of(agent_pid, children_by_parent()))}
    found = []
    for pid in numbers_in("/proc", PROCESSES_LIMIT):
        if time.monotonic() > until:
            break
        if pid not in own and lives_on(pid, names):
            comm = plain((read_proc(f"/proc/{pid}/comm") or b"?").strip(), 16)
            found.append(f"{comm} (pid {pid})")
    return found


def lives_on(pid: int, names: Iterable[str]) -> bool:
    """Whether a process uses something below a folder: its program, what it is run by, its own folder, what it has mapped."""
    first = (read_proc(f"/proc/{pid}/cmdline") or b"").split(b"\0", 2)[:2]
    paths = [os.fsdecode(word) for word in first] + [link_of(f"/proc/{pid}/{name}") or "" for name in ("exe", "cwd")]
    maps = b""
    for name in names:
        if any(path == name or path.startswith(f"{name}/") for path in paths):
            return True
        maps = maps or read_proc(f"/proc/{pid}/maps", MAPS_LIMIT) or b""
        if b" " + os.fsencode(name) + b"/" in maps:
            return True
    return False


# --- by a command -------------------------------------------------------------------------------------------------------------


def by_command(order: Order) -> Done:
    """Run it with the rights of the config's owner, and read in the logs of package tools what it changed; blocks."""
    before_ns = time.time_ns()
    limit_s = order.policy.rollback_s
    try:
        # what root puts back is for an agent of another user to read
        ran = run_command(order.policy.rollback, rights_of(order.owner_uid), environment_of(order), limit_s, umask=0o022)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else plain(str(error), 200)
        return Done(outcome="failed", says=f"{order.policy.rollback[0]} cannot be started: {reason}")
    told = ""
    with contextlib.suppress(OSError):
        told = changes_told(before_ns)
    says = f"{order.policy.rollback[0]}: {words_of(ran, limit_s)}{told}"
    return Done(outcome="done" if ran.status == 0 else "failed", says=says)


def changes_told(since_ns: int, root: str | None = None) -> str:
    """What changed since, by the package logs in a root (None: ours), and which of it takes back what unattended-upgrades brought."""
    # logs have whole seconds
    begin_ns = since_ns // 1_000_000_000 * 1_000_000_000
    now_ns = time.time_ns()
    seen = read_changes(Place(since_ns=begin_ns - BEFORE_NS, until_ns=now_ns + 2_000_000_000, root=root)).changes
    made = [change for change in seen if change.wall_ns + change.precision_ns > begin_ns and change.wall_ns >= begin_ns]
    if not made:
        return ""
    more = f" and {len(made) - TOLD} more" if len(made) > TOLD else ""
    told = f"; it changed {', '.join(change.says() for change in made[:TOLD])}{more}"
    undone = [change for change in made if undoes(change, [each for each in seen if each.wall_ns < begin_ns])]
    if not undone:
        return told
    names = ", ".join(change.says() for change in undone[:TOLD])
    return f"{told}; WARNING: this takes back what unattended-upgrades had installed, which may be a security fix: {names}"


def undoes(change: Change, earlier: list[Change]) -> bool:
    """Whether a change leads away from the version that unattended-upgrades had put there."""
    last = change_of(earlier, change.ecosystem, change.what)
    if last is None or last.by is None or last.by.tool != "unattended-upgrades":
        return False
    return last.to_version is None or change.from_version in {None, last.to_version}


def fixes_told(evidence: Iterable[EvidenceRecord]) -> str:
    """The packages that unattended-upgrades changed before the incident, by its evidence; empty where it changed none."""
    found: list[str] = []
    for record in evidence:
        changes = record.data.get("changes") if record.kind == "package-changes" else None
        for change in changes if isinstance(changes, list | tuple) else ():
            by = change.get("by") if isinstance(change, dict) else None
            if isinstance(by, dict) and by.get("tool") == "unattended-upgrades":
                found.append(plain(f"{change.get('what')} {change.get('to_version') or ''}".strip(), 100))
    names = list(dict.fromkeys(found))
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")
