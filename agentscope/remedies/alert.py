"""Tells people: the journal always, the policy's webhook if it has one, the desktop of the config's owner where one is running.

Telling restores nothing and stops nothing: each way has its own few seconds, and one that fails is said in the outcome.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import struct
import subprocess
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from agentscope import __version__
from agentscope.commands import Identity, gid_of, run_command
from agentscope.examination.proc import plain
from agentscope.record import redact
from agentscope.remedies import Done, Order
from agentscope.remedies._telling import environment_of, headline, incident_json

if TYPE_CHECKING:
    import httpx

JOURNAL = Path("/run/systemd/journal/socket")
MESSAGE_ID = "6c1f8a5e0d3b4f7c9a2e5d8b1f4c7a30"  # of an incident that people are told of; see journalctl MESSAGE_ID=
PRIORITY = "2"  # critical (syslog(3)): an agent ended, or hangs
FIELD_LIMIT = 2000
WEBHOOK_S = 5.0
PAUSE_S = 1.0
TRIES = 2
REDIRECTS = 3
AGAIN = frozenset({307, 308})  # RFC 9110: the same request, elsewhere; after the others a POST would become a GET
LATER = frozenset({408, 425, 429})
WORDS_BYTES = 200
DESKTOP_S = 5.0


def intent(order: Order) -> str:
    """Who would be told."""
    return f"tell {'the webhook and ' if order.policy.alert else ''}the journal"


async def act(order: Order) -> Done:
    """Tell all of them at once."""
    ways = [asyncio.to_thread(tell_journal, order), asyncio.to_thread(tell_desktop, order)]
    if order.policy.alert:
        ways.append(tell_webhook(order.policy.alert, incident_json(order)))
    told, failed = [], []
    for found in await asyncio.gather(*ways, return_exceptions=True):
        if isinstance(found, BaseException):
            failed.append(plain(str(found) or type(found).__name__, FIELD_LIMIT))
        elif found:
            told.append(found)
    says = "; ".join([*(f"told {each}" for each in told), *(f"not told: {each}" for each in failed)])
    return Done(outcome="done" if told else "failed", says=says or "there is nobody to tell")


class NotTold(Exception):
    """One way to tell did not work; the message says which and why."""


# --- the journal -----------------------------------------------------------------------------------------------------------


def tell_journal(order: Order) -> str:
    """Send one record in the journal's own format (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    Raises:
        NotTold: there is no journal, or it does not take it now.
    """
    fields = {
        "MESSAGE": headline(order.incident),
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": PRIORITY,
        "SYSLOG_IDENTIFIER": "agentscope",
        **environment_of(order),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
            ours.setblocking(False)
            ours.sendto(b"".join(field(name, value) for name, value in fields.items()), str(JOURNAL))
    except OSError as error:
        reason = "there is none" if isinstance(error, FileNotFoundError) else error.strerror
        raise NotTold(f"the journal, {reason}") from None
    return "the journal"


def field(name: str, value: str) -> bytes:
    """One field: with "=" where it is one line, else with its length (64 bits, little endian) before it."""
    raw = value.encode("utf-8", "replace")[: FIELD_LIMIT * 4]
    if b"\n" not in raw:
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"


# --- the desktop -----------------------------------------------------------------------------------------------------------


def tell_desktop(order: Order) -> str:
    """Have notify-send(1) show it on the session bus of the config's owner; empty where there is none.

    Raises:
        NotTold: there is a bus, but it did not come to show it.
    """
    uid = order.owner_uid
    runtime = Path(f"/run/user/{uid}")
    bus = runtime / "bus"
    try:
        status = bus.lstat()
    except OSError:
        return ""
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != uid:
        return ""
    environment = {"XDG_RUNTIME_DIR": str(runtime), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={bus}"}
    words = ("--app-name=agentscope", "--urgency=critical", "--", "agentscope", escape(headline(order.incident), quote=False))
    identity = Identity(uid=uid, gid=gid_of(uid)) if os.geteuid() == 0 else None
    try:
        ran = run_command(("notify-send", *words), identity, environment, DESKTOP_S)
    except FileNotFoundError:
        return ""  # no desktop of this kind
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise NotTold(f"the desktop, {error}") from None
    if ran.status != 0:
        raise NotTold(f"the desktop of uid {uid}, {plain(b' '.join(ran.output.split()), WORDS_BYTES) or 'notify-send failed'}")
    return "the desktop"


# --- the webhook -----------------------------------------------------------------------------------------------------------


@cache
def authorities() -> ssl.SSLContext:
    """Whom to trust: the system's authorities."""
    return ssl.create_default_context()


async def tell_webhook(url: str, content: bytes) -> str:
    """POST the incident; a second time after a pause, where the first did not come through or the other side asks for it.

    Raises:
        NotTold: neither came through, or it was refused.
    """
    host = plain(url.partition("://")[2].partition("/")[0].rpartition("@")[2], 100)  # the rest of the address is a secret
    why = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        try:
            async with asyncio.timeout(WEBHOOK_S):
                why, again = await post(url, content)
        except TimeoutError:
            why, again = f"no answer within {WEBHOOK_S:g} s", True
        if not why:
            return f"the webhook at {host}"
        if not again:
            break
    raise NotTold(f"the webhook at {host}, {why}")


async def post(url: str, content: bytes) -> tuple[str, bool]:
    """One POST, following what leads elsewhere on the same host: why it failed (empty: it did not), and whether to try again."""
    await asyncio.to_thread(load)
    import httpx

    headers = {"Content-Type": "application/json", "User-Agent": f"agentscope/{__version__}", "Accept-Encoding": "identity"}
    try:
        async with httpx.AsyncClient(trust_env=False, verify=authorities(), timeout=WEBHOOK_S) as client:
            asked = httpx.URL(url)
            for _ in range(REDIRECTS + 1):
                async with client.stream("POST", asked, content=content, headers=headers) as answer:
                    following = answer.next_request if answer.has_redirect_location else None
                    if following is None:
                        return await judged(answer)
                    if origin(following.url) != origin(asked):
                        return f"it leads to another host ({plain(following.url.host, 100)}), which is not followed", False
                    if answer.status_code not in AGAIN:
                        return f"it answers {answer.status_code} and leads elsewhere. Try: the address that it leads to", False
                    asked = following.url
            return f"it leads elsewhere more than {REDIRECTS} times", False
    except httpx.InvalidURL as error:
        return f"its address is not right: {plain(str(error), WORDS_BYTES)}", False
    except (httpx.HTTPError, OSError) as error:
        return plain(str(error) or type(error).__name__, WORDS_BYTES).lower(), True


def load() -> None:
    """What HTTP takes: 0.1 s at the first time."""
    import httpx  # noqa: F401 - loading it is the purpose

    authorities()


def origin(url: "httpx.URL") -> tuple[str, str, int | None]:
    """What makes two addresses the same host's."""
    return url.scheme, url.host, url.port


async def judged(answer: "httpx.Response") -> tuple[str, bool]:
    """What an answer means; the beginning of a bad one often says why."""
    if answer.is_success:
        return "", False
    import httpx

    body = b""
    with contextlib.suppress(httpx.HTTPError):
        async for piece in answer.aiter_raw(WORDS_BYTES):
            body = piece
            break
    words = redact(plain(b" ".join(body.split()), WORDS_BYTES))
    why = f"it answers {answer.status_code}{f': {words}' if words else ''}"
    return why, answer.is_server_error or answer.status_code in LATER
