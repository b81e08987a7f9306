"""What docker and podman tell of a container that ended: its state, its last lines, whether it was asked to stop.

Sources: Docker Engine API, /containers/ID/json, /logs (stream format: "Stream format when using a non-TTY"), /events; podman-inspect(1).
"""

import contextlib
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agentscope.aftermath import Boot, ContainerEnd
from agentscope.aftermath.asking import Unanswered, answer
from agentscope.examination.proc import plain
from agentscope.model import Agent
from agentscope.supervisors import Owner, container
from agentscope.supervisors._asking import request

STORE = "/var/lib/containers/storage"  # containers-storage.conf(5); podman's client would make it
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")
TAIL_LINES = 200
LIMIT_S = 5.0
_YEAR_ONE = "0001-"  # how a runtime says "never"


def containers_named(name: str, boot: Boot) -> tuple[tuple[ContainerEnd, ...], tuple[str, ...]]:
    """The containers of this name or id that ended, and which runtimes are there and would not tell."""
    if not NAME.match(name):
        return (), ()
    found, refused = [], []
    for at in places():
        try:
            told = tell(at, name)
            if told is not None and (told.get("State") or {}).get("Status") != "running":
                found.append(ended(at, told, boot))
        except (Unanswered, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            refused.append(f"{at}: {plain(str(error), 160)}")
    unique = {each.id: each for each in found}
    return tuple(unique.values()), tuple(refused)


def places() -> list[str]:
    """Where a runtime could be asked: sockets that are there, then podman's client where it has a store."""
    own = os.environ.get("DOCKER_HOST", "")
    sockets = dict.fromkeys((*((own.removeprefix("unix://"),) if own.startswith("unix:///") else ()), *container.SOCKETS))
    found = [f"unix:{path}" for path in sockets if Path(path).exists()]
    if "CONTAINERS_STORAGE_CONF" in os.environ or Path(STORE).is_dir():
        found.append("podman:0")
    return found


def tell(at: str, name: str) -> dict[str, Any] | None:
    """What a runtime says of a container; None where it has no such.

    Raises:
        Unanswered, OSError, ValueError: it does not answer, or nothing that can be read.
    """
    kind, _, place = at.partition(":")
    if kind == "podman":
        try:
            listed = json.loads(answer("podman", "inspect", "--type=container", name, limit_s=LIMIT_S))
        except Unanswered as why:
            if "no such" in str(why).lower():
                return None
            raise
        return dict(listed[0]) if listed else None
    status, body = request(place, "GET", f"/containers/{quote(name)}/json", limit_s=LIMIT_S)
    if status == 404:
        return None
    if status != 200:
        raise Unanswered(f"it answers with status {status}")
    return dict(json.loads(body))


def ended(at: str, told: dict[str, Any], boot: Boot) -> ContainerEnd:
    """A runtime's answer as a value, with its last lines."""
    state, config = told["State"], told.get("Config") or {}
    labels = {str(name): str(value) for name, value in (config.get("Labels") or {}).items()}
    pod = labels.get("io.kubernetes.pod.name")
    whole = str(told["Id"])
    start_ns = moment(state.get("StartedAt"), boot)
    stopped = asked_to_stop(at, whole, start_ns)
    image = config.get("Image") or told.get("ImageName")
    return ContainerEnd(
        id=plain(whole, 64),
        name=plain(str(told.get("Name", "")).lstrip("/"), 128),
        runtime="podman" if "podman" in at else "docker",
        status=int(state["ExitCode"]),
        oom_killed=bool(state.get("OOMKilled")),
        start_ns=start_ns,
        end_ns=moment(state.get("FinishedAt"), boot),
        image=plain(str(image), 200) if image else None,
        pod=plain(f"{labels.get('io.kubernetes.pod.namespace', 'default')}/{pod}", 300) if pod else None,
        argv=tuple(str(word)[:400] for word in (told.get("Path") or "", *(told.get("Args") or ()))[:64] if word),
        stopped_by=f"{'podman' if 'podman' in at else 'docker'} was asked to stop it" if stopped else None,
        cpu_limited=any(
            str(each.get("Name", "")).lower().endswith("cpu") for each in (told.get("HostConfig") or {}).get("Ulimits") or ()
        ),
        words=last_lines(at, whole, tty=bool(config.get("Tty"))),
        error=plain(str(state.get("Error") or ""), 300),
    )


def moment(said: object, boot: Boot) -> int | None:
    """A runtime's time (RFC 3339 with up to nine digits) as CLOCK_BOOTTIME; None where it says never."""
    text = str(said or "")
    if not text or text.startswith(_YEAR_ONE):
        return None
    whole, _, rest = text.partition(".")
    digits = re.match(r"\d{1,9}", rest)
    zone = rest[digits.end() :] if digits else ""
    if not digits:
        zone, whole = whole[19:], whole[:19]
    wall = datetime.fromisoformat(f"{whole[:19]}{zone.replace('Z', '+00:00').split(' ')[0] or '+00:00'}")
    return int(wall.timestamp()) * 1_000_000_000 + int((digits[0] if digits else "0").ljust(9, "0")) - boot.wall_ns


def asked_to_stop(at: str, name: str, start_ns: int | None) -> bool:
    """Whether somebody had the runtime stop or kill it since it started."""
    agent = Agent(name=name, pid=0, start_ns=start_ns or 0, start_time="", command="")
    try:
        return container.was_stopped(Owner(kind="container", name=name, restarts=False, says="", at=at), agent)
    except container.Unanswered:
        return False


def last_lines(at: str, name: str, *, tty: bool) -> bytes | None:
    """The last lines of its log; None where the runtime keeps none that can be read."""
    kind, _, place = at.partition(":")
    with contextlib.suppress(Unanswered, OSError, ValueError):
        if kind == "podman":
            return answer("podman", "logs", f"--tail={TAIL_LINES}", name, limit_s=LIMIT_S, both=True)
        status, body = request(
            place, "GET", f"/containers/{quote(name)}/logs?stdout=1&stderr=1&tail={TAIL_LINES}", limit_s=LIMIT_S
        )
        if status == 200:
            return body if tty else unframed(body)
    return None


def unframed(stream: bytes) -> bytes:
    """The lines in docker's frames: one byte for the stream, three of nothing, four for the length, the piece."""
    pieces, at = [], 0
    while at + 8 <= len(stream):
        length = int.from_bytes(stream[at + 4 : at + 8], "big")
        pieces.append(stream[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)
