"""Ends that nobody watched, put together from what is left: right or open, never wrong, however much of it is missing."""

import itertools
import json

import pytest

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
