"""Health checks against real servers on loopback and real commands: what counts as well, what failed and is quoted, and what is no strike."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import jsonschema
import pytest

from agentscope import commands, record
from agentscope.config import HealthConfig
from agentscope.model import Agent, AnyEvent, Health, Lost
from agentscope.sources import checks
from agentscope.sources.aside import Aside, Stuck
from agentscope.sources.checks import Answer, CannotAsk, ask, probe_of
from agentscope.sources.health import HealthProbe
from agentscope.sources.quoting import quoted
from tests.asking import agent_of, until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def asked(check: HealthConfig, *, agent: Agent | None = None, owner_uid: int = 0) -> Answer:
    """One check."""
    return await ask(check, agent or agent_of(os.getpid()), owner_uid, Aside())


@contextlib.asynccontextmanager
async def server(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server on loopback that does as told with each connection; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def body() -> None:
            try:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await serve(reader, writer)
            finally:
                writer.close()

        task = asyncio.get_running_loop().create_task(body())
        tasks.add(task)

    listening = await asyncio.start_server(connected, host, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listening.close()
        await asyncio.sleep(0.01)


def answering(text: bytes) -> Serve:
    """Answers every request with these bytes and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return serve


async def over_http(serve: Serve, path: str = "/health", **fields: float) -> Answer:
    """One GET of a server."""
    async with server(serve) as port:
        return await asked(HealthConfig(kind="http", target=f"http://127.0.0.1:{port}{path}", **fields))


# --- HTTP -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"299"])
async def test_any_2xx_is_well(status):
    """Every 2xx is well, whatever its words."""
    answer = await over_http(answering(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"))
    assert answer.ok
    assert answer.says.startswith(status[:3].decode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"HTTP/1.1 503 Fine\r\nContent-Length: 0\r\n\r\n", "503 Service Unavailable"),
        (b'HTTP/1.1 503 x\r\nContent-Length: 15\r\n\r\n{"db":"locked"}', '503 Service Unavailable: {"db":"locked"}'),
        (b"HTTP/1.1 500 x\r\n\r\n\x1b[2J\r\nred\xff", "500 Internal Server Error: [2J red\ufffd"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 799 x\r\nContent-Length: 0\r\n\r\n", "799"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302 Found, and redirects are not followed"),
    ],
)  # fmt: skip
async def test_any_other_status_is_quoted(text, says):
    """Another status fails, with its number and the beginning of the body on one clean line, and counts as an answer."""
    assert await over_http(answering(text)) == Answer(ok=False, says=says, answered=True)


async def test_a_redirect_is_not_followed():
    """A redirect to a place that would answer well is a failure, and nobody asks there."""
    visited = []

    async def there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append(1)
        writer.write(OK)

    async with server(there) as port:
        answer = await over_http(
            answering(b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % port)
        )
    assert not answer.ok
    assert visited == []


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x00" * 500 + b"\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_garbage_is_no_answer_of_http(text):
    """What is no HTTP fails as such, said on one printable line of bounded length."""
    answer = await over_http(answering(text))
    assert (answer.ok, answer.answered) == (False, True)
    assert answer.says.startswith("no HTTP: ")
    assert answer.says.isprintable()
    assert len(answer.says) < 300


async def test_an_endless_head_is_no_http():
    """A head that does not end is given up, by its size or by the time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
            await writer.drain()

    assert not (await over_http(serve)).ok


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads the request and hangs up."""
    await reader.readuntil(b"\r\n\r\n")


async def test_hanging_up_is_no_answer():
    """A server that closes instead of answering has not answered."""
    answer = await over_http(closes)
    assert (answer.ok, answer.answered) == (False, False)
    assert answer.says.startswith("no answer: ")


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads all and says nothing."""
    while await reader.read(4096):
        pass


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never stops with its head, one byte at a time."""
    for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
        writer.write(bytes([letter]))
        await asyncio.sleep(0.02)


async def continues(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says over and over that an answer will come."""
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("serve", [hangs, drips, continues])
async def test_no_answer_in_time(serve):
    """A head that is not whole in time is no answer; the time is that of the check as a whole, and it is kept."""
    begun = time.monotonic()
    assert await over_http(serve, timeout_s=0.3) == Answer(ok=False, says="no answer within 300 ms", answered=False)
    assert 0.25 < time.monotonic() - begun < 1.0


@pytest.mark.parametrize("status", [b"200 OK", b"500 x"])
async def test_an_endless_body_is_not_read(status):
    """The head decides: a body without end neither fails a check that is well nor holds up one that is not."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        while True:
            writer.write(b"y" * 65536)
            await writer.drain()
            sent += 65536

    answer = await over_http(serve)
    assert answer.ok == (status == b"200 OK")
    assert len(answer.says) < 300
    assert sent < 16 << 20


async def test_a_body_that_stalls_does_not_hide_the_status():
    """A failing status is told even if its body never comes."""
    answer = await over_http(answering_then_hangs)
    assert answer == Answer(ok=False, says="503 Service Unavailable", answered=True)


async def answering_then_hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a head and then nothing."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 x\r\nContent-Length: 100\r\n\r\n")
    await asyncio.sleep(30)


