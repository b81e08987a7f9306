"""What every drill must have, without playing it."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

from agentscope.causes import causes
from agentscope.commandlines import program_of
from agentscope.discovery import known_by
from agentscope.drills import _playing, drill_of, kinds
from agentscope.errors import UsageError
from agentscope.model import ProcessExec
from tests.commandline import agentscope


def test_there_is_a_drill_for_each_headline_class():
    """Each of the four headline classes, and a native crash, can be drilled."""
    assert {drill_of(kind).CAUSE.split("/")[0] for kind in kinds()} == {"oom", "drift", "hang", "exception", "crash"}


@pytest.mark.parametrize("kind", kinds())
def test_a_drill_says_what_comes_of_it(kind):
    """What a drill expects are causes that exist, it is small, and its docstring tells what will happen in a sentence."""
    drill = drill_of(kind)
    assert {drill.CAUSE, drill.ROOTLESS or drill.CAUSE} <= causes().keys()
    assert 64 <= drill.MEMORY_MIB <= 128
    assert inspect.getdoc(drill).splitlines()[0].startswith(("It ", "Its ", "The ", "Two "))


@pytest.mark.parametrize("kind", kinds())
def test_a_sample_needs_nothing_but_python(kind):
    """A sample imports only Python's own library, so that any Python runs it, and nothing of agentscope."""
    tree = ast.parse(Path(drill_of(kind).__file__).read_text())
    imported = {name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported <= sys.stdlib_module_names
    assert {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} <= {"drill_planner"}


@pytest.mark.parametrize("kind", kinds())
def test_a_sample_ends_itself(kind):
    """Whatever becomes of the drill, its sample has an alarm that ends it within a minute, set before anything else."""
    tree = ast.parse(Path(drill_of(kind).__file__).read_text())
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.unparse(main.body[1]) == "signal.alarm(60)"


@pytest.mark.parametrize("kind", kinds())
def test_a_sample_is_found_by_its_signature(kind):
    """Whoever watches without a target finds the sample of a drill; a program of that name elsewhere is none."""
    where = ("/usr/bin/python3", "-I", "-u", f"/tmp/agentscope-drill-abc/drill-{kind}", "5.0")
    seen = ProcessExec(at_ns=1, pid=9, start_ns=1, ppid=1, comm="python3", argv=where, exe="/usr/bin/python3", uid=65534)
    assert known_by(seen) == f"drill-{kind} by its command line"
    assert program_of(where).name == f"drill-{kind}"


def test_there_is_no_other_drill():
    """What is no drill is refused with those that there are."""
    with pytest.raises(UsageError, match="there are drift, exception, hang, oom, segfault"):
        drill_of("_sandbox")
    agentscope("drill", "meteor").is_sentence(64, "there is no drill 'meteor'", "sudo agentscope drill drift")


@pytest.mark.parametrize(
    ("status", "ended", "says"),
    [(-9, True, "ended by SIGKILL"), (1, True, "ended with status 1"), (None, False, "was ended"), (0, False, "was ended")],
)
def test_an_end_is_told_in_words(status, ended, says):
    """How a sample ended is told by the name of the signal, its status, or that it had to be ended."""
    assert says in _playing.ending(status, ended=ended)
