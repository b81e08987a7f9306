"""Ways to run agentscope with less than the best engine, and what a verdict under them is worth."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from scenario import Ending, Scenario
from zoo import INCIDENT, Outcome

Worth = Literal["right", "undetermined", "wrong"]
TABLE = pytest.StashKey[dict[tuple[str, str], Worth]]()  # by scenario and way
REFUSING = str(Path(__file__).with_name("refusing.py"))
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


class Way(NamedTuple):
    """One engine under the conditions that make it the one. `front` starts agentscope, `of_victim` the victim."""

    name: str
    engine: str
    options: tuple[str, ...]
    front: tuple[str, ...] = ()
    of_victim: tuple[str, ...] = ()


def refused(*calls: str) -> tuple[str, ...]:
    """What starts a command that the kernel refuses these calls."""
    return (sys.executable, REFUSING, ",".join(calls), "--")


WAYS = (
    Way("netlink, bpf() refused", "netlink", (), refused("bpf")),
    Way("netlink, an ordinary user", "netlink", (), NOBODY, NOBODY),
    Way("none, an ordinary user", "none", (), (*NOBODY, *refused("proc-connector")), NOBODY),
    Way("core", "core", ()),
)
OF_HANGS = (WAYS[0], Way("none, root", "none", (), refused("bpf", "proc-connector")), WAYS[3])
BEST_LAST: tuple[Worth, ...] = ("wrong", "undetermined", "right")


def worth_of(outcome: Outcome, scenario: Scenario) -> tuple[Worth, str]:
    """What was made of a scenario: right; honestly undetermined, or only possible with what was not seen; or wrong. And why."""
    incidents = outcome.of_type(INCIDENT)
    told = "; ".join(f"{each['cause']} {each['confidence']} ({each['scope']}): {each['headline'][:110]}" for each in incidents)
    expected = [] if scenario.expect.cause == "none" else [(scenario.expect.cause, scenario.expect.scope)]
    endings = {Ending(code=each["exit"]["code"], signal=each["exit"]["signal"]) for each in incidents}
    if [(each["cause"], each["scope"]) for each in incidents] == expected and endings <= {scenario.ending}:
        return "right", told
    unsure = all(
        each["cause"] == "undetermined" or (each["confidence"] == "possible" and each["missing"]) for each in incidents
    )
    if incidents and unsure:
        return "undetermined", told
    gone = [each["says"] for each in outcome.of_type("agentscope.agent.gone") if each["agent"]["pid"] == outcome.watched]
    unseen = [says for says in gone if "is not known" in says]
    if not incidents and (
        unseen or (scenario.expect.scope == "tool" and outcome.of_type("agentscope.ready")[0]["engine"] == "none")
    ):
        return "undetermined", unseen[0] if unseen else "the tool's end was not seen"
    return "wrong", told or f"no incident; agent.gone says {gone}"


def table_of(worths: Mapping[tuple[str, str], Worth]) -> list[str]:
    """The table, scenario by way, with the sums below it."""
    ways = [way.name for way in dict.fromkeys((*WAYS, *OF_HANGS)) if any(way.name == name for _, name in worths)]
    slugs = sorted({slug for slug, _ in worths})
    width = max(map(len, slugs), default=0)
    lines = [f"{'':{width}}  {'  '.join(ways)}"]
    lines += [
        f"{slug:{width}}  {'  '.join(f'{worths.get((slug, way), chr(45)):{len(way)}}' for way in ways)}" for slug in slugs
    ]
    for worth in ("right", "undetermined", "wrong"):
        counts = (sum(1 for (_, name), found in worths.items() if (name, found) == (way, worth)) for way in ways)
        lines.append(f"{worth:{width}}  {'  '.join(f'{count:<{len(way)}}' for way, count in zip(ways, counts, strict=True))}")
    return lines
