"""Debian packages, changed by a real apt and dpkg, whose logs tell of it."""

from drift.case import NOT_FOUND, SEGV, WELL, Script, scene
from drift.lab import LabPlace


@scene(
    "drift/segfault",
    SEGV,
    lab=True,
    names=("libbroken1", "1.0-1", "1.1-1"),
    proof=("apt-get install -y -qq libbroken1", "nobody"),
)
def broken(place: LabPlace) -> Script:
    """Apt upgrades a library by order of a user; its structures changed, and the agent crashes in it when it starts again."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program("-DEAGER")
    place.deb("1.1-1", "-DPOINTER")
    place.apt("install", "-y", "-qq", place.package, user=65534)


@scene(
    "drift/segfault",
    SEGV,
    lab=True,
    flow="running",
    names=("libstale1", "2.0-1", "2.1-1"),
    proof=("apt-get upgrade",),
    stderr="pipe",
)
def stale(place: LabPlace) -> Script:
    """Apt upgrades a library with its parts under the running agent, which then crashes in the old one."""
    place.deb("2.0-1", "-DPARTS", more={"libfoo-parts.so": ("-DIS_PARTS",)})
    place.apt("install", "-y", "-qq", place.package)
    yield place.program("-DWORK=foo_parts")
    place.deb("2.1-1", "-DPARTS", "-DTABLE=2", more={"libfoo-parts.so": ("-DIS_PARTS", "-DTABLE=2")})
    place.apt("upgrade", "-y", "-qq")


@scene(
    "drift/missing-library",
    NOT_FOUND,
    lab=True,
    names=("libgone.so.1", "libgone1", "1.0-1"),
    complains="libgone.so.1: cannot open",
)
def gone(place: LabPlace) -> Script:
    """Apt removes a library that no package needed any more, but the agent did."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program()
    place.apt("remove", "-y", "-qq", place.package)


@scene(
    "drift/symbol",
    NOT_FOUND,
    lab=True,
    names=("foo_old", "liblost1", "1.0-1", "1.2-1"),
    complains="undefined symbol: foo_old",
    stderr="pipe",
)
def lost(place: LabPlace) -> Script:
    """Dpkg alone upgrades a library, so that only its own log tells; a function is gone."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program("-DWORK=foo_old", "-Wl,-z,now")
    place.deb("1.2-1", "-DNO_OLD")
    place.run("dpkg", "-i", f"/srv/repo/{place.package}_1.2-1.deb")


@scene(
    "drift/missing-library",
    NOT_FOUND,
    lab=True,
    flow="first",
    names=("libearly1", "1.0-1"),
    complains="libearly.so.1: cannot open",
    proof=("first run",),
)
def early(place: LabPlace) -> Script:
    """Its first run ever; but the package log tells that the very library was removed a moment ago, and that is all that is used."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program()
    place.apt("remove", "-y", "-qq", place.package)


@scene("crash/segfault", SEGV, lab=True)
def unrelated(place: LabPlace) -> Script:
    """Apt upgrades a package that the agent does not use; the agent crashes in its own code."""
    place.deb("1.0-1")
    place.deb("5.0-1", package="libelse1")
    place.apt("install", "-y", "-qq", place.package, "libelse1")
    yield place.program("-DOWN")
    place.deb("5.1-1", "-DPOINTER", package="libelse1")
    place.apt("install", "-y", "-qq", "libelse1")


@scene("crash/segfault", SEGV, lab=True, flow="running", stderr="pipe")
def related(place: LabPlace) -> Script:
    """Apt upgrades a library that the agent has mapped; the agent crashes in its own code all the same."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program("-DOWN")
    place.deb("1.1-1", "-DPATCHED")
    place.apt("install", "-y", "-qq", place.package)


@scene("none", WELL, lab=True)
def works(place: LabPlace) -> Script:
    """Apt upgrades a library that the agent uses, and the agent works."""
    place.deb("1.0-1")
    place.apt("install", "-y", "-qq", place.package)
    yield place.program("-DEAGER")
    place.deb("1.1-1", "-DPATCHED")
    place.apt("install", "-y", "-qq", place.package)
