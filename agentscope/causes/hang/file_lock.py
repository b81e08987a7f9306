"""It waits for a lock on a file, and whoever holds that lock does nothing.

What it means: programs use locks on files (flock, fcntl) so that only one at a time changes a database, a package
list or a work folder. Whoever asks for a lock that another holds is put to sleep until that one gives it back or
ends.

How agentscope knows: a thread has been blocked in asking for the lock for longer than you allow, and the kernel's
list of locks (/proc/locks) names the holder, which is idle.

What to do: look at the holder that is named: does it wait for something itself, is it a copy of this program that was
forgotten? Ending it gives the lock back; deleting the file does not.

What looks like it but is not: a holder that works and will be done; a lock file that merely exists (git's
index.lock), for which a program looks again and again; a lock in memory (hang/deadlock).
"""

from agentscope.causes import No
from agentscope.causes.hang import IDLE, cites, seconds, who
from agentscope.evidence.file_locks import FileLocks
from agentscope.evidence.thread_waits import ThreadSeen, ThreadWaits
from agentscope.examination import FileLock, Holder
from agentscope.model import Finding


def match(*, waits: ThreadWaits, locks: FileLocks) -> Finding | No:
    """Blocked in asking for a file lock whose holder is idle."""
    reason = No("no thread of it has waited long for a lock on a file")
    for lock in locks.locks:
        thread = waiter_of(lock, waits)
        process = waits.process(lock.waiter.pid)
        if thread is None or process is None or not (process.own or waits.waited_for(process.pid) is not None):
            continue
        if process.tracer is not None:
            return No(f"{process.tracer} traces it")
        if lock.holder is None:
            reason = No(
                f"only one sign: it waits for the lock on {lock.path or 'a file'}, but who holds that could not be found"
            )
            continue
        busy = occupied(lock.holder, waits)
        if busy:
            reason = No(f"{who(lock.holder)} holds the lock on {lock.path or 'a file'}, and {busy}")
            continue
        return found(lock, lock.holder, thread)
    return reason


def waiter_of(lock: FileLock, waits: ThreadWaits) -> ThreadSeen | None:
    """The thread that waits for this lock, if it does for long."""
    threads = (each for each in waits.of(lock.waiter.pid) if each.wait.kind == "file-lock")
    return next((each for each in threads if each.for_s >= waits.patience_s), None)


def occupied(holder: Holder, waits: ThreadWaits) -> str | None:
    """What the holder is doing, if that may end and give the lock back."""
    if holder.state == "R" or (holder.cpu_share or 0.0) >= IDLE:
        return "works"
    if waits.process(holder.pid) is None:
        return None
    if waits.works(holder.pid):
        return "works"
    ends = next((each for each in waits.of(holder.pid) if each.main and each.wait.kind in {"llm", "human"}), None)
    return None if ends is None else f"waits for {ends.wait.says}"


def found(lock: FileLock, holder: Holder, thread: ThreadSeen) -> Finding:
    """The finding."""
    itself = holder.pid == lock.waiter.pid
    by = "it holds itself, through another descriptor" if itself else f"{who(holder)} holds"
    path = lock.path or f"the file with inode {lock.inode}"
    doing = {"T": ", which is stopped", "Z": ", which has ended", "D": ", which sleeps in the kernel"}.get(
        holder.state or "", ", which is idle"
    )
    return Finding(
        headline=f"Hung for {seconds(thread.for_s)}: {lock.waiter.comm} (pid {lock.waiter.pid}) waits for the lock on {path} that {by}"
        f"{'' if itself else doing}",
        culprit=f"{path} held by {who(holder)}",
        confidence="certain",
        cites=cites(("file-locks", True)),
        advice=(
            f"see what the holder does: agentscope diagnose {holder.pid}",
            "ask for the lock without waiting (LOCK_NB, F_SETLK) and give up after some time",
        ),
    )
