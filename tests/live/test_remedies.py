"""Remedies with real programs, servers and sockets: hooks of every misbehaviour, a webhook that will not answer, the journal, stacks."""

import asyncio
import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agentscope import remedies
from agentscope.agents import start_ns_of
from agentscope.model import Agent, ExitRecord, IncidentOpened, Process
from agentscope.policy import Policy
from agentscope.remedies import Order, alert, hooks, stacks

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

USER = 1001
SECRET = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"


def order(tmp_path: Path, pid: int = 999_999_999, start_ns: int = 1, *, ended: bool = True, uid: int = USER, **policy) -> Order:
    """An order about an agent of an ordinary user."""
    agent = Agent(name="researcher", pid=pid, start_ns=start_ns, start_time="2026-01-01T00:00:00.000000Z", command="python agent.py", uid=uid)  # fmt: skip
    incident = IncidentOpened(
        at_ns=1, incident="b00t-1-2", agent=agent, process=Process(pid=pid, start_ns=start_ns), scope="agent",
        cause="exception/uncaught" if ended else "hang/deadlock", subtype="uncaught", confidence="certain",
        headline=f"ValueError: key {SECRET}\x1b[2J refused", culprit="agent.py:1",
        exit=ExitRecord(code=1 if ended else None, signal=None, core_dumped=False), actor=None, evidence=(), ruled_out=(),
        not_checked=(), advice=(), timeline=(), engine="core", detected_in_ms=1.0,
    )  # fmt: skip
    session = {"session": "4f2c", "action": "Bash", "finished": "no"}
    policy = Policy(**policy)
    return Order(
        incident=incident, agent=agent, policy=policy, attempt=2, state=tmp_path / "state", owner_uid=0, session=session
    )


@pytest.fixture
def hook(tmp_path):
    """Writes a hook that everybody may run, below folders that only root may write."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)

    def make(text: str, name: str = "hook") -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    return make


def called(order_: Order):
    return asyncio.run(hooks.act(order_))


def cages() -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob("**/agentscope-cage-*")]


# --- hooks -------------------------------------------------------------------------------------------------------------------


def test_what_a_hook_is_told(tmp_path, hook):
    """The incident on stdin and in the environment, no secret in either, nothing of ours besides, and the agent's own rights."""
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    script = hook(
        f"#!/bin/sh\ncat > {out}/stdin; env > {out}/env; id -u > {out}/id; id -G >> {out}/id; cat /proc/self/cgroup > {out}/cgroup; ls /proc/self/fd > {out}/fd\n"
    )
    os.environ["OURS_ONLY"] = "1"
    done = called(order(tmp_path, hooks=(str(script),)))
    assert done.outcome == "done", done.says
    told = json.loads((out / "stdin").read_text())
    assert (told["incident"], told["cause"], told["attempt"]) == ("b00t-1-2", "exception/uncaught", 2)
    assert told["session"]["session"] == "4f2c"
    assert told["text"].startswith("researcher (pid 999999999): ValueError")
    environment = dict(line.split("=", 1) for line in (out / "env").read_text().splitlines() if "=" in line)
    assert environment["AGENTSCOPE_CAUSE"] == "exception/uncaught"
    assert (environment["AGENTSCOPE_EXIT_CODE"], environment["AGENTSCOPE_EXIT_STATUS"]) == ("exited", "1")
    assert environment["AGENTSCOPE_SESSION"] == "4f2c"
    assert "OURS_ONLY" not in environment
    assert "\x1b" not in (out / "env").read_text()
    assert SECRET not in (out / "stdin").read_text() + (out / "env").read_text() + done.says
    assert (out / "id").read_text().split() == [str(USER), "65534"]
    assert "agentscope-cage-hook" in (out / "cgroup").read_text()
    assert set((out / "fd").read_text().split()) <= {"0", "1", "2", "3"}
    assert cages() == []


