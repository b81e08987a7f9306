"""What is decided about an owner without asking it: rules of restart, states, words of a command, and whose turn it is."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentscope import supervisors
from agentscope.agents import start_ns_of
from agentscope.model import Agent, ExitRecord
from agentscope.policy import Policy
from agentscope.stopping import cgroups
from agentscope.supervisors import Owner, command, container, supervisord, systemd


def ended(code: int | None = None, signal: str | None = None, *, core: bool = False) -> ExitRecord:
    """An end."""
    return ExitRecord(code=code, signal=signal, core_dumped=core)


def living_agent() -> Agent:
    """This very process as an agent."""
    start_ns = start_ns_of(os.getpid())
    assert start_ns is not None
    return Agent(name="me", pid=os.getpid(), start_ns=start_ns, start_time="", command="me")


def dead_agent() -> Agent:
    """One whose number no process has."""
    return Agent(name="gone", pid=(1 << 22) + 1, start_ns=1, start_time="", command="gone")


CLEAN, CODE, SIGNAL, TERM = ended(0), ended(1), ended(signal="SIGSEGV"), ended(signal="SIGTERM")


@pytest.mark.parametrize(
    ("rule", "clean", "code", "signal", "term"),
    [
        ("no", False, False, False, False),
        ("always", True, True, True, True),
        ("on-success", True, False, False, True),
        ("on-failure", False, True, True, False),
        ("on-abnormal", False, False, True, False),
        ("on-abort", False, False, True, False),
        ("on-watchdog", False, False, False, False),
    ],
)
def test_restart_rules_of_systemd(rule: str, clean: bool, code: bool, signal: bool, term: bool) -> None:
    """Each column of the table in systemd.service(5) is as it stands there."""
    assert [systemd.restarts_after(rule, end) for end in (CLEAN, CODE, SIGNAL, TERM)] == [clean, code, signal, term]


def test_a_clean_signal_with_a_core_is_unclean() -> None:
    """An end that dumped core is a failure whatever its signal."""
    assert systemd.restarts_after("on-failure", ended(signal="SIGTERM", core=True))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1min 30s", 90), ("5s", 5), ("infinity", 0), ("", 0), ("1h 1min 1s 1ms", 3661.001), ("2us", 2e-6)],
)
def test_time_spans_of_systemctl(text: str, seconds: float) -> None:
    """A span as systemctl prints it is read in seconds."""
    assert systemd.seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("active", "result", "job", "standing"),
    [
        ("failed", "signal", False, "down"),
        ("failed", "start-limit-hit", False, "down"),
        ("inactive", "success", False, "stopped"),
        ("inactive", "exit-code", False, "down"),
        ("activating", "signal", False, "coming"),
        ("failed", "signal", True, "coming"),
        ("deactivating", "signal", False, "leaving"),
    ],
)
def test_where_a_unit_without_a_process_stands(active: str, result: str, job: bool, standing: str) -> None:
    """A unit that failed may be started, one that is inactive was stopped, and one that is on its way is waited for."""
    unit = systemd.Unit(load="loaded", active=active, result=result, has_job=job)
    assert systemd.standing_of(unit, dead_agent()) == standing


def test_where_a_unit_with_a_living_process_stands() -> None:
    """The old main process that lives hangs; a unit that cannot be loaded is unknown."""
    unit = systemd.Unit(load="loaded", active="active", main_pid=os.getpid())
    assert systemd.standing_of(unit, living_agent()) == "hung"
    assert systemd.standing_of(systemd.Unit(load="not-found"), living_agent()) == "unknown"
    assert systemd.standing_of(None, living_agent()) == "unknown"


def test_a_units_place_is_read_from_its_cgroup() -> None:
    """A unit of a user's own service manager is asked for there."""
    at = "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service"
    agent = Agent(name="a", pid=dead_agent().pid, start_ns=1, start_time="", command="a", cgroup=at, unit="agent.service")
    assert systemd.place_of(agent) == ("agent.service", "1000")
    assert systemd.place_of(dead_agent()) == ("", "")


