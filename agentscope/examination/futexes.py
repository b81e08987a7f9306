"""What a thread blocked in futex(2) waits for: the address, the time-out, and the owner where the lock itself names it.

Two kinds of lock name their owner. A PI futex has its tid in the word (FUTEX_TID_MASK of linux/futex.h). A mutex of glibc is

    struct __pthread_mutex_s { int lock; unsigned count; int owner; unsigned nusers; int kind; short spins, elision;
                               struct { void *prev, *next; } list; }                           (x86-64, struct_mutex.h)

and waits at `lock` while that is 2 (nptl/lowlevellock.c), or, where it is robust, while that holds the owner's tid too. Other
users of futexes have any number in the place of `owner`: condition variables, semaphores (of which Python makes its locks),
read-write locks, threads that are joined, locks of streams (a pointer), of Go and of Rust. So a mutex is believed only as a
whole: the value waited for, a known kind, users counted, a list that only robust ones are in, and a thread of this very process
as owner.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from agentscope.examination import Call
from agentscope.examination.memory import Memory
from agentscope.examination.timeouts import MONOTONIC, REALTIME, UNREAD, signed, timespec, until

_WAIT, _LOCK_PI, _WAIT_BITSET, _WAIT_REQUEUE_PI, _LOCK_PI2 = 0, 6, 9, 11, 13
_COMMAND_MASK, _CLOCK_REALTIME = 0x7F, 256
_TID_MASK, _HAS_WAITERS = 0x3FFFFFFF, 0x80000000
CONTENDED = 2  # what a waiter writes into the word of a lock of glibc, and waits at
_MUTEX = struct.Struct("<IIIIi4xQQ")
_KIND_ROBUST, _KIND_SHARED = 16, 128
_KINDS = 0x3 | _KIND_ROBUST | _KIND_SHARED | 64 | 256 | 512  # type, robust, priority-protected, shared, elision on or off
_MOST_TIDS = 1 << 22  # PID_MAX_LIMIT of linux/threads.h
_MOST_USERS = 1 << 14  # less than the upper half of any address of the heap, a library or a stack: 0x55…, 0x7f…

OwnerOf = Callable[[int], int | None]
"""Turns a tid as the process itself counts, in its own pid namespace, into ours; None where it is no thread of the process."""


class Mutex(NamedTuple):
    """A mutex of glibc that somebody waits for; `owner` is the tid that it names, as the process itself counts.

    A `shared` one may be owned by another process; the next to take a `robust` one is told if its owner has ended.
    """

    owner: int
    robust: bool
    shared: bool


def futex_call(memory: Memory, args: tuple[int, ...], owner_of: OwnerOf, since_ns: int | None) -> Call:
    """futex(uaddr, op, val, timeout, uaddr2, val3)."""
    address, operation, value, timeout = args[0], args[1] & _COMMAND_MASK, args[2] & 0xFFFFFFFF, args[3]
    clock = REALTIME if args[1] & _CLOCK_REALTIME or operation == _LOCK_PI else MONOTONIC
    if operation == _WAIT:
        timeout_s = timespec(memory, timeout)
    elif operation in {_WAIT_BITSET, _LOCK_PI, _LOCK_PI2, _WAIT_REQUEUE_PI}:
        timeout_s = until(memory, timeout, clock, since_ns)
    else:
        timeout_s = UNREAD  # the others do not wait
    owner = None
    if operation in {_LOCK_PI, _LOCK_PI2}:
        word = memory.number(address, "<I")
        owner = owner_of(word & _TID_MASK) if word else None
    elif operation == _WAIT or (operation == _WAIT_BITSET and timeout):
        # untimed, glibc waits for a mutex by WAIT; by WAIT_BITSET only with the time-out of pthread_mutex_timedlock
        mutex = mutex_at(memory, address, value)
        owner = owner_of(mutex.owner) if mutex else None
    return Call(name="futex", futex=address, futex_owner=owner, timeout_s=timeout_s)


def futex_waitv_call(memory: Memory, args: tuple[int, ...], since_ns: int | None) -> Call:
    """futex_waitv(waiters, nr_futexes, flags, timeout, clockid): the first of its struct futex_waitv { val, uaddr, flags, 0 }."""
    first = memory.number(args[0] + 8, "<Q") if args[1] & 0xFFFFFFFF else None
    return Call(name="futex_waitv", futex=first, timeout_s=until(memory, args[3], signed(args[4]), since_ns))


def futex_wait_call(memory: Memory, args: tuple[int, ...], since_ns: int | None) -> Call:
    """futex_wait(uaddr, val, mask, flags, timeout, clockid), of Linux 6.7."""
    return Call(name="futex_wait", futex=args[0], timeout_s=until(memory, args[4], signed(args[5]), since_ns))


def mutex_at(memory: Memory, address: int, expected: int) -> Mutex | None:
    """The mutex of glibc at an address where a thread waits as long as the word is `expected`; None where it is none.

    Its owner is not checked: it may be a thread that has ended, or of another process that shares the mutex.
    """
    raw = memory.read(address, _MUTEX.size)
    if raw is None or address % 8:
        return None
    lock, _, owner, users, kind, *links = _MUTEX.unpack(raw)
    robust = bool(kind & _KIND_ROBUST)
    if kind & ~_KINDS or not 0 < owner < _MOST_TIDS or not 0 < users <= _MOST_USERS or (any(links) and not robust):
        return None
    if robust:
        waited_for = expected & _HAS_WAITERS and lock & _TID_MASK == owner
    else:
        waited_for = expected == CONTENDED and lock in {1, CONTENDED}
    return Mutex(owner, robust, bool(kind & _KIND_SHARED)) if waited_for else None