BAD = {
    "exit 1": ("#!/bin/sh\necho cannot page; exit 1\n", "exit status 1: cannot page"),
    "signal": ("#!/bin/sh\nkill -9 $$\n", "ended by SIGKILL"),
    "hang": ("#!/bin/sh\necho waiting; sleep 50\n", "did not end within 1 s and was killed: waiting"),
    "hang deaf to signals": ("#!/usr/bin/python3\nimport signal,time\n[signal.signal(n,signal.SIG_IGN) for n in (1,2,15)]\ntime.sleep(50)\n", "did not end within 1 s"),
    "flood": ("#!/bin/sh\nyes spam\n", "wrote without end and was killed: spam"),
    "no interpreter": ("#!/no/such/interpreter\n", "cannot be started: No such file or directory"),
    "no program": ("\x7fELF nothing", "cannot be started: Exec format error"),
    "memory": ("#!/usr/bin/python3\nx=[]\nwhile True: x.append(bytearray(b'x'*(8<<20)))\n", "ended by SIGKILL (it was ended at its limit of 256 MiB)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_hook_that_misbehaves(name, tmp_path, hook):
    """A hook that fails, hangs, floods, eats memory or is no program: a failure in words, in bounded time, and nobody is left."""
    text, says = BAD[name]
    began = time.monotonic()
    done = called(order(tmp_path, hooks=(str(hook(text)),), hook_s=8.0 if name == "memory" else 1.0))
    assert done.outcome == "failed"
    assert says in done.says
    assert len(done.says) < 1000
    assert time.monotonic() - began < 12
    assert cages() == []


@pytest.mark.parametrize(
    "reads",
    ["#!/bin/sh\nexec 0<&-\nexit 0\n", "#!/bin/sh\nexit 0\n", "#!/bin/sh\nhead -c 10 >/dev/null; exit 0\n"],
    ids=["closes", "never", "a little"],
)
def test_a_hook_that_does_not_read(reads, tmp_path, hook):
    """Who closes stdin, or reads none or a little of a long incident, is no failure."""
    given = order(tmp_path, hooks=(str(hook(reads)),), hook_s=5.0)
    import msgspec

    long = msgspec.structs.replace(given.incident, advice=tuple("x" * 1000 for _ in range(500)))
    assert called(msgspec.structs.replace(given, incident=long)).outcome == "done"


def test_a_hook_that_leaves_daemons(tmp_path, hook):
    """Daemons that a hook leaves in sessions of their own end with it, and do not hold it up."""
    mark = f"agentscope-test-daemon-{os.getpid()}"
    script = hook(
        "#!/usr/bin/python3\nimport os,time,sys\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execvp('sleep', ['{mark}', '50'])\n"
        "        os._exit(0)\n"
        "time.sleep(0.3)\n"
    )
    began = time.monotonic()
    done = called(order(tmp_path, hooks=(str(script),), hook_s=10.0))
    assert done.outcome == "done", done.says
    assert time.monotonic() - began < 5
    assert not any(mark.encode() in cmdline(pid) for pid in pids())
    assert cages() == []


def test_a_hook_that_forks_without_end(tmp_path, hook):
    """A fork bomb stays within its limit of processes, and all of it is ended."""
    mark = f"bomb-{os.getpid()}"
    script = hook(
        "#!/usr/bin/python3\nimport os,time\nend=time.time()+20\nwhile time.time()<end:\n    try: os.fork()\n    except OSError: time.sleep(0.05)\n",
        mark,
    )
    most = 0
    going = threading.Event()

    def count() -> None:
        nonlocal most
        while not going.is_set():
            most = max(most, sum(mark.encode() in cmdline(pid) for pid in pids()))
            time.sleep(0.05)

    watcher = threading.Thread(target=count)
    watcher.start()
    done = called(order(tmp_path, hooks=(str(script),), hook_s=1.5))
    going.set()
    watcher.join()
    assert done.outcome == "failed"
    assert "reached its limit of 64 processes" in done.says
    assert 30 < most <= 64
    assert not any(mark.encode() in cmdline(pid) for pid in pids())
    assert cages() == []


def test_hooks_run_beside_each_other(tmp_path, hook):
    """One that hangs costs the others nothing: each is told, and the failure is that of the one."""
    slow, quick = hook("#!/bin/sh\nsleep 50\n", "slow"), hook("#!/bin/sh\necho paged\n", "quick")
    began = time.monotonic()
    done = called(order(tmp_path, hooks=(str(slow), str(quick), "/no/such/hook"), hook_s=1.0))
    assert time.monotonic() - began < 5
    assert done.outcome == "failed"
    assert "quick: exit status 0: paged" in done.says
    assert "/no/such/hook is not called" in done.says


def unsafe(how: str, script: Path, tmp_path: Path) -> Path:
    """Make a hook one that others could have changed."""
    if how == "written by others":
        script.chmod(0o757)
    elif how == "written by its group":
        script.chmod(0o775)
    elif how == "of another user":
        os.chown(script, 1002, 1002)
    elif how == "in a folder of another user":
        os.chown(tmp_path, 1002, 1002)
    elif how == "in a folder that others write":
        tmp_path.chmod(0o777)
    elif how == "a link that another user made":
        link = tmp_path / "link"
        link.symlink_to(script)
        os.chown(link, 1002, 1002, follow_symlinks=False)
        return link
    elif how == "a link into a folder that others write":
        inner = tmp_path / "open"
        inner.mkdir()
        inner.chmod(0o777)
        link = tmp_path / "link"
        script.rename(inner / "hook")
        link.symlink_to("open/hook")
        return link
    elif how == "a folder":
        script.unlink()
        script.mkdir()
    elif how == "not executable":
        script.chmod(0o644)
    elif how == "a circle":
        script.unlink()
        script.symlink_to(script)
    return script


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("written by others", "can be written by others, its mode is 757. Try: chmod go-w"),
        ("written by its group", "can be written by others, its mode is 775"),
        ("of another user", "belongs to uid 1002, which is neither root nor the config's owner. Try: chown root"),
        ("in a folder of another user", "a folder on the way belongs to uid 1002"),
        ("in a folder that others write", "a folder on the way can be written by others"),
        ("a link that another user made", "belongs to uid 1002"),
        ("a link into a folder that others write", "a folder on the way can be written by others"),
        ("a folder", "not a regular file"),
        ("not executable", "is not executable. Try: chmod +x"),
        ("a circle", "circle of links"),
    ],
)
def test_a_hook_that_others_could_change(how, says, tmp_path, hook):
    """A hook that somebody else could have put there is refused with a sentence, and never called."""
    mark = tmp_path / "called"
    script = unsafe(how, hook(f"#!/bin/sh\ntouch {mark}\n"), tmp_path)
    done = called(order(tmp_path, hooks=(str(script),), uid=0))
    assert done.outcome == "refused"
    assert says in done.says
    assert not mark.exists()


