"""The stream as version 1 promised it: frozen lines that every later version reads, and a schema that never asks for more than they have."""

import hashlib
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from agentscope import record
from agentscope.replaying import judged_again

FROZEN = Path(__file__).resolve().parent.parent / "fixtures" / "stream-v1" / "lines.ndjson"
SHA256 = "b0896132c61aac74030ce2f20edee4d67d0cf5ec7e764d1a3b1513817974473c"
LINES = FROZEN.read_bytes().splitlines()
SCHEMA = json.loads((Path(record.__file__).parent / "stream.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def within(old: object, new: object) -> bool:
    """Whether everything that was said is still said: a newer version may only add."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and within(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(within, old, new))
    return old == new


def test_the_samples_are_frozen():
    """They are as they were released: whoever changes the model adds lines to another file, and never edits these."""
    assert hashlib.sha256(FROZEN.read_bytes()).hexdigest() == SHA256


def test_every_type_of_version_1_is_among_them():
    """Each type of the public stream has a sample."""
    types = {json.loads(line)["type"] for line in LINES}
    assert types == set(record.EVENT_TYPES) - {"agentscope.kernel.line"}


@pytest.mark.parametrize("number", range(len(LINES)), ids=lambda number: f"{number}-{json.loads(LINES[number])['type'][11:]}")
def test_a_frozen_line_is_read(number):
    """It is read, nothing of it is lost when it is written again, and it keeps the schema of today."""
    envelope = record.decode(LINES[number])
    again = json.loads(record.encode_again(envelope))
    assert within(json.loads(LINES[number]), again)
    assert msgspec.json.decode(record.encode_again(envelope)) == again
    VALIDATOR.validate(json.loads(LINES[number]))
    VALIDATOR.validate(again)


def test_frozen_incidents_are_judged_again():
    """They are a recording that `replay` takes without a complaint."""
    text, problems = judged_again(str(FROZEN), as_json=True)
    assert problems == []
    incidents = sum(json.loads(line)["type"] == "agentscope.incident.opened" for line in LINES)
    assert sum(json.loads(line)["type"] == "agentscope.incident.opened" for line in text.splitlines()) == incidents


def test_the_schema_refuses_what_is_none():
    """The schema is not so wide that it says yes to anything."""
    line = json.loads(LINES[0])
    for broken in (
        {**line, "type": "agentscope.unknown"},
        {**line, "data": {}},
        {**line, "more": 1},
        {**line, "sequence": "x"},
    ):
        assert not VALIDATOR.is_valid(broken)
