"""How an agent is asked whether it is well: over HTTP, by connecting to a TCP or unix socket, or by a command.

Every check connects from where agentscope itself is (its network and mount namespaces), asks once, and is over within its
time-out. Only an agent can fail: what is in the way of asking (no such program, no name server, no descriptor left) is
`CannotAsk`, and no strike.
"""

import asyncio
import contextlib
import errno
import http
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from agentscope import __version__
from agentscope.commands import identity_for, run_command
from agentscope.config import HealthConfig
from agentscope.model import Agent
from agentscope.sources.aside import Aside, Stuck
from agentscope.sources.quoting import quoted
from agentscope.symbols.signals import signal_name

if TYPE_CHECKING:
    import httpx

LOAD_S = 10.0  # for the HTTP library, once
START_S = 3.0  # for a command to start and to be reaped, beyond its own time-out
BODY_S = 0.1
FULL_BACKLOG_S = 0.02
ADDRESSES_TRIED = 4
# What connect(2) says of us and not of the agent: no descriptor, memory, port or permission, no such address family.
OURS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EACCES,
        errno.EPERM,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
    }
)


Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Answer(NamedTuple):
    """What came of a check. `answered`: it did answer, though perhaps not as it should; None where that cannot be told."""

    ok: bool
    says: str
    answered: bool | None


class CannotAsk(Exception):
    """The check could not be made, for a reason that is not the agent's."""


def probe_of(asked: HealthConfig) -> str:
    """The check as a person would say it, without a password."""
    if asked.kind == "exec":
        return quoted(" ".join(asked.command))
    if asked.kind == "http":
        return (
            f"GET {quoted(urlsplit(asked.target)._replace(netloc=urlsplit(asked.target).netloc.rpartition('@')[2]).geturl())}"
        )
    return f"connect to {asked.kind}:{asked.target}"


async def ask(asked: HealthConfig, agent: Agent, owner_uid: int, aside: Aside) -> Answer:
    """Make one check.

    Raises:
        CannotAsk: it could not be made.
    """
    try:
        if asked.kind == "exec":
            return await ask_command(asked, agent, owner_uid, aside)
        if asked.kind == "http":
            return await ask_http(asked, aside)
        return await ask_socket(asked, aside)
    except Stuck:
        raise CannotAsk("the one before is still stuck in a name server, a file system or the start of a program") from None


def late(asked: HealthConfig) -> Answer:
    """No answer in time."""
    return Answer(ok=False, says=f"no answer within {asked.timeout_s * 1000:g} ms", answered=False)


def refused(number: int | None) -> Answer:
    """A system call failed, by its errno.

    Raises:
        CannotAsk: that is not the agent's doing.
    """
    reason = os.strerror(number or errno.EIO)
    if number in OURS:
        raise CannotAsk(reason.lower())
    return Answer(ok=False, says=reason[0].lower() + reason[1:], answered=False)


