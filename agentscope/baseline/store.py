"""Where baselines are kept: one file an agent in the state directory, 0600, written beside and renamed, at most 200 KiB.

An agent is known again after a restart by its unit, or by its user, its folder and the program and script of its command line:
neither its pid nor the version of its interpreter, and no argument behind the script, which may be another each time.
"""

import contextlib
import errno
import os
import re
import zlib
from pathlib import Path

import msgspec

from agentscope.baseline import Baseline
from agentscope.baseline.facts import started_with
from agentscope.errors import CannotWrite
from agentscope.model import Agent
from agentscope.symbols.rooted import read_regular

FILE_LIMIT_BYTES = 200 << 10
DECODED_LIMIT_BYTES = 32 << 20
AGENTS_LIMIT = 500
ENDING = ".json.gz"
HEALTHY_AFTER_NS = 60_000_000_000  # a run that has worked this long can be the measure of the next
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_NUMBERS = re.compile(r"[\d.]+$")
_INTERPRETER = re.compile(r"^(?:python|pypy|node|nodejs|ruby|perl|bun|deno|sh|bash)$")


def identity_of(agent: Agent, cwd: str | None = None) -> str:
    """A name for the file of an agent's baseline, the same for every run of the same program in the same place."""
    import hashlib

    unit = agent.unit if agent.unit and agent.unit.endswith(".service") and not agent.unit.startswith("user@") else None
    words = _stable_words(agent.command.split())
    parts = [unit or "", str(agent.uid), "" if unit else cwd or "", *words]
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).hexdigest()
    name = _UNSAFE.sub("-", agent.name)[:60].strip("-.") or "agent"
    return f"{name}-{digest}"


def _stable_words(words: list[str]) -> list[str]:
    """The program and what it runs: of "python3.11 -X dev agent.py --session 8f2" that is "python", "agent.py".

    Of code on the command line the first word counts only: the command is known as one text, without its quotes.
    """
    if not words:
        return []
    program = _NUMBERS.sub("", words[0].rpartition("/")[2])
    if not _INTERPRETER.match(program):
        return [words[0].rpartition("/")[2]]
    return [program, *started_with(words)]


class Baselines:
    """The baselines of a state directory."""

    def __init__(self, state_dir: str | Path) -> None:
        self.folder = Path(state_dir, "baselines")

    def load(self, identity: str) -> Baseline | None:
        """The last healthy run that was kept; None where there is none that this version can read."""
        try:
            raw = read_regular(f"{self.folder.absolute()}/{_file(identity)}", limit_bytes=FILE_LIMIT_BYTES)
            decoder = zlib.decompressobj(wbits=31)
            text = decoder.decompress(raw, DECODED_LIMIT_BYTES)
            return None if decoder.unconsumed_tail else msgspec.json.decode(text, type=Baseline)
        except (OSError, zlib.error, msgspec.DecodeError, ValueError, RecursionError):
            return None

    def load_alike(self, identity: str) -> Baseline | None:
        """The same for whoever does not know what its watcher calls the agent: a configuration gives names, a pid has none."""
        found = self.load(identity)
        if found is not None:
            return found
        ending = f"-{_file(identity).rpartition('-')[2]}"
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(ending) and not entry.name.startswith("."))
            return next((kept for name in names if (kept := self.load(name.removesuffix(ENDING))) is not None), None)
        return None

    def keep(self, identity: str, baseline: Baseline) -> None:
        """Write it in place of the one before.

        Raises:
            CannotWrite: the disk is full, or the state directory may not be written.
        """
        content = encoded(baseline)
        target = self.folder / _file(identity)
        beside = self.folder / f".{_file(identity)}.{os.urandom(4).hex()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(beside, flags, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(target)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
            self._tidy()
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise CannotWrite(
                f"cannot keep the baseline {target}", error.strerror or str(error), "df -h" if full else f"ls -ld {self.folder}"
            ) from None

    def _tidy(self) -> None:
        """Drop the longest unused where there are too many, and what an end in the middle of writing left behind."""
        with os.scandir(self.folder) as entries:
            files = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name) for entry in entries)
        kept = [name for _, name in files if not name.startswith(".")]
        left = [name for mtime_ns, name in files if name.startswith(".") and files[-1][0] - mtime_ns > 3_600_000_000_000]
        for name in (*kept[:-AGENTS_LIMIT], *left):
            (self.folder / name).unlink(missing_ok=True)


def encoded(baseline: Baseline) -> bytes:
    """A baseline as its file holds it; what is of least use is left out where it would not fit.

    First the packages of the system go, whose logs tell as well; then Node packages, distributions and libraries beyond
    a number that fits.
    """
    for fewer in (
        lambda whole: whole,
        lambda whole: msgspec.structs.replace(whole, system=None),
        lambda whole: _cut(whole, 1500),
        lambda whole: _cut(whole, 400),
        lambda whole: _cut(whole, 50),
    ):
        kept: Baseline = fewer(baseline)
        content = zlib.compress(msgspec.json.encode(kept), level=6, wbits=31)
        if len(content) <= FILE_LIMIT_BYTES:
            return content
    return zlib.compress(msgspec.json.encode(_cut(baseline, 0)), level=6, wbits=31)


def _cut(baseline: Baseline, count: int) -> Baseline:
    parts = (baseline.mapped, baseline.distributions, baseline.node)
    gone = sum(max(0, len(part) - count) for part in parts)
    return msgspec.structs.replace(
        baseline,
        system=None,
        mapped=baseline.mapped[:count],
        distributions=baseline.distributions[:count],
        node=baseline.node[:count],
        left_out=baseline.left_out + gone,
    )


def _file(identity: str) -> str:
    return f"{_UNSAFE.sub('-', identity)[:120]}{ENDING}"
