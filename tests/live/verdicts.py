"""Compares what agentscope said with what a scenario declares; every difference is one sentence."""

import json
import signal
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from scenario import Ending, Scenario, fill_all
from zoo import INCIDENT, SCHEMA, Outcome

UNREMARKABLE = {"SIGCHLD", "SIGCONT", "SIGWINCH", "SIGURG", "SIGALRM"}


@cache
def validator() -> Any:
    """The validator of the stream, or None until the schema is there."""
    import jsonschema

    if not SCHEMA.exists():
        return None
    schema = json.loads(SCHEMA.read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def stream_faults(outcome: Outcome) -> Iterator[str]:
    """What is wrong with the stream itself, whatever it says."""
    if outcome.status != 0:
        yield f"agentscope exited with {outcome.status} after SIGINT, not 0: {outcome.stderr}"
    if outcome.stderr.strip():
        yield f"agentscope said on stderr: {outcome.stderr}"
    if not outcome.events or outcome.events[0]["type"] != "agentscope.ready":
        yield f"the first line is no agentscope.ready: {outcome.lines[:1]}"
    if lost := outcome.of_type("agentscope.lost"):
        yield f"events were lost: {lost}"
    sequence = [int(event.get("sequence", -1)) for event in outcome.events]
    if any(b <= a for a, b in pairwise(sequence)):
        yield f"the sequence does not rise: {sequence}"
    check = validator()
    for line, event in zip(outcome.lines, outcome.events, strict=True):
        if event["type"] is None:
            yield f"a line is no event: {line[:300]!r}"
        elif check is not None:
            yield from (f"{event['type']} breaks the schema: {error.message[:300]}" for error in check.iter_errors(event))


def ending_faults(outcome: Outcome, scenario: Scenario) -> Iterator[str]:
    """Whether the program really ended as declared."""
    if outcome.ended != scenario.expect.wait:
        yield f"waitpid said {outcome.ended}, declared is {scenario.expect.wait}"
    if outcome.mirrored is not None and outcome.mirrored != scenario.ending:
        yield f"the process inside ended with {outcome.mirrored}, declared is {scenario.ending}"


def verdict_faults(outcome: Outcome, scenario: Scenario) -> Iterator[str]:
    """Whether the right thing was said, once, and nothing else."""
    incidents = outcome.of_type(INCIDENT)
    wanted = 0 if scenario.expect.cause == "none" else 1
    if len(incidents) != wanted:
        told = [f"{i['cause']} (scope {i['scope']}, {i['process']['comm']}, {i['exit']}): {i['headline']}" for i in incidents]
        yield f"{len(incidents)} incidents, expected {wanted} ({scenario.expect.cause}): {told}"
    for incident in incidents if wanted else []:
        yield from incident_faults(incident, scenario, outcome)
    yield from gone_faults(outcome, scenario, incidents)


def incident_faults(incident: dict[str, Any], scenario: Scenario, outcome: Outcome) -> Iterator[str]:
    """Whether one incident says what is declared."""
    expect, actor = scenario.expect, incident.get("actor") or {}
    slug = incident["cause"]
    if slug != expect.cause:
        findings = [f"{finding['cause']} {finding['confidence']}" for finding in incident.get("findings", [])]
        yield f"cause {slug!r}, expected {expect.cause!r}; headline {incident['headline']!r}; findings {findings}"
    if incident["scope"] != expect.scope:
        yield f"scope {incident['scope']!r}, expected {expect.scope!r}"
    said = Ending(code=incident["exit"]["code"], signal=incident["exit"]["signal"])
    if said != scenario.ending:
        yield f"exit {said}, expected {scenario.ending}"
    if expect.actor is not None:
        if expect.actor.kind is not None and actor.get("kind") != expect.actor.kind:
            yield f"actor {actor}, expected kind {expect.actor.kind!r}"
        if expect.actor.comm is not None and not str(actor.get("comm")).startswith(expect.actor.comm):
            yield f"actor {actor}, expected comm {expect.actor.comm!r}"
    names = scenario.names(pid=str(outcome.pid))
    for field, parts in (("culprit", expect.culprit_contains), ("headline", expect.headline_contains)):
        for part in fill_all(parts, names):
            if part not in incident[field]:
                yield f"{field} {incident[field]!r} does not contain {part!r}"
    whole = json.dumps(incident, ensure_ascii=False)
    for part in fill_all(expect.proof_contains, names):
        if part not in whole:
            yield f"{part!r} is nowhere in the incident: {[e['says'] for e in incident['evidence']]}"


def gone_faults(outcome: Outcome, scenario: Scenario, incidents: list[dict[str, Any]]) -> Iterator[str]:
    """Whether the watched agent's end was told, with its incident where there was one."""
    gone = [event for event in outcome.of_type("agentscope.agent.gone") if event["agent"]["pid"] == outcome.watched]
    if len(gone) != 1:
        yield f"agent.gone came {len(gone)} times for pid {outcome.watched}"
    elif scenario.expect.cause != "none" and scenario.expect.scope == "agent":
        if incidents and gone[0].get("incident") != incidents[0]["incident"]:
            yield f"agent.gone names incident {gone[0].get('incident')!r}, opened was {incidents[0]['incident']!r}"
    elif gone[0].get("incident") is not None:
        yield f"agent.gone names an incident though the agent ended well: {gone[0]['incident']!r}"


def signal_name(number: int | str) -> str:
    """The name of a signal, whichever way the stream writes it."""
    return number if isinstance(number, str) else signal.Signals(number).name


def truth_faults(outcome: Outcome, scenario: Scenario) -> Iterator[str]:
    """Whether the signals of the row were seen for the process that ended, in that order and no others."""
    assert scenario.truth is not None
    pid = next((incident["process"]["pid"] for incident in outcome.of_type(INCIDENT)), outcome.pid)
    seen = [event for event in outcome.of_type("agentscope.signal.sent") if event["pid"] == pid and event["result"] == 0]
    seen = [event for event in seen if signal_name(event["signal"]) not in UNREMARKABLE]
    told = [(signal_name(event["signal"]), event["code"], event["group"], event["sender_comm"]) for event in seen]
    if len(seen) != len(scenario.truth.signals):
        yield f"signals {told}, the row has {scenario.truth.signals}"
        return
    for event, row in zip(seen, scenario.truth.signals, strict=True):
        sender = "self" if event["sender_pid"] == pid else event["sender_comm"]
        right = (signal_name(event["signal"]), event["code"]) == (row.signal, row.code) and row.group in {None, event["group"]}
        if not right or not (row.sender is None or sender.startswith(row.sender)):
            yield f"signals {told}, the row has {row}"
    victims = [event for event in outcome.of_type("agentscope.oom.victim") if event["pid"] == pid]
    if bool(victims) != scenario.truth.oom_victim:
        yield f"oom.victim came {len(victims)} times, the row says {scenario.truth.oom_victim}"
