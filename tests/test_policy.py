"""The recovery policy: what the config may say, and what is done next about an agent that died, whatever happens meanwhile."""

# ruff: noqa: D102 - the rules of the state machine are named for what happens

import datetime as dt

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentscope.errors import BadInput
from agentscope.model import Actor
from agentscope.policy import Policy, cause_classes, read_policy, rungs
from agentscope.policy.standing import Standing, fold
from agentscope.policy.steps import Act, Commit, LeaveAlone, Probation, Rest, Settle, Validate, Wait, next_step
from agentscope.policy.words import closing_words
from tests.recovery_builders import CHANGED, NAME, World, incident, most_within, record

WRONG = "the config file agentscope.toml is not right: agent researcher: recovery"
RESTART = Policy(restart=("restart-it",))
GOES_BACK = Policy(restart=("restart-it",), rollback=("go-back",))
PERSON = Actor(kind="process", says="by bash (pid 812) of user 1000", pid=812, comm="bash")


# --- the config ------------------------------------------------------------------------------------------------------------


def test_a_table_is_read_whole():
    """Every field of the table arrives in the policy, durations in seconds."""
    table = {
        "restart": ["systemctl", "restart", "researcher.service"],
        "rollback": ["/usr/bin/nixos-rebuild", "switch", "--rollback"],
        "hooks": ["/usr/local/bin/page-me"],
        "alert": "https://hooks.example.org/agents",
        "ladder": {"oom": ["restart-fresh", "alert"], "drift": ["rollback", "restart"], "killed": []},
        "limit": {"restarts": 4, "within": "5m", "per-cause": 2},
        "backoff": "500ms",
        "backoff-limit": "2m",
        "validate": "20s",
        "probation": "5m",
        "grace": "3s",
        "hook-time": "15s",
        "snapshot": "/srv/researcher/venv",
        "dry-run": True,
    }
    assert read_policy(WRONG, table) == Policy(
        restart=("systemctl", "restart", "researcher.service"),
        rollback=("/usr/bin/nixos-rebuild", "switch", "--rollback"),
        hooks=("/usr/local/bin/page-me",),
        alert="https://hooks.example.org/agents",
        ladder={"oom": ("restart-fresh", "alert"), "drift": ("rollback", "restart"), "killed": ()},
        restarts=4,
        per_cause=2,
        within_s=300.0,
        backoff_s=0.5,
        backoff_limit_s=120.0,
        validate_s=20.0,
        probation_s=300.0,
        grace_s=3.0,
        hook_s=15.0,
        snapshot="/srv/researcher/venv",
        dry_run=True,
    )


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ({"restrat": ["x"]}, ["restrat", "restart", "rollback", "Try: "]),
        ({"restart": "systemctl restart x"}, ["$.restart", 'restart = ["systemctl"']),
        ({"restart": []}, ["restart", "begins with a program"]),
        ({"restart": ["bin/start"]}, ["restart", "from / on"]),
        ({"restart": ["a\0b"]}, ["restart", "each word is its own"]),
        ({"hooks": ["page\0me"]}, ["hooks", "page-me"]),
        ({"ladder": {"oom": ["reboot"]}}, ["oom", "'reboot'", "restart-fresh", "alert"]),
        ({"ladder": {"bordom": ["restart"]}}, ["'bordom'", "oom", "undetermined"]),
        ({"ladder": {"oom": ["restart", "restart"]}}, ["twice", "limit"]),
        ({"ladder": {"drift": ["rollback"]}}, ["drift", "rollback needs a command", "snapshot"]),
        ({"ladder": {"drift": ["hooks"]}}, ["no hooks"]),
        ({"limit": {"restarts": 0}}, ["restarts", "0 is not from 1"]),
        ({"limit": {"per-cause": -1}}, ["per-cause", "-1"]),
        ({"limit": {"times": 3}}, ["times", "per-cause"]),
        ({"limit": {"within": "soon"}}, ["within", "'soon' is no duration"]),
        ({"validate": "0s"}, ["validate", "not from"]),
        ({"probation": 60}, ["$.probation", 'probation = "1m"']),
        ({"backoff": "-1s"}, ["backoff", "no duration"]),
        ({"alert": "mailto:me"}, ["alert", "webhook", "https:"]),
        ({"alert": "http://[::1"}, ["alert", "webhook"]),
        ({"snapshot": "venv"}, ["snapshot", "from / on"]),
        ({"dry-run": "yes"}, ["$.dry-run", "dry-run = true"]),
    ],
)
def test_what_is_wrong_is_said(table, parts):
    """A field that cannot be is refused by its name, with what there is and what to type."""
    with pytest.raises(BadInput) as caught:
        read_policy(WRONG, table)
    said = str(caught.value)
    assert said.startswith(WRONG)
    assert ". Try: " in said
    assert [part for part in parts if part not in said] == []


