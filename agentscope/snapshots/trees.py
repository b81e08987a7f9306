"""A folder with all that is in it: looked over, copied with its rights, and compared with what is written of it.

A copy shares no inode with what was copied: hard links would, and a file that is later written in place (an editor, `>>`, cp onto
a library, a data base) would change in the snapshot too. Package tools rename, but nothing makes them the only ones who write.
Where the file system can share blocks instead (FICLONE: btrfs, XFS), a copy costs next to nothing; else it is a real one.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import quote_from_bytes

from agentscope.model import Value

ENTRIES_LIMIT = 400_000
BYTES_LIMIT = 8 << 30
DEPTH_LIMIT = 100
PIECE = 1 << 20
XATTR_LIMIT = 64 << 10
FICLONE = 0x40049409  # ioctl_ficlone(2): _IOW(0x94, 9, int)
CACHE = b"__pycache__"  # written by whoever imports a module first, and checked by Python against the module itself
_READABLE = "/ !#$&'()*+,:;=?@[]~"
_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Kind = Literal["file", "folder", "link", "other"]


class CannotCopy(Exception):
    """This folder is no snapshot's business; the message says why."""


class Entry(Value, frozen=True):
    """One name in a folder. `path` is relative, percent-encoded where it is no plain text; `digest` is SHA-256, as in a RECORD."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size_bytes: int = 0
    mtime_ns: int = 0
    digest: str | None = None
    link: str | None = None

    def same(self, other: "Entry") -> bool:
        """Whether a look without reading tells no difference, as rsync(1) looks. A folder's time changes with any name in it."""
        mine = (self.kind, self.mode, self.uid, self.gid, self.link)
        theirs = (other.kind, other.mode, other.uid, other.gid, other.link)
        sizes = (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)
        return mine == theirs and (sizes or self.kind != "file")


class Found(NamedTuple):
    """One step of a walk: the relative path, the open folder that it is in, its name, and what it is."""

    path: bytes
    folder: int
    name: bytes
    status: os.stat_result


class Survey(Value, frozen=True):
    """What a look over a folder tells. `fingerprint` changes with anything but the caches that Python writes by itself.

    `touched` is the path of a file that was put there or written after the time that was asked about, None: there is none.
    """

    fingerprint: str
    entries: int
    size_bytes: int
    touched: str | None = None
    owners: frozenset[int] = frozenset()


def walk(folder: int, path: bytes = b"", depth: int = 0) -> Iterator[Found]:
    """Everything in a folder, each folder before what is in it, in the order of names. Links are not followed.

    Raises:
        OSError: something cannot be read. CannotCopy: it is too deep, or another file system is mounted in it.
    """
    if depth > DEPTH_LIMIT:
        raise CannotCopy(f"it is more than {DEPTH_LIMIT} folders deep")
    device = os.fstat(folder).st_dev
    for name in names_in(folder):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if status.st_dev != device:
            raise CannotCopy(f"another file system is mounted in it at {shown(path + name)}")
        yield Found(path + name, folder, name, status)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                yield from walk(inner, path + name + b"/", depth + 1)
            finally:
                os.close(inner)