async def test_nobody_listens():
    """A closed port is refused, over HTTP and TCP alike, and quoted so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        port = taken.getsockname()[1]
        for check in (
            HealthConfig(kind="http", target=f"http://127.0.0.1:{port}/"),
            HealthConfig(kind="tcp", target=f"127.0.0.1:{port}"),
        ):
            assert await asked(check) == Answer(ok=False, says="connection refused", answered=False)


async def test_what_is_asked(monkeypatch):
    """The request names its host, path and sender, asks for a plain body, and takes no proxy from the environment."""
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(OK)

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with server(serve) as port:
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"user:word@127.0.0.1:{port}"):
            assert (await asked(HealthConfig(kind="http", target=f"http://{host}/health?deep=1"))).ok
    assert len(heads) == 3
    for head, host in zip(heads, ("127.0.0.1", "localhost", "127.0.0.1"), strict=True):
        lines = head.lower().splitlines()
        assert lines[0] == "get /health?deep=1 http/1.1"
        assert f"host: {host}:{port}" in lines
        assert "accept-encoding: identity" in lines
        assert any(line.startswith("user-agent: agentscope/") for line in lines)
    assert "authorization: basic " in heads[2].lower()


async def test_tls_that_nobody_vouches_for(tmp_path):
    """A certificate that the system's authorities do not know fails the check and says so."""
    made = subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost", "-days", "1", "-keyout", "key", "-out", "crt"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl here")
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    answer = await asked(HealthConfig(kind="http", target=f"https://localhost:{port}/", timeout_s=3))
    listening.close()
    assert (answer.ok, answer.answered) == (False, True)
    assert answer.says.startswith("TLS failed: ")


async def test_a_password_is_not_shown():
    """What is told of a check holds no password of its address."""
    assert probe_of(HealthConfig(kind="http", target="http://u:secret@h:80/x")) == "GET http://h:80/x"


async def test_a_name_that_nobody_knows():
    """A name that cannot be resolved is our trouble, not the agent's."""
    for check in (
        HealthConfig(kind="tcp", target="no-such-host.invalid:80", timeout_s=2),
        HealthConfig(kind="http", target="http://no-such-host.invalid/", timeout_s=2),
    ):
        with pytest.raises(CannotAsk, match=r"no-such-host\.invalid"):
            await asked(check)


async def test_no_descriptor_left_is_our_trouble():
    """If we have run out of file descriptors, no agent is blamed for it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with server(answering(OK)) as port:
        url = HealthConfig(kind="http", target=f"http://127.0.0.1:{port}/")
        assert (await asked(url)).ok
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            for check in (
                url,
                HealthConfig(kind="tcp", target=f"127.0.0.1:{port}"),
                HealthConfig(kind="unix", target="/x"),
                HealthConfig(kind="exec", command=("/bin/true",)),
            ):
                with pytest.raises(CannotAsk, match=r"(?i)too many open files"):
                    await asked(check)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- sockets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("::1", "[::1]")])
async def test_a_tcp_port_that_lets_us_in(host, written):
    """A port that is listened at is well, by number and by name, in both families; nothing need be said there."""
    try:
        async with server(hangs, host) as port:
            assert await asked(HealthConfig(kind="tcp", target=f"{written}:{port}")) == Answer(True, "connected", True)
    except OSError:
        pytest.skip(f"no {host} here")


async def test_a_tcp_port_with_a_full_backlog():
    """A server that accepts nobody any more does not let us in, once its backlog is full."""
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        check = HealthConfig(kind="tcp", target=f"127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.3)
        assert await asked(check) == Answer(ok=False, says="no answer within 300 ms", answered=False)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
async def test_a_unix_socket_of_any_type(kind, tmp_path):
    """A unix socket lets us in whatever its type."""
    with socket.socket(socket.AF_UNIX, kind) as listening:
        listening.bind(str(tmp_path / "s"))
        if kind != socket.SOCK_DGRAM:
            listening.listen()
        assert (await asked(HealthConfig(kind="unix", target=str(tmp_path / "s")))).ok


async def test_a_unix_socket_with_a_full_backlog(tmp_path):
    """A full backlog is no connection: it is waited for until the time is up."""
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as waiting:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        while True:
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(tmp_path / "s")):
                break
        check = HealthConfig(kind="unix", target=str(tmp_path / "s"), timeout_s=0.3)
        assert await asked(check) == Answer(ok=False, says="no answer within 300 ms", answered=False)


async def test_a_unix_socket_that_is_not_there(tmp_path):
    """No socket, one that its program left behind, and a plain file each fail with their reason."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    (tmp_path / "file").touch()
    for name, says in (("none", "no such file or directory"), ("left", "connection refused"), ("file", "connection refused")):
        assert await asked(HealthConfig(kind="unix", target=str(tmp_path / name))) == Answer(False, says, False)


