"""The lock file of a program, and which of its packages are installed otherwise than that says."""

from contextlib import suppress

from agentscope.baseline import Baseline, LockFile
from agentscope.baseline.facts import ProcessFacts
from agentscope.baseline.interpreter import script_of
from agentscope.distributions import Distribution, NodePackage, plain
from agentscope.distributions.lockfile import Lock, NotALock, against, form_of, parse_lock
from agentscope.symbols.remembered import Remembered, identity_of, settled
from agentscope.symbols.rooted import read_regular, state_of

DIGESTED_LIMIT_BYTES = 64 << 20
PARSED_LIMIT_BYTES = 4 << 20
LIGHT_LIMIT_BYTES = 64 << 10  # TOML is read at a megabyte a second
DEVIATING_KEPT = 20
USUAL = (
    *("uv.lock", "poetry.lock", "pylock.toml", "pdm.lock", "Pipfile.lock", "package-lock.json", "pnpm-lock.yaml"),
    *("yarn.lock", "bun.lock", "flake.lock", "requirements.txt"),
)
_digests: Remembered[LockFile] = Remembered(500)
_parsed: Remembered[Lock | NotALock] = Remembered(16)


def lock_path(facts: ProcessFacts) -> str | None:
    """A lock file by a usual name, in the process's folder or beside its script."""
    script = script_of(facts)
    for folder in dict.fromkeys((facts.cwd, script.rpartition("/")[0] if script else None)):
        for name in USUAL if folder and folder.isprintable() else ():
            with suppress(OSError):
                path = f"{'' if folder == '/' else folder}/{name}"
                state_of(path, root=facts.root)
                return path
    return None


def lock_of(path: str, now: Baseline, *, root: str | None, known: LockFile | None = None, lightly: bool = False) -> LockFile:
    """The lock file against what is installed `now`; where it cannot be read, that says why.

    `known` is what a baseline tells of it, for the same packages: where it holds the same, it is not read again. `lightly`, a long
    one is not compared at all.
    """
    try:
        digested, raw = _digested(path, root)
    except OSError as error:
        return LockFile(path=plain(path, 4096), digest="", unread=error.strerror or str(error))
    if known is not None and known.digest == digested.digest:
        return known
    python = now.interpreter.version if now.interpreter else None
    try:
        lock = _lock(digested, raw, root=root, python=python, limit_bytes=LIGHT_LIMIT_BYTES if lightly else PARSED_LIMIT_BYTES)
    except (OSError, NotALock) as error:
        because = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return LockFile(path=digested.path, digest=digested.digest, mtime_ns=digested.mtime_ns, unread=because)
    if lock is None:
        return digested
    packages: tuple[Distribution, ...] | tuple[NodePackage, ...] = (
        now.node if lock.form == "package-lock.json" else now.distributions
    )
    deviating = against(lock, packages)
    return LockFile(
        path=digested.path,
        digest=digested.digest,
        mtime_ns=digested.mtime_ns,
        locked=len(lock.versions),
        deviating=deviating[:DEVIATING_KEPT],
        count=len(deviating),
    )


def _digested(path: str, root: str | None) -> tuple[LockFile, bytes | None]:
    """What the file is, and its content where that had to be read for it."""
    import hashlib

    status = state_of(path, root=root)
    key = (path, identity_of(status))
    known = _digests.get(key)
    if known is not None:
        return known, None
    raw = read_regular(path, root=root, limit_bytes=DIGESTED_LIMIT_BYTES, follow=True)
    digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
    found = LockFile(path=plain(path, 4096), digest=digest, mtime_ns=status.st_mtime_ns)
    return (_digests.put(key, found) if settled(status.st_ctime_ns) else found), raw


def _lock(known: LockFile, raw: bytes | None, *, root: str | None, python: str | None, limit_bytes: int) -> Lock | None:
    """What it pins; None where its form is of those that are known by their name only, or it is too long."""
    name = known.path.rpartition("/")[2]
    if form_of(name) is None and name in USUAL:
        return None
    key = (name, known.digest, python)
    lock = _parsed.get(key)
    if lock is None:
        text = raw if raw is not None else read_regular(known.path, root=root, limit_bytes=DIGESTED_LIMIT_BYTES, follow=True)
        if len(text) > limit_bytes and len(text) <= PARSED_LIMIT_BYTES:
            return None
        lock = _parsed.put(key, _tried(known.path, text, python))
    if isinstance(lock, NotALock):
        raise NotALock(str(lock))
    return lock


def _tried(path: str, text: bytes, python: str | None) -> Lock | NotALock:
    """What it pins, or why that is not known: the same file is not tried again."""
    if len(text) > PARSED_LIMIT_BYTES:
        return NotALock(f"it is longer than {PARSED_LIMIT_BYTES >> 20} MiB")
    try:
        return parse_lock(path, text, python=python)
    except NotALock as error:
        return NotALock(str(error))
