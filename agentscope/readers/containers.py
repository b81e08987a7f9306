"""What container runtimes say about an end: docker, podman, compose, Kubernetes.

Sources: `docker inspect` and `podman inspect` (State.OOMKilled, State.ExitCode), `docker events`, docker compose's "exited with
code", `kubectl describe pod` (State, Last State), container statuses in YAML and JSON, kubelet's eviction messages. 137 alone
is a SIGKILL of unknown origin, never memory; after a stop that was asked for it is nothing at all.
"""

from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import asked_to_stop, cause_of_status, signal_of_status

KINDS = frozenset({"docker", "k8s", "systemd", "kmsg"})

_REASON = late(r'^\s{0,80}(?:- )?"?[Rr]eason"?: {0,12}"?(?P<reason>[A-Z]\w{2,60})"?,?$')
_EXIT = late(r'^\s{0,80}(?:- )?"?[Ee]xit ?[Cc]ode"?: {0,12}(?P<code>-?\d{1,10}),?$')
_SECTION = late(
    r'^\s{0,80}"?(?P<section>State|Last State|state|lastState|Last Termination State)"?: {0,12}(?P<value>[\w{]{0,20})'
)
_CONTAINER = late(r"^\s{2,4}(?P<name>[a-z0-9][a-z0-9-]{0,62}):$")
_INSPECT = late(r'"OOMKilled": ?(?P<oom>true|false)')
_COMPOSE = late(
    r"(?:^|\s)(?P<name>[\w./-]{1,120}?) (?:exited with code|exited \(|has exited with code) ?(?P<code>\d{1,3})\)?|exited with code (?P<code2>\d{1,3})$"
    r"|container (?:die|died) [^\n]{0,400}?exitCode=(?P<code3>\d{1,3})"
)
_PS = late(r"\bExited \((?P<code>\d{1,3})\)")
_EVICTED = late(
    r"(?:The node was low on resource|node was low on resource): ?(?P<resource>[\w-]{1,40})|[Uu]sage of EmptyDir|ephemeral local storage usage exceeds"
)
_SYSTEM_OOM = late(r"System OOM encountered, victim process: (?P<comm>[^,\n]{0,64}), pid: (?P<pid>\d{1,10})")
_PROBE = late(r"[Ll]iveness probe failed|failed liveness probe, will be restarted|failed startup probe, will be restarted")


def read(passage: Passage) -> Iterator[Mark]:
    """One mark for each container that ended badly."""
    yield from _evictions(passage)
    for index, text in passage.numbered("System OOM encountered"):
        if match := _SYSTEM_OOM.search(text):
            facts: dict[str, object] = {"pid": int(match["pid"]), "comm": match["comm"], "reason": "SystemOOM"}
            says = f"the node ran out of memory: {match['comm']} was killed"
            yield _mark(passage, index, "oom/global", says=says, culprit=match["comm"], facts=facts, weight=Weight.KILLER)
    if passage.has("Reason", "reason", "xit Code", "xitCode", "OOMKilled"):
        yield from _described(passage)
    if passage.has("exited with code", "xited (", "exitCode="):
        yield from _exited(passage)


