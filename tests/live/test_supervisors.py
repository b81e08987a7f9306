"""Bringing an agent back through whoever owns it: real supervisors, real ends, and never two instances."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from owners import PLACE, PYTHON, Alone, Docker, Podman, Run, Supervisord, Systemd, cmdline, is_gone, playing, settled


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """One systemd for all tests."""
    yield from playing(Systemd, tmp_path_factory.mktemp("systemd"))


@pytest.mark.live
class TestSystemd:
    """A unit is brought back by systemd itself, and only if it does not do so by its own rule."""

    def test_a_crash_of_a_unit_that_stays_down(self, systemd: Systemd) -> None:
        """A unit with Restart=no is started once, and its new main process is told."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash")
        assert (came["owner"]["kind"], came["owner"]["name"], came["owner"]["restarts"]) == ("systemd", "steady.service", False)
        assert came["why"] == ""
        assert came["says"] == "systemctl start steady.service"
        assert settled(systemd.starts, "steady") == [str(pid), str(came["pid"])]
        assert came["pid"] == systemd.main_pid("steady") == came["living"]
        assert came["took_s"] < 2

    def test_an_owner_that_was_not_asked_in_time(self, systemd: Systemd) -> None:
        """The unit is known for the agent's even where the agent had ended before anybody asked."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "late")
        assert settled(systemd.starts, "steady") == [str(pid), str(came["pid"])]

    def test_a_unit_that_restarts_itself_is_not_fought(self, systemd: Systemd) -> None:
        """Systemd's own Restart= is waited for: one new instance, which is not ours."""
        pid = systemd.start("again")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "again.service"]})
        assert came["owner"]["restarts"] is True
        assert came["says"] == "systemd started again.service again by itself"
        assert settled(systemd.starts, "again") == [str(pid), str(came["pid"])]

    def test_a_unit_that_has_restarted_already(self, systemd: Systemd) -> None:
        """An instance that systemd started before we asked is found, and nothing is done."""
        pid = systemd.start("again")
        came = systemd.act(pid, "late", late_s=1.5)
        assert came["owner"]["name"] == "again.service"
        assert settled(systemd.starts, "again") == [str(pid), str(came["pid"])]

    @pytest.mark.parametrize("unit", ["stubborn", "stubborn-again"])
    def test_a_hang_that_ignores_sigterm(self, systemd: Systemd, unit: str) -> None:
        """A unit that does not stop within the grace, far shorter than its own, is killed and started once, whatever its Restart=."""
        pid = systemd.start(unit)
        came = systemd.act(pid, "hang")
        assert "killed what had not ended within 1 s" in came["says"]
        assert settled(systemd.starts, unit) == [str(pid), str(came["pid"])]
        assert 1 <= came["took_s"] < 6

    def test_a_hang_of_a_stopped_process(self, systemd: Systemd) -> None:
        """A unit stopped by SIGSTOP ends by SIGTERM and is started once."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "stopped")
        assert came["says"] == "systemctl restart steady.service"
        assert settled(systemd.starts, "steady") == [str(pid), str(came["pid"])]

    def test_a_person_who_stops_it_is_obeyed(self, systemd: Systemd) -> None:
        """A unit that somebody stopped is not started, and that is said."""
        pid = systemd.start("steady")
        came = systemd.act(pid, '["systemctl", "stop", "steady.service"]')
        assert came["stopped"] is True
        assert came["pid"] is None
        assert settled(systemd.starts, "steady") == [str(pid)]

    def test_a_unit_that_hit_its_start_limit(self, systemd: Systemd) -> None:
        """Where systemd has given up on a unit, it is reset and started once more."""
        pid = systemd.start("limited")
        systemd.act(pid, "crash")
        again = systemd.main_pid("limited")
        came = systemd.act(again, "crash")
        assert came["why"] == ""
        assert came["says"] == "systemctl start limited.service"
        assert settled(systemd.starts, "limited") == [str(pid), str(again), str(came["pid"])]

    def test_a_unit_that_takes_its_time_to_be_ready(self, systemd: Systemd) -> None:
        """A unit with Type=notify counts as started once it says so."""
        pid = systemd.start("notified")
        came = systemd.act(pid, "crash")
        assert came["took_s"] > 0.9
        assert settled(systemd.starts, "notified") == [str(pid), str(came["pid"])]

    def test_a_process_that_a_unit_only_started_is_not_the_units(self, systemd: Systemd) -> None:
        """An agent below the main process of another program (cron, sshd) is not brought back by restarting that."""
        pid = systemd.start("many")
        assert systemd.act(pid, "crash") == {"owner": None}

    def test_the_policys_own_command_restarts_a_unit(self, systemd: Systemd) -> None:
        """`systemctl restart` as the policy's command: one new instance, whose main process systemd tells."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "steady.service"]})
        assert came["owner"]["kind"] == "command"
        assert came["owner"]["under"]["name"] == "steady.service"
        assert came["pid"] == systemd.main_pid("steady")
        assert settled(systemd.starts, "steady") == [str(pid), str(came["pid"])]

    def test_a_command_that_fails_says_why(self, systemd: Systemd) -> None:
        """What a restart command wrote before it failed is in the reason."""
        pid = systemd.start("steady")
        came = systemd.act(pid, "crash", {"restart": ["systemctl", "restart", "nowhere.service"]})
        assert came["pid"] is None
        assert "nowhere.service not found" in came["why"]


