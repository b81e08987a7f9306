"""Deaths and hangs of the zoo on Debian's 6.1 and 6.12, under engine core and, without BTF, under engine bcc.

A few of each class in an ordinary run; AGENTSCOPE_TABLE=all plays the whole zoo in several guests a column, which takes hours.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel_table import BECAUSE, TABLE
from table_scenarios import ENGINES, KERNELS, PARTS, slugs_of

pytestmark = pytest.mark.kernels
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
TIMEOUT_S = 2400
TIMED_OUT = 124  # kernel-lab.sh
EVERYTHING = os.environ.get("AGENTSCOPE_TABLE") == "all"
PLAYED_IN = [f"{number}/{PARTS}" for number in range(PARTS)] if EVERYTHING else ["short"]
COMPILES = """
import sys
sys.path[:0] = sys.argv[1:3]
from hangs import hangs
from scenario import scenarios
from table_scenarios import slugs_of
from zoo import compiled
wanted = {slug for part in sys.argv[3:] for slugs in slugs_of(part) for slug in slugs}
for scenario in (*scenarios(), *hangs()):
    if scenario.slug in wanted and not scenario.missing():
        compiled(scenario)
"""


class Played(NamedTuple):
    """What the guests of one column left behind: `ready` and `end` of each agentscope, and all that they said on standard error."""

    engine: str
    worths: dict[str, tuple[str, str]]
    ready: list[dict[str, Any]]
    end: list[dict[str, Any]]
    stderr: str
    doctor: dict[str, Any]
    limits: list[str]  # what the evidence of each OOM kill says of the limit


def asked() -> set[str]:
    """All that is to be played in a column."""
    return {slug for part in PLAYED_IN for slugs in slugs_of(part) for slug in slugs}


def boot(lab: Path, kernel: str, engine: str, part: str, out: Path) -> None:
    """One guest; one that did not come to its end in time leaves what it has."""
    headers = ["--headers"] if engine == "bcc" else []
    guest = [sys.executable, str(HERE / "table_guest.py"), str(out), engine, part]
    options = ["--dir", str(REPOSITORY), "--rw", str(out), "--timeout", str(TIMEOUT_S), "--memory", "2048"]
    argv = [str(lab), "--kernel", kernel, *headers, *options, "--", *guest]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = f"{run.stdout[-2000:]}{run.stderr[-4000:]}{(out / 'stderr').read_text() if (out / 'stderr').exists() else ''}"
    assert run.returncode in {0, TIMED_OUT}, said
    assert (out / "worths.json").exists(), said


def limits_in(stream: Path) -> Iterator[str]:
    """Of each kill at the limit of a cgroup: what was said of that limit, or that it was not known."""
    for line in stream.read_text().splitlines() if stream.exists() else ():
        event = json.loads(line)
        if event["type"] == "agentscope.incident.opened" and event["data"]["cause"] == "oom/cgroup":
            yield next(
                (each["says"] for each in event["data"]["evidence"] if each["kind"] == "memory-limits"), "no memory-limits"
            )


@pytest.fixture(scope="module", params=[(kernel, engine) for kernel in KERNELS for engine in ENGINES], ids="-".join)
def played(request: pytest.FixtureRequest, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All scenarios on this kernel under this engine."""
    kernel, engine = request.param
    if engine == "bcc" and not list(Path("/usr/lib/python3/dist-packages").glob("bcc")):
        pytest.skip("bcc is not on this machine: apt-get install python3-bpfcc")
    subprocess.run([sys.executable, "-c", COMPILES, str(HERE), str(HERE.parent / "live"), *PLAYED_IN], check=True)
    column = Played(engine, {}, [], [], "", {}, [])
    for part in PLAYED_IN:
        out = tmp_path_factory.mktemp(f"table-{kernel}-{engine}-{part.replace('/', '-of-')}")
        boot(lab, kernel, engine, part, out)
        column.worths.update(json.loads((out / "worths.json").read_text()))
        column.ready.append(json.loads((out / "ready.json").read_text()))
        if (out / "agentscope.json").exists():
            column.end.append(json.loads((out / "agentscope.json").read_text()))
        column.limits.extend(limits_in(out / "stream.ndjson"))
        column.doctor.update(json.loads((out / "doctor.json").read_text() or "{}"))
        column = column._replace(stderr=column.stderr + (out / "stderr").read_text())
    column.worths.update(dict.fromkeys(asked() - column.worths.keys(), ("not played", "its guest's time was over")))
    cells = {(slug, kernel, engine): told for slug, told in column.worths.items()}
    request.config.stash.setdefault(TABLE, {}).update({cell: worth for cell, (worth, _) in cells.items()})
    request.config.stash.setdefault(BECAUSE, {}).update({cell: why for cell, (worth, why) in cells.items() if worth != "right"})
    return column


