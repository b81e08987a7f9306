"""Processes that kill others to save memory: earlyoom, systemd-oomd, nohang, Facebook's oomd, Ray's memory monitor.

Sources: kill.c of earlyoom, src/oom/oomd-manager.c of systemd, nohang's log, ray/src/ray/raylet/worker_killing_policy.cc, dask's
nanny. Their victim gets a SIGTERM or SIGKILL like any other; only these lines tell why.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"kmsg", "systemd", "k8s", "docker", "stderr"})
_WORDS = (
    *(
        "IGTERM",
        "IGKILL",
        "Killing process",
        "Killed /",
        "systemd-oomd killed",
        "low on memory",
        "memory pressure",
        "memory budget",
    ),
    *("orrective action", "Victim"),
)
_EARLYOOM = late(
    r"(?:sending |[Ss]ending )(?P<signal>SIG(?:TERM|KILL)) to process (?P<pid>\d{1,10})(?: uid (?P<uid>\d{1,10}))? \"(?P<comm>[^\"\n]{1,64})\": "
    r"(?:oom_score|badness) (?P<score>\d{1,6})(?:[^\n]{0,40}?VmRSS (?P<rss>\d{1,12}) MiB)?"
)
_EARLYOOM_OLD = late(r"Killing process (?P<pid>\d{1,10}) (?P<comm>[^\s\n]{1,64})(?:, | )(?:badness|oom_score|because)")
_OOMD = late(
    r"Killed (?P<memcg>/\S{1,1000}) due to (?P<reason>memory (?:pressure|used)[^\n]{0,300}|swap used[^\n]{0,200}|total swap[^\n]{0,200})"
)
_OOMD_UNIT = late(
    r"(?:(?P<unit>[\w@.:\\-]{1,255}\.(?:service|scope|slice)): )?systemd-oomd killed (?:some |(?P<count>\d{1,6}) )process\(?e?s?\)?"
)
_NOHANG = late(
    r"(?:Implementing a corrective action|Sending (?P<signal>SIG(?:TERM|KILL)) to the victim|Victim (?:died|status)).{0,200}?(?:pid|PID)[ :=]{1,3}(?P<pid>\d{1,10})"
)
_RAY = late(
    r"(?P<reason>(?:Task was killed due to the node running low on memory|worker\(s\) were killed due to memory pressure|Workers \(tasks / actors\) killed due to memory pressure))"
)
_DASK = late(r"(?:Worker (?P<name>\S{1,200}) )?(?:\(pid=(?P<pid>\d{1,10})\) )?exceeded 9\d% memory budget\. Restarting")


def read(passage: Passage) -> Iterator[Mark]:
    """Everyone whom such a process ended; what a process prints itself is believed only of Ray and dask, which live in it."""
    for index, text in passage.numbered(*_WORDS):
        found = _of_a_library(text)
        if found is None and passage.kind != "stderr":
            found = _of_a_daemon(text, passage)
        if found is None:
            continue
        culprit, facts = found
        pid = facts.get("pid")
        yield Mark(
            reading=Reading(
                reader="oom_daemons",
                suggests="oom/userspace-killer",
                says=f"a memory daemon ended it: {text.strip()[:300]}",
                culprit=culprit,
                pid=pid if isinstance(pid, int) else None,
                facts=facts,
                excerpt=passage.excerpt(index, index + 1),
            ),
            weight=Weight.KILLER,
            first=index,
            last=index,
            names=f"pid {pid}" if pid else "oom daemon",
        )


def _of_a_library(text: str) -> tuple[str, dict[str, object]] | None:
    if match := _RAY.search(text):
        return "Ray's memory monitor", {"sender": "ray", "reason": match["reason"]}
    if _DASK.search(text):
        return "dask's memory limit of a worker", {"sender": "dask nanny"}
    return None


def _of_a_daemon(text: str, passage: Passage) -> tuple[str, dict[str, object]] | None:
    if match := _EARLYOOM.search(text):
        facts: dict[str, object] = {
            "pid": int(match["pid"]),
            "comm": match["comm"],
            "sender": "earlyoom",
            "signal": match["signal"],
        }
        facts.update((name, int(match[name])) for name in ("uid", "score") if match[name])
        return f"earlyoom ended {match['comm']}", facts
    if passage.has("earlyoom") and (match := _EARLYOOM_OLD.search(text)):
        return f"earlyoom ended {match['comm']}", {"pid": int(match["pid"]), "comm": match["comm"], "sender": "earlyoom"}
    if match := _OOMD.search(text):
        facts = {"memcg": match["memcg"], "reason": match["reason"], "sender": "systemd-oomd"}
        return f"systemd-oomd: {match['reason']}", facts
    if match := _OOMD_UNIT.search(text):
        return "systemd-oomd", {"sender": "systemd-oomd", **({"unit": match["unit"]} if match["unit"] else {})}
    if match := _NOHANG.search(text):
        return "nohang", {"pid": int(match["pid"]), "sender": "nohang"}
    return None
