"""The manual pages, and what the shell completes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentscope.causes import causes
from agentscope.cli import main
from agentscope.drills import kinds

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "man" / "man1"


def commands(group=main, front="agentscope"):
    """The names of all pages that there must be."""
    yield front
    for name, command in getattr(group, "commands", {}).items():
        if not command.hidden:
            yield from commands(command, f"{front}-{name}")


@pytest.mark.filterwarnings("ignore:.*make_default_short_help:DeprecationWarning")  # click-man 0.6 asks click 8 for it
def test_every_command_has_its_page(tmp_path):
    """The pages that are shipped are those that the commands' own help makes: `make man` writes them anew."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "man" / "pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    pages.write(tmp_path)
    assert {path.stem for path in PAGES.iterdir()} == set(commands())
    for path in PAGES.iterdir():
        assert path.read_text() == (tmp_path / path.name).read_text(), f"{path.name} is old: make man"


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_page_is_read_as_it_was_written(name):
    """No control character, no sentence cut short, and examples keep their lines."""
    text = (PAGES / f"{name}.1").read_text()
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "..." not in text.split(".SH SYNOPSIS")[0]
    assert text.count(".nf\n") == text.count(".fi\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dia", {"diagnose"}),
        ("drill ", set(kinds())),
        ("drill se", {"segfault"}),
        ("explain oom/", {slug for slug in causes() if slug.startswith("oom/")}),
    ],
)
def test_the_shell_completes(typed, offered):
    """Commands, drills and causes are offered as they are typed."""
    words = f"agentscope {typed}"
    said = subprocess.run(
        [sys.executable, "-c", "from agentscope.cli import main; main(prog_name='agentscope')"],
        env={**os.environ, "_AGENTSCOPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in said.stdout.splitlines()} == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_what_it_loads(shell):
    """What is printed asks agentscope by the variable that it answers to."""
    said = subprocess.run([sys.executable, "-m", "agentscope", "completion", shell], capture_output=True, text=True, check=True)
    assert f"_AGENTSCOPE_COMPLETE={shell}_complete" in said.stdout
