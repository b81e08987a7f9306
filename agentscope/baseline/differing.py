"""What is not as it was: two baselines compared. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from agentscope.baseline import Baseline, Drifted, DriftKind, FileState, How, LockFile, MappedFile
from agentscope.baseline.mapped import stem_of
from agentscope.distributions import Distribution
from agentscope.distributions.installed import normal
from agentscope.distributions.versions import newer

DRIFTED_LIMIT = 500


def difference(old: Baseline, new: Baseline) -> tuple[Drifted, ...]:
    """Everything that differs, what the program itself is made of first; at most 500.

    A file counts as changed only if what it holds can have changed: a reinstallation of the same build, or a link more, is none.
    """
    found = (
        *_interpreters(old, new),
        *_mapped(old, new),
        *_values(old, new),
        *_distributions(old, new),
        *_versions("node-package", _nodes(old), _nodes(new)),
        *_system(old, new),
        *_environment(old, new),
    )
    return found[:DRIFTED_LIMIT]


def _same_run(old: Baseline, new: Baseline) -> bool:
    return old.pid is not None and (old.boot_id, old.pid, old.start_ns) == (new.boot_id, new.pid, new.start_ns)


def _interpreters(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    before, after = old.interpreter, new.interpreter
    if before is None:
        return
    if after is None or after.file is None:
        yield Drifted(kind="interpreter", name="python", how="removed", before=before.version, path=before.path)
        return
    if before.version != after.version:
        yield Drifted(
            kind="interpreter",
            name="python",
            how=_direction("python", before.version, after.version),
            before=before.version,
            after=after.version,
            path=after.path,
            changed_ns=after.file.ctime_ns,
            armed=_same_run(old, new),
        )
    if before.venv and (before.venv, before.venv_version) != (after.venv, after.venv_version):
        how: How = "changed" if after.venv else "removed"
        yield Drifted(
            kind="venv", name=before.venv, how=how, before=before.venv_version, after=after.venv_version, path=before.venv
        )


def _mapped(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    """Files by path, then what is left on both sides by the name that a library keeps through its versions."""
    now = {file.path: file for file in new.mapped}
    known = {file.path for file in old.mapped}
    later: dict[str, MappedFile] = {}
    for file in new.mapped:
        if file.path not in known and file.file is not None:
            later.setdefault(stem_of(file.path), file)
    same_run = _same_run(old, new)
    for file in old.mapped:
        kind: DriftKind = "program" if file.path == old.exe else "library"
        after = now.get(file.path)
        heir = later.get(stem_of(file.path))
        if heir is not None and (after is None or after.file is None):
            yield from _moved(kind, file, heir, armed=same_run)
        elif after is not None:
            how = _how(file, after)
            if how is not None:
                yield _drifted_file(kind, file, after, how, armed=same_run and after.stale)


def _moved(kind: DriftKind, before: MappedFile, after: MappedFile, *, armed: bool) -> Iterator[Drifted]:
    """One library under a new file name or in a new folder: libfoo.so.1.0 is libfoo.so.1.1 now, or another store path of Nix."""
    if _build(before.file) is not None and _build(before.file) == _build(after.file):
        return
    names = (before.path, after.path)
    short = [path.rpartition("/")[2] for path in names]
    shown = short if short[0] != short[1] else list(names)
    changed_ns = after.file.ctime_ns if after.file else None
    yield Drifted(
        kind=kind,
        name=stem_of(before.path),
        how="replaced",
        before=shown[0],
        after=shown[1],
        path=after.path,
        former_path=before.path,
        changed_ns=changed_ns,
        armed=armed,
    )


def _how(before: MappedFile, after: MappedFile) -> How | None:
    """Whether a file was removed, replaced or written over; None where it holds what it held."""
    if before.file is None:
        return None
    if after.file is None:
        return "removed"
    then, now = before.file, after.file
    same_content = then.size_bytes == now.size_bytes and (
        then.build_id == now.build_id if then.build_id or now.build_id else then.mtime_ns == now.mtime_ns
    )
    if (then.device, then.inode) != (now.device, now.inode):
        return None if same_content else "replaced"
    return None if same_content and then.mtime_ns == now.mtime_ns else "overwritten"


def _drifted_file(kind: DriftKind, before: MappedFile, after: MappedFile, how: How, *, armed: bool) -> Drifted:
    return Drifted(
        kind=kind,
        name=before.path.rpartition("/")[2],
        how=how,
        before=_build(before.file),
        after=_build(after.file),
        path=before.path,
        changed_ns=after.file.ctime_ns if after.file else None,
        armed=armed,
    )


def _build(file: FileState | None) -> str | None:
    return f"build {file.build_id[:16]}" if file is not None and file.build_id else None


def _values(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    if old.libc and new.libc and old.libc != new.libc:
        how = _direction("dpkg", old.libc.rpartition(" ")[2], new.libc.rpartition(" ")[2])
        yield Drifted(kind="libc", name=old.libc.partition(" ")[0], how=how, before=old.libc, after=new.libc)
    if old.image and new.image and old.image.id != new.image.id:
        yield Drifted(
            kind="image",
            name=new.image.name or old.image.name or "image",
            how="changed",
            before=old.image.id,
            after=new.image.id,
        )
    yield from _locks(old.lock, new.lock)
    if old.kernel != new.kernel:
        how = _direction("dpkg", old.kernel, new.kernel)
        yield Drifted(kind="kernel", name="Linux", how=how, before=old.kernel, after=new.kernel)


def _locks(old: LockFile | None, new: LockFile | None) -> Iterator[Drifted]:
    """A lock file that holds something else, or is gone; one that was not there before is none."""
    if old is None or not old.digest or (new is not None and new.path != old.path):
        return
    if new is None or new.digest != old.digest:
        there = new is not None and new.digest
        yield Drifted(
            kind="lock-file",
            name=old.path.rpartition("/")[2],
            how="changed" if there else "removed",
            before=old.digest[:16],
            after=new.digest[:16] if new is not None and there else None,
            path=old.path,
            changed_ns=new.mtime_ns if new is not None else None,
        )


def _direction(ecosystem: str, before: str | None, after: str | None) -> How:
    if not before or not after:
        return "changed"
    if newer(ecosystem, after, before):
        return "upgraded"
    return "downgraded" if newer(ecosystem, before, after) else "changed"


def _distributions(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    before = {normal(found.name): found for found in old.distributions}
    after = {normal(found.name): found for found in new.distributions}
    armed = _same_run(old, new)
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            yield _distribution(was, None, "removed", armed=armed)
        elif now.version != was.version:
            yield _distribution(was, now, _direction("python", was.version, now.version), armed=armed)
        elif now.record != was.record and now.folder == was.folder:
            yield _distribution(was, now, "changed", armed=armed)
    for name, now in after.items():
        if name not in before:
            yield Drifted(
                kind="distribution", name=now.name, how="added", after=now.version, path=now.folder, changed_ns=now.wall_ns
            )


def _distribution(was: Distribution, now: Distribution | None, how: How, *, armed: bool) -> Drifted:
    return Drifted(
        kind="distribution",
        name=was.name,
        how=how,
        before=was.version,
        after=now.version if now else None,
        path=now.folder if now else was.folder,
        changed_ns=now.wall_ns if now else None,
        armed=armed,
    )


_Node = Mapping[str, tuple[str, str, int | None]]


def _nodes(baseline: Baseline) -> _Node:
    return {package.folder: (package.name, package.version, package.wall_ns) for package in baseline.node}


def _versions(kind: DriftKind, old: _Node, new: _Node) -> Iterator[Drifted]:
    for place, (name, version, _) in old.items():
        now = new.get(place)
        if now is None:
            yield Drifted(kind=kind, name=name, how="removed", before=version, path=place)
        elif now[1] != version:
            how = _direction("node", version, now[1])
            yield Drifted(kind=kind, name=name, how=how, before=version, after=now[1], path=place, changed_ns=now[2])
    for place, (name, version, changed_ns) in new.items():
        if place not in old:
            yield Drifted(kind=kind, name=name, how="added", after=version, path=place, changed_ns=changed_ns)


def _system(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    if old.system is None or new.system is None or old.system.versions is new.system.versions:
        return
    if old.system.ecosystem != new.system.ecosystem:
        return
    before, after = dict(old.system.versions), dict(new.system.versions)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was != now:
            how: How = "removed" if now is None else "added" if was is None else _direction("dpkg", was, now)
            yield Drifted(kind="system-package", name=name, how=how, before=was, after=now)


def _environment(old: Baseline, new: Baseline) -> Iterator[Drifted]:
    for name in _only(old.environment, new.environment):
        yield Drifted(kind="environment", name=name, how="removed")
    for name in _only(new.environment, old.environment):
        yield Drifted(kind="environment", name=name, how="added")


def _only(these: Sequence[str], those: Sequence[str]) -> list[str]:
    return [name for name in these if name not in those]


def compared(old: Baseline, new: Baseline) -> tuple[int, int]:
    """How many libraries and how many packages of languages a difference between these looked at."""
    now = {file.path for file in new.mapped}
    libraries = sum(1 for file in old.mapped if file.path in now)
    return libraries, len(old.distributions) + len(old.node)
