"""Reconstruction bundles: what a death left behind (kernel log, journal export, unit state, package logs), with its known truth.

A folder of `fixtures/aftermath/` holds `boot.json` (the clocks), `kmsg` (the last records of /dev/kmsg), `journal.json` (`journalctl -o json
_SYSTEMD_UNIT=X + UNIT=X`, the last two runs, fields that nothing reads left out), `unit.txt` (`systemctl show`), `container.json`, `dpkg.log`
(`@SECONDS@` is a time relative to the end) and `truth.json`: whom to ask for, the `cause` that is known, the confidence it must have, the
sources without which it must fall (`refuting`), another true answer (`may_be`), and how the bundle was `made`. Most were recorded in the
lab's systemd with nobody watching; what that machine cannot make (systemd-coredump, systemd-oomd, cgroup v2) was written by hand.
"""

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from agentscope.aftermath import Boot, ContainerEnd, Wanted
from agentscope.aftermath.asking import Unanswered
from agentscope.aftermath.gathering import Sources, gather
from agentscope.diagnosing import put_together
from agentscope.errors import NoSuchProcess
from agentscope.model import KernelLine
from agentscope.sources.kmsg import parse_record

PLACE = Path(__file__).parent.parent / "fixtures" / "aftermath"
SOURCES = ("kernel log", "journal", "state of its unit", "package logs", "container runtime")
RANK = {"certain": 3, "likely": 2, "possible": 1}


class Bundle(Sources):
    """The sources of one bundle, without those that are said to be gone."""

    def __init__(self, folder: Path, root: Path, gone: Iterable[str] = ()) -> None:
        self.folder = folder
        self.gone = set(gone)
        self.truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
        self.boot = msgspec.json.decode((folder / "boot.json").read_bytes(), type=Boot)
        self.root: str | None = str(root)
        root.mkdir(parents=True, exist_ok=True)
        log = folder / "dpkg.log"
        if log.exists() and "package logs" not in self.gone:
            (root / "var/log").mkdir(parents=True, exist_ok=True)
            (root / "var/log/dpkg.log").write_text(
                re.sub(r"@(-?\d+)@", lambda found: self.dated(int(found[1])), log.read_text())
            )

    def dated(self, seconds: int) -> str:
        """A moment before or after the end, as dpkg writes it; on the clock by which causes see this end now."""
        end_us = int(re.search(r"ExecMainExitTimestampMonotonic=(\d+)", (self.folder / "unit.txt").read_text())[1])
        end_ns = end_us * 1000 + self.boot.offset_ns + time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end_ns // 10**9 + seconds))

    def piece(self, source: str, name: str) -> bytes:
        """The file of a source."""
        path = self.folder / name
        if source in self.gone or not path.exists():
            raise Unanswered("taken away by the test")
        return path.read_bytes()

    def ring(self) -> tuple[KernelLine, ...]:
        """From the recorded /dev/kmsg."""
        lines = (parse_record(line, self.boot.offset_ns) for line in self.piece("kernel log", "kmsg").splitlines())
        return tuple(line for line in lines if line is not None)

    def journal(self, count: int, *matches: str) -> bytes:
        """The entries of the export that match any of these."""
        kept = []
        for line in self.piece("journal", "journal.json").splitlines():
            fields = json.loads(line)
            if not matches or any(
                word != "+" and fields.get(word.partition("=")[0]) == word.partition("=")[2] for word in matches
            ):
                kept.append(line)
        return b"\n".join(kept[-count:])

    def show(self, unit: str) -> str:
        """The recorded state, of its own unit."""
        shown = self.piece("state of its unit", "unit.txt").decode()
        return shown if f"Id={unit}\n" in shown else "Id=\nLoadState=not-found\n"

    def containers(self, name: str) -> tuple[tuple[ContainerEnd, ...], tuple[str, ...]]:
        """The recorded answer of a runtime."""
        try:
            found = msgspec.json.decode(self.piece("container runtime", "container.json"), type=ContainerEnd)
        except Unanswered as why:
            return (), (str(why),) if (self.folder / "container.json").exists() else ()
        return ((found,) if name in {found.name, found.id, found.id[:12]} else ()), ()


def verdict(bundle: Bundle) -> tuple[str, int, dict[str, Any]]:
    """The cause, its rank of confidence, and the record; "none", "unknown" and "untold" where there is no incident."""
    who = str(bundle.truth["who"])
    wanted = Wanted(who=who, pid=int(who) if who.isdigit() else None)
    try:
        said, incident = put_together(gather(wanted, bundle), wanted)
    except NoSuchProcess:
        return "untold", 0, {}
    if incident is None:
        return ("none" if said["incident"] is False else "unknown"), 0, said
    return incident.cause, RANK.get(incident.confidence, 0), json.loads(msgspec.json.encode(incident))