WORDS: dict[str, str | None] = {"session": None, "pid": "12", "name": "my agent"}


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        (("claude", "--resume", "{session}"), ("claude",)),
        (("claude", "--resume={session}", "-v"), ("claude", "-v")),
        (("claude", "-p", "go on", "--resume", "{session}", "--x"), ("claude", "-p", "go on", "--x")),
        (("run.sh", "{session}", "{pid}"), ("run.sh", "12")),
        (("note", "{name} was {pid}"), ("note", "my agent was 12")),
        (("echo", '{"a": 1}', "{other}"), ("echo", '{"a": 1}', "{other}")),
        (("{session}", "x"), None),
        (("x", "-a", "b", "{session}"), ("x", "-a", "b")),
    ],
)
def test_words_of_a_command(given: tuple[str, ...], filled: tuple[str, ...] | None) -> None:
    """An argument with an unknown word goes, with the option whose value it is; a program that is unknown is none."""
    assert command.filled(given, WORDS) == filled


@pytest.mark.parametrize("hostile", ["--dangerous", "a\nb", "a\0b", "", "x" * 257, "\x1b[2J"])
def test_a_word_that_could_be_more_than_a_word_is_not_known(hostile: str) -> None:
    """A session id that begins like an option, or has controls, or no end, is left out like one that is missing."""
    assert command.filled(("claude", "--resume", "{session}"), {"session": hostile}) == ("claude",)


@pytest.mark.parametrize(
    ("rule", "limit", "count", "end", "restarts"),
    [
        ("no", 0, 0, CODE, False),
        ("", 0, 0, CODE, False),
        ("always", 0, 0, CLEAN, True),
        ("unless-stopped", 0, 5, SIGNAL, True),
        ("on-failure", 3, 2, SIGNAL, True),
        ("on-failure", 3, 3, SIGNAL, False),
        ("on-failure", 0, 9, CODE, True),
        ("on-failure", 0, 0, CLEAN, False),
    ],
)
def test_restart_policies_of_containers(rule: str, limit: int, count: int, end: ExitRecord, restarts: bool) -> None:
    """A container's restart policy tells whether its runtime starts it again after this end."""
    told = container.Told(name="a", status="exited", pid=0, rule=rule, limit=limit, count=count)
    assert container.restarts_after(told, end) is restarts


@pytest.mark.parametrize(
    ("status", "standing"),
    [("exited", "down"), ("restarting", "coming"), ("paused", "paused"), ("removing", "gone"), ("running", "unnoticed")],
)
def test_where_a_container_stands(status: str, standing: str) -> None:
    """What a runtime calls a container's state, as what is to be done about it."""
    told = container.Told(name="a", status=status, pid=0, rule="no")
    assert container.standing_of(told, dead_agent()) == standing


def test_what_a_runtime_tells_is_read() -> None:
    """The answer of docker has the fields that are used; a container without a policy has none."""
    found: dict[str, Any] = {"Name": "/aa", "State": {"Status": "running", "Pid": 7}, "HostConfig": {}, "RestartCount": 2}
    assert container.told_of(found) == container.Told(name="aa", status="running", pid=7, rule="", limit=0, count=2)


