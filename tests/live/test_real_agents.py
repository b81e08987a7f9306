"""Agents made with packages from PyPI, against a model API on loopback that hangs, stalls, refuses or closes, and one that is well."""

import subprocess
import sys
from pathlib import Path

import pytest
from hangs import ExpectedWait, Hang, HangRun
from scenario import BUILD
from show import PATIENCE_S, Show, diagnosis_faults, wait_faults
from verdicts import stream_faults
from zoo import AGENTSCOPE, Broken

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]

AGENTS = Path(__file__).resolve().parent / "agents"
PACKAGES = BUILD / "agents-packages"
PYTHON = PACKAGES / "bin" / "python"
ADDRESS = "127.0.0.1:{port}"
SLOW_S = 60
FAULTS = {  # mode of peers/model.py: its seconds, what is to be said of the agent, and what must be in the culprit
    "head_only": (0, "hang/stuck-io", (ADDRESS,)),
    "stall": (0, "hang/stuck-io", (ADDRESS,)),
    "busy": (1, "hang/retry-loop", (ADDRESS, "429")),
    "close": (0, "hang/retry-loop", (ADDRESS,)),
}
HEALTHY = {"slow": (SLOW_S, "stall"), "drip": (2, "stall"), "busy_at_first": (1, "busy")}  # its seconds, and what it looks like
DEATHS = ("exception/network", "exception/uncaught")
INSTALL_S = 300


def agent_with(program: Path, mode: str) -> Hang:
    """One of the programs and how its model API behaves."""
    pause_s, cause, culprit = FAULTS.get(mode) or (HEALTHY[mode][0], "none", ())
    return Hang(
        slug=f"{program.stem}-{mode}",
        folder=AGENTS,
        title=f"{program.stem}, its model API in mode {mode}",
        run=HangRun(
            argv=(str(PYTHON), str(program)),
            env={
                "OPENAI_BASE_URL": f"http://{ADDRESS}/v1",
                "OPENAI_API_KEY": "none",
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
                "LANGSMITH_TRACING": "false",
            },
            memory_mib=256,
        ),
        expect=ExpectedWait(cause=cause, culprit_contains=culprit),
        near_miss_of=HEALTHY[mode][1] if mode in HEALTHY else None,
        peer=("{python}", "{peers}/model.py", mode, str(pause_s)),
    )


def dies(hang: Hang) -> bool:
    """Whether the agent does not catch what this mode makes its SDK raise: a connection that is closed ends some of them."""
    return hang.slug.endswith("-close") and "APIConnectionError" not in Path(hang.run.argv[1]).read_text()


PROGRAMS = sorted(AGENTS.glob("*.py"))
ALL = [
    agent_with(program, mode)
    for program in PROGRAMS
    for mode in (*FAULTS, *HEALTHY)
    if mode != "drip" or "stream" in program.read_text()
]
every_agent = pytest.mark.parametrize("hang", ALL, ids=lambda hang: hang.slug)


@pytest.fixture(scope="module")
def packages() -> None:
    """An environment with what the agents are made of, built once for each text of requirements.txt; no network is a failure."""
    wanted, stamp = AGENTS / "requirements.txt", PACKAGES / "stamp"
    if stamp.exists() and stamp.read_text() == wanted.read_text() and PYTHON.exists():
        return
    stamp.unlink(missing_ok=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(PACKAGES)], capture_output=True, text=True, check=False, timeout=120
    )
    if made.returncode != 0:
        pytest.skip(f"no environment for packages can be made here: {made.stdout[-500:]}{made.stderr[-500:]}")
    argv = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(wanted)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    if done.returncode != 0:
        raise Broken(f"the agents' packages could not be installed: {done.stderr[-2000:]}")
    stamp.write_text(wanted.read_text())


@pytest.fixture(scope="module")
def show(packages: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Show:
    """The one run that these tests ask about: all of the agents that were chosen on the command line, side by side."""
    if not AGENTSCOPE.exists():
        pytest.skip(f"agentscope is not installed at {AGENTSCOPE}: pip install -e .")
    chosen = [each for each in request.session.items if each.path == Path(__file__) and hasattr(each, "callspec")]
    asked = {each.callspec.params["hang"].slug for each in chosen} or {hang.slug for hang in ALL}
    return Show(tmp_path_factory.mktemp("real"), [hang for hang in ALL if hang.slug in asked])


@every_agent
def test_watched(hang: Hang, show: Show) -> None:
    """Watched, an agent that its model API leaves hanging has one incident that names the API, one that is answered has none."""
    played = show.of(hang)
    if not dies(hang):
        faults = list(wait_faults(played))
        assert not faults, "\n".join(faults)
        return
    told = [f"{incident['cause']}: {incident['headline']} [{incident['culprit']}]" for incident in played.incidents]
    assert played.ended == 1, "it was to die of its SDK's APIConnectionError"
    assert [incident["cause"] in DEATHS for incident in played.incidents] == [True], told
    assert "ConnectionError" in told[0], told


@every_agent
def test_diagnosed(hang: Hang, show: Show) -> None:
    """With nobody watching, `diagnose` finds the same cause and says by its exit status whether the agent hangs."""
    if dies(hang):
        pytest.skip("there is nobody left to diagnose")
    faults = list(diagnosis_faults(show.of(hang)))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "hang", [hang for hang in ALL if hang.slug.endswith(("-head_only", "-stall", "-slow"))], ids=lambda hang: hang.slug
)
def test_waits_for_its_model(hang: Hang, show: Show) -> None:
    """An agent whose model API owes it an answer is said to wait for a model, with the API's address: watched, and diagnosed alone."""
    played = show.of(hang)
    address = f"127.0.0.1:{played.names['port']}"
    states = [data["state"] for data in played.of_type("agentscope.wait.changed")]
    assert address in states[-1], states
    assert hang.hung or states[-1].startswith(f"waiting(llm) {address}"), states
    said = played.diagnosed.said  # an incident where it hangs, whose evidence tells the wait; else the state
    waits = " ".join(each["says"] for each in said["evidence"] if each["kind"] == "thread-waits")
    assert said.get("state", "").startswith(f"waiting(llm) {address}") or f"llm {address}" in waits, said


def test_streams(show: Show) -> None:
    """Every line of every stream keeps the schema, none was lost, and agentscope said nothing on stderr."""
    faults = [fault for outcome in show.outcomes for fault in stream_faults(outcome)]
    assert not faults, "\n".join(faults)


def test_table(show: Show, capsys: pytest.CaptureFixture[str]) -> None:
    """What was said of each, and how long after it began to hang, is printed; every agent could be played."""
    with capsys.disabled():
        print(f"\n{'agent and its model API':26} {'seconds':>7} {'alone':>6}  cause and culprit (--hang-after {PATIENCE_S})")
        for slug, played in sorted(show.played.items()):
            told = "; ".join(f"{incident['cause']}: {incident['culprit']}" for incident in played.incidents) or "nothing said"
            after = "-" if played.after_s is None else f"{played.after_s:.1f}"
            print(f"{slug:26} {after:>7} {played.diagnosed.took_s:>6.1f}  {told}"[:200])
    assert not show.broken