def test_the_folders_are_the_lists():
    """The rungs are the files of remedies, the classes are the folders of causes."""
    assert {"restart", "restart-fresh", "rollback", "alert", "stacks", "hooks"} <= set(rungs())
    assert {"oom", "drift", "hang", "exception", "crash", "killed", "exit", "undetermined"} == set(cause_classes())


@pytest.mark.parametrize(
    ("cause", "without", "with_rollback"),
    [
        ("oom", ("restart-fresh", "alert"), ("restart-fresh", "alert")),
        ("drift", ("restart", "alert"), ("rollback", "restart", "alert")),
        ("hang", ("stacks", "restart", "alert"), ("stacks", "restart", "alert")),
        ("crash", ("restart", "alert"), ("restart", "rollback", "alert")),
        ("undetermined", ("restart", "alert"), ("restart", "rollback", "alert")),
    ],
)
def test_a_sensible_ladder_by_default(cause, without, with_rollback):
    """Once a restart is given, every class has a ladder; going back is in it where there is something to go back to."""
    assert RESTART.ladder_of(cause) == without
    assert GOES_BACK.ladder_of(cause) == with_rollback


# --- one incident -----------------------------------------------------------------------------------------------------------


def test_the_first_restart_waits_for_nothing():
    """A death is answered by a restart at once; it is validated, stays on probation, and is committed."""
    world = World(RESTART)
    world.die()
    assert world.step == Act(remedy="restart", attempt=1, because="researcher died of exception/uncaught")
    steps = [type(step) for step in world.run()]
    assert steps == [Act, Validate, Probation, Commit]
    assert world.closed[0].held is True
    assert world.instances == 1


def test_a_tool_is_not_recovered():
    """The death of a tool opens nothing."""
    world = World(RESTART)
    world.tell(incident(scope="tool"))
    assert world.step == Rest()


@pytest.mark.parametrize("actor", [PERSON, Actor(kind="unattributed", says="by nobody that was seen"), None])
def test_what_was_killed_is_left_alone(actor):
    """Whoever was killed by a person, or by nobody knows whom, is not started again against their will."""
    world = World(RESTART)
    world.die("killed/sigkill", signal="SIGKILL", code=None, actor=actor)
    assert isinstance(world.step, LeaveAlone)
    world.run()
    assert world.did() == []
    assert world.closed[0].held is None
    assert "left alone" in world.closed[0].outcome


def test_what_the_kernel_killed_for_a_limit_is_restarted():
    """A resource limit is nobody's wish."""
    world = World(RESTART)
    world.die("killed/limit", signal="SIGXCPU", code=None, actor=Actor(kind="kernel", says="by the kernel"))
    world.run()
    assert world.did() == ["restart"]


def test_a_ladder_of_the_config_for_killed_is_obeyed():
    """Who writes that a killed agent is to be restarted means it."""
    world = World(Policy(restart=("x",), ladder={"killed": ("restart",)}))
    world.die("killed/sigkill", signal="SIGKILL", code=None, actor=PERSON)
    world.run()
    assert world.did() == ["restart"]


def test_a_wrong_configuration_is_not_restarted():
    """Exit status 78 says that starting it again changes nothing: somebody is told instead."""
    world = World(RESTART)
    world.die("exit/status", code=78)
    world.run()
    assert world.did() == ["alert"]
    assert world.closed[0].held is False