def names_in(folder: int) -> list[bytes]:
    """The names in an open folder, in order.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(os.fsencode(entry.name) for entry in entries)


def survey(folder: int, since_wall_ns: int | None = None) -> Survey:
    """Look a folder over without reading its files; ten thousand take a tenth of a second.

    Raises:
        OSError, CannotCopy: as `walk`; CannotCopy also for what is too large.
    """
    digest = hashlib.sha256()
    entries, size_bytes, touched = 0, 0, None
    owners: set[int] = set()
    parents: dict[int, int] = {}
    for path, parent, _, status in walk(folder):
        entries += 1
        owners.add(status.st_uid)
        if stat.S_ISREG(status.st_mode):
            size_bytes += status.st_size
        if entries > ENTRIES_LIMIT or size_bytes > BYTES_LIMIT:
            raise CannotCopy(f"it has more than {ENTRIES_LIMIT} files or {BYTES_LIMIT >> 30} GiB")
        if CACHE in path.split(b"/"):
            continue
        times = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        told = (path, status.st_mode, status.st_uid, status.st_gid, status.st_ino, *times)
        digest.update(repr(told).encode())
        if since_wall_ns is not None and times and touched is None:
            if status.st_nlink > 1 and parent not in parents:
                parents[parent] = os.fstat(parent).st_mtime_ns
            if is_newer(status, since_wall_ns, parents.get(parent, since_wall_ns + 1)):
                touched = shown(path)
        if stat.S_ISDIR(status.st_mode):
            parents.clear()  # numbers of descriptors are used again
    return Survey(
        fingerprint=digest.hexdigest(), entries=entries, size_bytes=size_bytes, touched=touched, owners=frozenset(owners)
    )


def is_newer(status: os.stat_result, since_ns: int, folder_mtime_ns: int) -> bool:
    """Whether a file came to this place, or was written, after a moment.

    Only ctime tells of a file that was renamed here. But of one with several names (uv links a venv's files from its cache) it
    changes with every name that others give it or take: there the folder must have changed as well.
    """
    if status.st_mtime_ns > since_ns:
        return True
    return status.st_ctime_ns > since_ns and (status.st_nlink == 1 or folder_mtime_ns > since_ns)


def entry_of(found: Found, digest: str | None = None) -> Entry:
    """What is written of one name.

    Raises:
        OSError: a link cannot be read.
    """
    status = found.status
    kind = kind_of(status.st_mode)
    return Entry(
        path=shown(found.path),
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size_bytes=status.st_size if kind == "file" else 0,
        mtime_ns=status.st_mtime_ns if kind == "file" else 0,
        digest=digest,
        link=shown(os.readlink(found.name, dir_fd=found.folder)) if kind == "link" else None,
    )


def kind_of(mode: int) -> Kind:
    """What a mode tells."""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"


def shown(path: bytes | str) -> str:
    """A path as plain text, one text for one path: percent-encoded where it is not readable."""
    return quote_from_bytes(os.fsencode(path), safe=_READABLE)


# --- copying ---------------------------------------------------------------------------------------------------------------


class Copying:
    """One copy of one folder into another, which is empty; `meanwhile` may raise to end it."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.meanwhile = meanwhile
        self.entries: list[Entry] = []
        self.left_out: list[str] = []
        self.shared = True  # until the file system says that it cannot
        self.linked: dict[int, tuple[bytes, str]] = {}
        self.top = -1

    def copy(self, source: int, target: int) -> None:
        """All that is in `source`, and its own rights.

        Raises:
            OSError: it cannot be read or written. CannotCopy: as `walk`.
        """
        self.top = target
        self._folder(source, target, b"", 0)
        give(target, os.fstat(source), source)

    def _folder(self, source: int, target: int, path: bytes, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise CannotCopy(f"it is more than {DEPTH_LIMIT} folders deep")
        for name in names_in(source):
            self.meanwhile()
            if len(self.entries) > ENTRIES_LIMIT:
                raise CannotCopy(f"it has more than {ENTRIES_LIMIT} files")
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            found = Found(path + name, source, name, status)
            kind = kind_of(status.st_mode)
            if kind == "folder":
                self._inner(found, target, depth)
            elif kind == "file":
                self._file(found, target)
            elif kind == "link":
                self.entries.append(entry_of(found))
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                own(name, target, status)
            else:
                self.left_out.append(shown(found.path))  # a socket, pipe or device is made anew by whoever needs it

    def _inner(self, found: Found, target: int, depth: int) -> None:
        self.entries.append(entry_of(found))
        os.mkdir(found.name, 0o700, dir_fd=target)
        source = os.open(found.name, _FOLDER, dir_fd=found.folder)
        try:
            if os.fstat(source).st_dev != found.status.st_dev:
                raise CannotCopy(f"another file system is mounted in it at {shown(found.path)}")
            made = os.open(found.name, _FOLDER, dir_fd=target)
            try:
                self._folder(source, made, found.path + b"/", depth + 1)
                give(made, os.fstat(source), source)
            finally:
                os.close(made)
        finally:
            os.close(source)

    def _file(self, found: Found, target: int) -> None:
        source = os.open(found.name, _FILE, dir_fd=found.folder)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise CannotCopy(f"{shown(found.path)} changed while it was copied")
            first = self.linked.get(status.st_ino) if status.st_nlink > 1 else None
            if first is not None:
                # two names of one file stay two names of one file
                os.link(first[0], found.name, src_dir_fd=self.top, dst_dir_fd=target, follow_symlinks=False)
                self.entries.append(entry_of(found._replace(status=status), first[1]))
                return
            made = os.open(found.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                digest = self._content(source, made)
                give(made, status, source)
            finally:
                os.close(made)
            if status.st_nlink > 1:
                self.linked[status.st_ino] = found.path, digest
            self.entries.append(entry_of(found._replace(status=status), digest))
        finally:
            os.close(source)

    def _content(self, source: int, made: int) -> str:
        """Copy what is in a file, by sharing its blocks if that can be; its digest is of what was copied."""
        if self.shared:
            try:
                fcntl.ioctl(made, FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                self.shared = False
            else:
                return digest_of(made)
        digest, copied = hashlib.sha256(), 0
        while piece := os.read(source, PIECE):
            self.meanwhile()
            digest.update(piece)
            copied += len(piece)
            if copied > BYTES_LIMIT:
                raise CannotCopy("a file in it grows while it is copied")
            view = memoryview(piece)
            while view:
                view = view[os.write(made, view) :]
        return digest.hexdigest()


def digest_of(descriptor: int) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(descriptor, PIECE, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def give(made: int, status: os.stat_result, source: int) -> None:
    """Owner, extended attributes, mode and times, in this order: a change of owner takes set-user-id and capabilities away.

    Raises:
        OSError: it is not ours to give.
    """
    ours = os.fstat(made)
    if (ours.st_uid, ours.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(made, status.st_uid, status.st_gid)
    size = 0
    for name in names_of_xattrs(source):
        try:
            value = os.getxattr(source, name)
            size += len(value)
            if size > XATTR_LIMIT:
                raise CannotCopy("a file in it has more extended attributes than any needs")
            os.setxattr(made, name, value)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM}:  # security.* without root
                raise
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def names_of_xattrs(descriptor: int) -> list[str]:
    """The extended attributes of a file; none where the file system has none."""
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def own(name: bytes, folder: int, status: os.stat_result) -> None:
    """Owner and times of a link itself."""
    ours = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (ours.st_uid, ours.st_gid) != (status.st_uid, status.st_gid):
        os.chown(name, status.st_uid, status.st_gid, dir_fd=folder, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=folder, follow_symlinks=False)


# --- comparing -------------------------------------------------------------------------------------------------------------


def differing(folder: int, entries: tuple[Entry, ...], *, read: bool, until_s: float | None = None) -> list[str]:
    """The paths at which a folder is not as written, caches aside; with `read` the content of every file is compared as well.

    Raises:
        OSError, CannotCopy: as `walk`. TimeoutError: `until_s` of the monotonic clock has come.
    """
    written = {entry.path: entry for entry in entries if f"/{CACHE.decode()}" not in f"/{entry.path}"}
    found: list[str] = []
    for each in walk(folder):
        if until_s is not None and time.monotonic() > until_s:
            raise TimeoutError
        if CACHE in each.path.split(b"/") or kind_of(each.status.st_mode) == "other":
            continue
        now = entry_of(each)
        before = written.pop(now.path, None)
        if before is None or not before.same(now) or (read and now.kind == "file" and digest_in(each) != before.digest):
            found.append(now.path)
    return sorted([*found, *written])


def digest_in(found: Found) -> str:
    """The digest of a file in a folder."""
    opened = os.open(found.name, _FILE, dir_fd=found.folder)
    try:
        return digest_of(opened)
    finally:
        os.close(opened)
