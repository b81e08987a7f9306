"""A program of its own, run by whichever Python (3.7 or later) has bcc: compiles the probes, attaches them, hands them over.

`python3 -I bcc_child.py SOURCE SOCKET VICTIM`: one message on the socket, a JSON object with `files`, the names of the
descriptors that come with it; or with `refused` ("bcc", "bpf", "compile" or "attach") and `says`. What is attached lives as
long as its descriptor, so this program, and the compiler in it, ends at once. It imports nothing of the package it is part of.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

# tracepoint, program; those of a raw tracepoint get the kernel's own arguments
RAW = (
    ("sched_process_fork", "on_fork"),
    ("sched_process_exec", "on_exec"),
    ("sched_process_exit", "on_exit"),
    ("signal_generate", "on_signal"),
    ("signal_deliver", "on_fault"),
)
OOM = ("mark_victim", "on_oom_victim")
WORDS = ("on_write", "on_writev")  # attached later, when they are needed
MAPS = ("ring", "watched", "control", "tails")
BPF_MAP_TYPE_ARRAY = 2
SAID_LENGTH = 2000


class Refused(Exception):
    """It cannot be had: at which step, and what was said."""

    def __init__(self, step: str, says: str) -> None:
        super().__init__(step, says)
        self.step = step
        self.says = says


def compiled(source: Path, victim_is_a_task: bool) -> tuple[Any, dict[str, int]]:
    """The probes of a source file, attached, and their descriptors by name; those die with the former, unless this process does.

    Raises:
        Refused: this Python or this kernel cannot.
    """
    try:
        import bcc
    except ImportError as error:
        raise Refused("bcc", str(error)) from error
    # the compiler takes seconds, so whether the kernel takes anything at all is asked first
    attempt = bcc.lib.bcc_create_map(BPF_MAP_TYPE_ARRAY, None, 4, 4, 1, 0)
    if attempt < 0:
        raise Refused("bpf", os.strerror(ctypes.get_errno() or 1))
    os.close(attempt)
    raw = (*RAW, OOM) if victim_is_a_task else RAW
    flags = ["-Wno-everything", *(["-DVICTIM_IS_A_TASK"] if victim_is_a_task else [])]
    try:
        probes = bcc.BPF(text=source.read_text(), cflags=flags)
    except Exception as error:
        raise Refused("compile", str(error)) from error
    files = {name: bcc.lib.bpf_table_fd(probes.module, name.encode()) for name in MAPS}
    for tracepoint, name in raw:
        try:
            program = probes.load_func(name, bcc.BPF.RAW_TRACEPOINT).fd
        except Exception as error:
            raise Refused("attach", f"{name}: {error}") from error
        link = bcc.lib.bpf_attach_raw_tracepoint(program, tracepoint.encode())
        if link < 0:
            raise Refused("attach", f"{tracepoint}: {os.strerror(-link)}")
        files[tracepoint] = link
    try:
        words = {name: probes.load_func(name, bcc.BPF.TRACEPOINT).fd for name in WORDS}
    except Exception:  # noqa: BLE001 - bcc raises nothing else; without them the rest still works
        words = {}
    return probes, {**files, **words}


def main() -> None:
    """Compile, hand over: nothing is tidied up, since whoever has the descriptors now decides when it ends."""
    channel = socket.socket(fileno=int(sys.argv[2]))
    try:
        _probes, files = compiled(Path(sys.argv[1]), sys.argv[3] == "task")
    except Refused as refusal:
        channel.sendall(json.dumps({"refused": refusal.step, "says": refusal.says[:SAID_LENGTH]}).encode())
        return
    numbers = array.array("i", files.values())
    message = json.dumps({"files": list(files)}).encode()
    channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


if __name__ == "__main__":
    main()
    os._exit(0)  # bcc would detach at its exit
