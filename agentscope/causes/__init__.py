"""Step 5: Evidence -> Finding. One file a cause: its explanation (the docstring, printed by `agentscope explain`) and `match`.

`causes/<class>/<name>.py` is the cause `class/name`, hyphens for underscores. The parameters of `match` declare what it needs:
`fault: FaultFacts` must be there, `words: LastWords | None` is used if it is. Where a needed kind could not be had, the
diagnosis says "not checked"; where there was nothing of the kind, it says so under "ruled out". `victim: Known[OomKill]` stands
between the two: there may be none, but that must be known. `match` returns a `Finding`, or `No` with the reason. Being in the folder is being registered; a cause never asks another.
"""

import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from agentscope.evidence import Evidence, kinds
from agentscope.model import Finding

LOOKED_FOR = "looked for"
Some = typing.TypeVar("Some", bound=Evidence)
Known = typing.Annotated[Some | None, LOOKED_FOR]


@dataclass(frozen=True)
class No:
    """The cause does not fit, and why: a clause that follows "ruled out because"."""

    because: str


@dataclass(frozen=True)
class Cause:
    """One file of this folder. `needs` maps each parameter of `match` to (kind of evidence, whether it must be there).

    `looked_for` are the kinds of which there may be nothing, but not for want of looking.
    """

    slug: str
    explanation: str
    match: Callable[..., Finding | No]
    needs: Mapping[str, tuple[str, bool]]
    looked_for: frozenset[str] = frozenset()


def looked_for_by(match: Callable[..., Finding | No]) -> frozenset[str]:
    """The kinds of evidence of which a cause must know that there is nothing."""
    hints = typing.get_type_hints(match, include_extras=True)
    known = {parameter for parameter, hint in hints.items() if LOOKED_FOR in getattr(hint, "__metadata__", ())}
    return frozenset(slug for parameter, (slug, _) in needs_of(match).items() if parameter in known)


def needs_of(match: Callable[..., Finding | No]) -> dict[str, tuple[str, bool]]:
    """Read the declared needs off the types of the parameters."""
    by_struct = {kind.struct: kind.slug for kind in kinds().values()}
    found = {}
    for parameter, hint in typing.get_type_hints(match).items():
        if parameter == "return":
            continue
        options = (
            typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
        )
        structs = [option for option in options if isinstance(option, type) and issubclass(option, Evidence)]
        if len(structs) != 1:
            raise TypeError(f"{match.__module__}.match: parameter {parameter!r} must be one kind of evidence, or that | None")
        found[parameter] = (by_struct[structs[0]], type(None) not in options)
    return found


def causes() -> Mapping[str, Cause]:
    """Every cause, by slug: the folder is the list."""
    return causes_of(living=True) | causes_of(living=False)


@cache
def causes_of(*, living: bool) -> dict[str, Cause]:
    """The causes of what lives and does not get on, class `hang`, or of how something ended, every other class."""
    found: dict[str, Cause] = {}
    for folder in pkgutil.iter_modules(__path__):
        if (folder.name == "hang") is living:
            found |= _of_class(folder.name)
    return found


def _of_class(name: str) -> dict[str, Cause]:
    package = importlib.import_module(f"{__name__}.{name}")
    found = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        loaded = importlib.import_module(module.name)
        slug = "/".join(module.name.split(".")[-2:]).replace("_", "-")
        found[slug] = Cause(
            slug, (loaded.__doc__ or "").strip(), loaded.match, needs_of(loaded.match), looked_for_by(loaded.match)
        )
    return found
