"""The rules of the house that a reader would otherwise have to check by eye."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.joinpath("agentscope").rglob("*.py"))
TESTS = sorted(path for path in ROOT.joinpath("tests").rglob("test_*.py") if "build" not in path.parts)
BANNED = {"manager", "handler", "helper", "util", "utils", "common", "data", "item", "misc", "info"}
LONG_WITH_REASON = {
    "model.py",  # the nouns stand together: one page to read before all others
}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_states_a_behaviour(path):
    """Each test function has a docstring that says what must be so."""
    functions = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    silent = [node.name for node in functions if node.name.startswith("test_") and not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_readable(path):
    """A module over 400 lines or a function over 50 needs a reason here."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400 or path.name in LONG_WITH_REASON
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 50]
    assert long == []


def test_no_file_has_a_name_that_says_nothing():
    """Banned words are no module names."""
    assert [str(path) for path in SOURCES if set(path.stem.split("_")) & BANNED] == []


def test_nothing_is_left_to_do():
    """No mark of unfinished work is in the tree."""
    marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
    found = subprocess.run(
        ["git", "grep", "-nwE", "|".join(marks), "--", "*.py", "*.c", "*.h", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
