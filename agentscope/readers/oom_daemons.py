"""Processes that kill others to save memory: earlyoom, systemd-oomd, nohang, Facebook's oomd, Ray's memory monitor.

Sources: kill.c of earlyoom, src/oom/oomd-manager.c of systemd, nohang's log, ray/src/ray/raylet/worker_killing_policy.cc, dask's
nanny. Their victim gets a SIGTERM or SIGKILL like any other; only these lines tell why.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage

KINDS = frozenset({"kmsg", "systemd", "k8s", "docker", "stderr"})
_EARLYOOM = re.compile(
    r"(?:sending |[Ss]ending )(?P<signal>SIG(?:TERM|KILL)) to process (?P<pid>\d{1,10})(?: uid (?P<uid>\d{1,10}))? \"(?P<comm>[^\"\n]{1,64})\": "
    r"(?:oom_score|badness) (?P<score>\d{1,6})(?:[^\n]{0,40}?VmRSS (?P<rss>\d{1,12}) MiB)?"
)
_EARLYOOM_OLD = re.compile(r"Killing process (?P<pid>\d{1,10}) (?P<comm>[^\s\n]{1,64})(?:, | )(?:badness|oom_score|because)")
_OOMD = re.compile(
    r"Killed (?P<memcg>/\S{1,1000}) due to (?P<reason>memory (?:pressure|used)[^\n]{0,300}|swap used[^\n]{0,200}|total swap[^\n]{0,200})"
)
_OOMD_UNIT = re.compile(
    r"(?:(?P<unit>[\w@.:\\-]{1,255}\.(?:service|scope|slice)): )?systemd-oomd killed (?:some |(?P<count>\d{1,6}) )process\(?e?s?\)?"
)
_NOHANG = re.compile(
    r"(?:Implementing a corrective action|Sending (?P<signal>SIG(?:TERM|KILL)) to the victim|Victim (?:died|status)).{0,200}?(?:pid|PID)[ :=]{1,3}(?P<pid>\d{1,10})"
)
_RAY = re.compile(
    r"(?P<reason>(?:Task was killed due to the node running low on memory|worker\(s\) were killed due to memory pressure|Workers \(tasks / actors\) killed due to memory pressure))"
)
_DASK = re.compile(r"(?:Worker (?P<name>\S{1,200}) )?(?:\(pid=(?P<pid>\d{1,10})\) )?exceeded 9\d% memory budget\. Restarting")


def read(passage: Passage) -> Iterator[Mark]:
    """Everyone whom such a process ended."""
    trusted = passage.kind != "stderr"
    for index, text in passage.numbered(
        "IGTERM",
        "IGKILL",
        "Killing process",
        "Killed /",
        "systemd-oomd killed",
        "low on memory",
        "memory pressure",
        "memory budget",
    ):
        facts: dict[str, object] = {}
        culprit: str | None = None
        if trusted and (match := _EARLYOOM.search(text) or (_EARLYOOM_OLD.search(text) if passage.has("earlyoom") else None)):
            fields = match.groupdict()
            facts = {"pid": int(fields["pid"]), "comm": fields["comm"], "sender": "earlyoom"}
            for name, kind in (("uid", int), ("score", int), ("signal", str)):
                if fields.get(name):
                    facts[name] = kind(fields[name])
            culprit = f"earlyoom ended {fields['comm']}"
        elif trusted and (match := _OOMD.search(text)):
            facts = {"memcg": match["memcg"], "reason": match["reason"], "sender": "systemd-oomd"}
            culprit = f"systemd-oomd: {match['reason']}"
        elif trusted and (match := _OOMD_UNIT.search(text)):
            facts = {"sender": "systemd-oomd"}
            if match["unit"]:
                facts["unit"] = match["unit"]
            culprit = "systemd-oomd"
        elif trusted and (match := _NOHANG.search(text)):
            facts = {"pid": int(match["pid"]), "sender": "nohang"}
            culprit = "nohang"
        elif match := _RAY.search(text):
            facts, culprit = {"sender": "ray", "reason": match["reason"]}, "Ray's memory monitor"
        elif match := _DASK.search(text):
            facts, culprit = {"sender": "dask nanny"}, "dask's memory limit of a worker"
        if culprit is None:
            continue
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
