"""What an engine could not see is not made up: verdicts without senders of signals, without the kernel log, without last words."""

import re
from typing import Any

import msgspec
import pytest

from agentscope.causes import causes, looked_for_by
from agentscope.evidence import LastSeen, Missing, Scene, oom_victim, possible_senders
from agentscope.evidence.actor import collect as actor_of
from agentscope.evidence.possible_senders import PossibleSenders
from agentscope.evidence.wait_status import collect as status_of
from agentscope.incidents import Ended, stopped_on_purpose
from agentscope.model import Agent, Process, ProcessExit
from tests.evidence_builders import chosen, diagnose, died, exited, limits, read, sent, verdict, words

UNSEEN = ("actor",)


def blind(status: Any) -> Any:
    """The same status, where signals were not seen."""
    return msgspec.structs.replace(status, signals_seen=False)


def senders(*names: str) -> PossibleSenders:
    """These may have sent it."""
    return PossibleSenders(source="a test", signal_name="SIGTERM", names=names)


def scene(status: int, *, engine: Any = "netlink", unit: str | None = None, **more: Any) -> Scene:
    """The end of a process with this wait status."""
    agent = Agent(name="a", pid=10, start_ns=1, start_time="", command="a", unit=unit)
    end = ProcessExit(at_ns=9, pid=10, start_ns=1, ppid=1, comm="a", status=status, uid=0, engine=engine)
    return Scene(agent=agent, process=Process(pid=10, start_ns=1), scope="agent", exit=end, engine=engine, **more)


class TestSenders:
    """The sender of a signal is seen by BPF alone."""

    @pytest.mark.parametrize(("number", "cause"), [(9, "killed/sigkill"), (15, "killed/sigterm"), (1, "killed/hangup")])
    def test_a_kill_is_possible_at_most(self, number, cause):
        """Who was ended by a signal was ended by it; more is not said, and the memory daemons are among what was not checked."""
        diagnosis = diagnose(blind(died(number)), missing=UNSEEN)
        assert [(found.cause, found.confidence) for found in diagnosis.findings] == [(cause, "possible")]
        assert "who sent it could not be seen" in diagnosis.findings[0].headline
        assert "nobody was seen sending it" in verdict(died(number)).headline
        assert "oom/userspace-killer" in {each.cause for each in diagnosis.not_checked}

    @pytest.mark.parametrize("number", [9, 15])
    def test_whoever_else_may_have_sent_it_is_named_instead(self, number):
        """Under a service manager, or beside a daemon that frees memory, nobody says that it was killed."""
        diagnosis = diagnose(blind(died(number)), senders("earlyoom"), missing=UNSEEN)
        assert not diagnosis.findings
        assert any("earlyoom" in each.because for each in diagnosis.ruled_out)

    def test_a_key_at_the_terminal_is_not_called_a_kill(self):
        """SIGINT from nobody that was seen is mostly Ctrl-C, which is no incident: so it is undetermined."""
        assert not diagnose(blind(died(2)), missing=UNSEEN).findings
        assert verdict(died(2), sent(2)).cause == "killed/signal"

    def test_an_exit_may_be_an_answer(self):
        """A failing exit is its own at most possibly, since a signal that it caught was not seen."""
        found = verdict(blind(exited(3)), missing=UNSEEN)
        assert (found.cause, found.confidence) == ("exit/status", "possible")
        assert "could not be seen" in found.headline
        assert verdict(exited(3)).confidence != "possible"

    def test_who_may_send(self):
        """The unit that it belongs to may be stopped by its manager; of an engine that sees senders nobody is asked."""
        found = possible_senders.collect(scene(15, unit="agent.service"))
        assert found is not None
        assert "agent.service" in found.says()
        assert possible_senders.collect(scene(15, engine="core", unit="agent.service")) is None
        assert possible_senders.collect(scene(11, unit="agent.service")) is None

    @pytest.mark.parametrize(("engine", "status", "missing"), [("netlink", 9, True), ("netlink", 3 << 8, True), ("netlink", 0, False), ("core", 3 << 8, False)])  # fmt: skip
    def test_the_actor_is_missing_and_not_absent(self, engine, status, missing):
        """Without BPF the sender could not be had, of an exit as of a death; a clean exit has none."""
        assert isinstance(actor_of(scene(status, engine=engine)), Missing) is missing
        assert status_of(scene(status, engine=engine)).signals_seen is (engine == "core")


class TestMemory:
    """The OOM killer's choice stands in a log that not everybody may read."""

    def test_a_sigkill_where_nobody_knows_of_memory(self):
        """Where the log cannot be read, SIGKILL is not called a kill by somebody: it is not checked."""
        diagnosis = diagnose(blind(died(9)), limits(), missing=("actor", "oom-victim", "kernel-log"))
        assert not diagnosis.findings
        assert {"oom/cgroup", "oom/global", "killed/sigkill"} <= {each.cause for each in diagnosis.not_checked}

    @pytest.mark.parametrize(("kills", "unknown"), [(0, False), (1, True), (None, True)])
    def test_the_count_of_kills_speaks_where_the_log_does_not(self, kills, unknown):
        """If the kernel has killed nobody for memory meanwhile, it was not that; else, or if it was not counted, that is not known."""
        assert isinstance(oom_victim.collect(scene(9, oom_kills=kills)), Missing) is unknown

    def test_a_victim_needs_no_sender(self):
        """Where the log names the victim, the verdict is as good as ever."""
        assert verdict(blind(died(9)), chosen(), limits(), missing=UNSEEN).cause.startswith("oom/")

    def test_what_must_be_known(self):
        """A cause says by the type of a parameter that it must be known that there is nothing of a kind."""
        assert causes()["killed/sigkill"].looked_for == {"oom-victim"}
        assert looked_for_by(causes()["killed/sigterm"].match) == frozenset()

    def test_a_look_from_before_had_no_count(self):
        """What was kept by an earlier version has no count of kills, which is not the count 0."""
        assert LastSeen(at_ns=1).oom_kills is None


class TestWords:
    """Last words are judged as ever where they could be read."""

    def test_an_error_in_a_log_file(self):
        """An uncaught error in the words and its exit status are proof enough, whatever engine saw the end."""
        told = words(read("exception/uncaught", "python", excerpt="KeyError: 1"))
        assert verdict(blind(exited(1)), told, missing=UNSEEN).cause == "exception/uncaught"


class TestEnds:
    """An end of which the kernel's word was lost."""

    def ended(self, end: ProcessExit, scope: Any = "agent") -> Ended:
        """This end, of an agent or a tool."""
        return Ended(agent=scene(0).agent, process=scene(0).process, scope=scope, exit=end, is_root=True)

    def test_an_end_that_nobody_saw_is_no_clean_one(self):
        """It is said that it ended and that nobody knows how; it is neither called clean nor an incident."""
        end = msgspec.structs.replace(scene(0).exit, unseen="its message was lost")
        says = stopped_on_purpose(self.ended(end), None)
        assert says is not None
        assert re.search("not known.*its message was lost", says)

    def test_a_tool_that_nobody_reads_any_more(self):
        """SIGPIPE of a tool is its reader's doing, though its sender was not seen; of an agent it is told."""
        assert stopped_on_purpose(self.ended(scene(13).exit, "tool"), None) is not None
        assert stopped_on_purpose(self.ended(scene(13).exit), None) is None
        assert stopped_on_purpose(self.ended(scene(13, engine="core").exit, "tool"), None) is None
