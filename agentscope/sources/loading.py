"""Which of the compiled programs this kernel takes: found by loading them, never by a version. What cannot be had is a sentence."""

import errno
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentscope.errors import EngineUnavailable
from agentscope.machines import MACHINES, this_machine
from agentscope.sources.libbpf import BpfError, Library, ProbeObject

PROBES = Path(__file__).parent / "probes"  # a folder for each processor, by the name that uname(2) has for it
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_WHAT = "the kernel probes cannot be loaded"
_WITHOUT = "--engine auto, which takes the best that works here"
_LIBBPF_OWN_ERRORS = 4000  # enum libbpf_errno: what libbpf itself found wrong with the file; below it are errnos of the kernel


def probes_of(machine: str) -> Path:
    """The folder with the objects for a processor, by the name that uname(2) has for it; it need not be there."""
    return PROBES / machine


class Flavour(NamedTuple):
    """Programs that go together, and what is lost with them compared to the flavour before."""

    programs: tuple[str, ...]
    lost: str = ""


# flavours, best first; the last one always loads, or the object cannot be had
Family = tuple[Flavour, ...]


class Loaded(NamedTuple):
    """A loaded object, the names of its programs, and what is lost on this kernel."""

    object: ProbeObject
    programs: frozenset[str]
    lost: tuple[str, ...]


def load(library: Library, path: Path, families: Sequence[Family]) -> Loaded:
    """The object with the best flavour of each family that this kernel takes.

    Raises:
        EngineUnavailable: this machine or this user cannot have it.
    """
    _require_this_machine(path)
    try:
        return _load_flavours(library, path, [family[0] for family in families])
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise _not_permitted() from error
        if (error.errno or 0) >= _LIBBPF_OWN_ERRORS:
            raise EngineUnavailable(_WHAT, f"{path} is damaged", "make probes, or install agentscope anew") from error
    chosen = [_best_flavour(library, path, family) for family in families]
    try:
        return _load_flavours(library, path, chosen)
    except BpfError as error:
        raise not_loadable(error) from error


def not_loadable(error: BpfError) -> EngineUnavailable:
    """A refusal by the kernel, for a person."""
    why = f"this kernel ({platform.release()}) refuses them: {errno.errorcode.get(error.errno or 0, error.errno)}"
    return EngineUnavailable(_WHAT, why, _WITHOUT)


def _load_flavours(library: Library, path: Path, chosen: Sequence[Flavour]) -> Loaded:
    programs = frozenset(name for flavour in chosen for name in flavour.programs)
    probes = ProbeObject(library, path)
    try:
        probes.load_only(programs)
    except BpfError:
        probes.close()
        raise
    return Loaded(probes, programs, tuple(flavour.lost for flavour in chosen if flavour.lost))


def _best_flavour(library: Library, path: Path, family: Family) -> Flavour:
    for flavour in family[:-1]:
        probes = ProbeObject(library, path)
        try:
            probes.load_only(frozenset(flavour.programs))
        except BpfError:
            continue
        finally:
            probes.close()
        return flavour
    return family[-1]


def _require_this_machine(path: Path) -> None:
    """What libbpf would report in words that mislead is looked at first."""
    machine = os.uname().machine
    if (known := this_machine()) is None:
        built = " and ".join(sorted(MACHINES))
        raise EngineUnavailable(_WHAT, f"they are built for {built}, and this is {machine}", _WITHOUT)
    if struct.calcsize("P") != 8:
        raise EngineUnavailable(
            _WHAT, f"this Python is a program of 32 bits, and the kernel is of {known.name}", f"a Python of {known.name}"
        )
    if not path.exists():
        raise EngineUnavailable(_WHAT, f"they have not been built: {path} is not there", "make probes")
    if not KERNEL_BTF.exists():
        why = f"this kernel does not describe its types: {KERNEL_BTF} is not there (CONFIG_DEBUG_INFO_BTF)"
        raise EngineUnavailable(_WHAT, why, _WITHOUT)


def _not_permitted() -> EngineUnavailable:
    if os.geteuid() == 0:
        why = "the kernel refuses BPF to this root user: a container without CAP_BPF and CAP_PERFMON, or kernel lockdown"
        return EngineUnavailable(_WHAT, why, _WITHOUT)
    return EngineUnavailable(_WHAT, "it takes root", "sudo agentscope …")
