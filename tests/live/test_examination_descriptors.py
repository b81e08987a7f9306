"""What real processes have open, who holds the other end, and how full a pipe is."""

import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from blocked import blocked_in, python, settled, wait_for

from agentscope.examination.descriptors import holders_of, inodes_held, read_descriptors, read_pipes
from agentscope.examination.mounts import Mounts, open_file

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
OURS = os.getpid()


@contextmanager
def pipe():
    """A pipe whose ends we hold; closed at the end, where the test did not."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with suppress(OSError):
                os.close(end)


def test_the_kind_of_everything_that_can_be_open(tmp_path):
    """Each kind of descriptor is told from its link and its inode, with how it was opened."""
    (tmp_path / "file\x07").write_text("")
    os.mkfifo(tmp_path / "fifo")
    code = f"""
import ctypes, os, pty, select, socket, sys, threading
libc = ctypes.CDLL(None)
os.chdir({str(tmp_path)!r})
r, w = os.pipe()
s = socket.socket()
f = os.open("file\\x07", os.O_RDWR); d = os.open(".", os.O_RDONLY); q = os.open("fifo", os.O_RDWR); n = os.open("/dev/null", os.O_WRONLY)
e = select.epoll(); e.register(r); e.register(s)
v = os.eventfd(0); t = libc.timerfd_create(1, 0); g = libc.signalfd(-1, (ctypes.c_ulong * 16)(), 0); i = libc.inotify_init()
m, y = pty.openpty(); p = os.open(".", os.O_PATH)
names = dict(pipe_r=r, pipe_w=w, socket=s.fileno(), file=f, folder=d, fifo=q, null=n, epoll=e.fileno(), eventfd=v, timerfd=t, signalfd=g, inotify=i, master=m, tty=y, place=p)
print(*(f"{{k}}={{v}}" for k, v in names.items()), flush=True)
threading.Event().wait()
"""
    with python(code, stdout=subprocess.PIPE) as victim:
        numbers = {
            name: int(number) for name, _, number in (pair.partition("=") for pair in victim.stdout.readline().decode().split())
        }
        found = {each.number: each for each in read_descriptors(victim.pid)}
        by = {name: found[number] for name, number in numbers.items()}
        same = ("socket", "file", "folder", "fifo", "null", "epoll", "eventfd", "timerfd", "signalfd", "inotify", "tty")
        assert [by[name].kind for name in same] == list(same)
        assert (by["pipe_r"].kind, by["pipe_w"].kind, by["master"].kind, by["place"].kind) == (
            "pipe",
            "pipe",
            "other",
            "folder",
        )
        assert [by[name].access for name in ("pipe_r", "pipe_w", "fifo", "null", "folder", "place")] == [
            "r",
            "w",
            "rw",
            "w",
            "r",
            None,
        ]
        assert by["epoll"].watches == tuple(sorted((numbers["pipe_r"], numbers["socket"])))
        assert by["pipe_r"].inode == by["pipe_w"].inode is not None
        assert by["fifo"].inode == (tmp_path / "fifo").stat().st_ino
        assert by["file"].target == f"{tmp_path}/file"  # no bell for a terminal
        assert len(read_descriptors(victim.pid, limit=5)) == 5


def test_a_process_that_is_gone_has_nothing_open():
    """Of a process that has ended nothing is told, and nothing fails."""
    with python("") as victim:
        victim.wait(timeout=10)
        assert read_descriptors(victim.pid) == ()
    assert read_descriptors(victim.pid) == ()
    assert inodes_held([victim.pid]) == {}


def test_a_writer_on_a_full_pipe_is_told_with_its_reader():
    """A full pipe shows as many bytes as fit, who writes it, and who should read but sleeps."""
    with pipe() as (r, w):
        sleeper = python(f"import threading\nfd = {r}\nthreading.Event().wait()", pass_fds=(r,))
        with sleeper as reader, python(f"import os; os.write({w}, bytes(1 << 20))", pass_fds=(w,)) as writer:
            (call,) = blocked_in(writer.pid, "write")
            (descriptor,) = (each for each in read_descriptors(writer.pid) if each.number == call.descriptors[0])
            (found,) = read_pipes([descriptor.inode])
            assert (found.held_bytes, found.capacity_bytes, found.path) == (65536, 65536, None)
            assert [(each.pid, each.descriptor, each.state) for each in found.readers] == [(reader.pid, r, "S")]
            assert [(each.pid, each.descriptor) for each in found.writers] == [(writer.pid, w)]
            assert found.writers[0].comm.startswith("python")


def test_a_reader_of_an_empty_pipe_is_told_with_its_writer():
    """An empty pipe holds no bytes; whoever has its writing end is named, and only as writer."""
    with pipe() as (r, w):
        keeper = python(f"import threading\nfd = {w}\nthreading.Event().wait()", pass_fds=(w,))
        with keeper as writer, python(f"import os; os.read({r}, 1)", pass_fds=(r,)) as reader:
            blocked_in(reader.pid, "read")
            (found,) = read_pipes([os.fstat(r).st_ino])
            assert (found.held_bytes, [each.pid for each in found.readers], [each.pid for each in found.writers]) == (
                0,
                [reader.pid],
                [writer.pid],
            )


def test_a_pipe_whose_writers_are_gone_has_no_writer():
    """Where nobody but the readers has a pipe open, nobody is named as writer."""
    with pipe() as (r, w), python("import threading; threading.Event().wait()", pass_fds=(r,)) as victim:
        os.close(w)
        (found,) = settled(lambda: read_pipes([os.fstat(r).st_ino]))
        assert (found.writers, [each.pid for each in found.readers]) == ((), [victim.pid])


def test_a_fifo_is_found_by_its_number(tmp_path):
    """A FIFO shows its path and who has it open; one opened for both is reader and writer at once."""
    os.mkfifo(tmp_path / "fifo")
    inode = (tmp_path / "fifo").stat().st_ino
    code = (
        f"import os; fd = os.open({str(tmp_path / 'fifo')!r}, os.O_RDWR); os.write(fd, b'abc'); os.read(fd, 3); os.read(fd, 1)"
    )
    with python(code) as victim:
        blocked_in(victim.pid, "read")
        (found,) = read_pipes([inode], [victim.pid])
        assert (found.path, found.held_bytes) == (str(tmp_path / "fifo"), 0)
        assert [each.pid for each in found.readers] == [each.pid for each in found.writers] == [victim.pid]


def test_reading_a_fifo_lets_nobody_go(tmp_path):
    """Whoever is blocked in opening a FIFO for writing stays blocked while we ask how full the FIFO of the same name is."""
    os.mkfifo(tmp_path / "fifo")
    inode = (tmp_path / "fifo").stat().st_ino
    with python(f"open({str(tmp_path / 'fifo')!r}, 'w')") as victim:
        blocked_in(victim.pid, "openat")
        assert read_pipes([inode]) == ()
        time.sleep(0.1)
        blocked_in(victim.pid, "openat")


def test_asking_a_pipe_changes_neither_its_bytes_nor_its_end():
    """A pipe that is asked while its writer writes and closes gives all bytes in order and then the end; SIGPIPE comes as it would."""
    r, w = os.pipe()
    inode = os.fstat(r).st_ino
    stop = threading.Event()
    watcher = threading.Thread(target=lambda: [read_pipes([inode]) for _ in iter(stop.is_set, True)])
    code = f"import os\nfor i in range(2000): os.write({w}, b'%05d' % i)\n"
    with python(code, pass_fds=(w,)) as writer:
        os.close(w)
        watcher.start()
        text = b"".join(iter(lambda: os.read(r, 100), b""))
        assert text == b"".join(b"%05d" % i for i in range(2000))
        assert writer.wait(timeout=10) == 0
    stop.set()
    watcher.join()
    os.close(r)
    r, w = os.pipe()
    with python(
        f"import os, signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\nwhile 1: os.write({w}, bytes(4096))", pass_fds=(w,)
    ) as writer:
        blocked_in(writer.pid, "write")
        for _ in range(20):
            read_pipes([os.fstat(w).st_ino])
        os.close(w)
        os.close(r)
        assert writer.wait(timeout=10) == -13


def test_every_holder_on_the_machine_is_found():
    """Both processes that share a socket are found, with the number that it has there; we are left out."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = os.fstat(theirs.fileno()).st_ino
        options = {"pass_fds": (theirs.fileno(),)}
        wait = "import threading; threading.Event().wait()"
        with python(wait, **options) as one, python(wait, **options) as two:
            found = settled(lambda: len((holders := holders_of([inode])).get(inode, ())) == 2 and holders)
            assert {each.pid for each in found[inode]} == {one.pid, two.pid}
            assert {each.descriptor for each in found[inode]} == {theirs.fileno()}
            assert found.complete
            assert OURS in {each.pid for each in holders_of([inode], skip=one.pid)[inode]}
            assert inodes_held([one.pid, two.pid])[inode] == (one.pid, two.pid)