def test_a_hook_of_the_owner(tmp_path, hook):
    """A config's owner who is not root calls hooks of their own, with rights of their own."""
    import msgspec

    out = tmp_path / "out"
    out.touch()
    out.chmod(0o666)
    script = hook(f"#!/bin/sh\nid -u > {out}\n")
    os.chown(script, 1003, 1003)
    given = msgspec.structs.replace(order(tmp_path, hooks=(str(script),)), owner_uid=1003)
    assert called(given).outcome == "done"
    assert out.read_text().strip() == "1003"


def test_no_hooks(tmp_path):
    """Without a hook the sentence says what to type."""
    done = called(order(tmp_path))
    assert done.outcome == "refused"
    assert "Try: hooks" in done.says


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# --- the webhook -------------------------------------------------------------------------------------------------------------


class Server:
    """A real HTTP server that answers as it is told, by path."""

    def __init__(self) -> None:
        asked = self.asked = []
        other = self.other = []

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                (other if self.server.server_port == second.server_port else asked).append((self.path, body))
                way = self.path.strip("/").split("/")
                if way[0] == "hang":
                    time.sleep(8)
                    return
                if way[0] == "drip":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    for _ in range(80):
                        time.sleep(0.1)
                        try:
                            self.wfile.write(b"X: y\r\n")
                        except OSError:
                            return
                if way[0] == "twice" and len(asked) == 1:
                    self.send_error(503)
                    return
                status = int(way[0]) if way[0].isdigit() else 200
                self.send_response(status)
                if way[0] in {"301", "302", "303", "307", "308"}:
                    to = {
                        "same": "/200",
                        "other": f"http://127.0.0.1:{second.server_port}/200",
                        "host": "http://localhost.invalid/",
                        "circle": self.path,
                    }
                    self.send_header("Location", to[way[1]])
                self.send_header("Content-Length", "12")
                self.end_headers()
                self.wfile.write(b"no \x1b[2J page\n")

            def log_message(self, *_: object) -> None:
                return

        first = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        second = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.servers = (first, second)
        self.url = f"http://127.0.0.1:{first.server_port}"
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """No more answers."""
        for server in self.servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A real datagram socket where the journal's would be."""
    path = tmp_path / "journal.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(path))
        ours.settimeout(2)
        monkeypatch.setattr(alert, "JOURNAL", path)
        yield ours