def test_running_out_of_memory_is_told_though_the_restart_held():
    """oom: restart with fresh state, and an alert after it, once."""
    world = World(RESTART)
    world.die("oom/cgroup", signal="SIGKILL", code=None)
    world.run()
    assert world.did() == ["restart-fresh", "alert"]
    assert world.closed[0].held is True


def test_hooks_hear_after_the_first_attempt():
    """Hooks that no ladder names are called once an incident, and never delay the restart."""
    world = World(Policy(restart=("x",), hooks=("/bin/page",)))
    world.die()
    world.until_probation()
    assert world.did() == ["restart", "hooks"]
    world.die()
    world.run()
    assert world.did() == ["restart", "hooks", "restart"]


def test_stacks_are_taken_of_what_lives():
    """A hang is first looked at, then restarted; the dead have no stacks, even where the ladder has that rung."""
    world = World(Policy(restart=("x",), ladder={"exception": ("stacks", "restart"), "hang": ("stacks", "restart")}))
    world.die("hang/deadlock", code=None, signal=None)
    world.run()
    assert world.did() == ["stacks", "restart"]
    world.die()
    world.run()
    assert world.did() == ["stacks", "restart", "restart"]


def test_a_hang_that_nothing_explains_is_a_hang():
    """What lives and is not well has the ladder of a hang, though no cause was found."""
    world = World(RESTART)
    world.die("undetermined", code=None, signal=None)
    world.run()
    assert world.did() == ["stacks", "restart"]


# --- the ladder ---------------------------------------------------------------------------------------------------------------


def test_drift_goes_back_then_restarts_then_tells():
    """A rung that did not help at all is left for the next; the last one spent is given up."""
    world = World(GOES_BACK, start_lasts=False)
    world.die("drift/missing-library", code=127)
    world.run()
    did = world.did()
    assert did[0] == "rollback"
    assert did[1:-1] == ["restart"] * 3
    assert did[-1] == "alert"
    assert world.closed[0].held is False
    assert "given up" in world.closed[0].outcome


def test_an_exception_goes_back_only_on_repetition_after_a_change():
    """The same death again, with something changed before it, is answered by going back; without a change by another restart."""
    for evidence, second in (((CHANGED,), "rollback"), ((), "restart"), ((record("package-changes", count=0),), "restart")):
        world = World(GOES_BACK)
        world.die(evidence=evidence)
        world.until_probation()
        world.die(evidence=evidence)
        world.until_probation()
        assert world.did() == ["restart", second]


def test_changes_of_the_last_fortnight_are_no_change():
    """Package logs without a healthy run to count from say nothing about this agent."""
    world = World(GOES_BACK)
    for _ in range(2):
        world.die(evidence=(record("package-changes", count=9, healthy=False),))
        world.until_probation()
    assert world.did() == ["restart", "restart"]


def test_a_snapshot_that_was_put_back_is_started_at_once():
    """Nothing is awaited that nobody starts: the restart follows a rollback to a snapshot, even where it stands before it."""
    for ladder in (("rollback", "restart"), ("restart", "rollback", "alert")):
        policy = Policy(restart=("x",), snapshot="/srv/venv", ladder={"drift": ladder}, backoff_s=0.0)
        world = World(policy)
        world.die("drift/abi", evidence=(CHANGED,))
        if ladder[0] == "restart":
            world.until_probation()
            world.die("drift/abi", evidence=(CHANGED,))
        world.do()
        assert world.did()[-1] == "rollback"
        assert world.step == Act("restart", world.step.attempt, "it was rolled back, which does not start it")
        world.run()
        assert world.did()[-2:] == ["rollback", "restart"]
        assert world.closed[0].held is True


def test_a_command_that_goes_back_may_start_it_too():
    """Whoever goes back by a command is looked at first: what that has started is validated, and nothing else is started."""
    world = World(GOES_BACK)
    world.die("drift/abi", evidence=(CHANGED,))
    world.run()
    assert world.did() == ["rollback"]
    assert world.closed[0].held is True


