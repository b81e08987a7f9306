"""What the screen can have done, tried on real processes: who is listed, that a number used again is noticed, what stacks tell."""

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import msgspec
import pytest

from agentscope.agents import Target, agent_of, read_process
from agentscope.config import read_config
from agentscope.desk import Desk, candidates
from agentscope.errors import NoSuchProcess
from agentscope.pipeline import boot_wall_ns, hang_of
from agentscope.policy import Policy
from agentscope.policy.standing import death_of
from agentscope.views.page import python_frames
from agentscope.views.tui.deeds import Candidate

SLEEPER = "import time\ndef waits_here():\n    print('ready', flush=True)\n    time.sleep(50)\nwaits_here()"


@pytest.fixture
def sleeper():
    """A Python process that sleeps in a function of its own."""
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def agent(pid):
    """The agent whose root this process is."""
    return agent_of(read_process(pid), boot_wall_ns())


def test_every_process_is_listed_but_ours_and_the_watched(sleeper):
    """The list has a process with its user and command line; ourselves and what is watched are left out."""
    found = {each.pid: each for each in candidates(frozenset())}
    assert "waits_here" in found[sleeper.pid].command
    assert found[sleeper.pid].user
    assert os.getpid() not in found
    assert sleeper.pid not in {each.pid for each in candidates(frozenset({sleeper.pid}))}


def test_likely_agents_come_first(sleeper):
    """Whatever looks like an agent stands above all that does not, and the newest of the others next."""
    found = candidates(frozenset())
    likely = [bool(each.because) for each in found]
    assert likely == sorted(likely, reverse=True)
    starts = [each.start_ns for each in found if not each.because]
    assert starts == sorted(starts, reverse=True)


def test_stacks_are_taken_of_the_healthy(sleeper):
    """The stacks of a process that is well name the function in which it waits."""
    look = asyncio.run(Desk(None, 30.0).stacks(agent(sleeper.pid)))
    found = next((each for each in look.evidence if each.kind == "python-threads"), None)
    if found is None:
        pytest.skip(f"py-spy may not look: {look.not_checked}")
    functions = [name for thread in found.data["threads"] for name, _ in python_frames(thread["frames"])]
    assert "waits_here" in functions


def test_a_look_at_the_healthy_finds_no_hang(sleeper):
    """A process that sleeps is examined and is no incident."""
    look = asyncio.run(Desk(None, 30.0).look(agent(sleeper.pid)))
    assert look.incident is None
    assert look.pulse is not None
    assert look.pulse.state.startswith("waiting(timer)")


def test_a_number_that_is_used_again_is_noticed(sleeper):
    """Neither a look nor watching touches a process that only has the number of the one that was meant."""
    other = msgspec.structs.replace(agent(sleeper.pid), start_ns=1)
    desk = Desk(None, 30.0)
    for deed in (desk.look(other), desk.stacks(other), desk.add(Candidate(pid=sleeper.pid, start_ns=1, name="x", command="x"))):
        with pytest.raises(NoSuchProcess):
            asyncio.run(deed)


def test_means_say_what_the_config_allows(sleeper):
    """Without a recovery table nothing can be asked for; with one, of the living; while it is at work, nothing more."""
    of = agent(sleeper.pid)
    keeper = SimpleNamespace(chain=None, policy=Policy(restart=("systemctl", "restart", "x")))
    keepers = {}
    desk = Desk(SimpleNamespace(recovery=SimpleNamespace(keepers=keepers), targets=()), 30.0)
    assert not desk.means(of).can
    keepers[of.name] = keeper
    assert desk.means(of).can
    assert any("restart" in line for line in desk.means(of).says)
    keeper.chain = SimpleNamespace(incident="one")
    assert not desk.means(of).can
    keeper.chain = None
    gone = desk.means(msgspec.structs.replace(of, start_ns=1))
    assert not gone.can
    assert any("systemctl restart x" in line for line in gone.says)


def test_means_without_a_config_say_what_to_type(sleeper, tmp_path):
    """Whoever has no recovery is told a config that agentscope reads, by which this very process is found and restarted."""
    desk = Desk(SimpleNamespace(recovery=SimpleNamespace(keepers={}), targets=(Target(kind="signature", value=""),)), 30.0)
    plain = agent(sleeper.pid)
    for of, restart in (
        (plain, ("/path/to/what/starts/it",)),
        (msgspec.structs.replace(plain, name='my "agent" \n.py'), ("/path/to/what/starts/it",)),
        (msgspec.structs.replace(plain, unit="bot.service"), ("systemctl", "restart", "bot.service")),
    ):
        means = desk.means(of)
        assert not means.can
        file = tmp_path / "agentscope.toml"
        file.write_text("\n".join(means.config))
        file.chmod(0o600)
        entry = read_config(str(file)).agents[of.name]
        assert entry.recovery is not None
        assert entry.recovery.restart == restart
        ((kind, value),) = entry.match.items()
        assert re.fullmatch(value, of.name) if kind == "name" else value == of.unit
    desk.live.targets = (Target(kind="command", value="x", name=plain.name),)
    assert desk.means(plain).config == (f"[agent.{plain.name}.recovery]", 'restart = ["/path/to/what/starts/it"]')


def test_means_of_a_ladder_that_starts_nothing(sleeper):
    """Where the ladder for a hang only tells, r does not pretend to bring anything back, and says which ladder would."""
    of = agent(sleeper.pid)
    keeper = SimpleNamespace(chain=None, policy=Policy(ladder={"hang": ("alert",)}))
    means = Desk(SimpleNamespace(recovery=SimpleNamespace(keepers={of.name: keeper})), 30.0).means(of)
    assert not means.can
    assert "restart" in tomllib.loads(means.config[0])["ladder"]["hang"]


def test_a_person_may_find_the_healthy_not_well(sleeper):
    """What was examined because a person asked is an incident only with the words for it: it lives, and nothing explains it."""
    found = Desk(None, 30.0).examined(agent(sleeper.pid))
    assert hang_of(found.scene, found.collected, found.diagnosis) is None
    asked = hang_of(found.scene, found.collected, found.diagnosis, "A person had it brought back")
    assert asked is not None
    assert (asked.cause, asked.confidence, asked.headline) == ("undetermined", "undetermined", "A person had it brought back")
    assert (asked.exit.code, asked.exit.signal) == (None, None)
    assert death_of(asked, 1.0).cause == "hang"
