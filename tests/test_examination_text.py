"""Hostile and odd text of /proc: names, stat lines, locks, mounts, calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscope.examination.cgroups import parse_membership
from agentscope.examination.descriptors import numbered_inode
from agentscope.examination.file_locks import parse_locks
from agentscope.examination.mounts import parse_mountinfo
from agentscope.examination.proc import parse_stat, plain, status_field
from agentscope.examination.threads import parse_syscall
from agentscope.model import LastSyscall

STAT = b"77 (%b) S 5 77 77 0 -1 4194368 3 0 0 0 250 30 0 0 20 0 1 0 12345 1000 20 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"


@pytest.mark.parametrize("name", [b"a", b"x) R 1 (y", b"))", b"", b"new\nline", b"\x1b[31mred", b"\xff\xfe"])
def test_a_stat_line_of_any_name(name):
    """The fields after a name are right whatever the name holds; the name is one clean line."""
    stat = parse_stat(STAT % name)
    assert (stat.state, stat.ppid, stat.user_ns, stat.system_ns) == ("S", 5, 2_500_000_000, 300_000_000)
    assert stat.start_ns == 123_450_000_000
    assert stat.comm.isprintable()


@pytest.mark.parametrize("line", [b"", b"77 (a) S 5", b"no parenthesis", b"77 (a) S x " + b"y " * 40])
def test_a_stat_line_that_is_none(line):
    """What is no stat line is None."""
    assert parse_stat(line) is None


@given(st.binary(max_size=300))
def test_shown_text_is_one_clean_line(raw):
    """Any bytes become one printable line that is valid Unicode, not longer than asked."""
    text = plain(raw, 40)
    assert len(text) <= 40
    assert all(char.isprintable() or char in "\u00a0\ufffd" or not char.isascii() for char in text)
    assert not {"\n", "\r", "\t", "\x1b", "\x00", "\u202e"} & set(text)
    assert text.encode().decode() == text


def test_a_lone_surrogate_is_replaced():
    """A file name that is no UTF-8, as the system gives it, becomes text that can be written out."""
    assert plain("caf\udce9").encode() == b"caf?"


def test_a_field_of_status():
    """A field is found by its whole name at the start of a line only."""
    text = b"Name:\tUid: 7\nXUid:\t8\nUid:\t1000\t1000\nTracerPid:\t0\n"
    assert (status_field(text, b"Uid"), status_field(text, b"Name"), status_field(text, b"TracerPid")) == (
        b"1000\t1000",
        b"Uid: 7",
        b"0",
    )
    assert status_field(text, b"Gid") is None
    assert status_field(b"", b"Uid") is None
    assert status_field(b"Uid:", b"Uid") == b""


@pytest.mark.parametrize(
    ("target", "inode"),
    [
        ("socket:[123]", 123),
        ("pipe:[9]", 9),
        ("/socket:[1]", None),
        ("anon_inode:[eventfd]", None),
        ("net:[4026531840]", None),
        ("socket:[]", None),
        ("socket:[-1]", None),
        ("pipe:", None),
        ("", None),
    ],
)
def test_the_inode_in_a_link(target, inode):
    """Only sockets and pipes carry their inode in the link; nothing else is taken for one, and nothing fails."""
    assert numbered_inode(target) == inode


LOCKS = b"""1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF
1: -> POSIX  ADVISORY  WRITE 1235 08:01:5678 0 EOF
1:  -> POSIX  ADVISORY  READ 1236 08:01:5678 0 EOF
2: OFDLCK ADVISORY  READ -1 fd:1f:99 0 EOF
3: FLOCK  ADVISORY  WRITE 7 00:2b:18446744073709551615 0 EOF
4: LEASE  BREAKING  READ 8 08:01:4 0 EOF
lock:\t5: FLOCK  ADVISORY  WRITE 9 08:01:4 0 EOF
6: POSIX  ADVISORY
7: POSIX  ADVISORY  WRITE x 08:01:4 0 EOF
8: POSIX  ADVISORY  WRITE 5 08:01 0 EOF
9: ACCESS ADVISORY  READ 5 08:01:7 0 EOF
"""


def test_lines_of_locks():
    """Holders and waiters of every kind are read, with devices in decimal; lines of another form are left out."""
    found = [(line.number, line.waits, line.kind, line.pid, line.device, line.inode) for line in parse_locks(LOCKS)]
    assert found == [
        (b"1:", False, "posix", 1234, "8:1", 5678),
        (b"1:", True, "posix", 1235, "8:1", 5678),
        (b"1:", True, "posix", 1236, "8:1", 5678),
        (b"2:", False, "ofd", None, "253:31", 99),
        (b"3:", False, "flock", 7, "0:43", 2**64 - 1),
        (b"4:", False, "lease", 8, "8:1", 4),
        (b"5:", False, "flock", 9, "8:1", 4),
    ]


def test_lines_of_mountinfo():
    """The device and file system of each mount are read, whatever its name holds and however many tags stand between."""
    text = (
        b"36 35 98:0 /r /a\\040- rw,noatime shared:1 master:2 - ext4 /dev/root rw\n37 35 0:44 / /b\rrw - x - nfs4 server:/x rw\n"
        b"nonsense\n38 1 0:5 / /c rw\n39 35 0:6 / /d rw - tmpfs tmpfs rw"
    )
    found = parse_mountinfo(text)
    assert (found[36], found[39]) == (("98:0", "ext4"), ("0:6", "tmpfs"))
    assert found[36].answers_at_once
    assert not found[37].answers_at_once
    assert 38 not in found


@pytest.mark.parametrize(
    ("text", "syscall"),
    [
        (b"7 0x1 0x2 0xffffffffffffffff 0x0 0x0 0x0 0x7ffe 0x7f00\n", LastSyscall(number=7, args=(1, 2, 2**64 - 1, 0, 0, 0))),
        (b"running\n", None),
        (b"-1 0x7ffe 0x7f00\n", None),
        (b"", None),
        (b"7 0x1\n", None),
    ],
)
def test_the_file_syscall(text, syscall):
    """A blocked call is read with its arguments; running, outside of a call, or cut is None."""
    assert parse_syscall(text) == syscall


def test_membership_in_cgroups():
    """Each controller has its path; a path above our own root, and what is no line, is left out."""
    text = b"12:cpu,cpuacct:/a:b/c\n11:name=systemd:/s\n4:memory:/../other\n3:freezer:/f\rx (deleted)\n0::/u\x85v\n\nxx\n"
    found = parse_membership(text + b"\xff")
    assert found == {"cpu": "/a:b/c", "cpuacct": "/a:b/c", "freezer": "/f\rx", "": "/u\udc85v"}
