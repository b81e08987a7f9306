"""Who holds the file lock that a process waits for: each kind of lock, held by another, by itself, passed on, shared."""

import subprocess

import pytest
from blocked import blocked_in, python, settled, wait_for

from agentscope.examination.file_locks import read_file_locks

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
TAKE = {
    "flock": "fcntl.flock({fd}, fcntl.LOCK_EX)",
    "posix": "fcntl.lockf({fd}, fcntl.LOCK_EX)",
    "ofd": "fcntl.fcntl({fd}, 38, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))",  # F_OFD_SETLKW, struct flock
}
OPEN = "import fcntl, os, struct, threading\nfd = os.open({path!r}, os.O_RDWR | os.O_CREAT)\n"
TELL = "\nopen({ready!r}, 'w').write(f'{{os.getpid()}}\\n'); threading.Event().wait()"


def programs(kind, folder):
    """The code of a holder, which tells when it has the lock, and of a waiter."""
    opened = OPEN.format(path=str(folder / "the lock"))
    take = TAKE[kind].format(fd="fd")
    return opened + take + TELL.format(ready=str(folder / "ready")), opened + take


@pytest.mark.parametrize(("kind", "call"), [("flock", "flock"), ("posix", "fcntl"), ("ofd", "fcntl")])
def test_a_lock_that_another_holds(tmp_path, kind, call):
    """The lock is told with its kind, its path, who waits at which descriptor, and who holds it at which."""
    holds, waits = programs(kind, tmp_path)
    with python(holds) as holder:
        wait_for(tmp_path / "ready")
        with python(waits) as waiter:
            (blocked,) = blocked_in(waiter.pid, call)
            (found,) = read_file_locks([waiter.pid])
            assert (found.kind, found.path, found.inode) == (
                kind,
                str(tmp_path / "the lock"),
                (tmp_path / "the lock").stat().st_ino,
            )
            assert (found.waiter.pid, found.waiter.descriptor) == (waiter.pid, 3)
            assert (found.holder.pid, found.holder.descriptor, found.holder.state) == (holder.pid, 3, "S")
            assert blocked.descriptors == (3,)


def test_nobody_waits():
    """A process that waits for no lock has none, whoever else does."""
    with python("import threading; threading.Event().wait()") as victim:
        assert read_file_locks([victim.pid]) == ()


def test_a_flock_that_was_passed_on(tmp_path):
    """The holder of a flock is whoever has its open file now, not the process that took it and ended."""
    path, ready = tmp_path / "the lock", tmp_path / "ready"
    heir = f"open({str(ready)!r}, 'w').write(f'{{os.getpid()}}\\n'); import time; time.sleep(40)"
    code = OPEN.format(path=str(path)) + "fcntl.flock(fd, fcntl.LOCK_EX)\nif os.fork() == 0: " + heir
    with python(code) as taker:
        heir_pid = int(wait_for(ready))
        taker.wait(timeout=10)
        with python(OPEN.format(path=str(path)) + "fcntl.flock(fd, fcntl.LOCK_EX)") as waiter:
            blocked_in(waiter.pid, "flock")
            (found,) = read_file_locks([waiter.pid])
            assert (found.holder.pid, found.waiter.pid) == (heir_pid, waiter.pid)
    subprocess.run(["kill", "-9", str(heir_pid)], check=True)


def test_a_process_that_waits_for_itself(tmp_path):
    """A process that opened a file twice and locks it twice waits for itself: holder and waiter are one, at two descriptors."""
    code = OPEN.format(path=str(tmp_path / "the lock")) + "fcntl.flock(fd, fcntl.LOCK_EX)\n"
    code += f"other = os.open({str(tmp_path / 'the lock')!r}, os.O_RDWR); fcntl.flock(other, fcntl.LOCK_EX)"
    with python(code) as victim:
        blocked_in(victim.pid, "flock")
        (found,) = read_file_locks([victim.pid])
        assert (found.holder.pid, found.holder.descriptor) == (victim.pid, 3)
        assert (found.waiter.pid, found.waiter.descriptor) == (victim.pid, 4)


@pytest.mark.parametrize(("kind", "call"), [("flock", "flock"), ("ofd", "fcntl")])
def test_a_shared_lock_wanted_for_itself(tmp_path, kind, call):
    """A reader that wants to become the only one waits for the other reader, though it holds the lock too."""
    opened = OPEN.format(path=str(tmp_path / "the lock"))
    alone = TAKE[kind].format(fd="fd")
    shared = alone.replace("LOCK_EX", "LOCK_SH").replace("F_WRLCK", "F_RDLCK") + "\n"
    with python(opened + shared + TELL.format(ready=str(tmp_path / "ready"))) as other:
        wait_for(tmp_path / "ready")
        with python(opened + shared + alone) as waiter:
            blocked_in(waiter.pid, call)
            assert [each.holder.pid for each in read_file_locks([waiter.pid])] == [other.pid]


def test_two_in_a_row(tmp_path):
    """Two waiters behind one holder are both told, each with that holder."""
    holds, waits = programs("posix", tmp_path)
    with python(holds) as holder:
        wait_for(tmp_path / "ready")
        with python(waits) as one, python(waits) as two:
            blocked_in(one.pid, "fcntl")
            blocked_in(two.pid, "fcntl")
            found = settled(lambda: read_file_locks([one.pid, two.pid]))
            assert {each.waiter.pid for each in found} == {one.pid, two.pid}
            assert {each.holder.pid for each in found} == {holder.pid}