def test_a_search_that_runs_out_of_time_says_so():
    """A search for holders that has no time left is not complete, and says so."""
    with pipe() as (r, _):
        assert not holders_of([os.fstat(r).st_ino], limit_s=0).complete


def test_a_descriptor_from_outside_of_its_mount_namespace_is_known(tmp_path):
    """A terminal or file that a process brought into its own mount namespace is still told for what it is."""
    master, slave = os.openpty()
    ready = tmp_path / "ready"
    code = f"import threading; open({str(ready)!r}, 'w').write('\\n'); threading.Event().wait()"
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        "-c",
        "import signal; signal.alarm(50)\n" + code,
    ]
    victim = subprocess.Popen(command, stdin=slave, stdout=subprocess.DEVNULL)
    try:
        wait_for(ready)
        assert [each.kind for each in read_descriptors(victim.pid)[:2]] == ["tty", "null"]
    finally:
        victim.kill()
        victim.wait(timeout=20)
        os.close(master)
        os.close(slave)


def test_a_file_of_a_file_system_that_may_not_answer_is_not_asked(monkeypatch, tmp_path):
    """Where the file system is none of those that answer at once, its files are told as files without a question to them."""
    monkeypatch.setattr("agentscope.examination.mounts._ANSWER_AT_ONCE", frozenset())
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("it was asked"))
    with (tmp_path / "file").open("w") as file:
        (found,) = (each for each in read_descriptors(OURS) if each.number == file.fileno())
    assert found.kind == "file"