def test_starts_before_going_back_do_not_count_for_the_same_death():
    """Three restarts for the same death, then a rollback: what is rolled back is started, within the limit over all."""
    policy = Policy(restart=("x",), snapshot="/srv/venv", ladder={"crash": ("restart", "rollback")}, backoff_s=0.0)
    world = World(policy)
    for _ in range(4):
        world.die("crash/abort")
        world.until_probation()
    assert world.did() == ["restart"] * 3 + ["rollback", "restart"]
    world = World(msgspec.structs.replace(policy, restarts=1))
    world.die("crash/abort")
    world.until_probation()
    world.die("crash/abort")
    world.run()
    assert world.did() == ["restart", "rollback"]


def test_a_failed_act_leaves_for_the_next_rung():
    """A restart command that is missing does not keep a rollback from being tried."""
    world = World(
        Policy(restart=("x",), rollback=("y",), ladder={"exception": ("restart", "rollback", "alert")}), act_works=False
    )
    world.die()
    world.run()
    assert world.did() == ["restart", "rollback", "alert"]
    assert world.closed[0].held is False


def test_the_same_death_again_and_again_reaches_its_own_limit():
    """After three restarts for the same death, the fourth is not answered by a restart."""
    world = World(RESTART)
    for _ in range(4):
        world.die()
        world.until_probation()
    assert world.did() == ["restart"] * 3 + ["alert"]
    assert world.closed[-1].held is False
    assert "same death 4 times" in world.closed[-1].outcome
    assert len(world.closed) == 1  # one incident with its attempts


def test_two_alternating_causes_reach_the_limit_over_all():
    """Two deaths in turn are counted together, so that neither hides behind the other."""
    world = World(Policy(restart=("x",), per_cause=100, restarts=5))
    for number in range(6):
        world.die("exception/uncaught" if number % 2 else "crash/segfault", culprit="abc"[number % 2])
        world.until_probation()
    assert world.did() == ["restart"] * 5 + ["alert"]
    assert "two deaths in turn, 6" in world.closed[-1].outcome


def test_limits_count_over_incidents():
    """Restarts that held are counted in the window too: a death after each probation is no way around the limit."""
    world = World(Policy(restart=("x",), restarts=3, per_cause=100, within_s=600, probation_s=10))
    for number in range(4):
        world.die(culprit="abcd"[number])
        world.run()
    assert world.did() == ["restart"] * 3 + ["alert"]
    world.instances = 1  # a person started it
    world.now_s += 700
    world.die()
    world.run()
    assert world.did()[4:] == ["restart"]


def test_back_off_grows_and_is_forgotten_after_probation():
    """No wait before the first restart, growing ones before the next, none again once it held."""
    world = World(Policy(restart=("x",), restarts=50, per_cause=50, backoff_s=2.0, backoff_limit_s=8.0))
    waits = []
    for _ in range(6):
        world.die()
        before = world.now_s
        steps = world.until_probation()
        waits.append(sum(step.until_s - before for step in steps if isinstance(step, Wait)))
    assert waits[0] == 0
    for wait, longest in zip(waits[1:], [2.0, 4.0, 8.0, 8.0, 8.0], strict=True):
        assert longest / 2 <= wait <= longest
    world.run()
    world.die()
    assert isinstance(world.step, Act)


def test_jitter_differs_between_agents():
    """Two agents that died together do not come back at the same time, yet the same question has the same answer."""
    waits = {}
    for name in ("one", "two"):
        world = World(RESTART, standing=Standing(name=name))
        world.die()
        world.until_probation()
        world.die()
        assert world.step == world.step
        assert isinstance(world.step, Wait)
        waits[name] = world.step.until_s
    assert waits["one"] != waits["two"]


def test_a_slow_loop_is_seen_and_said():
    """A death every eleven hours is restarted each time, and the fourth time said to come about every eleven hours."""
    world = World(RESTART)
    for _ in range(4):
        world.die("oom/cgroup", signal="SIGKILL", code=None)
        world.run()
        world.now_s += 11 * 3600
    assert world.did().count("restart-fresh") == 4
    assert "the same death about every 11 hours, 4 times by now" in world.closed[-1].outcome
    assert all(closed.held for closed in world.closed)


# --- what can happen meanwhile -------------------------------------------------------------------------------------------------


