"""Step 10, beside the views: where the stream goes. One file a sink; being in the folder is being registered.

A sink is chosen with `agentscope events --to URL` or by a table of the config:

    [sink.siem]
    to   = "https://siem.example.org/agents"     # - · file:/path · unix:/path · journal: · http(s)://…
    only = ["incident", "remedy", "lost"]        # beginnings of types, without "agentscope."; absent: what is usual for this sink

Each module has `SCHEMES` (what a URL of it begins with), `EXAMPLE`, `USUAL` (the types that it gets unless told otherwise; empty: all),
`Options` (the other keys of its table), `checked(wrong, to, options)`, which says what is not right before anything runs, and
`opened(chosen, around) -> Sink`. Nothing of a sink ever makes the pipeline wait: `take` comes back at once, whatever its reader does.
"""

import importlib
import pkgutil
import typing
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from agentscope.errors import BadInput, UsageError
from agentscope.examination.proc import plain
from agentscope.model import KernelLine, Value
from agentscope.record import EVENT_TYPES, Line, Recorder

PREFIX = "agentscope."
URL_LIMIT = 2000
TYPES = tuple(sorted(name.removeprefix(PREFIX) for name, kind in EVENT_TYPES.items() if kind is not KernelLine))


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a `[sink.NAME]` table beside `to` and `only`; a sink that has some has a class of its own."""


class Chosen(Value, frozen=True):
    """One sink as it was asked for, checked. `only` are beginnings of types without "agentscope."; empty: every type."""

    name: str
    scheme: str
    to: str
    only: tuple[str, ...] = ()
    options: Any = None

    def wants(self, kind: str) -> bool:
        """Whether it gets events of this type ("agentscope.incident.opened")."""
        if not self.only:
            return True
        short = kind.removeprefix(PREFIX)
        return any(short == part or short.startswith(f"{part}.") for part in self.only)


class Around(NamedTuple):
    """What a sink is given: the recorder of its lines, the state directory, and how to say to the owner what does not work."""

    recorder: Recorder
    state: Path
    say: Callable[[str], None]


class Sink(Protocol):
    """Where lines go. Made and called in one running event loop."""

    lost_count: int  # lines that will never arrive
    why: str  # they did not, or do not now; empty: it works

    def take(self, line: Line) -> None:
        """Send this line; comes back at once."""

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent or the time is over; False if something was left."""

    def close(self) -> None:
        """Let go of everything; what is not sent is lost."""


def schemes() -> dict[str, ModuleType]:
    """Every sink by the beginnings of its URLs: the folder is the list."""
    return {scheme: module for module in modules() for scheme in module.SCHEMES}


def module_of(scheme: str) -> ModuleType | None:
    """The sink of this scheme, or None. The usual one is found without loading the others."""
    return importlib.import_module(f"{__name__}.stdout") if scheme == "-" else schemes().get(scheme)


@cache
def modules() -> Sequence[ModuleType]:
    """The files of this folder that are sinks."""
    return tuple(
        importlib.import_module(f"{__name__}.{each.name}")
        for each in pkgutil.iter_modules(__path__)
        if not each.name.startswith("_")
    )


def examples() -> str:
    """One URL of each sink, for whoever typed another."""
    return ", ".join(module.EXAMPLE for module in modules())


def chosen_of(wrong: str, name: str, table: dict[str, Any]) -> Chosen:
    """One sink, from its table. `wrong` begins the sentence of what is not right.

    Raises:
        BadInput: there is no such sink, or it has no such key; it says which and what to type.
    """
    rest = dict(table)
    to, only = rest.pop("to", None), rest.pop("only", None)
    if not isinstance(to, str) or not to.isprintable() or not 0 < len(to) <= URL_LIMIT:
        raise BadInput(wrong, "it does not say where to", f'to = "…", one of {examples()}')
    scheme = to.partition(":")[0]
    module = module_of(scheme)
    if module is None:
        raise BadInput(wrong, f"{to!r} begins with nothing that is known", examples())
    try:
        options = msgspec.convert(rest, module.Options)
    except msgspec.ValidationError as error:
        keys = ", ".join(("to", "only", *module.Options.__struct_fields__))
        raise BadInput(wrong, str(error), f"a {scheme} sink has {keys}") from None
    module.checked(wrong, to, options)
    return Chosen(name=name, scheme=scheme, to=to, only=types_of(wrong, only, module.USUAL), options=options)


def types_of(wrong: str, only: object, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The types that a sink gets.

    Raises:
        BadInput: there is no such type.
    """
    if only is None:
        return usual
    if not isinstance(only, list) or not all(isinstance(each, str) for each in only):
        raise BadInput(f"{wrong}: only", "it is a list of types", 'only = ["incident", "remedy"]')
    parts = tuple(each.removeprefix(PREFIX) for each in typing.cast("list[str]", only))
    for part in parts:
        if part not in TYPES and not any(known.startswith(f"{part}.") for known in TYPES):
            raise BadInput(f"{wrong}: only", f"there is no type {part!r}", ", ".join(TYPES))
    return parts


def read_sinks(wrong: str, tables: dict[str, dict[str, Any]]) -> tuple[Chosen, ...]:
    """The `[sink.NAME]` tables of a config.

    Raises:
        BadInput: one of them is not right.
    """
    return tuple(chosen_of(f"{wrong}: sink {name}", name, table) for name, table in tables.items())


def typed_sinks(urls: Sequence[str]) -> tuple[Chosen, ...]:
    """The sinks of `--to`. Their names are their schemes: what stands behind may be a secret, as of a webhook.

    Raises:
        BadInput: one of them is not right.
    """
    found: list[Chosen] = []
    for url in urls:
        scheme = url.partition(":")[0]
        name = "stdout" if scheme == "-" else scheme
        same = sum(1 for each in found if each.scheme == scheme)
        found.append(chosen_of(f"--to {url}", f"{name}-{same + 1}" if same else name, {"to": url}))
    return tuple(found)


def server_of(url: str) -> str:
    """What may be said of an address: the rest of it may be a secret."""
    return plain(urlsplit(url).netloc.rpartition("@")[2], 100)


def cannot_open(where: str, path: str, error: OSError) -> UsageError:
    """The sentence for a path that cannot be opened; wrong usage, for it would be so at the next start too."""
    folder = Path(path).parent
    hint = f"mkdir -p {folder}" if isinstance(error, FileNotFoundError) else f"ls -ld {folder}"
    return UsageError(where, error.strerror or str(error), hint)


def open_sink(chosen: Chosen, around: Around) -> Sink:
    """It, ready to take lines.

    Raises:
        UsageError: it can never work as it was asked for: a folder that is not there, an address that is taken, a library that is missing.
    """
    module = module_of(chosen.scheme)
    assert module is not None, "it was checked"
    opened: Sink = module.opened(chosen, around)
    return opened
