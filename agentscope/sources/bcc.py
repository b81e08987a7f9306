"""Engine `bcc`: the probes of bpf/bcc.c, compiled on this machine, for kernels that do not describe their types.

bcc comes with the distribution and its Python, so a program of its own compiles and attaches (bcc_child.py), sends us the
descriptors of what it made, and ends: the compiler's memory goes with it. The maps and records are those of engine `core`.
"""

import fcntl
import json
import os
import platform
import socket
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from agentscope.errors import EngineUnavailable
from agentscope.model import EngineName
from agentscope.sources.libbpf import open_tracepoint
from agentscope.sources.loading import PROBES
from agentscope.sources.probed import NO_WORDS, WORDS, Probed
from agentscope.sources.tracefs import tracepoint_file, tracepoint_id
from agentscope.sources.unprobed import Unprobed

SOURCE = PROBES / "bcc.c"
CHILD = Path(__file__).with_name("bcc_child.py")
COMPILE_S = 300.0  # seconds on a machine, minutes in an emulator
MOST_FILES = 32
ANSWER_BYTES = 16384
SAID_BYTES = 4096
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408  # PERF_EVENT_IOC_*, include/uapi/linux/perf_event.h

_WHAT = "the kernel probes cannot be compiled"
_LESS = (
    "which files a process had mapped when it ended is not seen",
    "Python frames at a fault are not seen",
    "system calls of a suspect are not traced, so of loops only those that use the CPU are seen",
)
_NO_VICTIMS = "victims of the OOM killer are known from the kernel log only"


class Handed(NamedTuple):
    """What the child made: descriptors by name."""

    files: dict[str, int]

    def close(self) -> None:
        """Detach and free all of it."""
        close_all(self.files.values())


class BccEngine(Probed, Unprobed):
    """Implements `Engine`: attached from the moment it exists until `close`. What the probes do not tell is read in /proc.

    Raises:
        EngineUnavailable: bcc, the headers of this kernel or the kernel's permission is missing.
    """

    name: EngineName = "bcc"
    degraded: tuple[str, ...]

    def __init__(self) -> None:
        task = victim_is_a_task()
        self._handed = compile_probes(task)
        self._word_events: list[int] = []
        self._detaching: list[threading.Thread] = []
        try:
            self._open_maps(self._handed.files)
            self._word_tracepoints = self._find_word_tracepoints()
        except OSError as error:
            self._handed.close()
            raise EngineUnavailable(_WHAT, f"their maps cannot be used: {os.strerror(error.errno or 0)}") from error
        self.words_unheard = "" if self._word_tracepoints else NO_WORDS
        self.degraded = (*_LESS, *(() if task else (_NO_VICTIMS,)), *(() if self._word_tracepoints else (NO_WORDS,)))

    def close(self) -> None:
        """Detach everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._detach_words()
        for thread in self._detaching:
            thread.join()
        self._close_maps()
        self._handed.close()

    def watched(self) -> Iterable[int]:
        """The pids of all that is watched now."""
        return [int.from_bytes(key, "little") for key in self._watched.keys()]  # noqa: SIM118 - a table is no mapping

    def capture_words(self, enabled: bool) -> None:
        """Attach or detach the probes on write and writev; nothing happens where they cannot be had."""
        if not enabled:
            self._detach_words()
        elif not self._word_events:
            for name, number in self._word_tracepoints.items():
                event = open_tracepoint(number)
                self._word_events.append(event)
                fcntl.ioctl(event, _IOC_SET_BPF, self._handed.files[name])
                fcntl.ioctl(event, _IOC_ENABLE, 0)

    def _detach_words(self) -> None:
        """In a thread of its own: a classic tracepoint waits for all CPUs, 20 to 200 ms."""
        events, self._word_events = self._word_events, []
        if events:
            self._detaching = [thread for thread in self._detaching if thread.is_alive()]
            self._detaching.append(threading.Thread(target=close_all, args=(events,), name="detach"))
            self._detaching[-1].start()

    def _find_word_tracepoints(self) -> dict[str, int]:
        if not self._handed.files.keys() >= WORDS.keys():
            return {}
        try:
            return {name: tracepoint_id(category, event) for name, (category, event) in WORDS.items()}
        except (OSError, ValueError):
            return {}


def close_all(descriptors: Iterable[int]) -> None:
    """Close each: a link of the kernel is detached with its last descriptor."""
    for descriptor in descriptors:
        os.close(descriptor)


def victim_is_a_task() -> bool:
    """Whether the kernel's word of the OOM killer's choice has the victim itself, as since 6.10: its format has what that one used."""
    try:
        return b"total_vm" in tracepoint_file("oom", "mark_victim", "format")
    except OSError:
        return False


def compile_probes(victim_has_task: bool) -> Handed:
    """The probes, compiled and attached by the first Python of this machine that has bcc.

    Raises:
        EngineUnavailable: none has it, or it fails.
    """
    if platform.machine() != "x86_64":
        raise EngineUnavailable(_WHAT, f"they are written for x86_64, and this is {platform.machine()}")
    if not SOURCE.exists():
        raise EngineUnavailable(_WHAT, f"{SOURCE} is not there", "make probes, or install agentscope anew")
    require_headers(Path("/lib/modules", platform.release(), "build"))
    tried = []
    for python in pythons(Path("/")):
        answer, handed = ask(python, victim_has_task)
        if handed is not None:
            return handed
        if answer["refused"] != "bcc":
            raise refusal(answer)
        tried.append(str(python))
    why = f"bcc is not there: {', '.join(tried)} cannot import it" if tried else "there is no Python of the system"
    raise EngineUnavailable(_WHAT, why, to_install())


def require_headers(build: Path) -> None:
    """Refuse where bcc would look for the kernel's headers elsewhere: it takes them from /tmp, where anybody may have put them.

    Raises:
        EngineUnavailable: they are not there, or not root's.
    """
    try:
        about = (build / "include").stat()
    except OSError:
        raise EngineUnavailable(_WHAT, f"the headers of this kernel are not there: {build}", to_install()) from None
    if about.st_uid != 0 or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineUnavailable(_WHAT, f"{build} can be written by others than root", f"chown -R root: {build.resolve()}")


def to_install() -> str:
    """What to type for bcc and the headers, on Debian and its kin."""
    return f"apt-get install python3-bpfcc linux-headers-{platform.release()} (Fedora: dnf install python3-bcc kernel-devel)"


def pythons(root: Path) -> Iterator[Path]:
    """Python interpreters of the system that nobody but root can replace: the default first, then every other one."""
    seen = set()
    named = [root / "usr/bin/python3", root / "usr/libexec/platform-python", root / "usr/local/bin/python3"]
    for path in (*named, *sorted((root / "usr/bin").glob("python3.[0-9]*"))):
        real = path.resolve()
        if (
            real not in seen
            and os.access(real, os.X_OK)
            and real.is_file()
            and "config" not in real.name
            and only_root_writes(real)
        ):
            seen.add(real)
            yield real


def only_root_writes(path: Path) -> bool:
    """Whether this file and all folders above it are root's, and nobody else may write there."""
    for each in (path, *path.parents):
        about = each.stat()
        if about.st_uid != 0 or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False
    return True


