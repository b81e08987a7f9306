"""Deaths and hangs of the zoo on Debian's 6.1 and 6.12, under engine core and, without BTF, under engine bcc."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel_table import TABLE
from table_scenarios import CALM, DEATHS, ENGINES, GROUP, HANGS, KERNELS

pytestmark = pytest.mark.kernels
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
TIMEOUT_S = 1200
COMPILES = """
import sys
sys.path[:0] = sys.argv[1:3]
from scenario import scenarios
from table_scenarios import DEATHS
from zoo import compiled
for scenario in scenarios():
    if scenario.slug in DEATHS:
        compiled(scenario)
"""


class Played(NamedTuple):
    """What one guest left behind."""

    engine: str
    worths: dict[str, tuple[str, str]]
    ready: dict[str, Any]
    end: dict[str, Any]
    stderr: str


@pytest.fixture(scope="module", params=[(kernel, engine) for kernel in KERNELS for engine in ENGINES], ids="-".join)
def played(request: pytest.FixtureRequest, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """All scenarios on this kernel under this engine."""
    kernel, engine = request.param
    if engine == "bcc" and not list(Path("/usr/lib/python3/dist-packages").glob("bcc")):
        pytest.skip("bcc is not on this machine: apt-get install python3-bpfcc")
    subprocess.run([sys.executable, "-c", COMPILES, str(HERE), str(HERE.parent / "live")], check=True)
    out = tmp_path_factory.mktemp(f"table-{kernel}-{engine}")
    run = subprocess.run(
        [
            *(str(lab), "--kernel", kernel, *(["--headers"] if engine == "bcc" else []), "--dir", str(REPOSITORY)),
            *(
                "--rw",
                str(out),
                "--timeout",
                str(TIMEOUT_S),
                "--",
                sys.executable,
                str(HERE / "table_guest.py"),
                str(out),
                engine,
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    stderr = (out / "stderr").read_text()
    assert run.returncode == 0, f"{run.stdout[-2000:]}{run.stderr[-4000:]}{stderr}"
    read = {name: json.loads((out / f"{name}.json").read_text()) for name in ("worths", "ready", "agentscope")}
    table = request.config.stash.setdefault(TABLE, {})
    table.update({(slug, kernel, engine): worth for slug, (worth, _) in read["worths"].items()})
    return Played(engine, read["worths"], read["ready"], read["agentscope"], stderr)


def test_no_verdict_is_wrong(played: Played) -> None:
    """Each end is told as what it was, or honestly as undetermined; what is innocent has no incident."""
    assert {slug: told for slug, (worth, told) in played.worths.items() if worth == "wrong"} == {}


def test_all_was_played(played: Played) -> None:
    """No scenario is left out of the table, and most are right."""
    assert set(played.worths) == {*DEATHS, GROUP, *HANGS, *CALM}
    assert {slug: told for slug, (worth, told) in played.worths.items() if worth == "not played"} == {}
    assert sum(worth == "right" for worth, _ in played.worths.values()) >= 0.9 * len(played.worths)


def test_the_engine_is_the_one(played: Played) -> None:
    """It says which engine it is, ends well, says nothing on standard error and loses nothing."""
    assert played.ready["engine"] == played.engine
    assert played.end == {"status": 0, "lost": []}
    assert played.stderr == ""


def test_what_it_cannot_see_is_said(played: Played) -> None:
    """Without the kernel's types, mappings at the end and Python frames at a fault are not seen, and the first line says so."""
    told = " ".join(played.ready["degraded"])
    assert ("Python frames" in told) == (played.engine == "bcc"), told