def test_no_verdict_is_wrong(played: Played) -> None:
    """Each end is told as what it was, or honestly as undetermined; what is innocent has no incident."""
    assert {slug: told for slug, (worth, told) in played.worths.items() if worth == "wrong"} == {}


def test_all_was_played(played: Played) -> None:
    """Nothing is left out of the table; what is not played lacks something that the guest cannot have, and most are right."""
    assert set(played.worths) == asked()
    unplayed = {slug: told for slug, (worth, told) in played.worths.items() if worth == "not played"}
    assert {slug: told for slug, told in unplayed.items() if not told.startswith("needs ")} == {}
    right = sum(worth == "right" for worth, _ in played.worths.values())
    assert right >= 0.9 * (len(played.worths) - len(unplayed))


def test_the_engine_is_the_one(played: Played) -> None:
    """It says which engine it is, ends well, says no word more on standard error than that, and loses nothing."""
    assert {ready["engine"] for ready in played.ready} == {played.engine}
    assert [end["status"] for end in played.end] == [0] * len(PLAYED_IN)
    lost = [each["says"] for end in played.end for each in end["lost"]]
    assert [says for says in lost if "has not answered" not in says] == []  # the emulator's disk: that is said, and no fault
    lines = played.stderr.splitlines()
    assert len(lines) == (len(PLAYED_IN) if played.engine == "bcc" else 0), played.stderr


def test_without_btf_bcc_is_chosen_and_said(played: Played) -> None:
    """Where the kernel does not describe its types `--engine auto` takes bcc, and says in one line and in the stream why not core."""
    if played.engine == "core":
        assert not any("not core" in why for ready in played.ready for why in ready["degraded"])
        return
    assert all(line.startswith("agentscope: engine bcc watches") and "not core" in line for line in played.stderr.splitlines())
    assert all(ready["degraded"][0].startswith("not core") for ready in played.ready)


def test_doctor_knows_the_engine(played: Played) -> None:
    """`doctor` says that the engine works, and which one auto takes; of bcc it says nothing where core works."""
    said = {check["name"]: check for check in played.doctor["checks"]}
    assert said["engine core"]["ok"] == (played.engine == "core"), said["engine core"]
    assert said["engine bcc"]["ok"] == (None if played.engine == "core" else True), said["engine bcc"]
    assert f"takes {played.engine}" in said["engine auto"]["says"], said["engine auto"]


def test_the_kernels_count_is_named(played: Played) -> None:
    """Of each kill at a limit the evidence says that the cgroup's own memory.events has counted it (cgroup v2)."""
    assert played.limits
    assert [says for says in played.limits if "counted in its memory.events (oom_kill)" not in says] == []


def test_what_it_cannot_see_is_said(played: Played) -> None:
    """Without the kernel's types, mappings at the end and Python frames at a fault are not seen, and the first line says so."""
    for ready in played.ready:
        told = " ".join(ready["degraded"])
        assert ("Python frames" in told) == (played.engine == "bcc"), told
