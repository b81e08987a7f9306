"""A socket for as many readers as come: `unix:/run/agentscope/events.sock`, to be read with `nc -U` or from any language.

Each reader has its own queue, so that a slow one costs only itself. Who comes later gets `agentscope.ready` and the agents that are
there first, and then what happens from now on.
"""

import asyncio
import contextlib
import grp
import os
import re
import socket
import stat
from functools import partial

from agentscope.errors import BadInput, UsageError
from agentscope.model import AgentGone, AgentSeen, Ready
from agentscope.record import Line
from agentscope.sinks import Around, Chosen, cannot_open
from agentscope.sinks import Options as NoOptions
from agentscope.sinks.stdout import NdjsonWriter

SCHEMES = ("unix",)
EXAMPLE = "unix:/run/agentscope/events.sock"
USUAL = ()
PATH_LIMIT = 107  # bytes; sun_path has 108 with its end (unix(7))
READERS_AT_MOST = 64
AGENTS_KEPT = 1000
QUEUE_BYTES = 2 << 20  # of one reader
MODE = re.compile(r"0?[0-7]{3}")
BACKLOG = 16
PAUSE_S = 1.0


class Options(NoOptions, frozen=True):
    """Who may read: `mode` of the socket, and the `group` that it belongs to. Nobody but its owner unless said."""

    mode: str = "0600"
    group: str | None = None


def checked(wrong: str, to: str, options: Options) -> None:
    """What can be wrong before it is opened.

    Raises:
        BadInput: no path, no mode, no group.
    """
    path = to.partition(":")[2]
    if not path.startswith("/") or len(os.fsencode(path)) > PATH_LIMIT:
        raise BadInput(wrong, f"{to!r}: a socket has a path from / on, of at most {PATH_LIMIT} bytes", EXAMPLE)
    if not MODE.fullmatch(options.mode):
        raise BadInput(f"{wrong}: mode", f"{options.mode!r} is no mode", 'mode = "0660"')
    if options.group is not None:
        try:
            grp.getgrnam(options.group)
        except KeyError:
            raise BadInput(f"{wrong}: group", f"there is no group {options.group!r}", 'group = "adm"') from None


def opened(chosen: Chosen, around: Around) -> "Readers":
    """The socket, listening.

    Raises:
        UsageError: there is something else, or somebody else listens there.
    """
    path = chosen.to.partition(":")[2]
    options: Options = chosen.options
    try:
        listening = listen(path, int(options.mode, 8), None if options.group is None else grp.getgrnam(options.group).gr_gid)
    except OSError as error:
        raise cannot_open(f"cannot listen at {path}", path, error) from None
    return Readers(listening, path, around)


def listen(path: str, mode: int, group: int | None) -> socket.socket:
    """A listening socket in the place of one that nobody listens at any more.

    Raises:
        UsageError: the place is taken. OSError: it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"cannot listen at {path}", "there is something that is no socket", "another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trial:
            trial.setblocking(False)
            try:
                trial.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - the path as it stands in the config
            except BlockingIOError:
                pass  # its backlog is full: somebody lives there
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # until its mode is set nobody else may come
    try:
        made.bind(path)
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)  # noqa: PTH101
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


class Readers:
    """Everybody who reads. A reader that leaves is forgotten; what a slow one loses it is told itself."""

    why = ""

    def __init__(self, listening: socket.socket, path: str, around: Around) -> None:
        self.listening = listening
        self.path = path
        self.inode = os.lstat(path).st_ino
        self.around = around
        self.loop = asyncio.get_running_loop()
        self.readers: dict[socket.socket, NdjsonWriter] = {}
        self.ready: Line | None = None
        self.agents: dict[tuple[int, int], Line] = {}
        self.lost_before = 0  # by readers that have left
        self.loop.add_reader(listening.fileno(), self.accept)

    @property
    def lost_count(self) -> int:
        """Lines that one of the readers has not got."""
        return self.lost_before + sum(writer.lost_count for writer in self.readers.values())

    def take(self, line: Line) -> None:
        """To everybody who is there, and what those who come later have to know is kept."""
        match line.event:
            case Ready():
                self.ready = line
            case AgentSeen(agent=agent):
                self.agents[agent.pid, agent.start_ns] = line
                while len(self.agents) > AGENTS_KEPT:
                    del self.agents[next(iter(self.agents))]
            case AgentGone(agent=agent):
                self.agents.pop((agent.pid, agent.start_ns), None)
        for writer in tuple(self.readers.values()):
            writer.take(line)

    def accept(self) -> None:
        """Let those in who have come."""
        while True:
            try:
                reader, _ = self.listening.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors left: they stay in the backlog for a while
                self.loop.remove_reader(self.listening.fileno())
                self.loop.call_later(PAUSE_S, self.listen_again)
                return
            if len(self.readers) >= READERS_AT_MOST:
                reader.close()
                self.around.say(f"more than {READERS_AT_MOST} readers at {self.path}: one was turned away")
                continue
            writer = NdjsonWriter(self.around.recorder, reader.fileno(), queue_bytes=QUEUE_BYTES)
            self.readers[reader] = writer
            writer.closed.add_done_callback(partial(self.leaving, reader))
            for line in (self.ready, *self.agents.values()):
                if line is not None:
                    writer.take(line)

    def listen_again(self) -> None:
        """After a pause, unless it is over."""
        if self.listening.fileno() >= 0:
            self.loop.add_reader(self.listening.fileno(), self.accept)

    def leaving(self, reader: socket.socket, closed: "asyncio.Future[None]") -> None:
        """Its writer has found that it cannot be written to any more, whatever the reason."""
        closed.exception()
        self.left(reader)

    def left(self, reader: socket.socket) -> None:
        """One has gone."""
        writer = self.readers.pop(reader, None)
        if writer is not None:
            self.lost_before += writer.lost_count
            writer.close()
            with contextlib.suppress(OSError):
                reader.shutdown(socket.SHUT_RDWR)  # frees a thread that waits for a reader who never reads
            if writer.thread is None or not writer.thread.is_alive():
                reader.close()
            else:
                self.loop.run_in_executor(None, end_after, writer, reader)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until each reader has everything, or the time is over."""
        done = await asyncio.gather(*(writer.flush(timeout_s) for writer in tuple(self.readers.values())))
        return all(done)

    def close(self) -> None:
        """Turn everybody out, and take the socket away if it is still ours."""
        self.loop.remove_reader(self.listening.fileno())
        for reader in tuple(self.readers):
            self.left(reader)
        self.listening.close()
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)  # noqa: PTH108


def end_after(writer: NdjsonWriter, reader: socket.socket) -> None:
    """Close the descriptor once its thread has let go of it: its number must not be somebody else's before."""
    if writer.thread is not None:
        writer.thread.join(5)
    reader.close()