async def addresses(host: str, port: int, asked: HealthConfig, aside: Aside) -> Sequence[Address]:
    """Where a name is. A number is read as one; else the name servers are asked, which can take long.

    Raises:
        CannotAsk: nobody knows.
    """
    lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        try:
            found = lookup(flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await aside.run(lookup, asked.timeout_s)
    except TimeoutError:
        raise CannotAsk(f"the name {host} was not resolved within {asked.timeout_s * 1000:g} ms") from None
    except (socket.gaierror, UnicodeError) as error:
        raise CannotAsk(f"the name {host} is not known: {error}") from None
    return [(family, address) for family, _, _, _, address in found][:ADDRESSES_TRIED]


# --- HTTP -----------------------------------------------------------------------------------------------------------------


@cache
def context_for(scheme: str) -> ssl.SSLContext:
    """Whom to trust: the system's authorities; over plain HTTP nobody is asked, and loading them would cost memory."""
    return ssl.create_default_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def load(scheme: str) -> None:
    """What HTTP takes: 0.1 s at the first time."""
    import httpx  # noqa: F401 - loading it is the purpose

    context_for(scheme)


async def ask_http(asked: HealthConfig, aside: Aside) -> Answer:
    """GET: 2xx is well. Redirects are not followed, no proxy is used, and no more of the answer is read than its head."""
    parts = urlsplit(asked.target)
    if "httpx" not in sys.modules or parts.scheme == "https":
        try:
            await aside.run(partial(load, parts.scheme), LOAD_S)
        except (ImportError, TimeoutError) as error:
            raise CannotAsk(f"the HTTP library could not be loaded: {quoted(str(error))}") from None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    places = await addresses(parts.hostname or "", port, asked, aside)
    answer = late(asked)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(asked.timeout_s):
            for _, address in places:
                answer = await get(asked.target, str(address[0]))
                if answer.answered:
                    break
            return answer
    return late(asked)


async def get(url: str, address: str) -> Answer:
    """One GET, to this address of its host."""
    import httpx

    asked = httpx.URL(url)
    headers = {
        "Host": asked.netloc.decode("ascii"),
        "User-Agent": f"agentscope/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    try:
        async with httpx.AsyncClient(trust_env=False, verify=context_for(asked.scheme), timeout=None) as client:  # noqa: S113 - the caller limits it
            request = client.build_request(
                "GET", asked.copy_with(host=address), headers=headers, extensions={"sni_hostname": asked.host}
            )
            response = await client.send(request, stream=True)
            try:
                return await judged(response)
            finally:
                await response.aclose()
    except httpx.HTTPError as error:
        return unanswered(error)


async def judged(response: "httpx.Response") -> Answer:
    """What the head of an answer means; the beginning of a bad one's body often says why."""
    code = response.status_code
    status = f"{code} {http.HTTPStatus(code).phrase}" if code in set(http.HTTPStatus) else str(code)
    if response.is_success:
        return Answer(ok=True, says=status, answered=True)
    if response.has_redirect_location:
        return Answer(ok=False, says=f"{status}, and redirects are not followed", answered=True)
    import httpx

    body = b""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(BODY_S):
            body = await anext(response.aiter_raw(), b"")
    return Answer(ok=False, says=f"{status}: {quoted(body)}" if body.strip() else status, answered=True)


def unanswered(error: "httpx.HTTPError") -> Answer:
    """Why there was no answer: by the error of the system underneath, else in the library's words."""
    import h11  # the parser below httpx: what it refuses came from the agent, and is an answer of a kind

    garbage = False
    under: BaseException | None = error
    while under is not None:
        if isinstance(under, ssl.SSLError):
            return Answer(ok=False, says=f"TLS failed: {quoted(under.reason or str(under))}", answered=True)
        if isinstance(under, OSError) and under.errno:
            return refused(under.errno)
        garbage = garbage or isinstance(under, h11.RemoteProtocolError)
        under = under.__cause__ or under.__context__
    return Answer(ok=False, says=f"{'no HTTP' if garbage else 'no answer'}: {quoted(str(error))}", answered=garbage)


# --- sockets --------------------------------------------------------------------------------------------------------------


async def ask_socket(asked: HealthConfig, aside: Aside) -> Answer:
    """Connect, and hang up: well is who lets us in. The kernel does that for a program that hangs, until its backlog is full."""
    answer = late(asked)
    with contextlib.suppress(TimeoutError):
        if asked.kind == "unix":
            async with asyncio.timeout(asked.timeout_s):
                return await connect_unix(asked.target)
        parts = urlsplit(f"//{asked.target}")
        places = await addresses(parts.hostname or "", parts.port or 0, asked, aside)
        async with asyncio.timeout(asked.timeout_s):
            for place in places:
                answer = await connect_tcp(place)
                if answer.ok:
                    break
            return answer
    return late(asked)


async def connect_tcp(place: Address) -> Answer:
    """Connect to one address."""
    family, address = place
    try:
        with socket.socket(family, socket.SOCK_STREAM) as ours:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_connect(ours, address)
            if ours.getsockname() == ours.getpeername():
                # a port of our own range at which nobody listens may be the one that we were given
                return refused(errno.ECONNREFUSED)
    except TimeoutError as error:
        if error.errno is None:
            raise  # our own time-out; that of the kernel has a number
        return refused(error.errno)
    except OSError as error:
        return refused(error.errno)
    return Answer(ok=True, says="connected", answered=True)


async def connect_unix(path: str) -> Answer:
    """Connect to a unix socket of whatever type. A full backlog is EAGAIN, which never becomes a connection by itself."""
    while True:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            number = connect_unix_once(path, kind)
            if number != errno.EPROTOTYPE:
                break
        if number == 0:
            return Answer(ok=True, says="connected", answered=True)
        if number != errno.EAGAIN:
            return refused(number)
        await asyncio.sleep(FULL_BACKLOG_S)


def connect_unix_once(path: str, kind: socket.SocketKind) -> int:
    """The errno of connecting."""
    try:
        with socket.socket(socket.AF_UNIX, kind) as ours:
            ours.setblocking(False)
            return ours.connect_ex(path)
    except OSError as error:
        return error.errno or errno.EIO


# --- commands -------------------------------------------------------------------------------------------------------------


async def ask_command(asked: HealthConfig, agent: Agent, owner_uid: int, aside: Aside) -> Answer:
    """Run a command: exit status 0 is well."""
    environment = {"AGENTSCOPE_AGENT": agent.name, "AGENTSCOPE_PID": str(agent.pid)}

    def work() -> Answer:
        ran = run_command(asked.command, identity_for(agent, owner_uid), environment, asked.timeout_s)
        words = f": {quoted(ran.output)}" if ran.output.strip() else ""
        if ran.flooded:
            return Answer(ok=False, says=f"it wrote without end{words}", answered=None)
        if ran.status is None:
            return Answer(ok=False, says=f"no end within {asked.timeout_s * 1000:g} ms{words}", answered=None)
        if ran.status < 0:
            return Answer(ok=False, says=f"ended by {signal_name(-ran.status)}{words}", answered=None)
        return Answer(ok=ran.status == 0, says=f"exit status {ran.status}{words}", answered=None)

    try:
        return await aside.run(work, asked.timeout_s + START_S)
    except TimeoutError:
        raise CannotAsk(f"the command did not start within {asked.timeout_s + START_S:g} s") from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise CannotAsk(f"the command cannot be started: {quoted(reason)}") from None