@pytest.fixture(scope="module")
def supervisord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisord]:
    """One supervisord for all tests."""
    yield from playing(Supervisord, tmp_path_factory.mktemp("supervisord"))


@pytest.mark.live
class TestSupervisord:
    """A program is brought back by supervisord itself, and only if it does not do so by its own rule."""

    def test_a_crash_of_a_program_that_stays_down(self, supervisord: Supervisord) -> None:
        """A program with autorestart=false is started once."""
        pid = supervisord.start("steady")
        came = supervisord.act(pid, "crash")
        assert (came["owner"]["kind"], came["owner"]["name"], came["owner"]["restarts"]) == (
            "supervisord",
            "steady:steady",
            False,
        )
        assert came["says"] == "supervisord was asked to start steady:steady"
        assert settled(supervisord.starts, "steady") == [str(pid), str(came["pid"])]
        assert came["took_s"] < 2

    def test_a_program_that_was_not_known_before_it_ended(self, supervisord: Supervisord) -> None:
        """Supervisord's own log tells which program a pid was."""
        pid = supervisord.start("steady")
        came = supervisord.act(pid, "late")
        assert came["owner"]["name"] == "steady:steady"
        assert settled(supervisord.starts, "steady") == [str(pid), str(came["pid"])]

    def test_a_program_that_restarts_itself_is_not_fought(self, supervisord: Supervisord) -> None:
        """Supervisord's own restart is waited for, though the policy has a command."""
        pid = supervisord.start("again")
        command = [str(PYTHON.parent / "supervisorctl"), "-c", str(supervisord.config), "restart", "again"]
        came = supervisord.act(pid, "crash", {"restart": command})
        assert came["owner"]["restarts"] is True
        assert came["says"] == "supervisord started again:again again by itself"
        assert settled(supervisord.starts, "again") == [str(pid), str(came["pid"])]

    @pytest.mark.parametrize("program", ["stubborn", "stubborn-again"])
    def test_a_hang_that_ignores_sigterm(self, supervisord: Supervisord, program: str) -> None:
        """A program that does not stop within the grace is killed and started once, whatever its autorestart."""
        pid = supervisord.start(program)
        came = supervisord.act(pid, "hang")
        assert came["why"] == ""
        assert settled(supervisord.starts, program) == [str(pid), str(came["pid"])]
        assert 1 <= came["took_s"] < 6

    def test_a_person_who_stops_it_is_obeyed(self, supervisord: Supervisord) -> None:
        """A program that somebody stopped is not started."""
        pid = supervisord.start("steady")
        came = supervisord.act(
            pid, json.dumps([str(PYTHON.parent / "supervisorctl"), "-c", str(supervisord.config), "stop", "steady"])
        )
        assert came["stopped"] is True
        assert settled(supervisord.starts, "steady") == [str(pid)]

    def test_the_port_of_the_old_one_is_free_for_the_new(self, supervisord: Supervisord) -> None:
        """A hung program whose grandchild listens in a session of its own: the new instance can listen there."""
        pid = supervisord.start("holder")
        came = supervisord.act(pid, "hang")
        assert settled(supervisord.starts, "holder") == [str(pid), str(came["pid"])]
        # one that could not bind its port would have ended by an exception
        children = Path(f"/proc/{came['pid']}/task/{came['pid']}/children").read_text().split()
        assert len(children) == 1
        assert not is_gone(int(children[0]))

    def test_the_policys_own_command(self, supervisord: Supervisord) -> None:
        """`supervisorctl start` as the policy's command: supervisord tells the new process."""
        pid = supervisord.start("steady")
        command = [str(PYTHON.parent / "supervisorctl"), "-c", str(supervisord.config), "restart", "steady"]
        came = supervisord.act(pid, "crash", {"restart": command})
        assert came["owner"]["kind"] == "command"
        assert settled(supervisord.starts, "steady") == [str(pid), str(came["pid"])]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Any]:
    """Starts agents that nobody owns."""
    made: list[Alone] = []

    def start(*words: str) -> Alone:
        made.append(Alone(tmp_path, *words))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.live
