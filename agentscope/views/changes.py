"""Which change broke agents on many hosts: deaths by the same culprit within a window, with its versions, the hosts and when it began."""

import re
from collections import Counter
from dataclasses import dataclass, field

from agentscope.model import IncidentOpened
from agentscope.views import safe
from agentscope.views.table import filled
from agentscope.views.wording import age, clock, count_of

WINDOW_NS = 24 * 3600 * 1_000_000_000
KEPT = 200
HOSTS_SHOWN = 8
# a culprit of a drift: the thing and its versions, then when, by whom and where (agentscope/culprits.py)
CLAUSE = re.compile(r"(.+?)(?: at | between | by |, met at |$)")


@dataclass
class Change:
    """One thing that changed, and whom that broke. Times are on the wall clock (ns)."""

    thing: str
    first_ns: int
    last_ns: int
    clauses: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, int] = field(default_factory=dict)  # each with when it was first seen there
    agents: set[str] = field(default_factory=set)
    deaths: int = 0


class Changes:
    """A pure fold over the incidents of a fleet."""

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self.window_ns = window_ns
        self.found: list[Change] = []

    def apply(self, host: str, wall_ns: int, incident: IncidentOpened) -> None:
        """One incident of a host. Only a drift blames a change."""
        if not incident.cause.startswith("drift/") or not incident.culprit:
            return
        match = CLAUSE.match(incident.culprit)
        clause = match[1] if match else incident.culprit
        thing = clause.split(" ", 1)[0]
        change = next((each for each in self.found if each.thing == thing and self.is_near(each, wall_ns)), None)
        if change is None:
            change = Change(thing, wall_ns, wall_ns)
            self.found.append(change)
            del self.found[:-KEPT]
        change.first_ns, change.last_ns = min(change.first_ns, wall_ns), max(change.last_ns, wall_ns)
        change.clauses[clause] += 1
        change.causes[incident.cause] += 1
        change.hosts[host] = min(wall_ns, change.hosts.get(host, wall_ns))
        change.agents.add(incident.agent.name)
        change.deaths += 1

    def is_near(self, change: Change, wall_ns: int) -> bool:
        """Whether a death belongs to a change's others: it is no further from them than the window."""
        return change.first_ns - self.window_ns <= wall_ns <= change.last_ns + self.window_ns

    def ranked(self) -> list[Change]:
        """Those on most hosts first, then the latest."""
        return sorted(self.found, key=lambda change: (-len(change.hosts), -change.last_ns))


def render_changes(changes: Changes, width: int, now_ns: int) -> str:
    """Each change with its versions, its hosts in the order in which it came to them, and since when."""
    lines = ["CHANGES THAT BROKE AGENTS, on most hosts first"]
    ranked = changes.ranked()
    if not ranked:
        lines += filled("none: no agent of the fleet died of a library or package that changed", width, "  ", "  ")
    for change in ranked:
        hosts = sorted(change.hosts, key=lambda host: change.hosts[host])
        named = ", ".join(safe(host, 60) for host in hosts[:HOSTS_SHOWN])
        more = f" and {len(hosts) - HOSTS_SHOWN} more" if len(hosts) > HOSTS_SHOWN else ""
        many = f"{count_of(len(hosts), 'host')}, {count_of(change.deaths, 'death')}"
        causes = ", ".join(safe(cause, 40) for cause, _ in change.causes.most_common(3))
        lines += filled(f"{safe(change.thing, 80)}  {many}  ({causes})", width, "  ", "    ")
        for clause, count in change.clauses.most_common(5):
            lines += filled(
                f"{safe(clause, 200)}{f' ({count} deaths)' if len(change.clauses) > 1 else ''}", width, "    ", "      "
            )
        ago = f", {age(now_ns - change.first_ns)} ago" if now_ns > change.first_ns else ""
        lines += filled(
            f"first seen {clock(change.first_ns)} on {safe(hosts[0], 60)}{ago}; hosts: {named}{more}", width, "    ", "      "
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"
