"""Readers of text: kernel lines and last words -> Reading. One file a reader; being in this folder is being registered.

A reader is a module with `read(passage) -> Iterator[Mark]` and `KINDS`, the kinds of text that it believes: what a process
prints (`kind="stderr"`) may look like a kernel line and is never taken for one. Modules whose name begins with an underscore
are shared steps. Readers never raise and never wait; a text of 256 KiB is read in well under a second.
"""

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module

from agentscope.model import Reading, Value
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage, passage_of, plain_text

_MONITOR_FACTS = ("signal", "exit_code", "status", "code", "unit", "result", "reason", "sender", "not", "pid", "program")


class _Reader(Value, frozen=True):
    name: str
    kinds: frozenset[str]
    read: Callable[[Passage], Iterator[Mark]]


def read(text: str, *, kind: str | None = None) -> tuple[Reading, ...]:
    """What this text says, most decisive first; readings with `suggests` None end nothing.

    `kind` is where it came from: kmsg, stderr, systemd, docker, k8s; None reads it as anything.
    """
    passage = passage_of(text, kind)
    return tuple(mark.reading for mark in _ranked(_marks(passage)))


def clean(text: str) -> str:
    """The text without control sequences, bounded like every passage, its prefixes kept: what may be shown to a person."""
    return plain_text(text)


def diagnose_text(text: str, *, kind: str | None = None) -> dict[str, list[dict[str, object]]]:
    """The public answer of `diagnose --log`: one finding for each death that the text tells of, most decisive first."""
    passage = passage_of(text, kind)
    ranked = [mark for mark in _ranked(_marks(passage)) if mark.reading.suggests is not None]
    if not ranked:
        return {"findings": []}
    return {"findings": [_finding(mark, passage) for mark in _deaths(ranked)]}


@lru_cache(maxsize=1)
def _readers() -> tuple[_Reader, ...]:
    found = []
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            loaded = import_module(f"{__name__}.{module.name}")
            found.append(_Reader(name=module.name, kinds=loaded.KINDS, read=loaded.read))
    return tuple(found)


def _marks(passage: Passage) -> list[Mark]:
    return [
        mark for reader in _readers() if passage.kind is None or passage.kind in reader.kinds for mark in reader.read(passage)
    ]


def _ranked(marks: Iterable[Mark]) -> list[Mark]:
    return sorted(marks, key=lambda mark: (-mark.weight, mark.first))


def _deaths(ranked: Sequence[Mark]) -> list[Mark]:
    """The first mark, and those of the same weight that speak of others: a text can tell of several deaths."""
    best = ranked[0]
    if best.weight == Weight.MONITOR and best.reading.reader == "parents":
        best = next(
            (mark for mark in reversed(ranked) if mark.weight == Weight.MONITOR and mark.reading.facts.get("pid")), best
        )
    chosen = [_with_seen(best, ranked)]
    names = {best.names}
    for mark in ranked:
        if mark.weight == best.weight and mark.names is not None and mark.names not in names and best.names is not None:
            names.add(mark.names)
            chosen.append(mark)
    return chosen


def _with_seen(best: Mark, ranked: Sequence[Mark]) -> Mark:
    """The decisive mark with what monitors saw of the same death: its signal, its status, its unit."""
    if best.weight >= Weight.KILLER:
        return best
    facts = dict(best.reading.facts)
    own = best.weight <= Weight.MONITOR
    for mark in ranked:
        reading = mark.reading
        if reading.suggests == best.reading.suggests and mark.first <= best.last and mark.last >= best.first:
            facts = {**reading.facts, **facts}
        if own and reading.suggests is None and "exception_type" in reading.facts:
            facts.setdefault("handled_exception", reading.facts["exception_type"])
        if mark is best or mark.weight > Weight.MONITOR or mark.last < best.first:
            continue
        signal = reading.facts.get("signal")
        if reading.suggests is not None and reading.suggests.startswith("killed/") and not own and "signal" not in facts:
            facts.setdefault("later_signal", signal)
            continue
        if own and reading.suggests != best.reading.suggests:
            continue
        facts.update((name, reading.facts[name]) for name in _MONITOR_FACTS if name in reading.facts and name not in facts)
    pid = best.reading.pid if best.reading.pid is not None else facts.get("pid")
    reading = Reading(
        reader=best.reading.reader,
        suggests=best.reading.suggests,
        says=best.reading.says,
        culprit=best.reading.culprit,
        pid=pid if isinstance(pid, int) else None,
        facts=facts,
        excerpt=best.reading.excerpt,
    )
    return Mark(reading=reading, weight=best.weight, first=best.first, last=best.last, names=best.names)


def _finding(mark: Mark, passage: Passage) -> dict[str, object]:
    reading = mark.reading
    assert reading.suggests is not None
    facts = dict(reading.facts)
    if passage.prefix is not None:
        facts.setdefault("prefix", passage.prefix)
    return {
        "cause": reading.suggests,
        "subtype": reading.suggests.split("/", 1)[1],
        "pid": reading.pid,
        "culprit": reading.culprit,
        "facts": facts,
    }