def test_a_dry_run_records_one_intent():
    """Where nothing is to be done really, the first thing that would be done is told, and the incident closed."""
    world = World(Policy(restart=("x",), dry_run=True))
    world.die()
    step = world.step
    assert isinstance(step, Act)
    world.begin(step)
    world.end(step.remedy, step.attempt, "refused")
    assert world.step == LeaveAlone(why="dry run: restart would have been done")


def test_an_act_without_an_outcome_is_never_done_again_blindly():
    """Killed between intent and outcome: first it is found out, then looked whether an instance lives, and only then acted."""
    world = World(RESTART)
    world.die()
    world.begin(world.step)
    world.restarted_agentscope()
    assert world.step == Settle(remedy="restart", attempt=1)
    world.do()
    assert isinstance(world.step, Validate)
    world.restarted_agentscope()
    assert isinstance(world.step, Validate)
    world.run()
    assert world.did() == ["restart"]
    assert world.closed[0].held is True


def test_the_counter_survives_a_restart_of_agentscope():
    """What was done before agentscope was killed counts afterwards: the limit is reached at the same death."""
    world = World(RESTART)
    for _ in range(4):
        world.die()
        while not isinstance(world.step, Rest | Probation):
            world.do()
            world.restarted_agentscope()
    assert world.did() == ["restart"] * 3 + ["alert"]


def test_the_same_ledger_folds_to_the_same_standing():
    """The standing while it happens is the standing that the ledger gives."""
    world = World(GOES_BACK)
    for _ in range(3):
        world.die(evidence=(CHANGED,))
        world.until_probation()
    before = world.standing
    world.restarted_agentscope()
    assert world.standing == before


def test_an_incident_told_twice_is_one():
    """A line that is folded twice changes nothing."""
    standing = fold(Standing(name=NAME), incident(), 1.0)
    assert fold(standing, incident(), 2.0) == standing


def test_an_old_incident_that_nobody_closed_is_not_continued():
    """Deaths from before there was a policy are no attempts of today's incident."""
    standing = fold(Standing(name=NAME), incident(mark="old"), 1.0)
    standing = fold(standing, incident(mark="new"), 1.0 + 2 * 86400)
    assert standing.chain.incident == "inc-new"


def test_the_sentence_of_a_night():
    """Same death, how often, what was done when, and that it held: in the words a person would use."""
    world = World(GOES_BACK, now_s=dt.datetime(2026, 7, 27, 3, 7, 5, tzinfo=dt.UTC).timestamp())
    for _ in range(2):
        world.die(evidence=(CHANGED,))
        world.until_probation()
        world.now_s += 60.0 * 9 - 1
    chain = world.standing.chain
    said = closing_words(world.standing, chain, Commit(attempt=2), dt.UTC)
    assert said == "same death 2 times in 9 minutes; rolled back at 03:16; stable since"


# --- whatever happens ----------------------------------------------------------------------------------------------------------

CAUSES = {
    "exception/uncaught": {"code": 1},
    "oom/cgroup": {"code": None, "signal": "SIGKILL"},
    "drift/abi": {"code": None, "signal": "SIGSEGV", "evidence": (CHANGED,)},
    "crash/abort": {"code": None, "signal": "SIGABRT", "evidence": (CHANGED,)},
    "hang/deadlock": {"code": None, "signal": None},
    "killed/sigterm": {"code": None, "signal": "SIGTERM", "actor": PERSON},
}
POLICIES = st.builds(
    Policy,
    restart=st.just(("x",)),
    rollback=st.sampled_from([(), ("y",)]),
    snapshot=st.sampled_from([None, "/srv/venv"]),
    hooks=st.sampled_from([(), ("/bin/hook",)]),
    restarts=st.integers(1, 6),
    per_cause=st.integers(1, 4),
    within_s=st.sampled_from([30.0, 600.0, 7200.0]),
    backoff_s=st.sampled_from([0.0, 1.0, 20.0]),
    backoff_limit_s=st.sampled_from([5.0, 300.0]),
    validate_s=st.sampled_from([1.0, 10.0]),
    probation_s=st.sampled_from([0.0, 60.0, 3600.0]),
    ladder=st.sampled_from(
        [{}, {"exception": ("alert", "restart"), "oom": ("restart",)}, {"crash": ("restart", "restart-fresh")}]
    ),
)