def test_the_config_of_supervisord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule of a program, wherever it stands, and the password that is not hashed."""
    (tmp_path / "more").mkdir()
    main = tmp_path / "supervisord.conf"
    main.write_text(
        "[unix_http_server]\nusername = u\npassword = {SHA}82ab876d1387bfafe46cc1c8a2ef074eae50cb1d\n"
        "[supervisorctl]\nusername = u\npassword = thepassword ; its plain form\n[include]\nfiles = more/*.ini /*/*/x.ini\n"
        "[program:one]\nautorestart = 0\n[program:%%bad\n"
    )
    main.write_text(main.read_text().removesuffix("[program:%%bad\n"))
    (tmp_path / "more" / "a.ini").write_text("[program:two]\nautorestart=true\n[program:three]\ncommand=x\n")
    monkeypatch.setattr(supervisord, "argv_of", lambda _: ("python3", "/usr/bin/supervisord", "-c", str(main)))
    assert supervisord.login_of(1) == ("u", "thepassword")
    rules = {name: supervisord.autorestart_of(1, f"{name}:{name}") for name in ("one", "two", "three", "nowhere")}
    assert rules == {"one": "false", "two": "true", "three": "unexpected", "nowhere": "unexpected"}
    assert supervisord.autorestart_of(1, "two:two_00") == "true"


def test_a_pattern_in_the_middle_of_an_include_is_not_followed(tmp_path: Path) -> None:
    """Whoever writes an include cannot have the whole disk searched."""
    (tmp_path / "x.ini").write_text("")
    assert supervisord.included(str(tmp_path), "*.ini") == [str(tmp_path / "x.ini")]
    assert supervisord.included("/", f"/*/{tmp_path.name}/x.ini") == []


OURS = Owner(kind="systemd", name="a.service", restarts=False, says="")


@pytest.mark.parametrize(
    ("claims", "restart", "kind"),
    [
        ({"systemd": False}, (), "systemd"),
        ({"systemd": False}, ("x",), "command"),
        ({"systemd": True}, ("x",), "systemd"),
        ({"systemd": True, "supervisord": False}, (), "supervisord"),
        ({"systemd": True, "supervisord": False}, ("x",), "command"),
        ({"container": True, "systemd": False}, ("x",), "container"),
        ({"run": False, "systemd": True}, ("x",), "run"),
        ({}, ("x",), "command"),
        ({}, (), None),
    ],
)
def test_whose_turn_it_is(
    claims: dict[str, bool], restart: tuple[str, ...], kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest that claims an agent counts; one that restarts it by itself is deferred to; else the policy's command is the act."""

    def claiming(name: str) -> Any:
        if name not in claims:
            return lambda *_: None
        return lambda *_: Owner(kind=name, name="a", restarts=claims[name], says="")

    known = {
        name: each if name == "command" else SimpleNamespace(nearness=each.nearness, owner_of=claiming(name))
        for name, each in supervisors.every().items()
    }
    monkeypatch.setattr(supervisors, "every", lambda: known)
    found = supervisors.chosen(dead_agent(), Policy(restart=restart))
    assert (None if found is None else found.kind) == kind
    if kind == "command" and claims:
        assert found is not None
        assert found.under is not None


def test_every_module_is_a_supervisor() -> None:
    """Being in the folder is being registered: each module there has what is asked of one, and stands at a place of its own."""
    found = supervisors.every()
    assert {"systemd", "supervisord", "container", "command", "run"} <= set(found)
    assert all(callable(each.owner_of) and callable(each.living) and callable(each.restart) for each in found.values())
    assert len({each.nearness for each in found.values()}) == len(found)


def group(tmp_path: Path, path: str, pids: set[int]) -> cgroups.Group:
    """A cgroup as its folder shows it."""
    folder = tmp_path / path.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("\n".join(map(str, pids)))
    return cgroups.Group(folder=str(folder), path=path, unified=True)


CONTAINER = "a" * 64


@pytest.mark.parametrize(
    ("path", "inside", "known", "own"),
    [
        ("/made-by-hand", {10, 11}, {10, 11}, True),
        ("/made-by-hand", {10, 12}, {10, 11}, False),
        ("/system.slice/agent.service", {10, 12}, {10}, True),
        ("/system.slice/cron.service", {5, 10}, {10}, False),
        ("/user.slice/user@1000.service", {10, 12}, {10}, False),
        ("/user.slice/session-3.scope", {10, 12}, {10}, False),
        (f"/docker/{CONTAINER}", {10, 12}, {10}, True),
        (f"/docker/{CONTAINER}/below-it", {10, 12}, {10}, False),
        ("/made-by-hand", set(), {10}, False),
        ("/made-by-hand", {10, 99}, {10, 99}, False),
    ],
)
def test_whose_a_cgroup_is(tmp_path: Path, path: str, inside: set[int], known: set[int], own: bool) -> None:
    """Ended whole is only a cgroup that is all known, or one made for a unit or container whose oldest process the agent is."""
    starts = {5: 1, 10: 2, 11: 3, 12: 3, 99: 1}
    made = group(tmp_path, path, inside)
    assert cgroups.is_own(made, 10, {pid: starts[pid] for pid in known}, starts, never={99}) is own