def ask(python: Path, victim_has_task: bool) -> tuple[dict[str, str], Handed | None]:
    """What the child answers, and what it made; it is ended if it takes too long."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its, os.fdopen(os.memfd_create("said", os.MFD_CLOEXEC), "w+b") as said:
        argv = [str(python), "-I", str(CHILD), str(SOURCE), str(its.fileno()), "task" if victim_has_task else "number"]
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=(its.fileno(),), cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip
        its.close()
        ours.settimeout(COMPILE_S)
        try:
            message, descriptors, _, _ = socket.recv_fds(ours, ANSWER_BYTES, MOST_FILES)
        except TimeoutError:
            return {"refused": "late", "says": f"the compiler did not come to an end in {COMPILE_S:.0f} seconds"}, None
        finally:
            ended = end(child)
        if not message:
            said.seek(max(0, said.tell() - SAID_BYTES))
            last = said.read(SAID_BYTES).decode("utf-8", "backslashreplace").strip().splitlines()
            return {"refused": "ended", "says": f"it ended ({ended}){': ' + last[-1] if last else ''}"}, None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # recv_fds of Python 3.11 takes no flags
    answer = json.loads(message)
    if "refused" in answer:
        return answer, None
    return answer, Handed(dict(zip(answer["files"], descriptors, strict=True)))


def end(child: "subprocess.Popen[bytes]") -> int:
    """Its exit status: once it has answered it ends by itself, else it is ended."""
    try:
        return child.wait(2.0)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def refusal(answer: dict[str, str]) -> EngineUnavailable:
    """Why the child made nothing, for a person."""
    says = answer["says"].strip()
    if answer["refused"] == "bpf":
        why = f"the kernel refuses BPF to this user ({says}): a container without CAP_BPF and CAP_PERFMON, or kernel lockdown"
        return EngineUnavailable(_WHAT, why, "agentscope doctor")
    steps = {"compile": "bcc cannot compile them for this kernel", "attach": "this kernel refuses them"}
    return EngineUnavailable(_WHAT, f"{steps.get(answer['refused'], 'bcc')}: {says}", to_install())
