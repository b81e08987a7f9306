"""Runs in the guest: scenarios of the zoo, one agentscope for all of them; leaves what each verdict was worth in the given folder.

`table_guest.py OUT ENGINE PART [SLUG...]`; the parts are those of `table_scenarios`. Where the engine is to be bcc the kernel's
description of its types is hidden, and `--engine auto` has to find out. Everything takes five to fifteen times as long here, so
every wait is long and no time is checked.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIVE = Path(__file__).resolve().parents[1] / "live"
sys.path.insert(0, str(LIVE))

import cage  # noqa: E402
import stage as stages  # noqa: E402
import zoo  # noqa: E402
from engines import worth_of  # noqa: E402
from hangs import Hang, hangs  # noqa: E402
from modules import load_module  # noqa: E402
from scenario import Ending, Expected, Run, Scenario, scenarios  # noqa: E402
from show import contains  # noqa: E402
from table_scenarios import GROUP, slugs_of  # noqa: E402

GROUP_CAGE = Path("/sys/fs/cgroup/zoo")
PLAYED_AT = Path(
    "/tmp/played"
)  # in the guest's memory: what is shared with the host takes no fifo, no socket and no loop device
AT_ONCE = 3
LIVES_S = 3000  # longer than the guest may
READY_S = 600.0
SEEN_S = 60.0
JUDGED_S = 180.0  # a hang of 8 s, some looks at it and a profile of 2.5 s, when everything takes fifteen times as long
CALM_S = 40.0
# what sock_diag, network namespaces and a file system of one's own need: elsewhere the kernel has modprobe fetch them
MODULES = ("tcp_diag", "udp_diag", "unix_diag", "veth", "loop", "crc32c_generic", "ext4")
SEEN_BY_PROFILE = {"hang/spin", "hang/retry-loop"}  # and by nothing else: an engine that takes none says so when it starts
one_that_burns = threading.Lock()  # there are two CPUs, and one of them is the emulator's for everything else
EATS = 'import os, sys\nprint("ready", flush=True)\nsys.stdin.readline()\nif os.fork() == 0:\n    os.execvp("sleep", ["sleep", "20"])\nkept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n'


class Stage:
    """The one agentscope, and what is played before it."""

    def __init__(self, out: Path, engine: str) -> None:
        self.out = out
        chosen = ("--engine", "auto" if engine == "bcc" else engine)
        options = (*chosen, "--cgroup", "/zoo", "--hang-after", "8", "--for", str(LIVES_S), "--state-dir", "/tmp/table-state")
        argv = [sys.executable, "-m", "agentscope", "events", *options]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=(out / "stderr").open("wb")
        )
        assert self.process.stdout is not None
        self.said = zoo.Lines(zoo.reader(self.process.stdout.fileno()))

    def of(self, kind: str, *pids: int) -> list[dict]:
        """The contents of the lines of a type so far, about these agents where any are given."""
        events = [json.loads(line) for line in list(self.said.lines) if f'"{kind}"' in line]
        return [e["data"] for e in events if e["type"] == kind and (not pids or e["data"]["agent"]["pid"] in pids)]

    def wait_for(self, kind: str, timeout_s: float, *pids: int) -> bool:
        """Whether such a line comes in time."""
        ends = time.monotonic() + timeout_s
        while not self.of(kind, *pids):
            if time.monotonic() > ends or self.process.poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def outcome(self, running: zoo.Victim, ended: Ending) -> zoo.Outcome:
        """What was said about this victim: who is wrapped is watched with its wrapper, since all below the cgroup is."""
        events = [zoo.parsed(line) for line in list(self.said.lines)]
        agents = {running.watched, running.process.pid}
        about = tuple(
            e for e in events if e["type"] == "agentscope.ready" or (e["data"].get("agent") or {}).get("pid") in agents
        )
        return zoo.Outcome(ended, None, (), about, 0, "", running.watched, running.pid, self.out)

    def death(self, scenario: Scenario) -> tuple[str, str]:
        """Play an end, and what was made of it."""
        if scenario.run.watch == "said":
            return missing(["to be watched without its parent: here all below one cgroup is one agent"])
        with zoo.victim(scenario, PLAYED_AT / scenario.slug.replace("/", ".")) as running:
            pids = (running.watched, running.process.pid)
            if scenario.slug == GROUP:
                (running.cage.memory / "memory.oom.group").write_text("1")
            seen = self.wait_for("agentscope.agent.seen", SEEN_S, *pids)
            running.trigger()
            ended = running.wait()
            gone = self.wait_for("agentscope.agent.gone", SEEN_S, *pids)
            time.sleep(2)
            outcome = self.outcome(running, ended)
        if ended != scenario.expect.wait:
            return "not played", f"it ended with {ended}"
        if not (seen and gone):
            return "wrong", f"agent.seen {seen}, agent.gone {gone}"
        if scenario.slug == GROUP:
            return self.group(outcome)
        return worth_of(outcome, scenario)

    def group(self, outcome: zoo.Outcome) -> tuple[str, str]:
        """All of a group are killed with the one that was chosen: each is a victim of the limit, the agent among them."""
        incidents = outcome.of_type(zoo.INCIDENT)
        right = {each["cause"] for each in incidents} == {"oom/cgroup"} and "agent" in {each["scope"] for each in incidents}
        return "right" if right else "wrong", "; ".join(f"{each['cause']} ({each['scope']})" for each in incidents)

    def hang(self, hang: Hang) -> tuple[str, str]:
        """Play a program that hangs, or looks like it, until it is judged or was looked at for long enough."""
        alone = one_that_burns if hang.load == "cpu" else contextlib.nullcontext()
        with alone, stages.acting(hang, PLAYED_AT / hang.slug) as running:
            seen = self.wait_for("agentscope.agent.seen", SEEN_S, running.pid)
            running.trigger()
            self.wait_for(zoo.INCIDENT, JUDGED_S if hang.hung else CALM_S, running.pid)
            incidents, ended = self.of(zoo.INCIDENT, running.pid), running.status()
        told = "; ".join(f"{each['cause']} {each['confidence']}: {each['headline'][:110]}" for each in incidents)
        causes = [each["cause"] for each in incidents]
        if ended is not None and not incidents:
            return "not played", f"it ended meanwhile ({ended})"
        if causes == ([hang.expect.cause] if hang.hung else []) and seen:
            blamed = all(
                contains(each["culprit"], part, running.names) for each in incidents for part in hang.expect.culprit_contains
            )
            return "right", told if blamed else f"{told} [culprit: {incidents[0]['culprit']}]"
        if causes and all(each in {"undetermined", "hang/undetermined"} for each in causes):
            return "undetermined", told
        untraced = next((says for says in self.of("agentscope.ready")[0]["degraded"] if "are not traced" in says), None)
        if hang.expect.cause in SEEN_BY_PROFILE and not causes and untraced is not None:
            return "undetermined", untraced
        states = [e["state"] for e in self.states(running.pid)]
        return "wrong", told or f"no incident; agent.seen {seen}; it was said to be {states[-4:]}"

    def states(self, pid: int) -> list[dict]:
        """What an agent was said to wait for, one after the other."""
        lines = [json.loads(line) for line in list(self.said.lines) if '"agentscope.wait.changed"' in line]
        return [each["data"] for each in lines if each["data"]["agent_pid"] == pid]


@contextlib.contextmanager
def staged(out: Path, engine: str) -> Iterator[Stage]:
    """agentscope, watching all that starts below one cgroup."""
    for module in MODULES:
        with contextlib.suppress(OSError):  # what needs it says so
            load_module(module)
    GROUP_CAGE.mkdir()
    for folder in (GROUP_CAGE.parent, GROUP_CAGE):
        (folder / "cgroup.subtree_control").write_text("+memory +cpu")
    cage.hierarchies = lambda: (GROUP_CAGE, GROUP_CAGE, False)
    if engine == "bcc":
        subprocess.run(["mount", "-t", "tmpfs", "none", "/sys/kernel/btf"], check=True)
    stage = Stage(out, engine)
    try:
        yield stage
    finally:
        stage.process.send_signal(2)
        try:
            status = stage.process.wait(60)
        except subprocess.TimeoutExpired:
            stage.process.kill()
            status = stage.process.wait()
        (out / "stream.ndjson").write_text("\n".join(stage.said.lines))
        (out / "agentscope.json").write_text(json.dumps({"status": status, "lost": stage.of("agentscope.lost")}))


def group_scenario(out: Path) -> Scenario:
    """An agent that grows, beside a child, in a cgroup whose members are killed together: only v2 has that."""
    folder = out / GROUP
    folder.mkdir()
    (folder / "crash.py").write_text(EATS)
    expect = Expected(cause="oom/cgroup", wait=Ending(signal="SIGKILL"))
    return Scenario(
        slug=GROUP,
        folder=folder,
        title="",
        run=Run(argv=("{python}", "{here}/crash.py"), memory_mib=64),
        expect=expect,
    )


def missing(needs: list[str]) -> tuple[str, str]:
    """What is said of a scenario for which this guest has not all that it needs."""
    return "not played", f"needs {', '.join(needs)}"


class Plays:
    """What is to be played here, and what it was worth so far."""

    def __init__(self, out: Path, part: str, only: list[str]) -> None:
        self.out = out
        self.worths: dict[str, tuple[str, str]] = {}
        deaths, hung = slugs_of(part)
        by_slug = {scenario.slug: scenario for scenario in (*scenarios(), group_scenario(out))}
        of_hangs = {hang.slug: hang for hang in hangs()}
        self.deaths = [by_slug[slug] for slug in deaths if not only or slug in only]
        self.hangs = [of_hangs[slug] for slug in hung if not only or slug in only]

    def play(self, stage: Stage) -> None:
        """Play all, hangs first because they take long."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for hang in self.hangs:
                pool.submit(self.tried, hang, stage.hang)
            for scenario in self.deaths:
                pool.submit(self.tried, scenario, stage.death)

    def tried(self, scenario, play) -> None:
        """Play one; one that cannot be played must not end the others."""
        begun = time.monotonic()
        try:
            found = missing(needs) if (needs := scenario.missing()) else play(scenario)
        except Exception as error:  # noqa: BLE001
            # a JVM does not start here within the 20 s that its scenario gives it
            slow = "needs a faster machine: " if isinstance(error, zoo.Broken) and "never said ready" in str(error) else ""
            found = ("not played", f"{slow}{error!r}"[:300])
        self.worths[scenario.slug] = found
        (self.out / "worths.json").write_text(json.dumps(self.worths))
        print(f"{time.monotonic() - begun:5.0f} s", scenario.slug, *found, flush=True)


def main() -> None:
    """Play everything and write down what it was worth."""
    out, engine, part, *only = Path(sys.argv[1]), *sys.argv[2:]
    zoo.READY_S = zoo.LONGEST_S = 60.0
    stages.READY_S, stages.STEP_S = 240.0, 120.0
    PLAYED_AT.mkdir()
    plays = Plays(out, part, only)
    begun = time.monotonic()
    with staged(out, engine) as stage:
        ready = stage.wait_for("agentscope.ready", READY_S)
        print("ready" if ready else "not ready", round(time.monotonic() - begun), flush=True)
        if ready:
            (out / "ready.json").write_text(json.dumps(stage.of("agentscope.ready")[0]))
            doctor = subprocess.Popen(
                [sys.executable, "-m", "agentscope", "doctor", "--json"], stdout=(out / "doctor.json").open("wb")
            )
            plays.play(stage)
            doctor.wait(READY_S)
            print("played", round(time.monotonic() - begun), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