class TestCommand:
    """The policy's own command, whatever it is: a client, a script that leaves a daemon, or the agent itself."""

    def test_the_agent_itself_in_the_foreground(self, alone: Any) -> None:
        """A command that becomes the agent is left running, in a session of its own, and outlives whoever started it."""
        agent = alone()
        came = agent.act("crash", {"restart": agent.command})
        assert came["why"] == ""
        assert came["says"] == "its command runs it in the foreground"
        assert settled(agent.starts) == [str(agent.pid), str(came["pid"])]
        time.sleep(0.5)
        assert not is_gone(came["pid"])
        assert os.getsid(came["pid"]) == came["pid"]
        assert came["took_s"] < 2

    def test_a_wrapper_around_the_agent(self, alone: Any) -> None:
        """An agent behind a wrapper in the foreground is known for it as well."""
        agent = alone()
        came = agent.act("crash", {"restart": ["timeout", "60", *agent.command]})
        assert came["why"] == ""
        assert came["took_s"] < 2
        assert len(settled(agent.starts)) == 2
        assert not is_gone(int(agent.starts()[1]))

    def test_a_script_that_leaves_a_daemon(self, alone: Any, tmp_path: Path) -> None:
        """What a command leaves behind in another session is the agent, and is found by its likeness."""
        agent = alone()
        script = tmp_path / "start.sh"
        script.write_text(f"#!/bin/sh\nsetsid {' '.join(agent.command)} >/dev/null 2>&1 </dev/null &\nsleep 0.2\n")
        script.chmod(0o755)
        came = agent.act("crash", {"restart": [str(script)]})
        assert came["why"] == ""
        assert settled(agent.starts) == [str(agent.pid), str(came["pid"])]
        time.sleep(0.5)
        assert not is_gone(came["pid"])

    def test_a_hang_is_ended_before_the_command_runs(self, alone: Any) -> None:
        """A living instance that ignores SIGTERM is killed first: there never are two, and the port is free."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        agent = alone("stubborn", f"port={port}", "child")
        came = agent.act("hang", {"restart": agent.command})
        assert came["why"] == ""
        assert is_gone(agent.pid)
        assert settled(agent.starts) == [str(agent.pid), str(came["pid"])]
        time.sleep(0.5)
        assert not is_gone(came["pid"])
        with socket.socket() as client:
            client.settimeout(2)
            client.connect(("127.0.0.1", port))

    def test_a_command_that_fails(self, alone: Any) -> None:
        """An exit status other than 0 is a failure, told with what the command wrote."""
        agent = alone()
        came = agent.act("crash", {"restart": ["ls", "/nowhere/at/all"]})
        assert came["pid"] is None
        assert "exit status 2" in came["why"]
        assert "No such file" in came["why"]

    def test_a_command_that_is_not_there(self, alone: Any) -> None:
        """A program that does not exist is a failure with its reason."""
        came = alone().act("crash", {"restart": ["/usr/bin/no-such-program"]})
        assert came["why"] == "/usr/bin/no-such-program cannot be started: No such file or directory"

    def test_root_runs_nothing_that_others_can_change(self, alone: Any, tmp_path: Path, root: None) -> None:
        """A program of another user is refused, with what to type; the old instance is left as it is."""
        agent = alone()
        script = tmp_path / "theirs.sh"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        os.chown(script, 12345, 12345)
        came = agent.act("hang", {"restart": [str(script)]})
        assert "can be changed by others than root" in came["why"]
        assert "runuser" in came["why"]
        assert not is_gone(agent.pid)

    def test_words_that_are_not_known_take_their_option_with_them(self, alone: Any) -> None:
        """`--resume {session}` without a session is left out whole; other words are filled in."""
        agent = alone()
        came = agent.act("crash", {"restart": [*agent.command, "--resume", "{session}", "was={pid}"]})
        assert came["why"] == ""
        assert cmdline(came["pid"]).split()[3:] == [f"was={agent.pid}"]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """One dockerd for all tests."""
    yield from playing(Docker, tmp_path_factory.mktemp("docker"))


@pytest.mark.live
class TestDocker:
    """A container is brought back by its runtime, and only if that does not do so by its own rule."""

    def test_a_crash_of_a_container_that_stays_down(self, docker: Docker) -> None:
        """A container without a restart policy is started once."""
        pid = docker.start("steady")
        came = docker.act(pid, "crash")
        assert (came["owner"]["kind"], came["owner"]["restarts"]) == ("container", False)
        assert "was started through its runtime" in came["says"]
        assert settled(docker.starts, "steady") == 2
        assert came["pid"] == docker.pid("steady") != pid

    def test_a_container_that_was_not_known_before_it_ended(self, docker: Docker) -> None:
        """The container of an agent that has ended already is found by its id."""
        pid = docker.start("steady")
        came = docker.act(pid, "late")
        assert settled(docker.starts, "steady") == 2
        assert came["pid"] == docker.pid("steady")

    @pytest.mark.parametrize("rule", ["always", "on-failure:3"])
    def test_a_container_that_restarts_itself_is_not_fought(self, docker: Docker, rule: str) -> None:
        """The runtime's own restart policy is waited for, though the policy has a command."""
        pid = docker.start("again", f"--restart={rule}")
        came = docker.act(pid, "crash", {"restart": [*docker.client(), "restart", "again"]})
        assert came["owner"]["restarts"] is True
        assert "was started again by its runtime" in came["says"]
        assert settled(docker.starts, "again") == 2
        assert came["pid"] == docker.pid("again")

    @pytest.mark.parametrize("rule", ["no", "always"])
    def test_a_hang_that_ignores_sigterm(self, docker: Docker, rule: str) -> None:
        """A container that does not stop within the grace is killed and started once, whatever its rule."""
        pid = docker.start("stubborn", f"--restart={rule}", words=("stubborn",))
        came = docker.act(pid, "hang")
        assert came["why"] == ""
        assert settled(docker.starts, "stubborn") == 2
        assert came["pid"] == docker.pid("stubborn") != pid
        assert is_gone(pid)

    @pytest.mark.parametrize("act", ["stop", "kill"])
    def test_a_person_who_stops_it_is_obeyed(self, docker: Docker, act: str) -> None:
        """A container that somebody stopped or killed through docker is not started."""
        pid = docker.start("steady")
        came = docker.act(pid, json.dumps([*docker.client(), act, *(("-t", "1") if act == "stop" else ()), "steady"]))
        assert came["stopped"] is True
        assert settled(docker.starts, "steady") == 1

    def test_a_process_beside_the_container_is_not_the_containers(self, docker: Docker) -> None:
        """What was started with docker exec is not brought back by restarting the container."""
        docker.start("host")
        docker.run("exec", "-d", "host", "/usr/bin/python3.11", "/place/worker.py", "/starts/beside")
        for _ in range(100):
            if docker.starts("beside"):
                break
            time.sleep(0.05)
        inside = docker.run("top", "host", "-o", "pid,cmd")
        beside = next(int(line.split()[0]) for line in inside.splitlines() if "/starts/beside" in line)
        assert docker.act(beside, "crash") == {"owner": None}
        assert settled(docker.starts, "host") == 1


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """One podman for all tests."""
    yield from playing(Podman, tmp_path_factory.mktemp("podman"))


