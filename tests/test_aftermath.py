"""Ends that nobody watched, put together from what is left: right or open, never wrong, however much of it is missing."""

import itertools
import json

import pytest

from agentscope.aftermath import Boot, Traces, Wanted
from agentscope.aftermath.gathering import gather
from agentscope.aftermath.joining import join
from agentscope.diagnosing import put_together
from agentscope.errors import NoSuchProcess
from agentscope.model import KernelLine
from agentscope.views.page import ending_of
from tests.bundles import PLACE, RANK, SOURCES, Bundle, verdict

BUNDLES = sorted(path.name for path in PLACE.iterdir() if path.is_dir())
OPEN = {"undetermined", "untold", "unknown"}


def allowed(truth: dict) -> set[str]:
    """What may be said of this end: the truth, or that it is not known."""
    return OPEN | {truth["cause"], truth.get("may_be", truth["cause"])}


@pytest.mark.parametrize("name", BUNDLES)
def test_everything_there(name, tmp_path):
    """With every source the cause is the known one, labelled as reconstructed, and less sure than that of a watched death."""
    bundle = Bundle(PLACE / name, tmp_path / "root")
    cause, rank, record = verdict(bundle)
    assert cause == bundle.truth["cause"]
    assert bundle.truth["made"]
    if cause not in {"none", "unknown"}:
        assert record["reconstructed"] is True
        assert record["confidence"] == bundle.truth["confidence"]
        assert rank < RANK["certain"]
        assert any(each["kind"] == "reconstruction" for each in record["evidence"])


@pytest.mark.parametrize("name", BUNDLES)
def test_sources_missing(name, tmp_path):
    """Whatever subset of the sources is missing, the cause never becomes a wrong one, and the confidence never rises."""
    whole = verdict(Bundle(PLACE / name, tmp_path / "root"))[1]
    for count in range(1, len(SOURCES) + 1):
        for gone in itertools.combinations(SOURCES, count):
            bundle = Bundle(PLACE / name, tmp_path / "-".join(gone).replace(" ", "_"), gone)
            cause, rank, _ = verdict(bundle)
            assert cause in allowed(bundle.truth), f"without {', '.join(gone)}"
            assert rank <= whole, f"without {', '.join(gone)}"


@pytest.mark.parametrize("name", BUNDLES)
def test_the_source_that_matters(name, tmp_path):
    """Without a source on which the verdict rests it is less sure, or open; and what is missing is named."""
    truth = json.loads((PLACE / name / "truth.json").read_text())
    whole = verdict(Bundle(PLACE / name, tmp_path / "root"))[1]
    for source in truth.get("refuting", ()):
        cause, rank, record = verdict(Bundle(PLACE / name, tmp_path / source.replace(" ", "_"), {source}))
        assert cause in OPEN or rank < whole, f"without the {source}"
        if cause == "undetermined" and source != "package logs":
            said = next(each for each in record["evidence"] if each["kind"] == "reconstruction")
            assert source in {each["kind"] for each in said["data"]["unread"]}


def test_a_start_that_nobody_knows(tmp_path):
    """Of an end that the kernel log alone tells of nobody knows when it began, and no length of its life is made up."""
    bundle = Bundle(PLACE / "oom-pid", tmp_path / "root", {"journal", "state of its unit"})
    wanted = Wanted(who=bundle.truth["who"], pid=int(bundle.truth["who"]))
    _, incident = put_together(gather(wanted, bundle), wanted)
    assert incident is not None
    assert ending_of(incident) == "SIGKILL"
    assert [entry.says for entry in incident.timeline] == ["ended: SIGKILL"]
    status = next(each for each in incident.evidence if each.kind == "wait-status")
    assert (status.says, status.data["lived_ns"]) == ("ended by SIGKILL", None)


def test_an_end_under_another_name(tmp_path):
    """Where nothing of this name has ended, the last ends are listed, one in a cgroup of this name first, and what to type for it."""
    bundle = Bundle(PLACE / "oom-pid", tmp_path / "root")
    wanted = Wanted(who="plain.service")
    traces = gather(wanted, bundle)
    with pytest.raises(NoSuchProcess) as refused:
        put_together(Traces(boot=traces.boot, kernel=traces.kernel), Wanted(who="summarise.py"))
    listed = json.loads((PLACE / "oom-pid" / "truth.json").read_text())["who"]
    assert f"{listed} (python3 in /system.slice/plain.service, " in refused.value.why
    assert refused.value.try_this.startswith(f"agentscope diagnose {listed}, if it was that one")


@pytest.mark.parametrize("own_pids", [True, False])
def test_a_long_name(own_pids):
    """A program is found by its whole name where the kernel kept fifteen characters of it, in whichever namespace its number is."""
    said = (
        "summarise-night[4242]: segfault at 0 ip 00007f2b7c0a9d3c sp 00007ffc3c363688 error 4 in libc.so.6[7f2b7c000000+1000]"
    )
    traces = Traces(boot=Boot(id="", wall_ns=0, own_pids=own_pids), kernel=(KernelLine(at_ns=1, seq=0, priority=6, text=said),))
    joined = join(traces, Wanted(who="summarise-nightly-mail"))
    assert joined is not None
    assert (joined.end.pid, joined.end.comm) == (4242, "summarise-night")
    assert join(traces, Wanted(who="summarise-night-shift")) is not None  # those fifteen are all that is left of either
    assert join(traces, Wanted(who="summarise")) is None
