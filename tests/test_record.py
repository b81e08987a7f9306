"""The record's one format: envelope, redaction, reading back."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscope import record
from agentscope.errors import BadInput
from agentscope.model import Fault, KernelLine, Lost, SignalSent

from .samples import night

SCHEMA = Path(record.__file__).parent / "stream.schema.json"


def recorder():
    return record.Recorder("b" * 36, 10**18, host="host")


def test_reading_a_line_and_writing_it_again_changes_nothing():
    """A line that is read and written again is the same line: replay loses nothing."""
    first, second = recorder(), recorder()
    for event in night():
        line = first.encode(event)
        assert second.encode(record.decode(line).data) == line


def test_every_line_keeps_the_published_schema():
    """Each line validates against the JSON Schema that the package ships."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    encode = recorder()
    for event in night():
        validator.validate(json.loads(encode.encode(event)))


def test_the_shipped_schema_is_the_types_own():
    """The schema in the package is generated from the types; write it anew with `make schema`."""
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(record.schema()))


def test_sequence_numbers_rise_and_sort_as_text():
    """Sequence numbers are consecutive, and their text sorts like the numbers."""
    encode = recorder()
    found = [json.loads(encode.encode(Lost(at_ns=1, source="x", count=1)))["sequence"] for _ in range(12)]
    assert found == sorted(found)
    assert [int(number) for number in found] == list(range(1, 13))


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-REDACTED",
        "sk-proj-abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_what_looks_like_a_secret_never_leaves(secret):
    """A key in any text field is redacted before the line exists."""
    event = Lost(at_ns=1, source="x", count=1, says=f"the agent said {secret} and died")
    line = recorder().encode(event)
    assert secret.encode() not in line
    assert b"and died" in line


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgres://bob:hunter22@db:5432/x", "postgres://"),
        ("OPENAI_API_KEY=hunter2222", "OPENAI_API_KEY="),
        ("Authorization: Bearer abcdefghijklmnop", "Bearer "),
        ("--password hunter2222 --verbose", "--verbose"),
    ],
)
def test_a_password_goes_and_its_name_stays(text, kept):
    """A named secret loses its value and keeps its name, so that the line still tells something."""
    redacted = record.redact(text)
    assert "hunter2" not in redacted
    assert "abcdefghijklmnop" not in redacted
    assert kept in redacted


def test_ordinary_words_are_not_secrets():
    """Text without a secret comes through unchanged."""
    text = 'File "/srv/agent.py", line 12, in step: task-skeleton tokens=12 monkey risk-averse-and-long-winded-word'
    assert record.redact(text) == text


def test_raw_memory_and_kernel_lines_never_leave():
    """A fault's raw stack is dropped, and lines of the kernel log are no lines of the stream."""
    fault = Fault(
        at_ns=1,
        signal=11,
        code=1,
        address=0,
        pid=1,
        tid=1,
        start_ns=1,
        comm="x",
        handler="default",
        registers={16: 1},
        stack=b"secret-bytes",
    )
    assert record.decode(recorder().encode(fault)).data.stack is None
    assert recorder().encode(KernelLine(at_ns=1, seq=1, priority=6, text="x")) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"not json", "JSON"),
        (b"{}", "missing required field"),
        (b'{"specversion":"1.0","id":"1","source":"x","type":"agentscope.nonsense","data":{}}', "agentscope.nonsense"),
        (b'{"specversion":"1.0","id":"1","source":"x","type":"agentscope.lost","data":{"at_ns":"no"}}', "at_ns"),
        (b"\xff\xfe{}", ""),
        (b'{"a":' * 2000, ""),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(line, why):
    """Every kind of broken line raises BadInput with its own reason."""
    with pytest.raises(BadInput) as raised:
        record.decode(line)
    assert why in str(raised.value)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_fail_otherwise(line):
    """Any bytes are either a line or a BadInput."""
    try:
        record.decode(line)
    except BadInput:
        return


def test_hostile_text_survives_the_envelope():
    """Control sequences in a name are escaped by JSON, not lost and not raw."""
    event = SignalSent(
        at_ns=1, signal=9, code=0, group=True, result=0, pid=1, tid=1, start_ns=1, comm="\x1b[2J\n", handler="default", sender_pid=1,
        sender_tid=1, sender_start_ns=1, sender_comm="\u202e", sender_uid=0,
    )  # fmt: skip
    line = recorder().encode(event)
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert record.decode(line).data == event
