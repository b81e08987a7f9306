"""Taking a baseline: plain blocking functions, for a thread beside the event loop.

Only stat(2) and small reads where nothing changed since it was taken before: what was learnt of a file is remembered under its
identity. Nothing of the process is run, and every path is resolved inside its root.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from agentscope.baseline import Baseline, Image, Interpreter, MappedFile
from agentscope.baseline.facts import ProcessFacts, facts_of
from agentscope.baseline.interpreter import interpreter_of, node_folders_of, sites_of
from agentscope.baseline.locked import lock_of, lock_path
from agentscope.baseline.mapped import file_state, libc_version, mapped_files, mappings_of, stem_of, successor_of
from agentscope.baseline.mapped import recall as recall_files
from agentscope.distributions import plain
from agentscope.distributions.container import image_of, layers_of
from agentscope.distributions.installed import installed
from agentscope.distributions.installed import recall as recall_distributions
from agentscope.distributions.node import node_packages
from agentscope.distributions.system import system_packages


def take(facts: ProcessFacts | int, *, lockfile: str | None = None) -> Baseline | None:
    """The baseline of a living process by its facts or its pid; None where it is gone.

    `lockfile` is that of the configuration, relative to the process's folder; without one a usual name is looked for.
    """
    seen = facts_of(facts) if isinstance(facts, int) else facts
    if seen is None:
        return None
    mapped: tuple[MappedFile, ...] = ()
    if seen.pid is not None:
        mapped = tuple(mapped_files(seen.pid, mappings_of(seen.pid), root=seen.root))
    if not mapped and seen.exe:
        mapped = tuple(_standing([seen.exe], seen.root))
    return _taken(seen, mapped, _lock_path(seen, lockfile))


def take_lightly(facts: ProcessFacts, kept: Baseline | None) -> Baseline:
    """What a living process stands on, in a few milliseconds: for whoever asks once and waits for the answer.

    Of `kept`, its agent's baseline, only what changed since is read; the packages of the system, whose logs tell of their changes,
    are not. Without one there is nothing to compare packages with: only what it has mapped and its venv are looked at.
    """
    if kept is not None:
        recall_files(kept.mapped)
        recall_distributions(kept.distributions)
    mapped = tuple(mapped_files(facts.pid, mappings_of(facts.pid), root=facts.root)) if facts.pid is not None else ()
    if kept is not None:
        return _taken(facts, mapped, kept.lock.path if kept.lock else None, kept=kept)
    return Baseline(
        wall_ns=time.time_ns(),
        boot_id=_boot_id(),
        kernel=os.uname().release,
        pid=facts.pid,
        start_ns=facts.start_ns,
        own_root=facts.own_root,
        exe=plain(facts.exe, 4096) if facts.exe else None,
        mapped=mapped,
        interpreter=interpreter_of(facts, [file.path for file in mapped], exact=False),
        container=facts.container,
    )


def take_again(old: Baseline, *, root: str | None = None, mapped: Iterable[str] = (), lockfile: str | None = None) -> Baseline:
    """What stands now where a baseline saw things, also when its process is dead.

    `root` is that of another process in the same container (None: ours). `mapped` are files that a later process had mapped, and
    `lockfile` is that of the configuration.
    A library that is gone is followed to the one that the loader finds under its name now.
    """
    paths: dict[str, MappedFile] = {known.path: known for known in old.mapped}
    found: list[MappedFile] = []
    for path, known in paths.items():
        now = file_state(path, root=root)
        found.append(msgspec.structs.replace(known, file=now, stale=now is None or (now.device, now.inode) != _identity(known)))
        later = successor_of(path, root=root) if now is None else None
        if later is not None and later not in paths:
            found.extend(_standing([later], root))
    found.extend(_standing((path for path in mapped if path not in paths), root))
    facts = _facts_again(old, root)
    lock = facts.absolute(lockfile) if lockfile is not None else old.lock.path if old.lock else None
    return _taken(facts, tuple(found), lock, before=old)


def _facts_again(old: Baseline, root: str | None) -> ProcessFacts:
    link = old.interpreter.link if old.interpreter else None
    exe = old.exe
    if link is not None:
        from agentscope.symbols.rooted import resolved

        with suppress(OSError):
            exe = resolved(link, root=root)
    return ProcessFacts(
        argv=(link,) if link else (),
        exe=exe,
        cwd=old.cwd,
        root=root,
        own_root=old.own_root,
        environment={"HOME": old.home} if old.home else {},
        names=old.environment,
        container=old.container,
    )


def _taken(
    facts: ProcessFacts,
    mapped: tuple[MappedFile, ...],
    lock: str | None,
    before: Baseline | None = None,
    kept: Baseline | None = None,
) -> Baseline:
    """All of it. `before` is what is looked at again, `kept` what a living process is compared with (the packages of the system are not)."""
    paths = [file.path for file in mapped if before is None or file.file is not None]
    interpreter = interpreter_of(facts, paths)
    sites = before.sites if before is not None else sites_of(facts, interpreter, paths)
    if before is not None and _moved(before.interpreter, interpreter):
        sites = tuple(dict.fromkeys((*sites_of(facts, interpreter, ()), *sites)))
    folders = before.node_folders if before is not None else node_folders_of(facts, paths)
    distributions, left_out = installed(sites, root=facts.root)
    node, node_left_out = node_packages(folders, root=facts.root)
    found = Baseline(
        wall_ns=time.time_ns(),
        boot_id=_boot_id(),
        kernel=os.uname().release,
        pid=facts.pid,
        start_ns=facts.start_ns,
        own_root=facts.own_root,
        exe=plain(facts.exe, 4096) if facts.exe else None,
        cwd=plain(facts.cwd, 4096) if facts.cwd else None,
        home=plain(facts.home, 4096) if facts.home else None,
        mapped=mapped,
        libc=libc_version(mapped, root=facts.root),
        interpreter=interpreter,
        sites=sites,
        distributions=distributions,
        node_folders=folders,
        node=node,
        system=system_packages(root=facts.root) if kept is None else None,
        environment=facts.names,
        image=_image(facts),
        container=facts.container,
        left_out=left_out + node_left_out,
    )
    if lock is None:
        return found
    other = before or kept
    same = other is not None and (other.distributions, other.node) == (distributions, node)
    known = other.lock if other is not None and same and other.lock is not None and other.lock.path == lock else None
    return msgspec.structs.replace(found, lock=lock_of(lock, found, root=facts.root, known=known, lightly=kept is not None))


def _lock_path(facts: ProcessFacts, configured: str | None) -> str | None:
    return facts.absolute(configured) if configured is not None else lock_path(facts)


def _moved(old: Interpreter | None, new: Interpreter | None) -> bool:
    return old is not None and new is not None and old.version != new.version


def _standing(paths: Iterable[str], root: str | None) -> Iterable[MappedFile]:
    for path in paths:
        file = file_state(path, root=root)
        if file is not None:
            yield MappedFile(path=path, inode=file.inode, device="", file=file)


def _identity(known: MappedFile) -> tuple[int, int] | None:
    return None if known.file is None else (known.file.device, known.file.inode)


def _image(facts: ProcessFacts) -> Image | None:
    if facts.container is not None and (found := image_of(facts.container)):
        return Image(id=found.id, name=found.name)
    if facts.pid is not None and not facts.own_root:
        with suppress(OSError):
            layers = layers_of(Path(f"/proc/{facts.pid}/mountinfo").read_text("utf-8", "replace"))
            return Image(id=layers.id) if layers else None
    return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii", "replace").strip()
    except OSError:
        return "?"


def grown(kept: Baseline, now: Baseline) -> Baseline:
    """One run seen again: what was kept stays, what was loaded since is added.

    A change must not be taken for healthy because the process goes on: what it has in memory is older than the change. So a later
    mark of the same run never replaces what the first one saw.
    """
    paths = {file.path for file in kept.mapped} | {stem_of(file.path) for file in kept.mapped if file.file is None}
    names = {found.name for found in kept.distributions}
    folders = {package.folder for package in kept.node}
    return msgspec.structs.replace(
        kept,
        mapped=(*kept.mapped, *(file for file in now.mapped if file.path not in paths)),
        distributions=(*kept.distributions, *(found for found in now.distributions if found.name not in names)),
        node=(*kept.node, *(package for package in now.node if package.folder not in folders)),
        sites=tuple(dict.fromkeys((*kept.sites, *now.sites))),
        node_folders=tuple(dict.fromkeys((*kept.node_folders, *now.node_folders))),
        interpreter=kept.interpreter or now.interpreter,
        lock=kept.lock or now.lock,
        libc=kept.libc or now.libc,
    )
