"""It tries the same thing again and again, it fails each time in the same way, and nothing else gets done.

What it means: a loop catches an error, perhaps waits a moment, and tries again, for ever: a connection that is
refused, a server that answers 429 or 503, a call that fails at once. It looks alive, uses CPU, and gets nowhere.

How agentscope knows: its system calls were traced for a few seconds. The same call to the same address failed with
the same error many times, or (nearly) every HTTP answer was an error, and nothing else succeeded meanwhile.

What to do: see why the peer that is named refuses. Let the program wait longer after each failure, honour
Retry-After, and give up with an error after some tries.

What looks like it but is not: pauses that grow with each failure (back-off); a service that waits a few seconds for
another to come up; now and then a 429 between answers; a program that computes without a call (hang/spin).
"""

from agentscope.causes import No
from agentscope.causes.hang import IDLE, cites, excused
from agentscope.evidence.activity import Activity
from agentscope.evidence.python_threads import PythonThreads
from agentscope.evidence.sockets import Sockets
from agentscope.evidence.syscall_profile import CallProfile
from agentscope.evidence.thread_waits import ThreadWaits
from agentscope.examination import NOT_YET, CallCount, ConnectCount
from agentscope.examination.frames import blamed_place
from agentscope.model import Finding

CONNECT_ERRORS = frozenset(
    {"ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT", "EHOSTUNREACH", "ECONNRESET", "ENOENT", "EADDRNOTAVAIL", "EACCES", "EPERM"}
)
FAILURES, FAILURES_PER_S = 4, 1.0  # a model client tries three times in 1.4 s, so at least four times in 2.5 s
BAD_ANSWERS, BAD_SHARE = 3, 0.9
STORM_PER_S, STORM_SHARE = 100.0, 0.5
WORDS_BYTES = 1024  # that it may write for each failure: more is work
RECEIVES = frozenset({"recvfrom", "recvmsg"})
LOOKUPS = frozenset({"open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
                     "readlinkat", "execve", "getxattr", "lgetxattr", "ioctl", "lseek", "futex"})  # fmt: skip


def match(
    *,
    waits: ThreadWaits,
    profile: CallProfile,
    sockets: Sockets | None,
    python: PythonThreads | None,
    activity: Activity | None,
) -> Finding | No:
    """The same failure again and again, and no success."""
    excuse = excused(waits)
    if excuse is not None:
        return excuse
    if activity is not None and activity.lived_s is not None and activity.lived_s < waits.patience_s:
        return No("it has only just been started")
    own = [process.pid for process in waits.processes if process.own]
    for pid in own:
        answer = (
            refused(pid, profile, python)
            or turned_away(pid, profile, sockets, python)
            or hung_up_on(pid, profile, python)
            or storm(pid, waits, profile)
        )
        if answer is not None:
            return answer
    return No(f"no call failed in the same way again and again in {profile.seconds:.1f} s")


def place_in(pid: int, python: PythonThreads | None) -> str:
    """Where the main thread of a process was seen."""
    return blamed_place(python.of(pid, pid)) if python is not None else ""


def is_lookup(connect: ConnectCount) -> bool:
    """Whether a connection only asks for the address of a name."""
    return connect.address.endswith((":53", ":5353")) or "nscd" in connect.address or "systemd/resolve" in connect.address


def refused(pid: int, profile: CallProfile, python: PythonThreads | None) -> Finding | No | None:
    """Connections to one address that fail."""
    mine = [each for each in profile.connects if each.pid == pid and not is_lookup(each)]
    worst = max((each for each in mine if each.error in CONNECT_ERRORS), key=lambda each: each.count, default=None)
    if worst is None or worst.count < FAILURES or worst.count / profile.seconds < FAILURES_PER_S:
        return None
    # the resolver connects to each address that it found, without sending anything, to see which is nearest (RFC 6724)
    port = worst.address.rpartition(":")[2]
    other = next((each for each in mine if each.error is None and each.address.rpartition(":")[2] != port), None)
    good = next((each for each in profile.statuses if each.pid == pid and each.status < 400), None)
    if other is not None or good is not None:
        return No(f"connect({worst.address}) fails, but {other.address if other is not None else 'another peer'} answers")
    if profile.written_by(pid) > WORDS_BYTES * worst.count:
        return No(f"connect({worst.address}) fails, but it goes on with its output")
    rate = f"{worst.count / profile.seconds:.0f}/s"
    place = place_in(pid, python)
    return Finding(
        headline=f"It tries in vain, again and again: connect({worst.address}) = {worst.error}, {rate}, and nothing else gets done",
        culprit=f"connect({worst.address}) = {worst.error}, {rate}{f', from {place}' if place else ''}",
        confidence="likely",
        cites=cites(("syscall-profile", True), ("python-threads", place)),
        advice=(
            f"see whether somebody listens there: ss -ltn; curl -sv --max-time 5 telnet://{worst.address}",
            "wait longer after each failure, and give up after some tries",
        ),
    )