def told(order_: Order):
    began = time.monotonic()
    done = asyncio.run(alert.act(order_))
    return done, time.monotonic() - began


def test_a_webhook(tmp_path, server, journal):
    """The webhook gets the incident as JSON, once, without its secrets; its address, which is one, is not told."""
    done, took = told(order(tmp_path, alert=f"{server.url}/T0/B0/verysecret"))
    assert done.outcome == "done"
    assert "told the webhook at 127.0.0.1" in done.says
    assert "verysecret" not in done.says
    ((path, body),) = server.asked
    assert path == "/T0/B0/verysecret"
    assert json.loads(body)["incident"] == "b00t-1-2"
    assert SECRET.encode() not in body
    assert took < 3


@pytest.mark.parametrize(
    ("path", "says", "times"),
    [
        ("/500", "answers 500: no", 2),
        ("/404", "answers 404", 1),
        ("/429", "answers 429", 2),
        ("/307/other", "another host", 1),
        ("/308/host", "another host (localhost.invalid)", 1),
        ("/302/same", "answers 302 and leads elsewhere", 1),
        ("/307/circle", "more than 3 times", 4),
    ],
)
def test_a_webhook_that_does_not_take_it(path, says, times, tmp_path, server, journal):
    """A refusal is said and, where it may pass, tried once more; no other host is ever followed; the journal has it all the same."""
    done, _ = told(order(tmp_path, alert=server.url + path))
    assert done.outcome == "done"
    assert "told the journal" in done.says
    assert says in done.says
    assert "\x1b" not in done.says
    assert len(server.asked) == times
    assert server.other == []


def test_a_webhook_that_moved(tmp_path, server, journal):
    """Another path of the same host is followed with the same request."""
    done, _ = told(order(tmp_path, alert=f"{server.url}/308/same"))
    assert "told the webhook" in done.says
    assert [path for path, _ in server.asked] == ["/308/same", "/200"]
    assert server.asked[0][1] == server.asked[1][1]


def test_a_webhook_that_comes_back(tmp_path, server, journal):
    """One that was away for a moment is told at the second try."""
    done, _ = told(order(tmp_path, alert=f"{server.url}/twice"))
    assert "told the webhook" in done.says
    assert len(server.asked) == 2


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_a_webhook_that_hangs(path, tmp_path, server, journal):
    """One that accepts and never answers, or drips its answer for ever, costs twice five seconds and a pause."""
    done, took = told(order(tmp_path, alert=server.url + path))
    assert done.outcome == "done"
    assert "no answer within 5 s" in done.says
    assert 10 < took < 13


def test_a_webhook_without_a_proper_certificate(tmp_path, server, journal):
    """Who cannot show whose they are is not told: a server that speaks no TLS, and one whose certificate nobody signed."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)  # fmt: skip
    import ssl

    asked: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            for _ in range(2):
                try:
                    with context.wrap_socket(listening.accept()[0], server_side=True) as secured:
                        asked.append(secured.recv(100))
                except OSError:
                    continue

        serving = threading.Thread(target=serve)
        serving.start()
        done, _ = told(order(tmp_path, alert=f"https://127.0.0.1:{listening.getsockname()[1]}/x"))
        serving.join()
    assert "certificate" in done.says
    assert asked == []
    done, _ = told(order(tmp_path, alert=server.url.replace("http:", "https:")))
    assert "not told: the webhook" in done.says


def test_nobody_there(tmp_path, monkeypatch):
    """Without a journal, a desktop or a webhook that answers, the outcome says that nobody was told."""
    monkeypatch.setattr(alert, "JOURNAL", tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done, _ = told(order(tmp_path, alert=f"http://127.0.0.1:{port}/"))
    assert done.outcome == "failed"
    assert "the journal, there is none" in done.says
    assert "the webhook at 127.0.0.1" in done.says


# --- the journal -------------------------------------------------------------------------------------------------------------


def fields_of(datagram: bytes) -> dict[str, str]:
    """Read a datagram as journald does."""
    found, rest = {}, datagram
    while rest:
        line, _, after = rest.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            rest = after
        else:
            size = int.from_bytes(after[:8], "little")
            name, value, rest = line, after[8 : 8 + size], after[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_the_journal(tmp_path, journal):
    """One datagram with a message id, a priority and every AGENTSCOPE_ field, in the journal's own format."""
    done, _ = told(order(tmp_path))
    assert done.says.startswith("told the journal")
    found = fields_of(journal.recv(1 << 20))
    assert found["MESSAGE"].startswith("researcher (pid 999999999): ValueError")
    assert (len(found["MESSAGE_ID"]), found["PRIORITY"]) == (32, "2")
    assert found["SYSLOG_IDENTIFIER"] == "agentscope"
    assert found["AGENTSCOPE_CAUSE"] == "exception/uncaught"
    assert SECRET not in str(found)
    assert all("\n" not in value for value in found.values())


