"""Engine bcc without a kernel that it fits: whom it asks, what it is told, what it says where it cannot be had."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from agentscope.errors import EngineUnavailable
from agentscope.evidence.actor import SEEN_BY
from agentscope.sources import bcc, bcc_child, wire
from agentscope.sources.decode import Decoder

BPF = Path(__file__).resolve().parent.parent / "bpf"
SENDS = """
import array, json, os, socket, sys
kept = os.memfd_create("kept")
os.write(kept, b"by the child")
channel = socket.socket(fileno=int(sys.argv[2]))
message = json.dumps({"files": ["ring"]}).encode()
channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [kept]))])
"""


def child(monkeypatch, tmp_path, text):
    """Another program in the place of the one that compiles."""
    program = tmp_path / "child.py"
    program.write_text(text)
    monkeypatch.setattr(bcc, "CHILD", program)


class TestAsking:
    """A program of its own compiles; it is believed, bounded and ended."""

    def test_a_python_without_bcc_says_so(self):
        """The real program, run by an interpreter that has no bcc, refuses for that reason and makes nothing."""
        answer, handed = bcc.ask(Path(sys.executable), victim_has_task=False)
        if answer.get("refused") != "bcc":
            pytest.skip(f"this Python has bcc: {answer}")
        assert handed is None
        assert "bcc" in answer["says"]

    def test_what_it_made_is_ours_after_its_end(self, monkeypatch, tmp_path):
        """Descriptors come over by name, stay open when the program is gone, and are closed on exec."""
        child(monkeypatch, tmp_path, SENDS)
        _, handed = bcc.ask(Path(sys.executable), victim_has_task=True)
        assert handed is not None
        assert os.pread(handed.files["ring"], 100, 0) == b"by the child"
        assert not os.get_inheritable(handed.files["ring"])
        handed.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handed.files["ring"])

    def test_one_that_dies_is_told_with_its_last_words(self, monkeypatch, tmp_path):
        """A compiler that crashes is no silence: its status and last line are in the reason."""
        child(monkeypatch, tmp_path, "import sys\nprint('LLVM ERROR: out of memory')\nsys.exit(7)")
        answer, handed = bcc.ask(Path(sys.executable), victim_has_task=True)
        assert handed is None
        assert answer == {"refused": "ended", "says": "it ended (7): LLVM ERROR: out of memory"}

    def test_one_that_takes_too_long_is_ended(self, monkeypatch, tmp_path):
        """Nobody waits for ever, and nothing is left behind."""
        pid = tmp_path / "pid"
        child(monkeypatch, tmp_path, f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(50)")
        monkeypatch.setattr(bcc, "COMPILE_S", 3.0)
        begun = time.monotonic()
        answer, handed = bcc.ask(Path(sys.executable), victim_has_task=True)
        assert (answer["refused"], handed) == ("late", None)
        assert time.monotonic() - begun < 40
        assert not Path("/proc", pid.read_text()).exists()

    def test_its_environment_is_not_the_callers(self, monkeypatch, tmp_path):
        """Search paths of the caller, for modules, libraries or programs, do not reach a program that runs as root."""
        told = tmp_path / "told"
        child(
            monkeypatch,
            tmp_path,
            f"import os, sys\nopen({str(told)!r}, 'w').write(repr((sorted(os.environ), sys.flags.isolated)))",
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
        bcc.ask(Path(sys.executable), victim_has_task=True)
        names, isolated = eval(told.read_text())
        assert set(names) <= {"PATH", "LANG", "LC_CTYPE"}
        assert isolated == 1


class TestRefusing:
    """What is missing is said, with what to type."""

    def test_without_headers_nothing_is_compiled(self, tmp_path):
        """Headers are taken from where the distribution puts them, or not at all."""
        with pytest.raises(EngineUnavailable) as refused:
            bcc.require_headers(tmp_path / "build")
        assert f"python3-bpfcc linux-headers-{os.uname().release}" in refused.value.try_this

    def test_headers_that_others_can_write_are_refused(self, tmp_path):
        """Who writes the headers writes what root loads into the kernel."""
        folder = tmp_path / "build" / "include"
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        with pytest.raises(EngineUnavailable, match="written by others"):
            bcc.require_headers(tmp_path / "build")

    def test_an_interpreter_that_others_can_replace_is_none(self, tmp_path):
        """Only root may be able to write an interpreter and the folders above it."""
        program = tmp_path / "usr/bin/python3"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        tmp_path.chmod(0o777)
        assert list(bcc.pythons(tmp_path)) == []

    def test_each_interpreter_is_asked_once(self):
        """/usr/bin/python3 is the same file as python3.N; whatever there is, is absolute."""
        found = list(bcc.pythons(Path("/")))
        assert len(found) == len(set(found))
        assert all(path.is_absolute() and not path.is_symlink() for path in found)

    @pytest.mark.parametrize("step", ["bpf", "compile", "attach", "late", "ended"])
    def test_every_refusal_has_a_reason_and_a_way_on(self, step):
        """Whatever the program answers, a person gets what was said and something to type."""
        error = bcc.refusal({"refused": step, "says": "so it was"})
        assert "so it was" in error.why
        assert error.try_this


def test_every_program_is_in_the_source():
    """What is attached is written in bcc.c, for each tracepoint that the other engine has."""
    text = (BPF / "bcc.c").read_text()
    for name in (*(name for _, name in (*bcc_child.RAW, bcc_child.OOM)), *bcc_child.WORDS):
        assert re.search(rf"^int {name}\(", text, re.MULTILINE), name
    core = "".join(path.read_text() for path in BPF.glob("*.bpf.c") if ".examine." not in path.name)
    raw = {name for name, _ in (*bcc_child.RAW, bcc_child.OOM)}
    assert raw == set(re.findall(r'SEC\("tp_btf/(\w+)"\)', core))


def test_an_end_tells_who_saw_it():
    """Records of bcc.c are those of event.h: an exit is decoded as any other, and carries its engine, which sees senders."""
    record = wire.EXIT_RECORD.packed.pack(
        wire.EXIT, 7, 99, 50, 1, 2, 3, 0, 0, 0, 0, 0, 0, 231, 9, 1, 1000, b"agent", 2, 3, 3, 0, 0, 0
    )
    end = Decoder("bcc").decode(record + b"a\0b")
    assert (end.engine, end.pid, end.signal, end.comm, end.last_syscall.number) == ("bcc", 7, 9, "agent", 231)
    assert end.engine in SEEN_BY
