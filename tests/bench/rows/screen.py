"""How long a person waits for the screen of `watch`, and what it costs while it moves."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from agentscope.model import AgentSeen, AnyEvent
from agentscope.record import Recorder
from tests import samples
from tests.bench.measure import Row, spread
from tests.bench.observers import AGENTSCOPE
from tests.bench.rows.own_use import busy_ns
from tests.bench.stage import Stage

TIMES = 9
LIVE_AGENTS = 9
AGENTS, SECONDS = 500, 200  # of the recording
SPEED = 10
LOADED_S = 3.0  # the rest of the recording is read while its first agents are shown: 110,000 events, once
KEYS = 40
WATCHED_S = 8
CURSOR = "▸".encode()
PATIENCE_S = 30.0


def rows(stage: Stage) -> Iterator[Row]:
    """Start to a screen that shows agents, live and in a recording; then keys and processor time while 500 agents play."""
    agents = [
        subprocess.Popen([stage.program("agent")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(LIVE_AGENTS)
    ]
    try:
        live = ["--name", "^asb-agent$", "--state-dir", str(stage.folder / "state")]
        for what, wanted in (("agents on the screen", b"asb-agent"), ("all probes attached", b"engine core")):
            firsts = [first(live, wanted) for _ in range(stage.times(TIMES) + 1)][1:]
            yield within(f"`watch`, start to {what}", firsts, 600 if wanted == b"asb-agent" else None)
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()
    played = ["--replay", str(recorded(stage.folder)), "--speed", str(SPEED)]
    firsts = [first(played, b"agent-010") for _ in range(stage.times(TIMES) + 1)][1:]
    yield within(f"`watch --replay`, start to agents, of {AGENTS}", firsts, 600)
    with Screen(played) as screen:
        screen.until(b"agent-010")
        screen.drain(LOADED_S)
        before, began = busy_ns(screen.pid), time.monotonic_ns()
        screen.drain(stage.times(WATCHED_S))
        cpu = 100 * (busy_ns(screen.pid) - before) / (time.monotonic_ns() - began)
        yield Row(f"processor, {AGENTS} agents played at {SPEED}x", f"{cpu:.0f} % of one core", "30 %", cpu < 30)
        keys = [screen.key(b"j") for _ in range(stage.times(KEYS))]
    yield Row(
        "a key to the screen, then", f"{spread(keys, 'ms')}", "100 ms", max(keys) < 100, note="the budget is for the slowest"
    )


def within(what: str, firsts: list[float], limit_ms: int | None) -> Row:
    """A row whose budget, if it has one, is the median."""
    held = None if limit_ms is None else statistics.median(firsts) < limit_ms
    return Row(what, spread(firsts, "ms"), "" if limit_ms is None else f"{limit_ms} ms", held)


def first(arguments: list[str], wanted: bytes) -> float:
    """Milliseconds from the start of the program to its first screen that has this on it."""
    began = time.perf_counter()
    with Screen(arguments) as screen:
        screen.until(wanted)
        return (time.perf_counter() - began) * 1e3


class Screen:
    """`agentscope watch` on a terminal of 120 x 40 of ours."""

    def __init__(self, arguments: list[str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.terminal = ours
        self.process = subprocess.Popen(
            [AGENTSCOPE, "watch", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        """Ready to be looked at."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; what it still writes is read, or it would wait for us."""
        self.process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < ends:
            self.read(0.01)
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def read(self, timeout_s: float) -> bytes:
        """What it draws within this time; nothing once it has ended."""
        if select.select([self.terminal], [], [], max(0.0, timeout_s))[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                return os.read(self.terminal, 1 << 16)
        return b""

    def until(self, wanted: bytes) -> None:
        """Read until this was drawn."""
        seen, ends = b"", time.monotonic() + PATIENCE_S
        while wanted not in seen:
            if time.monotonic() > ends or self.process.poll() is not None:
                raise RuntimeError(f"{wanted!r} was not drawn; last was {seen[-300:]!r}")
            seen += self.read(0.1)

    def drain(self, seconds: float) -> None:
        """Let it draw for so long."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self.read(left)

    def key(self, key: bytes) -> float:
        """Milliseconds from a key that moves the cursor to the cursor drawn anew, at no fixed moment of its redrawing."""
        self.drain(0.137)
        began = time.perf_counter()
        os.write(self.terminal, key)
        self.until(CURSOR)
        return (time.perf_counter() - began) * 1e3


def recorded(folder: Path) -> Path:
    """The recording: a pulse of every agent each second, as the stream tells it, and an end now and then."""
    path = folder / "five-hundred.ndjson"
    agents = [samples.agent(f"agent-{number:03}", 10_000 + number, "python3 x.py") for number in range(AGENTS)]
    recorder = Recorder("3d3393b2-0000-4000-8000-000000000000", samples.BOOT_WALL_NS, host="sample")
    states = ("running", "waiting(llm) api.anthropic.com, {} s", "waiting(timer)")
    events: list[AnyEvent] = [samples.ready()]
    events += [AgentSeen(at_ns=samples.STARTED_NS, agent=agent, because="x") for agent in agents]
    for second in range(SECONDS):
        now_ns = samples.STARTED_NS + second * samples.S
        for number, agent in enumerate(agents):
            used = (60 + (second * 7 + number) % 90) << 20
            events.append(
                samples.pulse(
                    agent, now_ns + number * 1000, used - (10 << 20), states[(number + second) % 3].format(second),
                    cgroup_bytes=used, limit_bytes=256 << 20, cpu_percent=float((second + number) % 100),
                )
            )  # fmt: skip
        if second % 20 == 10:
            told = (f"i{second}", "exit/status", f"agent-{second:03} exited with status 3", "status 3")
            events.append(samples.incident(agents[second], *told, at_ns=now_ns + 600_000))
    with path.open("wb") as file:
        file.writelines(line for event in events if (line := recorder.encode(event)))
    return path