def test_a_value_of_several_lines():
    """A value with a line break is sent with its length, so that it cannot pass for another field."""
    assert fields_of(alert.field("MESSAGE", "a\nPRIORITY=0")) == {"MESSAGE": "a\nPRIORITY=0"}


def filled(path: str) -> int:
    """Send with a new socket until that would wait; how many were taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        for count in range(10_000):
            try:
                filler.sendto(b"x" * 1000, path)
            except BlockingIOError:
                return count
    raise AssertionError("it is never full")


def test_a_journal_that_is_full(tmp_path, journal, monkeypatch):
    """A journal that takes nothing any more does not hold up the rest."""
    while filled(journal.getsockname()):
        pass  # each sender has a limit of its own, and the receiver one for all
    done, took = told(order(tmp_path))
    assert done.outcome == "failed"
    assert "the journal, Resource temporarily unavailable" in done.says
    assert took < 3


# --- stacks ------------------------------------------------------------------------------------------------------------------

DEADLOCK = f"""
import threading, time, os, sys
one, two = threading.Lock(), threading.Lock()
def first(key='{SECRET}'):
    with one:
        time.sleep(0.2)
        with two: pass
def second():
    with two:
        time.sleep(0.2)
        with one: pass
threads = [threading.Thread(target=f, daemon=True) for f in (first, second)]
[t.start() for t in threads]
print('ready', flush=True)
threads[0].join(50)
"""


def test_the_stacks_of_a_deadlock(tmp_path):
    """Both sites of a deadlock are in a file that only its owner reads, no value is, and the agent was not touched."""
    with subprocess.Popen([sys.executable, "-c", DEADLOCK], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            time.sleep(0.6)
            given = order(tmp_path, agent.pid, start_ns_of(agent.pid) or 0, ended=False)
            began = time.monotonic()
            done = asyncio.run(stacks.act(given))
            took = time.monotonic() - began
            assert agent.poll() is None
        finally:
            agent.send_signal(signal.SIGKILL)
    assert done.outcome == "done", done.says
    assert took < 8
    path = tmp_path / "state" / "stacks" / "b00t-1-2.txt"
    assert str(path) in done.says
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert "first (<string>:7)" in text
    assert "second (<string>:11)" in text
    assert "kernel, thread" in text
    assert SECRET not in text
    assert "\x1b" not in text


def test_the_stacks_of_the_dead(tmp_path):
    """Of an agent that has ended, or whose number another process has now, nothing is taken."""
    assert asyncio.run(stacks.act(order(tmp_path))).outcome == "refused"
    assert asyncio.run(stacks.act(order(tmp_path, os.getpid(), 12345))).outcome == "refused"
    assert not (tmp_path / "state").exists()


def test_stacks_are_bounded(tmp_path):
    """However many incidents there are, fifty files are kept, the newest."""
    for number in range(60):
        stacks.keep(tmp_path, f"incident-{number:02d}/../..", b"x" * (300 << 10 if number == 59 else 10))
        time.sleep(0.002)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 50
    assert names[-1].startswith("incident-59")
    assert (tmp_path / names[-1]).stat().st_size < 257 << 10


def test_every_remedy_has_its_two_functions():
    """The folder is the list: each module says its intent and acts."""
    assert set(remedies.every()) == {"restart", "restart-fresh", "rollback", "alert", "hooks", "stacks"}
    for remedy in remedies.every().values():
        assert callable(remedy.intent)
        assert asyncio.iscoroutinefunction(remedy.act)
