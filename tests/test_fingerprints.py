"""Fingerprints: the same death has the same one in every life, another death another; and loops are said in words."""

import msgspec
import pytest

from agentscope.fingerprints import fingerprint, loop_of, loop_words, plain, span_words
from tests.recovery_builders import incident, record

FRAMES = [
    {"function": "load", "file": "/app/researcher.py", "line": 14},
    {"function": "main", "file": "/app/researcher.py", "line": 40},
]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError at 0x7f3a2c at pid 4242", "KeyError at 0x55d1f0 at pid 4711"),
        ("no such file /tmp/tmpab12/x.sock", "no such file /tmp/tmpzz99/y.sock"),
        ("connect to 10.0.0.1:44312 refused", "connect to 10.0.0.7:51234 refused"),
        ("session 8d3f0b52-0a5c-4a57-9a46-0c2c4a5f9a11", "session 01b9d2a4-1111-4222-8333-944445555666"),
        ("the 12 MiB limit of /agents/run-17", "the 12 MiB limit of /agents/run-18"),
        ("/proc/4242/maps", "/proc/17/maps"),
        ("object 5f2a9c0d1e3b4a69", "object 00ffaa1122334455"),
    ],
)
def test_what_differs_from_life_to_life_is_left_out(one, other):
    """Pids, addresses, ports, temporary files and identifiers do not make another death."""
    assert plain(one) == plain(other)
    assert fingerprint(incident(culprit=one, pid=1, mark="a")) == fingerprint(incident(culprit=other, pid=2, mark="b"))


def test_what_tells_deaths_apart():
    """Another cause, culprit, ending or stack is another death; another line in the same function is not."""
    stack = record("python-stack", frames=FRAMES)
    moved = record("python-stack", frames=[{**FRAMES[0], "line": 15}, FRAMES[1]])
    other = record("python-stack", frames=[{**FRAMES[0], "function": "save"}, FRAMES[1]])
    first = fingerprint(incident(evidence=(stack,)))
    assert first == fingerprint(incident(evidence=(moved,)))
    others = [
        fingerprint(incident(evidence=(other,))),
        fingerprint(incident(evidence=())),
        fingerprint(incident(culprit="ValueError at researcher.py", evidence=(stack,))),
        fingerprint(incident(cause="exception/network", evidence=(stack,))),
        fingerprint(incident(code=2, evidence=(stack,))),
    ]
    assert len({first, *others}) == 6


def test_a_native_frame_without_a_symbol_counts_by_its_place_in_the_file():
    """Where a library is mapped differs in every life, the offset in its file does not."""
    frames = [{"module": "/usr/lib/libssl.so.3", "offset": 0x1234, "symbol": None}]
    one = fingerprint(incident("crash/segfault", evidence=(record("native-stack", frames=frames),)))
    symbol = [{"module": "/usr/lib/libssl.so.3", "offset": 0x1234, "symbol": "SSL_read+0x10"}]
    moved = [{"module": "/usr/lib/libssl.so.3", "offset": 0x1239, "symbol": "SSL_read+0x15"}]
    assert one != fingerprint(incident("crash/segfault", evidence=()))
    named = {
        fingerprint(incident("crash/segfault", evidence=(record("native-stack", frames=each),))) for each in (symbol, moved)
    }
    assert len(named) == 1


@pytest.mark.parametrize("frames", [None, "x", [1, 2], [{}], [{"function": 7, "file": None}]])
def test_evidence_of_another_version_is_no_error(frames):
    """Whatever a record holds in the place of frames, there is a fingerprint."""
    assert len(fingerprint(incident(evidence=(record("python-stack", frames=frames),)))) == 8


def test_hostile_text_is_read_in_no_time():
    """A culprit of a megabyte, made to be slow to match, takes milliseconds and gives a fingerprint."""
    import time

    began = time.monotonic()
    for text in ("1.1." * 300_000, "/tmp/" * 200_000, "a" * 1_000_000, "0x" * 500_000):
        fingerprint(incident(culprit=text))
    assert time.monotonic() - began < 0.5


def test_a_fingerprint_survives_the_record():
    """Read back from the ledger, an incident has the fingerprint that it had."""
    opened = incident(evidence=(record("python-stack", frames=FRAMES),))
    again = msgspec.json.decode(msgspec.json.encode(opened), type=type(opened))
    assert fingerprint(again) == fingerprint(opened)


@pytest.mark.parametrize(
    ("deaths", "says"),
    [
        ([(0, "a")], ""),
        ([(0, "a"), (60, "b")], ""),
        ([(0, "a"), (180, "a"), (360, "a"), (540, "a")], "same death 4 times in 9 minutes"),
        ([(0, "b"), (100, "a"), (130, "a")], "same death 2 times in 30 seconds"),
        ([(n * 60, "ab"[n % 2]) for n in range(6)], "two deaths in turn, 6 in 5 minutes"),
        ([(n * 39600, "a") for n in range(4)], "the same death about every 11 hours, 4 times by now"),
        ([(n * 39600 + (-1) ** n * 900, "a") for n in range(5)], "the same death about every 11 hours, 5 times by now"),
        ([(n * 43200, "ab"[n % 2]) for n in range(6)], "the same two deaths in turn about every 24 hours, 6 times by now"),
        ([(0, "a"), (9 * 86400, "a")], ""),
        ([(0, "a"), (9 * 86400, "a"), (9 * 86400 + 60, "a")], "same death 2 times in 1 minute"),
        ([(0, "a"), (60, "a"), (90, "b")], ""),
        ([(0, "a"), (4000, "a"), (30000, "a")], "same death 3 times in 8 hours"),
    ],
)
def test_loops_are_said_as_a_person_would(deaths, says):
    """Fast loops by their count and span, slow ones by their period, two causes in turn together; what is no loop is not said."""
    assert loop_words(loop_of(deaths)) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (540, "9 minutes"),
        (3600, "1 hour"),
        (86400, "24 hours"),
        (3 * 86400, "3 days"),
    ],
)
def test_spans(seconds, says):
    """A span is said in the unit in which a person would count it."""
    assert span_words(seconds) == says
