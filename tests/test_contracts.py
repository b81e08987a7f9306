"""The contracts of the folders: being in the folder is being registered, and what is there keeps the form."""

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import agentscope.causes
from agentscope.causes import causes, needs_of
from agentscope.causes.crash import Ending
from agentscope.evidence import Evidence, HangScene, Scene, collect_all, kinds, kinds_of
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.native_stack import NativeStack
from agentscope.model import EvidenceRecord
from tests.evidence_builders import died, exited, verdict
from tests.test_classifier import scene

PARTS = ("What it means: ", "How agentscope knows: ", "What to do: ", "What looks like it but is not: ")
TAXONOMY = {"oom", "drift", "hang", "exception", "crash", "killed", "exit"}
CLASSES = TAXONOMY - {"drift"}
WORDS_NOBODY_KNOWS = ("eBPF", "CO-RE", "ring buffer", "kprobe", "tgid", "evidence struct")


def test_the_folder_is_the_list():
    """Every file of a class folder is a cause under its own name, and there is nothing else."""
    folder = Path(agentscope.causes.__file__).parent
    files = {f"{path.parent.name}/{path.stem}".replace("_", "-") for path in folder.glob("*/*.py") if path.stem != "__init__"}
    assert set(causes()) == files
    assert {slug.split("/")[0] for slug in causes()} <= TAXONOMY


@pytest.mark.parametrize("slug", sorted(causes()))
def test_an_explanation_is_whole(slug):
    """The docstring starts with one sentence and has the four parts, in words for a person who never heard of the machinery."""
    first, *rest = causes()[slug].explanation.split("\n\n")
    assert first.endswith((".", ")."))
    assert "\n" not in first
    assert len(first) <= 120
    assert [next((part for part in PARTS if each.startswith(part)), each) for each in rest] == list(PARTS)
    assert all(len(each.removeprefix(part).split()) >= 12 for part, each in zip(PARTS, rest, strict=True))
    assert not [word for word in WORDS_NOBODY_KNOWS if word in causes()[slug].explanation]
    assert all(len(line) <= 120 for line in causes()[slug].explanation.splitlines())


@pytest.mark.parametrize("slug", sorted(causes()))
def test_an_explanation_points_at_real_neighbours(slug):
    """A slug that an explanation names is a cause that exists, or one of a class that another part of the product owns."""
    words = (
        causes()[slug]
        .explanation.replace("(", " ")
        .replace(")", " ")
        .replace(",", " ")
        .replace(";", " ")
        .replace(".", " ")
        .replace(":", " ")
        .split()
    )
    named = {word for word in words if "/" in word and word.split("/")[0] in CLASSES}
    assert named <= set(causes())
    assert slug not in named


@pytest.mark.parametrize("slug", sorted(causes()))
def test_a_match_is_typed(slug):
    """Every parameter of `match` is one kind of evidence, given by name, or a dataclass of such.

    How it ended is always needed, and of a hang, which has no end, what its threads wait for: so neither is asked of the other.
    """
    match = importlib.import_module(f"agentscope.causes.{slug.replace('/', '.').replace('-', '_')}").match
    for parameter in inspect.signature(match).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY or dataclasses.is_dataclass(parameter.annotation)
        assert parameter.default is parameter.empty
    needs = causes()[slug].needs
    assert needs == needs_of(match)
    if slug.startswith("hang/"):
        assert needs["waits"] == ("thread-waits", True)
        assert {kind for kind, _ in needs.values()} <= set(kinds_of(HangScene))
    else:
        assert needs["status"] == ("wait-status", True)
        assert {kind for kind, _ in needs.values()} <= set(kinds_of(Scene))


def test_a_dataclass_stands_for_its_fields():
    """What several causes need together is declared once: each field is asked for like a parameter of its own."""

    def match(end: Ending, *, native: NativeStack | None) -> None:
        """A cause that needs an ending."""

    assert needs_of(match) == needs_of(Ending) | {"native": ("native-stack", False)}
    assert needs_of(Ending)["status"] == ("wait-status", True)
    assert needs_of(Ending)["words"] == ("last-words", False)


def test_evidence_that_is_asked_for_twice_is_refused():
    """One name cannot mean both a parameter and a field: which of them it would be is not guessed."""

    def match(end: Ending, *, words: LastWords) -> None:
        """A cause written wrongly."""

    with pytest.raises(TypeError, match="words"):
        needs_of(match)


def test_a_match_without_types_is_refused():
    """A parameter that is no kind of evidence is an error at once, not a silent "not checked"."""

    def match(status: int) -> None:
        """A cause written wrongly."""

    with pytest.raises(TypeError, match="status"):
        needs_of(match)


@pytest.mark.parametrize("slug", sorted(kinds()))
def test_a_kind_of_evidence_is_whole(slug):
    """Every kind says what its absence means and has fields with the source first."""
    kind = kinds()[slug]
    assert kind.absent
    assert not kind.absent.endswith(".")
    assert issubclass(kind.struct, Evidence)
    assert "source" in kind.struct.__struct_fields__
    assert kind.struct.__struct_config__.tag == slug


@pytest.mark.parametrize("status", [0, 9, 15, 11 | 0x80, 3 << 8])
def test_every_kind_collects_from_a_bare_end(status):
    """With nothing known but the end, every kind answers with evidence, nothing, or a reason; what it answers can be recorded."""
    collected = collect_all(scene(status))
    assert set(collected) == set(kinds_of(Scene))
    assert not [kind for kind, found in collected.items() if "failed" in getattr(found, "because", "")]
    for found in collected.values():
        if isinstance(found, Evidence):
            assert isinstance(found.record("context"), EvidenceRecord)


@pytest.mark.parametrize("status", [died(9), exited(3)])
def test_a_finding_is_said_in_full(status):
    """A finding has a headline of one line, a culprit, advice and what it rests on."""
    found = verdict(status)
    assert found.headline
    assert found.culprit
    assert found.advice
    assert found.cites[0] == "wait-status"
