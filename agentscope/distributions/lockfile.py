"""What a lock file says should be installed, against what is.

Forms: requirements.txt (pip, "Requirements File Format"; only lines that pin), uv.lock, poetry.lock, pdm.lock, pylock.toml
(packaging specifications, "pylock.toml"), Pipfile.lock, package-lock.json (npm, lockfileVersion 2 and 3). A package that is not
installed is no difference: lock files name packages of other systems and of groups that were not asked for.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping

import msgspec

from agentscope.distributions import Deviation, Distribution, NodePackage, plain
from agentscope.distributions.installed import normal
from agentscope.model import Value
from agentscope.symbols.rooted import read_regular

LOCK_LIMIT_BYTES = 4 << 20
PACKAGES_LIMIT = 20_000
LINE_LIMIT = 2000
BRACKETS_LIMIT = 64  # nested ones on one line: tomllib recurses into them


class Lock(Value, frozen=True):
    """A lock file: for each normalised name the versions that it allows, more than one where systems differ."""

    path: str
    form: str
    versions: Mapping[str, tuple[str, ...]]


class NotALock(ValueError):
    """The file is there, but is not what its name says."""


def read_lock(path: str, *, root: str | None = None, python: str | None = None) -> Lock:
    """The lock file at `path`; `python` is the version of the interpreter, by which lines with a condition are chosen.

    Raises:
        OSError: it cannot be read. NotALock: it is not of a form that is known.
    """
    return parse_lock(path, read_regular(path, root=root, limit_bytes=LOCK_LIMIT_BYTES, follow=True), python=python)


def form_of(name: str) -> str | None:
    """The form that a file of this name has; None of one that is not known here."""
    if name.startswith("pylock.") and name.endswith(".toml"):
        return "pylock.toml"
    return next((known for known in FORMS if name == known or (known == "requirements.txt" and name.endswith(".txt"))), None)


def parse_lock(path: str, raw: bytes, *, python: str | None = None) -> Lock:
    """The same of bytes.

    Raises:
        NotALock: they are not of the form that the name promises.
    """
    name = path.rpartition("/")[2]
    form = form_of(name)
    if form is None:
        raise NotALock(f"{name} is no lock file that is known here")
    found: dict[str, dict[str, None]] = {}
    try:
        text = raw.decode("utf-8")
        for package, version in FORMS[form](text, _markers(python)):
            if len(found) < PACKAGES_LIMIT:
                key = package if form == "package-lock.json" else normal(package)
                found.setdefault(plain(key), {})[plain(version)] = None
    except (ValueError, RecursionError, msgspec.DecodeError, TypeError, AttributeError, KeyError) as error:
        raise NotALock(f"{name}: {type(error).__name__}: {error}"[:300]) from None
    return Lock(path=path, form=form, versions={key: tuple(versions) for key, versions in found.items()})


def against(lock: Lock, installed: tuple[Distribution, ...] | tuple[NodePackage, ...]) -> tuple[Deviation, ...]:
    """What is installed otherwise than the lock file has it. Versions are compared as their ecosystem does: 1.0 is 1.0.0."""
    found = []
    for package in installed:
        node = isinstance(package, NodePackage)
        if node != (lock.form == "package-lock.json"):
            continue
        if isinstance(package, NodePackage):
            # the same package can stand in several folders in several versions: the path is its name in the lock file
            key = "node_modules/" + package.folder.partition("/node_modules/")[2]
        else:
            key = normal(package.name)
        locked = lock.versions.get(key)
        if locked and not any(_equal(version, package.version) for version in locked):
            found.append(Deviation(name=package.name, locked=locked, installed=package.version))
    return tuple(found)


def _equal(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    if one == other:
        return True
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


_Environment = dict[str, str]
_Pinned = Iterator[tuple[str, str]]


def _markers(python: str | None) -> _Environment:
    """The names that conditions may use (packaging specifications, "Environment Markers"), of the target and not of us."""
    from packaging.markers import default_environment

    environment = {name: str(value) for name, value in default_environment().items()}
    if python is not None:
        environment |= {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    return environment


def _requirements(text: str, environment: _Environment) -> _Pinned:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines()[:PACKAGES_LIMIT]:
        stated = line.strip()
        stated = (stated[: stated.index(" #")] if " #" in stated else stated).split(" --", 1)[0].strip()
        if not stated or stated.startswith(("#", "-")) or len(stated) > LINE_LIMIT:
            continue
        try:
            requirement = Requirement(stated)
            pins = [
                part.version for part in requirement.specifier if part.operator in {"==", "==="} and "*" not in part.version
            ]
            if len(pins) == 1 and (requirement.marker is None or requirement.marker.evaluate(environment)):
                yield requirement.name, pins[0]
        except (InvalidRequirement, ValueError, KeyError):
            continue


def _toml(text: str) -> dict[str, object]:
    if any(line.count("[") + line.count("{") > BRACKETS_LIMIT for line in text.splitlines()):
        raise NotALock("it is nested more deeply than any lock file is")
    return tomllib.loads(text)


def _tables(text: str, key: str, environment: _Environment) -> _Pinned:
    from packaging.markers import InvalidMarker, Marker

    packages = _toml(text).get(key)
    if not isinstance(packages, list):
        raise NotALock(f"it has no [[{key}]]")
    for package in packages:
        name, version, marker = package.get("name"), package.get("version"), package.get("marker")
        if not isinstance(name, str) or not isinstance(version, str):
            continue
        if isinstance(marker, str) and len(marker) < LINE_LIMIT:
            try:
                if not Marker(marker).evaluate(environment):
                    continue
            except (InvalidMarker, ValueError, KeyError):
                continue
        yield name, version


def _package_tables(text: str, environment: _Environment) -> _Pinned:
    return _tables(text, "package", environment)


def _pylock(text: str, environment: _Environment) -> _Pinned:
    return _tables(text, "packages", environment)


def _pipfile(text: str, _: _Environment) -> _Pinned:
    described = msgspec.json.decode(text, type=dict[str, dict[str, object]])
    for group in ("default", "develop"):
        for name, pinned in described.get(group, {}).items():
            version = pinned.get("version") if isinstance(pinned, dict) else None
            if isinstance(version, str) and version.startswith("=="):
                yield name, version[2:]


def _npm(text: str, _: _Environment) -> _Pinned:
    packages = msgspec.json.decode(text, type=dict[str, object]).get("packages")
    if not isinstance(packages, dict):
        raise NotALock("it has no packages: npm 7 or later writes them")
    for place, package in packages.items():
        version = package.get("version") if isinstance(package, dict) else None
        if place and isinstance(version, str):
            yield place, version


FORMS: dict[str, Callable[[str, _Environment], _Pinned]] = {
    "uv.lock": _package_tables,
    "poetry.lock": _package_tables,
    "pdm.lock": _package_tables,
    "pylock.toml": _pylock,
    "requirements.txt": _requirements,
    "Pipfile.lock": _pipfile,
    "package-lock.json": _npm,
}