class Nights(RuleBasedStateMachine):
    """Deaths, acts that fail, starts that do not last, agentscope killed anywhere, persons who start it by hand, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.begun: Act | None = None

    @initialize(policy=POLICIES)
    def watch(self, policy):
        self.world = World(policy)

    @precondition(lambda self: self.world.instances == 1 and self.begun is None)
    @rule(cause=st.sampled_from(sorted(CAUSES)), culprit=st.sampled_from("ab"))
    def dies(self, cause, culprit):
        self.world.die(cause, culprit, **CAUSES[cause])

    @precondition(lambda self: self.begun is None)
    @rule(works=st.booleans(), lasts=st.booleans())
    def goes_on(self, works, lasts):
        self.world.act_works, self.world.start_lasts = works, lasts
        before = self.world.standing.chain
        step = self.world.do()
        if isinstance(step, Commit):
            assert before is not None
            assert self.world.closed[-1].held is True

    @precondition(lambda self: self.begun is None and isinstance(self.world.step, Act))
    @rule(works=st.booleans())
    def begins(self, works):
        self.world.act_works = works
        self.begun = self.world.step
        self.world.begin(self.begun)

    @precondition(lambda self: self.begun is not None)
    @rule(outcome=st.sampled_from(["done", "failed", "refused"]))
    def ends(self, outcome):
        self.world.end(self.begun.remedy, self.begun.attempt, outcome)
        self.begun = None

    @rule()
    def agentscope_is_killed(self):
        before = self.world.standing
        self.world.restarted_agentscope()
        assert self.world.standing == before
        self.begun = None

    @precondition(lambda self: self.world.instances == 0 and self.world.standing.chain is None)
    @rule()
    def a_person_starts_it(self):
        self.world.instances = 1

    @precondition(lambda self: self.begun is None)
    @rule(seconds=st.sampled_from([0.5, 20.0, 400.0, 5000.0]))
    def time_passes(self, seconds):
        self.world.now_s += seconds

    @invariant()
    def never_a_second_act_while_one_is_outstanding(self):
        outstanding = [
            deed for deed in (self.world.standing.chain.deeds if self.world.standing.chain else ()) if deed.outcome is None
        ]
        assert len(outstanding) <= 1
        if outstanding:
            assert isinstance(self.world.step, Settle)

    @invariant()
    def never_more_than_the_limit(self):
        policy = self.world.policy
        assert most_within(self.world.acts, {"restart", "restart-fresh"}, policy.within_s) <= policy.restarts + self.refused
        assert most_within(self.world.acts, {"rollback"}, policy.within_s) <= 1

    @property
    def refused(self) -> int:
        return sum(deed.outcome == "refused" for deed in self.world.standing.deeds)

    @invariant()
    def never_two_instances(self):
        assert self.world.most_instances <= 1

    @invariant()
    def the_first_restart_never_waits(self):
        chain = self.world.standing.chain
        if chain is not None and len(self.world.standing.deeds) == 0:
            assert not isinstance(self.world.step, Wait)

    def teardown(self):
        """Left to itself, with whatever success, every incident ends: committed, given up or left alone."""
        if not hasattr(self, "world"):
            return
        if self.begun is not None:
            self.world.end(self.begun.remedy, self.begun.attempt, "done")
        self.world.run(limit=500)
        assert self.world.step == Rest()
        for closed in self.world.closed:
            assert closed.outcome


TestNights = Nights.TestCase
TestNights.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_an_agent_that_always_dies_in_probation_is_given_up():
    """Even where deaths are so far apart that no window ever holds the limit, one incident has no more restarts than the limit."""
    world = World(Policy(restart=("x",), restarts=5, per_cause=100, within_s=60, probation_s=3600))
    for number in range(20):
        if world.closed:
            break
        world.die(culprit="abcdefghijklmnopqrst"[number])
        world.until_probation()
        world.now_s += 1800
    assert world.did() == ["restart"] * 5 + ["alert"]
    assert isinstance(world.step, Rest)
    assert next_step(world.policy, world.standing, world.now_s) == Rest()