def test_the_mount_of_a_file_is_found():
    """The files fdinfo and mountinfo together give the file system and the device of an open file."""
    with Path(__file__).open() as file:
        opened = open_file(OURS, file.fileno())
        status = os.fstat(file.fileno())
        mount = Mounts(OURS).of(opened)
        assert opened.inode == status.st_ino
        assert mount.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"


def test_a_big_epoll_is_read_whole():
    """All descriptors of a set of a thousand are told."""
    events = [os.eventfd(0) for _ in range(1000)]
    with select.epoll() as set_of_all:
        for event in events:
            set_of_all.register(event, select.EPOLLIN)
        found = next(each for each in read_descriptors(OURS) if each.number == set_of_all.fileno())
    for event in events:
        os.close(event)
    assert found.watches == tuple(sorted(events))


def test_a_pipe_made_small_has_its_own_capacity():
    """The capacity is that of this pipe, as F_SETPIPE_SZ left it."""
    with pipe() as (r, w):
        fcntl.fcntl(w, 1031, 4096)
        with python(f"import os; os.write({w}, bytes(5000))", pass_fds=(w,)) as victim:
            blocked_in(victim.pid, "write")
            (found,) = read_pipes([os.fstat(r).st_ino])
            assert (found.held_bytes, found.capacity_bytes) == (4096, 4096)
