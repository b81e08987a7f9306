"""An agent that is the main process of a container of docker or podman, asked over the runtime's own unix socket, else by podman's client.

The runtime keeps one instance by itself. We wait for what its restart policy does, have it restart a container that hangs, and start one
that it has left down; one that was stopped or paused through the runtime stays so. Sources: Docker Engine API (/containers/{id}/json,
/restart, /start, /events), docs.docker.com "Start containers automatically", podman-inspect(1).
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote, urlencode

from agentscope.commands import Identity, Ran, gid_of
from agentscope.examination.proc import plain
from agentscope.model import Agent, ExitRecord, Value
from agentscope.policy import Policy
from agentscope.stopping.tree import rows, uid_of
from agentscope.supervisors import Means, Owner, Started
from agentscope.supervisors._asking import ASK_S, ask, is_main_line, is_new, listens_at, lives, may_ask, request, why_not

nearness = 30

NOTICED_S = 5.0
COMING_S = 90.0  # its pauses between starts grow from 0.1 s to a minute
START_S = 60.0
LOOK_S = 0.05
LOOK_LESS_S = 0.3
SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock")
ENDING = {"2", "3", "9", "15", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"}
TELLS = "{{.State.Pid}} {{.State.Status}} {{.RestartCount}} {{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.HostConfig.RestartPolicy.Name}} {{.Name}}"  # fmt: skip

Standing = Literal["hung", "unnoticed", "started", "coming", "down", "paused", "gone"]


class Told(Value, frozen=True):
    """What a runtime tells of a container; `pid` is its main process here outside, 0 where it has none."""

    name: str
    status: str
    pid: int
    rule: str
    limit: int = 0
    count: int = 0


class Unanswered(Exception):
    """The runtime does not answer, or refuses; the text says why."""


def owner_of(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:  # noqa: ARG001 - every supervisor is asked so
    """The container whose main process the agent is; what was started beside it (docker exec) is not brought back by starting that."""
    if agent.container is None:
        return None
    for at in places(agent):
        try:
            told = tell(at, agent.container)
        except Unanswered:
            continue
        if told is not None:
            if not owns(told, agent):
                return None
            says = f"container {told.name} ({'podman' if 'podman' in at else 'docker'}, restart={told.rule or 'no'})"
            return Owner(kind="container", name=agent.container, restarts=restarts_after(told, end), says=says, at=at)
    return None


def living(owner: Owner) -> int | None:
    """The container's main process."""
    try:
        told = tell(owner.at, owner.name)
    except Unanswered:
        return None
    return told.pid or None if told is not None and told.status == "running" else None