def turned_away(pid: int, profile: CallProfile, sockets: Sockets | None, python: PythonThreads | None) -> Finding | No | None:
    """HTTP answers that are nearly all errors for which one tries again."""
    mine = [each for each in profile.statuses if each.pid == pid]
    answers = sum(each.count for each in mine)
    bad = sorted((each for each in mine if each.status == 429 or each.status >= 500), key=lambda each: -each.count)
    failures = sum(each.count for each in bad)
    if failures < BAD_ANSWERS or failures / profile.seconds < FAILURES_PER_S:
        return None
    if failures < BAD_SHARE * answers:
        return No(f"{failures} of {answers} HTTP answers were errors: it gets on")
    if profile.written_by(pid) > WORDS_BYTES * failures:
        return No(f"{failures} HTTP answers were errors, but it goes on with its output")
    peer = lately_asked(pid, sockets) or connected_anew(pid, profile)
    place = place_in(pid, python)
    said = f"HTTP {bad[0].status}{f' from {peer}' if peer else ''}, {failures} times in {profile.seconds:.1f} s"
    return Finding(
        headline=f"It tries in vain, again and again: {said}, and nothing else gets done",
        culprit=f"{said}{f', asked from {place}' if place else ''}",
        confidence="likely",
        cites=cites(("syscall-profile", True), ("sockets", peer), ("python-threads", place)),
        advice=(
            "wait as long as the answer says (Retry-After), and longer after each failure; give up after some tries",
            "429 means that a quota is used up: ask the provider for its limits, or send less",
        ),
    )


def connected_anew(pid: int, profile: CallProfile) -> str:
    """The peer to which a process connected most often, as whoever keeps no connection does for each try."""
    anew = [each for each in profile.connects if each.pid == pid and each.error is None and not is_lookup(each)]
    return max(anew, key=lambda each: each.count).address if anew else ""


def hung_up_on(pid: int, profile: CallProfile, python: PythonThreads | None) -> Finding | None:
    """Connections that the peer closes without having answered."""
    anew = [each for each in profile.connects if each.pid == pid and each.error is None and not is_lookup(each)]
    if len(anew) != 1 or anew[0].count < BAD_ANSWERS or anew[0].count / profile.seconds < FAILURES_PER_S:
        return None
    ended = sum(each.count for each in profile.calls if each.pid == pid and each.name in RECEIVES and each.error == "EOF")
    # an event loop wakes itself up by a socket, so a few bytes may come; an answer would be a piece at least before each end
    if ended < anew[0].count - 1 or profile.succeeded(pid, RECEIVES) >= ended:
        return None
    if profile.written_by(pid) > WORDS_BYTES * ended:
        return None
    place = place_in(pid, python)
    said = f"{anew[0].address} closes each connection without an answer, {anew[0].count} times in {profile.seconds:.1f} s"
    return Finding(
        headline=f"It tries in vain, again and again: {said}, and nothing else gets done",
        culprit=f"{said}{f', asked from {place}' if place else ''}",
        confidence="likely",
        cites=cites(("syscall-profile", True), ("python-threads", place)),
        advice=(
            f"see why the peer hangs up: its log, or curl -sv --max-time 5 telnet://{anew[0].address}",
            "wait longer after each failure, and give up after some tries",
        ),
    )


def lately_asked(pid: int, sockets: Sockets | None) -> str:
    """The peer with which a process had its last exchange."""
    asked = (
        [held for held in sockets.of(pid) if not held.socket.accepted and held.socket.last_sent_ago_ms is not None]
        if sockets
        else []
    )
    latest = min(asked, key=lambda held: held.socket.last_sent_ago_ms or 0, default=None)
    return latest.words if latest is not None else ""


def storm(pid: int, waits: ThreadWaits, profile: CallProfile) -> Finding | None:
    """Any other call that fails in one way hundreds of times a second, and is most of what it does."""
    process = waits.process(pid)
    worst: CallCount | None = max(
        (each for each in profile.calls if each.pid == pid and each.error not in {None, *NOT_YET} and each.name != "connect"),
        key=lambda each: each.count,
        default=None,
    )
    if worst is None or process is None or worst.count / profile.seconds < STORM_PER_S or process.cpu_share < IDLE:
        return None
    share = worst.count / max(1, profile.count(pid))
    if share < STORM_SHARE or profile.written_by(pid):
        return None
    rate = f"{worst.count / profile.seconds:.0f}/s"
    return Finding(
        headline=f"It tries in vain, again and again: {worst.name} = {worst.error}, {rate}, {share:.0%} of all its calls",
        culprit=f"{worst.name} = {worst.error}, {rate}",
        confidence="possible" if worst.name in LOOKUPS else "likely",
        cites=cites(("syscall-profile", True)),
        advice=(f"see what it asks for: sudo timeout 3 strace -f -e trace={worst.name} -p {pid}",),
    )
