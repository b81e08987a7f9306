"""Native stacks of really blocked threads, unwound from outside."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocked import blocked_in, c_program, started

from agentscope.examination.natives import place_names, unwind_threads
from agentscope.examination.perf_maps import names_in_perf_map
from agentscope.sources.examiner import Examiner

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs node")

LOCKS = r"""
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
__attribute__((noinline)) void inner(void) { pthread_mutex_lock(&lock); asm volatile(""); }
__attribute__((noinline)) void outer(void) { inner(); asm volatile(""); }
static void *run(void *unused) { outer(); return unused; }
int main(int count, char **arguments)
{
	alarm(50);
	pthread_mutex_lock(&lock);
	for (int number = count > 1 ? atoi(arguments[1]) : 1; number > 0; number--) {
		pthread_t thread;
		pthread_create(&thread, 0, run, 0);
	}
	pause();
}
"""


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    """Gives the registers of blocked threads."""
    try:
        examiner = Examiner()
    except OSError as error:
        pytest.skip(f"the probes cannot be loaded: {error}")
    yield examiner
    examiner.close()


def names_of(frames: tuple[str, ...]) -> list[str]:
    """The functions of frames."""
    return [frame.partition("+0x")[0] for frame in frames]


@needs_gcc
def test_a_blocked_thread_is_unwound_to_its_beginning(examiner: Examiner, tmp_path: Path) -> None:
    """The stack of a thread that waits for a mutex has the program's own functions, in order, and reaches the outermost."""
    with c_program(LOCKS, tmp_path) as victim:
        blocked_in(victim.pid, "futex")
        main, waits = unwind_threads(victim.pid, examiner.registers(victim.pid))
        assert names_of(waits.frames)[2:5] == ["inner", "outer", "run"] or names_of(waits.frames)[1:4] == [
            "inner",
            "outer",
            "run",
        ]
        assert all(frame.endswith("(victim)") for frame in waits.frames if frame.startswith(("inner", "outer", "run")))
        assert (main.tid, main.ended, waits.ended) == (victim.pid, "outermost", "outermost")
        assert names_of(main.frames)[:2] == ["pause", "main"]


@needs_gcc
def test_without_registers_the_innermost_frames_are_told(tmp_path: Path) -> None:
    """What /proc tells of a blocked thread leads to the call it is in; where the walk ends is said."""
    with c_program(LOCKS, tmp_path) as victim:
        blocked_in(victim.pid, "futex")
        main, waits = unwind_threads(victim.pid, {})
        assert names_of(main.frames)[:1] == ["pause"]
        assert "inner" in names_of(waits.frames) or "not known" in (waits.ended or "")


@needs_gcc
def test_many_threads_are_bounded(examiner: Examiner, tmp_path: Path) -> None:
    """Of 500 threads 64 are unwound, within the second that is allowed."""
    with c_program(LOCKS, tmp_path, "500") as victim:
        blocked_in(victim.pid, "futex", count=500)
        registers = examiner.registers(victim.pid)
        began = time.monotonic()
        stacks = unwind_threads(victim.pid, registers)
        assert time.monotonic() - began < 1.5
        assert (len(registers), len(stacks)) == (501, 64)


def test_a_process_that_is_gone_has_no_stack() -> None:
    """Of a process that has ended, or of registers that lead nowhere, nothing is told and nothing raised."""
    assert unwind_threads(1 << 22, {1: {7: 8, 16: 8}}) == ()
    assert unwind_threads(1 << 22, {}) == ()
    assert place_names(1 << 22, [1, 2]) == {}
    (stack,) = unwind_threads(os.getpid(), {1: {6: 2**64 - 8, 7: 2**64 - 8, 16: 2**64 - 8}})
    assert len(stack.frames) == 1


def test_places_have_the_names_of_functions(examiner: Examiner) -> None:
    """The instruction pointer of a thread that waits in a call of the C library is a place in it; other addresses have none."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        time.sleep(0.1)
        pointer = examiner.registers(os.getpid())[thread.native_id][16]
        names = place_names(os.getpid(), [pointer, 12])
        assert set(names) == {pointer}
        assert names[pointer].endswith(("(libc.so.6)", "(libpthread.so.0)"))
        assert "+0x" not in names[pointer] or names[pointer].startswith("+0x")
    finally:
        done.set()
        thread.join()


READS = """
const fs = require("fs");
setTimeout(() => process.exit(), 45000);
const fd = fs.openSync(process.argv[1], "r+");
function blocked() { fs.readSync(fd, Buffer.alloc(1)); }
function outer() { blocked(); }
outer();
"""


@needs_node
@pytest.mark.parametrize("mapped", [True, False])
def test_node_functions_are_named_where_there_is_a_map(examiner: Examiner, mapped: bool, tmp_path: Path) -> None:
    """With a map of generated code the JavaScript functions of a blocked thread are named; without one the stack is native."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    options = ["--perf-basic-prof", "--interpreted-frames-native-stack"] if mapped else []
    with started(
        ["timeout", "45", "node", *options, "-e", READS, str(fifo)], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as wrapper:
        (pid,) = settled_children(wrapper.pid)
        map_file = Path(f"/tmp/perf-{pid}.map")
        try:
            blocked_in(pid, "read")
            main = unwind_threads(pid, examiner.registers(pid))[0]
            assert main.tid == pid
            assert names_of(main.frames)[0] == "read"
            assert any("node" in frame and "uv" in frame for frame in main.frames)
            order = [word for frame in main.frames for word in ("~blocked", "~outer") if f"{word} " in frame]
            assert order == (["~blocked", "~outer"] if mapped else [])
            if mapped:
                check_whose_map_counts(pid, map_file)
        finally:
            os.kill(pid, 9)
            map_file.unlink(missing_ok=True)


def settled_children(pid: int) -> list[int]:
    """The children of a process, once it has some."""
    until = time.monotonic() + 10
    children: list[str] = []
    while not children and time.monotonic() < until:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        time.sleep(0.05)
    return [int(each) for each in children]


def check_whose_map_counts(pid: int, map_file: Path) -> None:
    """A map counts only as a regular file of the process's own user."""
    start, _, name = map_file.read_text().splitlines()[5].split(" ", 2)
    address = int(start, 16)
    assert names_in_perf_map(pid, [address])
    os.chown(map_file, 65534, 65534)
    assert names_in_perf_map(pid, [address]) == {}
    os.chown(map_file, 0, 0)
    elsewhere = map_file.with_suffix(".other")
    map_file.rename(elsewhere)
    map_file.symlink_to(elsewhere)
    assert names_in_perf_map(pid, [address]) == {}
    map_file.unlink()
    elsewhere.unlink()
    map_file.write_bytes(b"zz 1 broken\n" + f"{start} 40 evil\x1b[31m {name}\n".encode() + b"f" * 5000)
    assert "\x1b" not in names_in_perf_map(pid, [address])[address]
    assert names_in_perf_map(pid, [address])[address].startswith("evil")
