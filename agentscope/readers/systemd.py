"""What systemd says about a unit's end: how its main process ended, with which result, and why it killed it.

Source: src/core/service.c and src/core/unit.c of systemd; "main process exited" with a small m until 219. A stop that was asked
for, or a start or stop that ran over its time, is the manager's doing: no death of its own.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_of_signal, signal_named

KINDS = frozenset({"systemd", "kmsg", "docker", "k8s"})

_UNIT = r"(?:systemd(?:\[\d{1,9}\])?: )?(?:(?P<unit>[\w@.:\\-]{1,255}\.(?:service|scope|slice|socket|mount|timer)): )?"
_EXITED = late(
    _UNIT
    + r"(?P<which>[Mm]ain|[Cc]ontrol|[Cc]hild) process(?: \d{1,10})?(?: belonging to unit \S{1,255})? exited, code=(?P<code>exited|killed|dumped)"
    r",? status=(?P<status>\d{1,3})(?:/(?P<name>[A-Z_]{1,24}))?"
)
_RESULT = late(
    _UNIT + r"(?:Failed with result '(?P<result>[\w-]{1,40})'|Unit entered failed state|Result: (?P<result2>[\w-]{1,40}))"
)
_WATCHDOG = late(_UNIT + r"[Ww]atchdog timeout")
_KILLING = late(_UNIT + r"Killing process (?P<pid>\d{1,10}) \((?P<comm>[^)\n]{1,64})\) with signal (?P<signal>SIG[A-Z]{2,6})")
_TIMEOUT = late(_UNIT + r"(?:(?:[Ss]tart|[Ss]top|State 'stop-\w{1,20}')[\w '-]{0,40} tim(?:ed out|eout)|operation timed out)")
_MAIN_PID = late(
    r"(?:Main PID|Process): (?P<pid>\d{1,10})(?: \((?P<comm>[^)=,\n]{1,64})\)| Exec\w{1,20}=[^\n]{1,600}?)?(?: \(code=(?P<code>\w{1,12}),? (?:signal|status)=(?P<status>[\w/]{1,24})\))?"
)
_ACTIVE = late(r"Active: failed \(Result: (?P<result>[\w-]{1,40})")
_OOM = late(
    _UNIT
    + r"(?:A process of this unit has been killed by the OOM killer|The kernel OOM killer killed some processes in this unit)"
)
_CORE = late(
    r"(?:systemd-coredump(?:\[\d{1,9}\])?: )?Process (?P<pid>\d{1,10}) \((?P<comm>[^)\n]{1,64})\) of user (?P<uid>\d{1,10}) (?:dumped core|terminated abnormally"
    r"(?: with signal (?P<number>\d{1,2})/(?P<signal>\w{2,6}))?)"
)
_CORE_SIGNAL = late(r"^\s{0,20}Signal: (?P<number>\d{1,2}) \((?P<signal>\w{2,6})\)")
_STOPPING = late(r"(?:Stopping|Stopped|Deactivated successfully|Succeeded\.)")
_AS_SEEN = ("code", "status", "signal", "result", "unit", "pid")


def read(passage: Passage) -> Iterator[Mark]:
    """One mark for each unit that ended, with all that was said of it."""
    units: dict[str, dict[str, object]] = {}
    places: dict[str, tuple[int, int]] = {}
    if passage.has("process", "Result", "result", "Main PID", "OOM", "atchdog", "Process"):
        current = ""
        for index, line in enumerate(passage.lines):
            unit, facts = _said(line.text)
            if not facts:
                continue
            current = unit or current
            known = units.setdefault(current, {})
            known.update(
                {name: value for name, value in facts.items() if name not in known or name in ("status", "code", "signal")}
            )
            first, _ = places.get(current, (index, index))
            places[current] = (first, index)
    for unit, facts in _merged(units).items():
        first, last = places[unit]
        mark = _mark(passage, unit, facts, first, last)
        if mark is not None:
            yield mark


def _merged(units: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Lines that name no unit belong to the one unit that is named, if it is one."""
    named = [unit for unit in units if unit]
    if "" in units and len(named) == 1:
        units[named[0]] = {**units.pop(""), **units[named[0]]}
    return units


