"""Runs in the guest: scenarios of the zoo, one agentscope for all of them; leaves what each verdict was worth in the given folder.

`table_guest.py OUT ENGINE`. Under engine bcc the kernel's description of its types is hidden first. Everything takes five to
fifteen times as long here, so every wait is long and no time is checked.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIVE = Path(__file__).resolve().parents[1] / "live"
sys.path.insert(0, str(LIVE))

import cage  # noqa: E402
import zoo  # noqa: E402
from engines import worth_of  # noqa: E402
from scenario import Ending, Expected, Run, Scenario, scenarios  # noqa: E402
from table_scenarios import CALM, DEATHS, GROUP, HANGS  # noqa: E402

GROUP_CAGE = Path("/sys/fs/cgroup/zoo")
AT_ONCE = 2
READY_S = 290.0
JUDGED_S = 90.0
CALM_S = 20.0
EATS = 'import os, sys\nprint("ready", flush=True)\nsys.stdin.readline()\nif os.fork() == 0:\n    os.execvp("sleep", ["sleep", "20"])\nkept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n'


class Stage:
    """The one agentscope, and what is played before it."""

    def __init__(self, out: Path, engine: str) -> None:
        self.out = out
        options = ("--engine", engine, "--cgroup", "/zoo", "--hang-after", "8")
        argv = [sys.executable, "-m", "agentscope", "events", *options, "--for", "1200", "--state-dir", "/tmp/table-state"]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=(out / "stderr").open("wb")
        )
        assert self.process.stdout is not None
        self.said = zoo.Lines(zoo.reader(self.process.stdout.fileno()))

    def of(self, kind: str, pid: int | None = None) -> list[dict]:
        """The contents of the lines of a type so far, about this agent where one is given."""
        events = [json.loads(line) for line in list(self.said.lines) if f'"{kind}"' in line]
        return [e["data"] for e in events if e["type"] == kind and (pid is None or e["data"]["agent"]["pid"] == pid)]

    def wait_for(self, kind: str, pid: int | None, timeout_s: float) -> bool:
        """Whether such a line comes in time."""
        ends = time.monotonic() + timeout_s
        while not self.of(kind, pid):
            if time.monotonic() > ends or self.process.poll() is not None:
                return False
            time.sleep(0.1)
        return True

    def outcome(self, running: zoo.Victim, ended: Ending) -> zoo.Outcome:
        """What was said about this victim."""
        events = [zoo.parsed(line) for line in list(self.said.lines)]
        about = tuple(
            e for e in events if e["type"] == "agentscope.ready" or (e["data"].get("agent") or {}).get("pid") == running.watched
        )
        return zoo.Outcome(ended, None, (), about, 0, "", running.watched, running.pid, self.out)

    def death(self, scenario: Scenario) -> tuple[str, str]:
        """Play an end, and what was made of it."""
        with zoo.victim(scenario, self.out / scenario.slug.replace("/", ".")) as running:
            if scenario.slug == GROUP:
                (running.cage.memory / "memory.oom.group").write_text("1")
            seen = self.wait_for("agentscope.agent.seen", running.watched, JUDGED_S)
            running.trigger()
            ended = running.wait()
            gone = self.wait_for("agentscope.agent.gone", running.watched, JUDGED_S)
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

    def hang(self, slug: str, cause: str) -> tuple[str, str]:
        """Play a program that hangs, or looks like it, until it is judged or was looked at for long enough."""
        folder = LIVE.parents[1] / "fixtures" / slug
        expect = Expected(cause=cause, wait=Ending(signal="SIGKILL"))
        scenario = Scenario(
            slug=slug,
            folder=folder,
            title=slug,
            run=Run(argv=("{python}", "{here}/agent.py")),
            expect=expect,
            outside=(("kill", "-STOP", "{pid}"),) if cause == "hang/stopped" else ("line",),
        )
        with zoo.victim(scenario, self.out / slug) as running:
            self.wait_for("agentscope.agent.seen", running.watched, JUDGED_S)
            running.trigger()
            self.wait_for(zoo.INCIDENT, running.watched, CALM_S if cause == "none" else JUDGED_S)
            incidents = self.of(zoo.INCIDENT, running.watched)
        told = "; ".join(f"{each['cause']}: {each['headline'][:110]}" for each in incidents)
        causes = [each["cause"] for each in incidents]
        if causes == ([] if cause == "none" else [cause]):
            return "right", told
        if all(each in {"undetermined", "hang/undetermined"} for each in causes) and causes:
            return "undetermined", told
        return "wrong", told or "no incident"


@contextlib.contextmanager
def staged(out: Path, engine: str) -> Iterator[Stage]:
    """agentscope, watching all that starts below one cgroup."""
    GROUP_CAGE.mkdir()
    for folder in (GROUP_CAGE.parent, GROUP_CAGE):
        (folder / "cgroup.subtree_control").write_text("+memory")
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


def main() -> None:
    """Play everything and write down what it was worth."""
    out, engine = Path(sys.argv[1]), sys.argv[2]
    zoo.READY_S = zoo.LONGEST_S = 60.0
    by_slug = {scenario.slug: scenario for scenario in scenarios()}
    chosen = [by_slug[slug] for slug in DEATHS] + [group_scenario(out)]
    worths: dict[str, tuple[str, str]] = {}

    def tried(slug: str, play, *what) -> None:
        try:
            worths[slug] = play(*what)
        except Exception as error:  # noqa: BLE001 - one that cannot be played must not end the others
            worths[slug] = ("not played", repr(error)[:300])
        (out / "worths.json").write_text(json.dumps(worths))

    begun = time.monotonic()
    with staged(out, engine) as stage:
        ready = stage.wait_for("agentscope.ready", None, READY_S)
        print("ready" if ready else "not ready", round(time.monotonic() - begun), flush=True)
        if ready:
            (out / "ready.json").write_text(json.dumps(stage.of("agentscope.ready")[0]))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for slug, cause in {**HANGS, **dict.fromkeys(CALM, "none")}.items():
                    pool.submit(tried, slug, stage.hang, slug, cause)
                for scenario in chosen:
                    pool.submit(tried, scenario.slug, stage.death, scenario)
            print("played", round(time.monotonic() - begun), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