async def restart(owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:  # noqa: ARG001
    """Wait for what the runtime does; have it restart a container that hangs, or start one that it has left down."""
    kind, _, place = owner.at.partition(":")
    allowed = may_ask(place, means.owner_uid) if kind == "unix" else means.owner_uid in {0, int(place)}
    if not allowed:
        return Started(pid=None, why=f"the config's owner (uid {means.owner_uid}) may not ask for {owner.says}")
    try:
        return await Attempt(owner, agent, policy).run()
    except Unanswered as unanswered:
        return Started(pid=None, why=f"{owner.says}: {unanswered}")


class Attempt:
    """One bringing back of one container."""

    def __init__(self, owner: Owner, agent: Agent, policy: Policy) -> None:
        self.owner = owner
        self.agent = agent
        self.policy = policy
        self.began = time.monotonic()
        self.deadline = self.began + NOTICED_S
        self.asked = ""

    async def run(self) -> Started:
        """Look and act until there is an answer, or the time is up."""
        standing: Standing = "gone"
        while True:
            told = await asyncio.to_thread(tell, self.owner.at, self.owner.name)
            standing = standing_of(told, self.agent)
            answer = await self.step(told, standing)
            if answer is not None:
                return answer
            if time.monotonic() > self.deadline:
                return Started(
                    pid=None,
                    why=f"{self.owner.says} is {told.status if told else 'gone'} after {time.monotonic() - self.began:.0f} s",
                )
            await asyncio.sleep(LOOK_S if time.monotonic() - self.began < 2 else LOOK_LESS_S)

    async def step(self, told: Told | None, standing: Standing) -> Started | None:
        """One look: the answer, or None to go on."""
        says = self.owner.says
        if told is None:
            return Started(pid=None, why=f'{says} was removed with its end (--rm). Try: restart = ["docker", "run", …]')
        if standing == "started":
            return Started(pid=told.pid, says=self.asked or f"{says} was started again by its runtime")
        if standing == "paused":
            return Started(pid=None, why=f"{says} is paused: somebody wants it so", stopped=True)
        if standing == "coming":
            self.deadline = max(self.deadline, self.began + COMING_S)
        if standing == "down":
            if self.asked:
                return Started(pid=None, why=f"{says} did not start: it is {told.status}")
            if await asyncio.to_thread(was_stopped, self.owner, self.agent):
                return Started(pid=None, why=f"{says} was stopped through its runtime", stopped=True)
            await self.act("start")
            return None
        # its first process may go on after the agent, its child, has ended: then it will not end by itself either
        overdue = standing == "unnoticed" and time.monotonic() > self.deadline - LOOK_LESS_S
        if (standing == "hung" or overdue) and not self.asked:
            await self.act("restart")
        return None

    async def act(self, verb: str) -> None:
        """Have the runtime do it; it answers once it has."""
        grace_s = max(1, round(self.policy.grace_s))
        self.deadline = time.monotonic() + START_S
        await asyncio.to_thread(do, self.owner.at, self.owner.name, verb, grace_s)
        self.asked = f"{self.owner.says} was {'started' if verb == 'start' else 'restarted'} through its runtime"
        self.deadline = time.monotonic() + START_S


def standing_of(told: Told | None, agent: Agent) -> Standing:
    """Where a container stands with regard to the instance that is to be replaced."""
    if told is None or told.status in {"removing", "dead"}:
        return "gone"
    if told.status == "paused":
        return "paused"
    if told.status in {"restarting", "created", "stopping"}:
        return "coming"
    if told.status != "running":
        return "down"
    if told.pid and is_new(agent, told.pid):
        return "started"
    return "hung" if lives(agent) else "unnoticed"


def owns(told: Told, agent: Agent) -> bool:
    """Whether the agent is what this container runs."""
    if lives(agent):
        return bool(told.pid) and is_main_line(agent.pid, told.pid)
    return told.pid in {0, agent.pid} or is_new(agent, told.pid)


def restarts_after(told: Told, end: ExitRecord | None) -> bool:
    """Whether the runtime starts it again by itself; an end by a signal has status 128 and more, so it is a failure."""
    if told.rule == "on-failure":
        is_failure = end is None or end.code != 0
        return is_failure and (told.limit == 0 or told.count < told.limit)
    return told.rule in {"always", "unless-stopped"}


# --- asking -------------------------------------------------------------------------------------------------------------


def places(agent: Agent) -> Iterator[str]:
    """Where this container's runtime could be asked: sockets first, then podman's client in its user's name."""
    own = os.environ.get("DOCKER_HOST", "")
    usual = (*((own.removeprefix("unix://"),) if own.startswith("unix:///") else ()), *SOCKETS)
    found = [path for row in rows().values() if row.comm == "dockerd" and uid_of(row.pid) == 0 for path in listens_at(row.pid)]
    is_podman = "libpod" in (agent.cgroup or "")
    user = agent.uid or 0
    for path in dict.fromkeys((*usual, *found, f"/run/user/{user}/podman/podman.sock")):
        if os.path.exists(path) and (not is_podman or "podman" in path):  # noqa: PTH110 - a text
            yield f"unix:{path}"
    if is_podman:
        yield f"podman:{rootless_uid(agent)}"


def rootless_uid(agent: Agent) -> int:
    """Whose podman it is: that of the user in whose service manager's cgroup it is, else root's."""
    for part in (agent.cgroup or "").split("/"):
        if part.startswith("user@") and part.endswith(".service") and part[5:-8].isdigit():
            return int(part[5:-8])
    return 0


def podman(uid: str, *words: str, limit_s: float = ASK_S) -> Ran:
    """Run podman's client as the user whose containers are meant."""
    identity = Identity(uid=int(uid), gid=gid_of(int(uid))) if int(uid) and os.geteuid() == 0 else None
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"} if int(uid) else {"HOME": "/root"}
    if identity is None:  # whoever runs agentscope may keep its containers elsewhere (containers.conf(5))
        environment |= {name: value for name, value in os.environ.items() if name.startswith("CONTAINERS_")}
    return ask(("podman", *words), identity, environment, limit_s)


def api(at: str, method: str, target: str, limit_s: float = ASK_S) -> tuple[int, bytes]:
    """One request to a runtime's socket.

    Raises:
        Unanswered: nobody answers there, or not in time.
    """
    try:
        return request(at, method, target, b"" if method == "POST" else None, limit_s=limit_s)
    except (OSError, ValueError) as error:
        raise Unanswered(f"no answer at {plain(at, 120)}: {plain(str(error), 120)}") from None


def tell(at: str, name: str) -> Told | None:
    """What the runtime says of a container; None where it has no such.

    Raises:
        Unanswered: it does not answer.
    """
    kind, _, place = at.partition(":")
    if kind == "podman":
        ran = podman(place, "inspect", "--type=container", f"--format={TELLS}", name)
        words = ran.output.decode("utf-8", "replace").split()
        if ran.status != 0 or len(words) < 5 or not words[0].isdigit():
            if b"no such" in ran.output.lower():
                return None
            raise Unanswered(why_not(ran) or "podman inspect says nothing")
        count, limit = (int(word) if word.isdigit() else 0 for word in words[2:4])
        return Told(
            name=plain(words[-1], 64),
            status=words[1],
            pid=int(words[0]),
            rule=words[4] if len(words) > 5 else "",
            limit=limit,
            count=count,
        )
    status, body = api(place, "GET", f"/containers/{quote(name)}/json")
    if status == 404:
        return None
    if status != 200:
        raise Unanswered(f"it answers with status {status}")
    try:
        return told_of(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Unanswered("what it answers cannot be read") from None


def told_of(found: dict[str, Any]) -> Told:
    """The answer of /containers/ID/json."""
    state, rule = found["State"], found["HostConfig"].get("RestartPolicy") or {}
    return Told(
        name=plain(str(found["Name"]).lstrip("/"), 64),
        status=str(state["Status"]),
        pid=int(state["Pid"]),
        rule=str(rule.get("Name", "")),
        limit=int(rule.get("MaximumRetryCount") or 0),
        count=int(found.get("RestartCount") or 0),
    )


def do(at: str, name: str, verb: str, grace_s: int) -> None:
    """Start or restart a container; a restart gives it that long to stop.

    Raises:
        Unanswered: it refuses, or does not answer.
    """
    kind, _, place = at.partition(":")
    if kind == "podman":
        ran = podman(place, verb, *((f"--time={grace_s}",) if verb == "restart" else ()), name, limit_s=grace_s + START_S)
        if ran.status != 0:
            raise Unanswered(f"podman {verb}: {why_not(ran, grace_s + START_S)}")
        return
    status, body = api(
        place, "POST", f"/containers/{quote(name)}/{verb}" + (f"?t={grace_s}" if verb == "restart" else ""), grace_s + START_S
    )
    if status not in {204, 304}:  # 304: it runs already
        raise Unanswered(f"{verb} is refused: {plain(body, 200)}")


def was_stopped(owner: Owner, agent: Agent) -> bool:
    """Whether it was stopped or killed through the runtime since this instance began: its events say so, its state does not."""
    kind, _, place = owner.at.partition(":")
    since_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + agent.start_ns / 1e9
    if kind == "podman":
        # podman 4 tells of a stop neither in the state nor in its events: there only the kernel's view of who sent the signal is left
        said = podman(place, "inspect", "--type=container", "--format={{.State.StoppedByUser}}", owner.name)
        events = (
            "events",
            "--stream=false",
            f"--since={since_s:.3f}",
            f"--filter=container={owner.name}",
            "--format={{.Status}}",
        )
        return said.output.strip() == b"true" or bool({b"stop", b"kill"} & set(podman(place, *events).output.split()))
    wanted = {"container": [owner.name], "event": ["stop", "kill"], "type": ["container"]}
    query = urlencode({"since": f"{since_s:.9f}", "until": f"{time.time():.9f}", "filters": json.dumps(wanted)})
    status, body = api(place, "GET", f"/events?{query}")
    if status != 200:
        return False
    for line in body.splitlines()[:512]:
        with contextlib.suppress(ValueError, AttributeError):
            event = json.loads(line)
            sent = str(((event.get("Actor") or {}).get("Attributes") or {}).get("signal", ""))
            if event.get("Action") == "stop" or (event.get("Action") == "kill" and sent in ENDING):
                return True
    return False