def _said(text: str) -> tuple[str | None, dict[str, object]]:
    if match := _EXITED.search(text):
        facts: dict[str, object] = {"code": match["code"], "status": int(match["status"])}
        if match["code"] != "exited":
            facts["signal"] = match["name"] or (signal_named(match["status"]) or "").removeprefix("SIG") or None
        return match["unit"], facts
    if match := _WATCHDOG.search(text):
        return match["unit"], {"reason": "watchdog"}
    if match := _KILLING.search(text):
        return match["unit"], {"pid": int(match["pid"]), "comm": match["comm"], "sent": match["signal"]}
    if match := _OOM.search(text):
        return match["unit"], {"oom": True}
    if match := _RESULT.search(text):
        result = match["result"] or match["result2"]
        return match["unit"], {"result": result} if result else {}
    if match := _ACTIVE.search(text):
        return None, {"result": match["result"]}
    if match := _TIMEOUT.search(text):
        return match["unit"], {"reason": "timeout"}
    return _said_of_process(text)


def _said_of_process(text: str) -> tuple[str | None, dict[str, object]]:
    facts: dict[str, object]
    if match := _MAIN_PID.search(text):
        facts = {"pid": int(match["pid"])}
        if match["code"]:
            facts["code"] = match["code"]
            status = match["status"]
            if status.split("/")[0].isdecimal():
                facts["status"] = int(status.split("/")[0])
            elif match["code"] != "exited":
                facts["signal"] = status
        return None, facts if match["code"] else {}
    if match := _CORE.search(text):
        facts = {"pid": int(match["pid"]), "comm": match["comm"], "uid": int(match["uid"]), "code": "dumped"}
        if match["signal"]:
            facts.update(signal=match["signal"], status=int(match["number"]))
        return None, facts
    if match := _CORE_SIGNAL.match(text):
        return None, {"signal": match["signal"], "status": int(match["number"]), "code": "dumped"}
    return None, {}


def _mark(passage: Passage, unit: str, facts: dict[str, object], first: int, last: int) -> Mark | None:
    cause = _cause(facts, passage)
    if cause is None and not ({"code", "result"} & facts.keys()):
        return None
    shown = {name: value for name, value in facts.items() if name in (*_AS_SEEN, "reason", "comm", "uid") and value is not None}
    if unit:
        shown["unit"] = unit
    how = facts.get("signal") or facts.get("status") or facts.get("result") or facts.get("reason")
    oom = cause is not None and cause.startswith("oom/")
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="systemd",
            suggests=cause,
            says=f"systemd: {unit or 'a unit'} ended: {how}"
            + (", after a watchdog timeout" if facts.get("reason") == "watchdog" else ""),
            culprit=f"{unit or 'a unit'} ({how})",
            pid=pid if isinstance(pid, int) else None,
            facts=shown,
            excerpt=passage.excerpt(first, last),
        ),
        weight=Weight.HARMLESS
        if cause is None
        else Weight.FATAL
        if oom
        else Weight.STATUS
        if cause == "exit/status"
        else Weight.MONITOR,
        first=first,
        last=last,
        names=f"unit {unit}",
    )


def _cause(facts: dict[str, object], passage: Passage) -> str | None:
    result, code = facts.get("result"), facts.get("code")
    signal = signal_named(str(facts["signal"])) if facts.get("signal") else None
    if facts.get("oom") or result == "oom-kill":
        return (
            "oom/cgroup"
            if "MemoryMax" in passage.text or "memory.max" in passage.text
            else "oom/global"
            if _global(passage)
            else "oom/cgroup"
        )
    if facts.get("reason") == "watchdog" or result == "watchdog":
        return cause_of_signal(signal or "SIGABRT")
    if result == "timeout" or facts.get("reason") == "timeout" or result == "success":
        return None
    if code in ("killed", "dumped") and signal is not None:
        if signal in ("SIGTERM", "SIGKILL") and _STOPPING.search(passage.text) and result is None:
            return None
        return cause_of_signal(signal)
    if code == "exited":
        return None if facts.get("status") == 0 else "exit/status"
    if result == "core-dump":
        return "crash/abort" if signal is None else cause_of_signal(signal)
    return "exit/status" if result in ("exit-code", "start-limit-hit") else None


def _global(passage: Passage) -> bool:
    return passage.has("global_oom", "Out of memory: Kill")
