"""Which file system a descriptor's file is on, told without touching the file.

Asking a file itself (stat(2)) may never come back where its file system is a dead server, or one that the process serves. So
fdinfo is read first, which the kernel answers from its own memory: mount number and inode (proc_pid_fdinfo(5)); the mount is
looked up in mountinfo (proc_pid_mountinfo(5)), and only files of kernel-made or local file systems are asked.
"""

from functools import lru_cache
from typing import NamedTuple

from agentscope.examination.proc import read_proc, status_field

_MOUNTINFO_LIMIT = 1 << 20
_ANSWER_AT_ONCE = frozenset(
    {
        "ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "zfs", "jfs", "reiserfs", "nilfs2", "udf", "iso9660", "vfat",
        "exfat", "ntfs3", "erofs", "squashfs", "overlay", "tmpfs", "ramfs", "rootfs", "devtmpfs", "devpts", "proc", "sysfs",
        "cgroup", "cgroup2", "hugetlbfs", "mqueue", "bpf", "tracefs", "debugfs", "securityfs", "configfs", "efivarfs", "pstore",
    }
)  # fmt: skip


class OpenFile(NamedTuple):
    """One open file by fdinfo: `inode` is None before Linux 5.14."""

    mount: int | None
    inode: int | None
    text: bytes


class Mount(NamedTuple):
    """One mount: `device` is "major:minor" of its file system in decimal, as in mountinfo."""

    device: str
    kind: str

    @property
    def answers_at_once(self) -> bool:
        """Whether its files can be asked with stat(2) without waiting for a server."""
        return self.kind in _ANSWER_AT_ONCE


def open_file(pid: int, number: int, limit_bytes: int = 1 << 16) -> OpenFile | None:
    """What fdinfo says of a descriptor; None where there is none."""
    text = read_proc(f"/proc/{pid}/fdinfo/{number}", limit_bytes)
    if text is None:
        return None
    mount, inode = (status_field(text[:512], name) for name in (b"mnt_id", b"ino"))
    return OpenFile(_number(mount), _number(inode), text)


class Mounts:
    """The mounts that a process sees, read when they are first asked for; those that only we see are known too.

    A descriptor can come from outside of the mount namespace of its process: a terminal, /dev/null, a log.
    """

    def __init__(self, pid: int) -> None:
        self._names = [str(pid), "self"]
        self._known: dict[int, Mount] = {}

    def of(self, opened: OpenFile) -> Mount | None:
        """The mount of an open file; None where it is in neither list, as of a pipe or socket."""
        if opened.mount is None:
            return None
        while opened.mount not in self._known and self._names:
            self._known = (
                parse_mountinfo(read_proc(f"/proc/{self._names.pop(0)}/mountinfo", _MOUNTINFO_LIMIT) or b"") | self._known
            )
        return self._known.get(opened.mount)


@lru_cache(8)  # agents mostly see the same mounts
def parse_mountinfo(text: bytes) -> dict[int, Mount]:
    """Lines "36 35 98:0 /root /point options [tags] - kind source options": mount number to mount."""
    found: dict[int, Mount] = {}
    for line in text.split(b"\n"):
        before, dash, after = line.partition(b" - ")
        fields, kind = before.split(b" ", 3), after.split(b" ", 1)[0]
        if dash and len(fields) == 4 and fields[0].isdigit():
            found[int(fields[0])] = Mount(fields[2].decode("ascii", "replace"), kind.decode("ascii", "replace"))
    return found


def _number(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() else None
