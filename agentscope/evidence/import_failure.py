"""Which packages an exception is about, in which version they are installed now, and in which they were when all was well."""

from typing import Literal

from agentscope.baseline import Baseline
from agentscope.baseline.clock import UTC, Clock, clock
from agentscope.baseline.joining import told
from agentscope.changes import Change, change_of
from agentscope.distributions.accused import Accused, FailureKind, Role, accused_by
from agentscope.distributions.called import called_package
from agentscope.distributions.installed import normal
from agentscope.evidence import Evidence, Missing, Scene
from agentscope.evidence.last_words import LastWords
from agentscope.evidence.last_words import collect as read_last_words
from agentscope.evidence.package_changes import may_be_drift, window_of
from agentscope.model import Reading, Value

ABSENT = "no error of Python or Node is told in its last words"
READS_FILES = True
TRACED = frozenset({"python", "node"})


class AccusedNow(Value, frozen=True):
    """One package that the failure can be about. A version of None: it is, or was, not installed.

    `role`: the words name it; it gives what was called, by a source that is older than the baseline; a frame of the traceback is in
    it; the innermost of those asks for it. `required` is what was asked
    of its version. `change` is what its metadata or a log tells of its last change since the window began.
    """

    role: Role
    ecosystem: Literal["python", "node"]
    name: str
    module: str | None = None
    version_now: str | None = None
    version_before: str | None = None
    required: str | None = None
    change: Change | None = None

    @property
    def changed(self) -> bool:
        """Whether it is not what it was; where no baseline is, whether metadata tells of a change in the window."""
        return self.version_now != self.version_before if self.version_before or self.version_now else self.change is not None


class ImportFailure(Evidence, frozen=True, tag="import-failure"):
    """How it failed over its packages, and which they can be, the most likely first.

    `compared` is False where there is no baseline: then `version_before` is not known of any.
    """

    failure: FailureKind
    exception_type: str
    message: str
    compared: bool
    accused: tuple[AccusedNow, ...]
    clock: Clock = UTC

    def says(self) -> str:
        """One sentence for a person."""
        changed = self.culprit
        if changed is not None:
            versions = f"{changed.version_before or 'not installed'} -> {changed.version_now or 'not installed'}"
            return f"{self.exception_type} is about {changed.name}, which changed: {versions}"
        named = ", ".join(dict.fromkeys(f"{each.name} {each.version_now or '(not installed)'}" for each in self.accused[:3]))
        return (
            f"{self.exception_type} can be about {named}"
            if named
            else f"{self.exception_type} is about no package that is known"
        )

    @property
    def culprit(self) -> AccusedNow | None:
        """The first of the accused that changed since the baseline."""
        return next((each for each in self.accused if self.compared and each.version_now != each.version_before), None)


def failing_reading(scene: Scene) -> tuple[Reading, str] | None:
    """The error that ended it, with all of the last words."""
    words = read_last_words(scene)
    if not isinstance(words, LastWords):
        return None
    fitting = words.accounting_for(scene.exit.code, scene.exit.signal)
    candidates = (fitting, *words.readings)
    reading = next((each for each in candidates if each is not None and each.reader in TRACED and each.suggests), None)
    return None if reading is None else (reading, words.text)


def collect(scene: Scene) -> ImportFailure | Missing | None:
    """From the last words, the metadata of what is installed, and the baseline."""
    if not scene.exit.code or not may_be_drift(scene):
        return None
    found = failing_reading(scene)
    if found is None:
        return None
    installed = scene.installed
    if installed is None:
        return Missing(kind="import-failure", because="what is installed now could not be looked at")
    reading, text = found
    before = scene.baseline
    failure = accused_by(
        reading,
        text,
        installed.distributions,
        before.distributions if before else (),
        installed.node or (before.node if before else ()),
        root=scene.root,
    )
    if failure is None:
        return None
    accused = (*_called(reading, scene), *failure.accused)
    window = window_of(scene)
    changes = told(window, scene.exit.at_ns).changes if window is not None and accused else ()
    return ImportFailure(
        source="the last words, and the metadata of what is installed",
        failure=failure.failure,
        exception_type=str(reading.facts.get("exception_type") or "an error")[:200],
        message=str(reading.facts.get("message") or "")[:600],
        compared=before is not None,
        accused=tuple(_now(each, before, installed, changes) for each in accused),
        clock=clock(window.since_ns) if window is not None else UTC,
    )


def _called(reading: Reading, scene: Scene) -> tuple[Accused, ...]:
    """The Node package that gives what was called and is no function; of two that have one name none."""
    file, line = reading.facts.get("file"), reading.facts.get("line")
    if reading.reader != "node" or scene.baseline is None or not isinstance(file, str) or not isinstance(line, int):
        return ()
    message = str(reading.facts.get("message") or "")[:400]
    name = called_package(file, line, message, before_ns=scene.baseline.wall_ns, root=scene.root)
    if name is None or sum(1 for package in scene.baseline.node if package.name == name) != 1:
        return ()
    return (Accused(role="called", ecosystem="node", name=name, module=name),)


def _now(accused: Accused, before: Baseline | None, installed: Baseline, changes: tuple[Change, ...]) -> AccusedNow:
    now = accused.version or _version(accused, installed)
    return AccusedNow(
        role=accused.role,
        ecosystem=accused.ecosystem,
        name=accused.name,
        module=accused.module,
        version_now=now,
        version_before=_version(accused, before) if before else None,
        required=accused.required,
        change=change_of(changes, accused.ecosystem, accused.name, to_version=now),
    )


def _version(accused: Accused, baseline: Baseline) -> str | None:
    if accused.ecosystem == "node":
        return next((package.version for package in baseline.node if package.name == accused.name), None)
    name = normal(accused.name)
    return next((found.version for found in baseline.distributions if normal(found.name) == name), None)
