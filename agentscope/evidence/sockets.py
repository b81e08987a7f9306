"""The open sockets of the agent's processes, and what is outstanding on them: questions, answers, bytes that nobody reads."""

from collections.abc import Iterator

from agentscope.evidence import Evidence, HangScene, Missing
from agentscope.examination import Examination, Socket
from agentscope.examination.waiting import Obligation, model_name, obligations_of, socket_words, waits_of
from agentscope.model import Value

ABSENT = "it has no sockets open"
SOCKETS = 64  # listed: those with something outstanding first, then those that a thread waits at
WORST_FIRST = ("unacknowledged", "connecting", "owed", "unread", "closed-unread", "unanswered", "backlog", "half-answered")


class HeldSocket(Value, frozen=True):
    """One socket of a process. `words` names its other end, `model` the model API there, if it is one."""

    pid: int
    socket: Socket
    words: str
    model: str | None = None


class Sockets(Evidence, frozen=True, tag="sockets"):
    """`sockets` are at most 64, `count` is of all; `obligations` is what is outstanding on those listed, longest first."""

    sockets: tuple[HeldSocket, ...]
    obligations: tuple[Obligation, ...]
    count: int

    def held(self, inode: int | None) -> HeldSocket | None:
        """The socket of this inode, by whichever process."""
        return next((each for each in self.sockets if each.socket.inode == inode), None)

    def of(self, pid: int) -> tuple[HeldSocket, ...]:
        """The sockets of a process."""
        return tuple(each for each in self.sockets if each.pid == pid)

    def owed(self, inode: int) -> Obligation | None:
        """What is outstanding on a socket."""
        return next((each for each in self.obligations if each.inode == inode), None)

    def says(self) -> str:
        """One sentence for a person."""
        telling = [each for each in self.obligations if each.kind != "half-answered"]
        if not telling:
            return f"{self.count} sockets are open, and nothing is outstanding on them"
        first = telling[0]
        lasted = "" if first.for_s is None else f", for {first.for_s:.0f} s"
        more = f" ({len(telling) - 1} more)" if len(telling) > 1 else ""
        return f"{first.says}{lasted}{more}"


def collect(scene: HangScene) -> Sockets | Missing | None:
    """From sock_diag, in the network namespace of each process."""
    seen = scene.examination
    if not seen.sockets:
        return scene.missing("sockets")
    obligations = obligations_of(seen)
    waited = {inode for wait in waits_of(seen) for inode in wait.sockets}
    worst = {each.inode: WORST_FIRST.index(each.kind) for each in reversed(obligations)}
    found = sorted(held(seen), key=lambda each: rank(each.socket, worst, waited))
    chosen = found[:SOCKETS]
    listed = {each.socket.inode for each in chosen}
    return Sockets(
        source="sock_diag, tcp_info",
        sockets=tuple(chosen),
        obligations=tuple(each for each in obligations if each.inode in listed)[: 2 * SOCKETS],
        count=len(seen.sockets),
    )


def held(seen: Examination) -> Iterator[HeldSocket]:
    """Each socket with the first process of the tree that has it open."""
    told: set[int] = set()
    for process in seen.processes:
        for descriptor in process.descriptors:
            socket = seen.socket(descriptor.inode) if descriptor.kind == "socket" else None
            if socket is not None and socket.inode not in told:
                told.add(socket.inode)
                words, model = socket_words(socket, process), model_name(socket, process)
                yield HeldSocket(pid=process.pid, socket=socket, words=words, model=model)


def rank(socket: Socket, worst: dict[int, int], waited: set[int]) -> tuple[int, bool, bool]:
    """How soon a socket is listed."""
    return worst.get(socket.inode, len(WORST_FIRST)), socket.inode not in waited, socket.state != "listen"
