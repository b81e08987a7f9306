"""Other kernel lines that tell why a program ended or stands still.

Hung tasks (kernel/hung_task.c), soft lockups (kernel/watchdog.c), refused forks (kernel/cgroup/pids.c), refused memory
(mm/util.c), seccomp and abnormal ends in the audit log (kernel/auditsc.c), GPU errors of the NVIDIA driver (Xid; "Xid Errors"
in NVIDIA's GPU deployment documentation), Android's low memory killer.
"""

from collections.abc import Iterable, Iterator

from agentscope.model import Reading, Value
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage, passage_of
from agentscope.readers._words import cause_of_signal, signal_named

KINDS = frozenset({"kmsg", "systemd", "k8s", "docker"})

_HUNG = late(
    r"(?:INFO: )?task (?P<comm>.{1,64}?):(?P<pid>\d{1,10}) blocked (?:in I/O wait )?for more than (?P<seconds>\d{1,9}) seconds"
)
_LOCKUP = late(r"soft lockup - CPU#\d{1,5} stuck for (?P<seconds>\d{1,9})s! \[(?P<comm>.{1,64}):(?P<pid>\d{1,10})\]")
_FORK = late(r"cgroup: fork rejected by pids controller in (?P<cgroup>/\S{0,1000})")
_NO_MEMORY = late(
    r"__vm_enough_memory: pid:? ?(?P<pid>\d{1,10}), comm: (?P<comm>.{1,32}?), (?:bytes: (?P<bytes>\d{1,20}) )?(?:no|not) enough memory"
)
_XID = late(
    r"NVRM: Xid \((?P<device>(?:PCI:)?[0-9A-Fa-f:.]{4,20})\): (?P<xid>\d{1,5}),?(?: pid='?(?P<pid>\d{1,10}|<unknown>)'?,?)?"
    r"(?: name=(?P<comm>[^,]{1,64}),?)?(?P<rest>.{0,300})"
)
_SECCOMP = late(
    r"type=(?:1326|SECCOMP)\b.{0,200}? pid=(?P<pid>\d{1,10}) comm=\"?(?P<comm>[^\"\s]{1,64})\"?.{0,300}? sig=(?P<signal>\d{1,2})\b(?:.{0,80}? syscall=(?P<syscall>\d{1,5}))?"
)
_ABEND = late(
    r"type=(?:1701|ANOM_ABEND)\b.{0,200}? pid=(?P<pid>\d{1,10}) comm=\"?(?P<comm>[^\"\s]{1,64})\"?.{0,300}? sig=(?P<signal>\d{1,2})\b"
)
_LMK = late(
    r"lowmemorykiller: (?:Killing|Kill) '(?P<comm>[^']{1,64})' \((?P<pid>\d{1,10})\)|lowmemorykiller: send sigkill to (?P<pid2>\d{1,10}) "
    r"\((?P<comm2>[^)]{1,64})\)"
)


class XidLine(Value, frozen=True):
    """One error of the NVIDIA driver: `xid` is its number, `says` the rest of the line."""

    device: str
    xid: int
    pid: int | None = None
    comm: str | None = None
    says: str = ""
    line: int = 0


def read_xid_lines(lines: Iterable[str]) -> tuple[XidLine, ...]:
    """Every Xid error in these kernel lines (with or without their prefixes), in their order."""
    return tuple(_xids(passage_of("\n".join(lines))))


def _xids(passage: Passage) -> Iterator[XidLine]:
    for index, text in passage.numbered("NVRM: Xid"):
        if match := _XID.search(text):
            pid = match["pid"]
            yield XidLine(
                device=match["device"],
                xid=int(match["xid"]),
                pid=int(pid) if pid and pid.isdecimal() else None,
                comm=match["comm"],
                says=match["rest"].strip(" ,"),
                line=index,
            )


def read(passage: Passage) -> Iterator[Mark]:
    """Everything above; GPU errors and refused forks end nothing by themselves."""
    for xid in _xids(passage):
        facts = {"xid": xid.xid, "device": xid.device, "pid": xid.pid, "comm": xid.comm}
        yield _mark(
            passage,
            xid.line,
            None,
            says=f"the NVIDIA driver reported Xid {xid.xid} on {xid.device}",
            culprit=xid.device,
            facts=facts,
        )
    for index, text in passage.numbered("blocked for more", "blocked in I/O", "soft lockup"):
        if match := _HUNG.search(text) or _LOCKUP.search(text):
            lockup = "soft lockup" in text
            says = f"{match['comm']} (pid {match['pid']}) was {'stuck' if lockup else 'blocked'} for {match['seconds']} seconds"
            cause = "hang/spin" if lockup else "hang/disk-wait"
            facts = {"pid": int(match["pid"]), "comm": match["comm"], "seconds": int(match["seconds"])}
            yield _mark(passage, index, cause, says=says, culprit=match["comm"], facts=facts, weight=Weight.STATUS)
    for index, text in passage.numbered("fork rejected", "__vm_enough_memory"):
        if match := _FORK.search(text):
            says = f"a fork was refused by the pids limit of {match['cgroup']}"
            yield _mark(passage, index, None, says=says, culprit=match["cgroup"], facts={"memcg": match["cgroup"]})
        elif match := _NO_MEMORY.search(text):
            facts = {"pid": int(match["pid"]), "comm": match["comm"]}
            yield _mark(
                passage, index, None, says=f"the kernel refused {match['comm']} more memory", culprit=match["comm"], facts=facts
            )
    yield from _killed(passage)


def _killed(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("type=", "lowmemorykiller"):
        if match := _SECCOMP.search(text):
            facts: dict[str, object] = {
                "pid": int(match["pid"]),
                "comm": match["comm"],
                "signal": signal_named(match["signal"]),
            }
            if match["syscall"]:
                facts["syscall"] = match["syscall"]
            cause = "crash/seccomp" if match["signal"] == "31" else None
            yield _mark(
                passage,
                index,
                cause,
                says=f"seccomp ended {match['comm']}",
                culprit=match["comm"],
                facts=facts,
                weight=Weight.KILLER,
            )
        elif match := _ABEND.search(text):
            signal = signal_named(match["signal"])
            facts = {"pid": int(match["pid"]), "comm": match["comm"], "signal": signal}
            cause = cause_of_signal(signal or "")
            yield _mark(
                passage,
                index,
                cause,
                says=f"audit: {match['comm']} ended by {signal}",
                culprit=match["comm"],
                facts=facts,
                weight=Weight.MONITOR,
            )
        elif match := _LMK.search(text):
            pid, comm = match["pid"] or match["pid2"], match["comm"] or match["comm2"]
            facts = {"pid": int(pid), "comm": comm}
            says = f"the low memory killer ended {comm}"
            yield _mark(passage, index, "oom/userspace-killer", says=says, culprit=comm, facts=facts, weight=Weight.KILLER)


def _mark(
    passage: Passage,
    index: int,
    cause: str | None,
    *,
    says: str,
    culprit: str,
    facts: dict[str, object],
    weight: Weight = Weight.HARMLESS,
) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="kernel_other",
            suggests=cause,
            says=says,
            culprit=culprit,
            pid=pid if isinstance(pid, int) else None,
            facts={name: value for name, value in facts.items() if value is not None},
            excerpt=passage.excerpt(index, index),
        ),
        weight=weight if cause else Weight.HARMLESS,
        first=index,
        last=index,
        names=f"pid {pid}",
    )