def _evictions(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("low on resource", "EmptyDir", "ephemeral local storage"):
        if match := _EVICTED.search(text):
            resource = match["resource"] or "ephemeral-storage"
            cause = (
                "oom/userspace-killer"
                if resource == "memory"
                else "exception/disk-full"
                if "storage" in resource
                else "killed/sigterm"
            )
            facts: dict[str, object] = {"reason": "Evicted", "resource": resource}
            yield _mark(
                passage,
                index,
                cause,
                says=f"kubelet evicted the pod: the node was low on {resource}",
                culprit=resource,
                facts=facts,
                weight=Weight.KILLER,
            )
            return


def _described(passage: Passage) -> Iterator[Mark]:
    """States of `kubectl describe`, of container statuses and of `docker inspect`."""
    reason: str | None = None
    code: int | None = None
    name: str | None = None
    where = 0
    seen: set[tuple[str | None, str | None, int | None]] = set()
    found: list[Mark] = []

    def close() -> None:
        mark = _state(passage, where, reason, code, name)
        if mark is not None and (name, reason, code) not in seen:
            seen.add((name, reason, code))
            found.append(mark)

    for index, line in enumerate(passage.lines):
        text = line.text
        if match := _CONTAINER.match(text):
            close()
            name, reason, code = match["name"], None, None
        elif _SECTION.match(text):
            close()
            reason, code = None, None
        elif match := _INSPECT.search(text):
            reason, where = ("OOMKilled" if match["oom"] == "true" else reason), index
        elif match := _REASON.match(text):
            reason, where = match["reason"], index
        elif match := _EXIT.match(text):
            code, where = int(match["code"]), index
    close()
    found.sort(key=lambda mark: mark.weight, reverse=True)
    yield from found


def _state(passage: Passage, index: int, reason: str | None, code: int | None, name: str | None) -> Mark | None:
    facts: dict[str, object] = {}
    if reason:
        facts["reason"] = reason
    if code is not None:
        facts["exit_code"] = code
        if signal := signal_of_status(code):
            facts["signal"] = signal
    if name:
        facts["container"] = name
    who = f"container {name}" if name else "the container"
    if reason == "OOMKilled":
        facts.setdefault("signal", "SIGKILL")
        says = f"{who} was killed at its memory limit"
        return _mark(
            passage,
            index,
            "oom/cgroup",
            says=says,
            culprit=f"the memory limit of {who}",
            facts=facts,
            weight=Weight.KILLER,
            name=name,
        )
    if code is None or reason in ("Completed", "ContainerCreating", "PodInitializing"):
        return None
    cause = cause_of_status(code)
    if cause is None:
        return None
    if code in (137, 143) and _PROBE.search(passage.text):
        facts["sender"] = "kubelet"
        facts["reason"] = "liveness probe"
    weight = Weight.STATUS if cause == "exit/status" else Weight.MONITOR
    return _mark(
        passage,
        index,
        cause,
        says=f"{who} ended with status {code}",
        culprit=f"{who} (status {code})",
        facts=facts,
        weight=weight,
        name=name,
    )


def _exited(passage: Passage) -> Iterator[Mark]:
    stopped = asked_to_stop(passage.text)
    for index, text in passage.numbered("exited with code", "xited (", "exitCode="):
        match = _COMPOSE.search(text)
        ps = _PS.search(text) if match is None else None
        if match is None and ps is None:
            continue
        code = (
            int(ps["code"])
            if ps
            else int(next(value for value in (match["code"], match["code2"], match["code3"]) if value))
            if match
            else 0
        )
        name = match["name"] if match else None
        cause = cause_of_status(code)
        facts: dict[str, object] = {"exit_code": code}
        if signal := signal_of_status(code):
            facts["signal"] = signal
        asked = stopped and code in (0, 130, 137, 143)
        weight = Weight.STATUS if cause == "exit/status" else Weight.MONITOR
        if cause is None or asked:
            facts["killed"] = False
            yield _mark(
                passage,
                index,
                None,
                says=f"{name or 'the container'} was stopped on request or ended cleanly",
                culprit=name or "",
                facts=facts,
                weight=weight,
                name=name,
            )
        else:
            says = f"{name or 'the container'} ended with status {code}"
            yield _mark(
                passage,
                index,
                cause,
                says=says,
                culprit=f"{name or 'the container'} (status {code})",
                facts=facts,
                weight=weight,
                name=name,
            )


def _mark(
    passage: Passage,
    index: int,
    cause: str | None,
    *,
    says: str,
    culprit: str,
    facts: dict[str, object],
    weight: Weight,
    name: str | None = None,
) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="containers",
            suggests=cause,
            says=says,
            culprit=culprit or None,
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(max(0, index - 4), index + 2),
        ),
        weight=Weight.HARMLESS if cause is None else weight,
        first=index,
        last=index,
        names=f"container {name or ''}",
    )
