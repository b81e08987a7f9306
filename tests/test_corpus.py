"""The score of the readers on words from the wild: `../shared/corpus` beside the checkout (or $AGENTSCOPE_CORPUS)."""

import json
import os
from pathlib import Path

import pytest

from agentscope.readers import diagnose_text

CORPUS = Path(os.environ.get("AGENTSCOPE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus")) / "lastwords.jsonl"
NOT_FACTS = {"killed", "not"}


@pytest.fixture(scope="module")
def samples() -> list[dict]:
    """Every sample of the corpus."""
    if not CORPUS.is_file():
        pytest.skip(f"the corpus of last words is not at {CORPUS}: it is kept outside the project (set AGENTSCOPE_CORPUS)")
    return [json.loads(line) for line in CORPUS.read_text().splitlines()]


def answer(sample: dict) -> dict | None:
    findings = diagnose_text(sample["text"])["findings"]
    return findings[0] if findings else None


def accepted(sample: dict) -> set[str | None]:
    return {sample["cause"], *(None if other == "none" else other for other in sample["also_accept"])}


def family(cause: str | None) -> str | None:
    return cause and cause.split("/")[0]


def test_names_the_right_cause(samples):
    """At least 95 % of the classes and 90 % of the full causes are right."""
    classes = names = 0
    wrong = []
    for sample in samples:
        finding = answer(sample)
        cause = finding["cause"] if finding else None
        classes += family(cause) in {family(other) for other in accepted(sample)}
        names += cause in accepted(sample)
        if cause not in accepted(sample):
            wrong.append(f"{sample['id']}: {cause} instead of {sample['cause']}")
    print(f"classes {classes}/{len(samples)}, causes {names}/{len(samples)}; wrong: {wrong}")
    assert classes >= 0.95 * len(samples), wrong
    assert names >= 0.90 * len(samples), wrong


def test_raises_no_false_alarm(samples):
    """A text after which nothing ended gives no finding."""
    alarms = [
        f"{sample['id']}: {finding['cause']}"
        for sample in samples
        if sample["cause"] is None and (finding := answer(sample)) is not None and finding["cause"] not in accepted(sample)
    ]
    assert alarms == []


def test_takes_the_facts_out(samples):
    """At least 95 % of the facts that a person would read off are there, under their names."""
    right = asked = 0
    wrong = []
    for sample in samples:
        finding = answer(sample)
        if finding is None:
            continue
        for name, value in sample["expect"].items():
            if name in NOT_FACTS:
                continue
            asked += 1
            if finding["facts"].get(name) == value:
                right += 1
            else:
                wrong.append(f"{sample['id']} {name}: {finding['facts'].get(name)!r} instead of {value!r}")
    print(f"facts {right}/{asked}; wrong: {wrong}")
    assert right >= 0.95 * asked, wrong
