"""Whether it can be asked how it is, answers, and does not answer that way to anything."""

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from agentscope.checking import Checked, Subject
from agentscope.config import HealthConfig
from agentscope.sources.aside import Aside
from agentscope.sources.checks import Answer, CannotAsk, ask, probe_of

PLACE = 6
TITLE = "health endpoint"
NO_PAGE = "/agentscope-asks-for-a-page-that-does-not-exist"


def check(subject: Subject) -> Checked:
    """Ask as the config says; over HTTP once more for a page that cannot be there."""
    asked = subject.entry.health if subject.entry is not None else None
    if asked is None:
        return unknown(subject)
    probe = probe_of(asked)
    began = time.monotonic()
    try:
        answer = asyncio.run(asking(asked, subject))
    except CannotAsk as error:
        return Checked(None, f"{probe} could not be asked: {error}")
    took_ms = (time.monotonic() - began) * 1000
    if not answer.ok:
        return Checked(False, f"{probe}: {answer.says}", again(asked))
    if asked.kind in {"tcp", "unix"}:
        return Checked(
            False,
            f"{probe} is let in, but the kernel does that for a program that hangs, too: it checks nothing",
            'health = "http://127.0.0.1:PORT/health"',
        )
    if asked.kind == "exec":
        return Checked(True, f"{probe} ends with 0 in {took_ms:.0f} ms; what it looks at cannot be seen from here")
    try:
        other = asyncio.run(asking(elsewhere(asked), subject))
    except CannotAsk:
        other = Answer(ok=False, says="could not be asked", answered=None)
    if other.ok:
        return Checked(
            False, f"{probe} answers {answer.says}, but so does any page that does not exist: it checks nothing", again(asked)
        )
    return Checked(True, f"{probe} answers {answer.says} in {took_ms:.0f} ms, and a page that does not exist {other.says}")


def unknown(subject: Subject) -> Checked:
    """No check is configured: perhaps it has one that only we are not told of."""
    ports = sorted(
        int(each.local.rpartition(":")[2])
        for each in subject.scene.examination.sockets
        if each.state == "listen" and each.kind == "tcp" and each.local.rpartition(":")[2].isdigit()
    )
    line = (
        f'health = "http://127.0.0.1:{ports[0] if ports else "PORT"}/health" in agentscope.toml, then agentscope check --config'
    )
    if subject.entry is not None:
        return Checked(False, f"its entry in {subject.config} has no health check", line)
    why = f"nothing in {subject.config} is about it" if subject.config else "no config was given that names one"
    listens = f"; it listens at port {ports[0]}" if ports else "; it listens nowhere"
    return Checked(None, f"{why}{listens}", line)


async def asking(asked: HealthConfig, subject: Subject) -> Answer:
    """One question, over within its time-out."""
    return await ask(asked, subject.agent, subject.owner_uid, Aside())


def elsewhere(asked: HealthConfig) -> HealthConfig:
    """The same server, another page."""
    parts = urlsplit(asked.target)
    return msgspec.structs.replace(asked, target=parts._replace(path=NO_PAGE, query="", fragment="").geturl())


def again(asked: HealthConfig) -> str:
    """The same question by hand."""
    if asked.kind == "http":
        parts = urlsplit(asked.target)
        return f"curl -si -m {asked.timeout_s:g} {parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"
    return " ".join(asked.command) if asked.kind == "exec" else f"nc -vz {asked.target}"