@pytest.mark.live
class TestPodman:
    """Podman without a service is asked through its client."""

    def test_a_crash(self, podman: Podman) -> None:
        """A container without a restart policy is started once."""
        pid = podman.start("steady")
        came = podman.act(pid, "crash")
        assert came["owner"]["at"] == "podman:0"
        assert came["why"] == ""
        assert settled(podman.starts, "steady") == 2
        assert came["pid"] == podman.pid("steady") != pid

    def test_a_hang(self, podman: Podman) -> None:
        """A container that ignores SIGTERM is restarted once."""
        pid = podman.start("stubborn", words=("stubborn",))
        came = podman.act(pid, "hang")
        assert came["why"] == ""
        assert settled(podman.starts, "stubborn") == 2
        assert is_gone(pid)

    def test_a_person_who_stops_it_is_obeyed(self, podman: Podman) -> None:
        """A container that somebody stopped is not started."""
        pid = podman.start("steady")
        if "StoppedByUser" not in podman.run("inspect", "steady"):
            pytest.skip("this podman (4.3 is one) does not tell who stopped a container")
        came = podman.act(pid, json.dumps([*podman.client(), "stop", "-t", "1", "steady"]))
        assert came["stopped"] is True
        assert settled(podman.starts, "steady") == 1


@pytest.mark.live
class TestRun:
    """The child of `agentscope run` is started again by its parent, as it was the first time."""

    def test_a_crash_on_a_terminal(self, tmp_path: Path, root: None) -> None:
        """The second instance has the same command, folder, environment, signals and terminal, which is no longer raw; its status is ours."""
        run = Run(tmp_path, "crash")
        status = run.wait()
        first, second = run.noted()
        differing = {key for key in first if first[key] != second[key]}
        assert differing == {"pid"}, (first, second)
        assert first["terminal"]
        assert first["echo"]
        assert first["foreground"]
        assert second["open"] == []
        assert status == 7, run.said[-2000:]

    def test_a_resume_command_in_the_same_terminal(self, tmp_path: Path, root: None) -> None:
        """The policy's command takes the place of the first one; what is not known is left out of it."""
        words = [str(PYTHON), str(PLACE / "screen.py"), str(tmp_path / "noted"), "again", "--resume", "{session}"]
        run = Run(tmp_path, "crash", restart=f"restart = {json.dumps(words)}")
        assert run.wait() == 7
        first, second = run.noted()
        assert second["argv"] == [str(tmp_path / "noted"), "again"]
        assert (second["terminal"], second["echo"], second["ppid"]) == (True, True, first["ppid"])

    def test_a_hang_on_a_terminal(self, tmp_path: Path, root: None) -> None:
        """A child that was stopped, and ignores SIGTERM, is killed, and one new instance takes its terminal."""
        run = Run(tmp_path, "stop", options=("--hang-after", "3"))
        assert run.wait() == 7
        first, second = run.noted()
        assert is_gone(first["pid"])
        assert (second["terminal"], second["echo"], second["foreground"]) == (True, True, True)

    def test_what_a_dead_child_left_behind_is_ended_first(self, tmp_path: Path, root: None) -> None:
        """A listener that the crashed child had put into another session is gone when the next one starts."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        run = Run(tmp_path, "child", str(port))
        assert run.wait() == 7
        assert len(run.noted()) == 2
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
