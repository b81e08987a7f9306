"""A thread sleeps in the kernel, waiting for a disk or file system that does not answer, and cannot be interrupted.

What it means: reading and writing files may have to wait for a disk, a network file system, a FUSE daemon or a frozen
file system. In that sleep (state D) most signals have no effect, kill -9 included, until the device or server
answers.

How agentscope knows: a thread is in state D, unchanged for longer than you allow, and the kernel's own stack of it is
in the code of a file system or of block devices.

What to do: look at the file or file system that is named: is its server there, is the disk failing (dmesg), is it
frozen (fsfreeze -u thaws it)? A dead NFS or FUSE mount can be let go with umount -f or umount -l.

What looks like it but is not: many short waits for a slow disk; waiting for memory (hang/throttled); a parent that
waits for a child which it starts; a process in a frozen cgroup (hang/frozen).
"""

from agentscope.causes import No
from agentscope.causes.hang import cites, excused, seconds
from agentscope.evidence.scheduling import HeldThread, Scheduling
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.model import Finding

# Words in the names of the kernel's functions: file systems, the page cache, block devices, the locks they take.
STORES = (
    "ext4", "jbd2", "xfs", "btrfs", "f2fs", "zfs", "zio_", "ocfs2", "gfs2", "overlay", "ovl_", "nfs", "rpc_", "cifs", "smb", "ceph",
    "fuse", "9p", "v9fs", "lustre", "afs_", "vfs_", "blk_", "blkdev", "bio_", "io_schedule", "wait_on_buffer", "folio_wait",
    "wait_on_page", "filemap_", "generic_file", "iomap", "percpu_rwsem", "sb_start", "sb_wait", "__sb", "writeback", "wb_wait",
    "do_sync", "fsync", "sync_inodes", "dm_", "md_", "raid", "loop_", "nvme", "scsi", "virtblk", "lookup_slow", "path_openat",
    "iterate_dir", "mnt_want_write", "rwsem_down", "freeze_super", "mount",
)  # fmt: skip
NO_STORES = ("refrigerator", "freezer_trap", "mem_cgroup", "wait_for_vfork_done", "coredump", "exit_mm", "do_exit", "futex")


def match(*, waits: ThreadWaits, scheduling: Scheduling) -> Finding | No:
    """A thread in state D for long, in the code of a file system."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    if scheduling.cgroup is not None and scheduling.cgroup.frozen:
        return No("its cgroup is frozen")
    long = [each for each in scheduling.held if (each.for_s or 0.0) >= waits.patience_s and concerns(each, waits)]
    if not long:
        return No("no thread of it sleeps in the kernel for long (state D)")
    stored = next((each for each in long if is_store(each)), None)
    if stored is None and any(each.kernel_stack for each in long):
        return No(f"the kernel holds it elsewhere than at a file system: {' ← '.join(long[0].kernel_stack[:4])}")
    held = stored or long[0]
    target = target_of(held, waits)
    stack = " ← ".join(held.kernel_stack[:4])
    process = waits.process(held.pid)
    tool = f" of {process.words}, for which it waits," if process is not None and not process.own else ""
    return Finding(
        headline=f"Hung for {seconds(held.for_s)}: thread {held.tid}{tool} sleeps in the kernel (state D)"
        f"{f' at {target}' if target else ''}{f', in {stack}' if stack else ', where could not be read'}",
        culprit=f"{target or held.says}{f' (kernel: {telling(held)})' if stack else ''}",
        confidence="likely" if stored is not None else "possible",
        cites=cites(("scheduling", True)),
        advice=(
            "see what the kernel says of the device or server: dmesg -T | tail; findmnt -T FILE tells which file system it is",
            f"to see the kernel's whole stack: sudo cat /proc/{held.pid}/task/{held.tid}/stack",
        ),
    )


def concerns(held: HeldThread, waits: ThreadWaits) -> bool:
    """Whether a thread is the agent's own, or of a tool that it waits for."""
    process = waits.process(held.pid)
    return process is not None and (process.own or waits.waited_for(held.pid) is not None)


def is_store(held: HeldThread) -> bool:
    """Whether the kernel's stack is in the code of a file system or block device."""
    names = held.kernel_stack
    return any(word in name for name in names for word in STORES) and not any(
        word in name for name in names for word in NO_STORES
    )


def telling(held: HeldThread) -> str:
    """The innermost function of the kernel that names a file system or device; else the innermost."""
    return next((name for name in held.kernel_stack if any(word in name for word in STORES)), held.kernel_stack[0])


def target_of(held: HeldThread, waits: ThreadWaits) -> str:
    """The file at which a thread is held, where its call tells."""
    thread = waits.thread(held.pid, held.tid)
    if thread is None:
        return ""
    return (thread.call.path if thread.call is not None and thread.call.path else thread.target) or ""