# --- commands -------------------------------------------------------------------------------------------------------------


def script(text: str, **fields: float) -> HealthConfig:
    """A check by a shell script."""
    return HealthConfig(kind="exec", command=("/bin/sh", "-c", text), **fields)


@pytest.mark.parametrize(
    ("text", "ok", "says"),
    [
        ("exit 0", True, "exit status 0"),
        ("echo fine; exit 0", True, "exit status 0: fine"),
        ("echo the queue is full >&2; exit 1", False, "exit status 1: the queue is full"),
        ("printf '\\033[2J\\nx'; exit 3", False, "exit status 3: [2J x"),
        ("kill -SEGV $$", False, "ended by SIGSEGV"),
        ("exit 1 >&- 2>&-", False, "exit status 1"),
    ],
)
async def test_a_command_and_its_status(text, ok, says):
    """Status 0 is well; another one, or a signal, fails and is quoted with what the command wrote."""
    assert await asked(script(text, timeout_s=5)) == Answer(ok, says, None)


def alive(marker: str) -> list[int]:
    """Processes with this word on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(int(path.parent.name))
    return found


async def gone(marker: str) -> bool:
    """Whether they end within a second: a killed process takes a moment."""
    for _ in range(50):
        if not alive(marker):
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo waiting; sleep 20.017{0}; : {1}", "no end within 300 ms: waiting"),
        ("trap '' TERM INT HUP; sleep 20.017{0}; : {1}", "no end within 300 ms"),
        ("sleep 20.017{0} & sleep 20.018{0} & wait; : {1}", "no end within 300 ms"),
        ("kill -STOP $$; : {1} 20.017{0}", "no end within 300 ms"),
    ],
)
async def test_a_command_that_hangs(text, says):
    """A command that does not end in time is killed with all that it started, even if it is stopped or ignores signals."""
    marker = str(time.monotonic_ns() % 10**9)
    begun = time.monotonic()
    assert await asked(script(text.format(marker, marker), timeout_s=0.3)) == Answer(False, says, None)
    assert time.monotonic() - begun < 2
    assert await gone(marker)


async def test_a_command_that_leaves_children_behind():
    """The end of the command counts, not that of its output: a child that keeps that open is killed and waited for by nobody."""
    marker = str(time.monotonic_ns() % 10**9)
    begun = time.monotonic()
    answer = await asked(script(f"sleep 20.{marker} & echo done; exit 0", timeout_s=3))
    assert answer == Answer(True, "exit status 0: done", None)
    assert time.monotonic() - begun < 1.5
    assert await gone(marker)


async def test_a_command_that_floods():
    """Endless output ends the check early, and only its beginning is kept."""
    begun = time.monotonic()
    answer = await asked(script("yes flood", timeout_s=20))
    assert time.monotonic() - begun < 5
    assert not answer.ok
    assert answer.says.startswith("it wrote without end: flood flood")
    assert len(answer.says) < 300


async def test_much_output_is_no_failure():
    """A command that writes more than we keep, and less than a flood, is judged by its status."""
    answer = await asked(script("head -c 200000 /dev/zero | tr '\\0' a; exit 0", timeout_s=5))
    assert answer.ok
    assert len(answer.says) < 300
    kept = commands.run_command(("/bin/sh", "-c", "head -c 200000 /dev/zero"), None, {}, 5)
    assert len(kept.output) == commands.OUTPUT_KEPT_BYTES


@pytest.mark.parametrize("words", [("/no/such/check",), ("no-such-check-anywhere",), ("/etc/passwd",), ("/tmp",)])
async def test_a_command_that_cannot_be_started(words):
    """No such program, or none that may be run, is a mistake of the config and no strike."""
    with pytest.raises(CannotAsk, match="cannot be started"):
        await asked(HealthConfig(kind="exec", command=words))


async def test_what_a_command_is_given():
    """A command has no terminal, no descriptor of ours, a session of its own, a plain environment, and knows the agent."""
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    os.environ["AGENTSCOPE_TEST_SECRET"] = "x"
    try:
        code = (
            "import os,sys,json;print(json.dumps([sorted(os.environ),os.getsid(0)==os.getpid(),os.getcwd(),"
            "os.readlink('/proc/self/fd/0'),[n for n in os.listdir('/proc/self/fd') if int(n)>2 and os.path.exists('/proc/self/fd/'+n)],os.environ['AGENTSCOPE_PID']]))"
        )
        ran = commands.run_command(
            (sys.executable, "-I", "-c", code), None, {"AGENTSCOPE_AGENT": "a", "AGENTSCOPE_PID": "7"}, 10
        )
    finally:
        os.close(secret)
        del os.environ["AGENTSCOPE_TEST_SECRET"]
    names, own_session, folder, stdin, descriptors, pid = json.loads(ran.output)
    assert set(names) <= {"PATH", "LANG", "AGENTSCOPE_AGENT", "AGENTSCOPE_PID", "LC_CTYPE"}
    assert (own_session, folder, stdin, descriptors, pid) == (True, "/", "/dev/null", [], "7")


# --- counting -------------------------------------------------------------------------------------------------------------


def probe(check: HealthConfig, told: list[AnyEvent]) -> HealthProbe:
    """A probe of this process."""
    return HealthProbe(agent_of(os.getpid()), check, told.append)


BAD = Answer(ok=False, says="connection refused", answered=False)
GOOD = Answer(ok=True, says="connected", answered=True)


def test_three_strikes():
    """Failures in a row are counted; it fails from the first of them on, once they are three."""
    told: list[AnyEvent] = []
    one = probe(HealthConfig(kind="tcp", target="h:1"), told)
    assert one.state() is None
    seen = []
    for second in range(1, 5):
        one.fold(BAD, second * 10, second * 10 + 5)
        state = one.state()
        assert state is not None
        seen.append((state.failures, state.failing_since_ns))
    assert seen == [(1, None), (2, None), (3, 10), (4, 10)]
    assert state.says == "connect to tcp:h:1: connection refused"
    assert state.answered is False
    assert [(event.ok, event.failures) for event in told if isinstance(event, Health)] == [(False, n) for n in range(1, 5)]


def test_one_success_takes_all_strikes_away():
    """A check that is well ends the row, and is told once."""
    told: list[AnyEvent] = []
    one = probe(HealthConfig(kind="tcp", target="h:1"), told)
    for answer in (GOOD, GOOD, BAD, BAD, GOOD, GOOD, BAD):
        one.fold(answer, 1, 2)
    state = one.state()
    assert state is not None
    assert (state.failures, state.failing_since_ns) == (1, None)
    assert [(event.ok, event.failures) for event in told if isinstance(event, Health)] == [
        (True, 0), (False, 1), (False, 2), (True, 0), (False, 1),
    ]  # fmt: skip


def test_what_cannot_be_asked_is_a_loss():
    """A check that cannot be made leaves nothing known, adds no strike and takes none, and is told once a reason."""
    told: list[AnyEvent] = []
    one = probe(HealthConfig(kind="exec", command=("check",)), told)
    one.fold(BAD, 1, 2)
    one.cannot("no such program")
    one.cannot("no such program")
    assert one.state() is None
    one.fold(BAD, 3, 4)
    state = one.state()
    assert state is not None
    assert state.failures == 2
    lost = [event for event in told if isinstance(event, Lost)]
    assert [event.says for event in lost] == ["a cannot be asked by check: no such program"]


async def test_a_server_that_hangs_and_comes_back():
    """A probe left to itself sees a server answer, hang for three strikes, and answer again."""
    behaviour: list[Serve] = [answering(OK)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await behaviour[0](reader, writer)

    told: list[AnyEvent] = []
    async with server(serve) as port:
        one = probe(HealthConfig(kind="http", target=f"http://127.0.0.1:{port}/", timeout_s=0.1, interval_s=0.15), told)
        one.start()
        await until(lambda: told)
        behaviour[0] = hangs
        await until(lambda: (state := one.state()) and state.failing_since_ns)
        behaviour[0] = answering(OK)
        await until(lambda: (state := one.state()) and state.failures == 0)
        one.close()
    events = [event for event in told if isinstance(event, Health)]
    assert [event.ok for event in events] == [True, *[False] * (len(events) - 2), True]
    assert len(events) >= 5
    failed = events[1]
    assert failed.says == f"GET http://127.0.0.1:{port}/: no answer within 100 ms"
    assert 90 < failed.took_ms < 1000
    assert (failed.agent_pid, failed.agent_start_ns) == (one.agent.pid, one.agent.start_ns)


async def test_checks_never_overlap():
    """While one check hangs no other is made, however short the interval."""
    open_now, most = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await hangs(reader, writer)
        finally:
            open_now -= 1

    told: list[AnyEvent] = []
    async with server(serve) as port:
        one = probe(HealthConfig(kind="http", target=f"http://127.0.0.1:{port}/", timeout_s=0.3, interval_s=0.1), told)
        one.start()
        await until(lambda: len(told) >= 3)
        one.close()
    assert most == 1


async def test_the_loop_goes_on_meanwhile():
    """Neither a command that hangs nor a name server that is silent holds up the loop."""
    worst, running = 0.0, True

    async def beat() -> None:
        nonlocal worst
        while running:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before)

    task = asyncio.get_running_loop().create_task(beat())
    aside = Aside()
    await asyncio.gather(asked(script("sleep 5", timeout_s=0.5)), silent(aside))
    running = False
    await task
    assert worst < 0.3


async def silent(aside: Aside) -> None:
    """A lookup that takes longer than it may."""
    with pytest.raises(TimeoutError):
        await aside.run(lambda: time.sleep(0.8), 0.3)
    with pytest.raises(Stuck):
        await aside.run(lambda: None, 0.3)
    await asyncio.sleep(0.8)
    assert await aside.run(lambda: 7, 1) == 7


async def test_a_silent_name_server_is_no_strike(monkeypatch):
    """A lookup that does not come back leaves nothing known, and no second one is started beside it."""
    calls = []

    def slow(*_: object, flags: int = 0, **__: object) -> list[object]:
        if flags == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        calls.append(1)
        time.sleep(0.7)
        return []

    monkeypatch.setattr(checks.socket, "getaddrinfo", slow)
    told: list[AnyEvent] = []
    one = probe(HealthConfig(kind="tcp", target="agent:80", timeout_s=0.1, interval_s=0.1), told)
    await one.check()
    await one.check()
    assert one.state() is None
    assert len(calls) == 1
    assert [type(event) for event in told] == [Lost, Lost]
    assert "not resolved within 100 ms" in str(told[0])
    assert "still stuck" in str(told[1])
    await asyncio.sleep(0.8)


async def test_a_mistake_of_ours_is_no_strike(monkeypatch):
    """If the check itself breaks, that is told, the agent is not blamed, and the next check is made."""

    async def broken(*_: object) -> Answer:
        raise KeyError("oops")

    told: list[AnyEvent] = []
    one = probe(HealthConfig(kind="tcp", target="h:1"), told)
    monkeypatch.setattr("agentscope.sources.health.ask", broken)
    await one.check()
    assert one.state() is None
    assert "KeyError" in str(told)


# --- what is told ---------------------------------------------------------------------------------------------------------


def test_a_health_event_is_a_line_of_the_stream():
    """A check's outcome can be written, keeps the published schema, says whom it is about, and is read back as it was."""
    told: list[AnyEvent] = []
    probe(HealthConfig(kind="tcp", target="h:1"), told).fold(BAD, 1, 2_000_001)
    line = record.Recorder("b" * 36, 10**18, host="h").encode(told[0])
    assert line is not None
    schema = json.loads((Path(record.__file__).parent / "stream.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(line))
    assert record.decode(line).data == told[0]
    assert json.loads(line)["subject"] == f"pid/{os.getpid()}"
    assert json.loads(line)["data"]["took_ms"] == 2.0


def test_a_secret_in_an_answer_is_redacted():
    """What an agent answers may hold a key: it never reaches the stream."""
    told: list[AnyEvent] = []
    answer = Answer(ok=False, says="500 x: sk-ant-REDACTED", answered=True)
    probe(HealthConfig(kind="tcp", target="h:1"), told).fold(answer, 1, 2)
    line = record.Recorder("b" * 36, 10**18, host="h").encode(told[0])
    assert line is not None
    assert b"aaaabbbb" not in line


@pytest.mark.parametrize("text", [b"\x1b]0;x\x07\xff\xfe", "a\u202eb\ud800", "x" * 10_000, "", "\n\n"])
def test_a_quotation_is_one_clean_line(text):
    """Whatever was written, what is quoted of it is short, printable and on one line."""
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= 201
