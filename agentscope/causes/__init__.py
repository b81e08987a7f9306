"""Step 5: Evidence -> Finding. One file a cause: its explanation (the docstring, printed by `agentscope explain`) and `match`.

`causes/<class>/<name>.py` is the cause `class/name`, hyphens for underscores. The parameters of `match` declare what it needs:
`fault: FaultFacts` must be there, `words: LastWords | None` is used if it is; a dataclass stands for each of its fields. Where
a needed kind could not be had, the diagnosis says "not checked"; where there was nothing of the kind, it says so under "ruled
out". `victim: Known[OomKill]` stands between the two: there may be none, but that must be known. `match` returns a `Finding`, or
`No` with the reason. Being in the folder is being registered; a cause never asks another.
"""

import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
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


Match = Callable[..., Finding | No]


@dataclass(frozen=True)
class Cause:
    """One file of this folder. `needs` maps each piece of evidence by name to (its kind, whether it must be there).

    `looked_for` are the kinds of which there may be nothing, but not for want of looking.
    """

    slug: str
    explanation: str
    match: Match
    needs: Mapping[str, tuple[str, bool]]
    looked_for: frozenset[str] = frozenset()


def looked_for_by(match: Match) -> frozenset[str]:
    """The kinds of evidence of which a cause must know that there is nothing."""
    needs, known = needs_of(match), set[str]()
    for parameter, hint in typing.get_type_hints(match, include_extras=True).items():
        if isinstance(hint, type) and is_dataclass(hint):
            known |= looked_for_by(typing.cast("Match", hint))
        elif LOOKED_FOR in getattr(hint, "__metadata__", ()):
            known.add(needs[parameter][0])
    return frozenset(known)


def needs_of(match: Match) -> dict[str, tuple[str, bool]]:
    """Read the declared needs off the types of the parameters, and of the fields of a dataclass among them.

    Raises:
        TypeError: a parameter is neither one kind of evidence nor a dataclass of such, or two have one name.
    """
    by_struct = {kind.struct: kind.slug for kind in kinds().values()}
    found: dict[str, tuple[str, bool]] = {}
    for parameter, hint in _parameters(match):
        if isinstance(hint, type) and is_dataclass(hint):
            needed = needs_of(typing.cast("Match", hint))
        else:
            options = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
            structs = [option for option in options if isinstance(option, type) and issubclass(option, Evidence)]
            if len(structs) != 1:
                raise TypeError(
                    f"{match.__module__}.{match.__name__}: {parameter!r} must be one kind of evidence, or that | None"
                )
            needed = {parameter: (by_struct[structs[0]], type(None) not in options)}
        if twice := found.keys() & needed:
            raise TypeError(f"{match.__module__}.{match.__name__}: {sorted(twice)} stand there twice")
        found |= needed
    return found


def _parameters(match: Match) -> list[tuple[str, typing.Any]]:
    """The parameters of a function, or the fields of a dataclass, with their types."""
    hints = typing.get_type_hints(match)
    return [(name, hint) for name, hint in hints.items() if name != "return"]


def _by_name(match: Match) -> Match:
    """`match` with the fields of its dataclasses as parameters of its own: evidence is handed over by name alone."""
    bundles = {name: hint for name, hint in _parameters(match) if isinstance(hint, type) and is_dataclass(hint)}
    if not bundles:
        return match

    def matched(**found: Evidence | None) -> Finding | No:
        gathered = {
            name: bundle(**{field.name: found.pop(field.name) for field in fields(bundle)}) for name, bundle in bundles.items()
        }
        return match(**gathered, **found)

    return matched


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
        match = loaded.match
        explanation = (loaded.__doc__ or "").strip()
        found[slug] = Cause(slug, explanation, _by_name(match), needs_of(match), looked_for_by(match))
    return found
