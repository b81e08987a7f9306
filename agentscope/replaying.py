"""`agentscope replay`: a recording judged again, as reports or as the lines of the stream."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from agentscope.errors import BadInput
from agentscope.model import AnyEvent, IncidentOpened
from agentscope.record import Recorder
from agentscope.sources.recording import read_recording


def recorded_events(file: str, complain: Callable[[str], object]) -> Iterator[AnyEvent]:
    """The events of a recording in the order in which they were told, its incidents judged again, for a screen.

    They come as they are read, so that a screen need not wait for the end of a night; lines that cannot be read are named.

    Raises:
        BadInput: the file cannot be read at all.
    """
    judged: set[str] = set()
    for number, line in read_recording(file):
        if isinstance(line, BadInput):
            complain(f"agentscope: {file}, line {number}: {line}\n")
        elif not isinstance(line.data, IncidentOpened):
            yield line.data
        elif line.data.incident not in judged:
            from agentscope.pipeline import judged_again as again  # all causes, for the first that needs them

            judged.add(line.data.incident)
            yield again(line.data)


def judged_again(file: str, *, as_json: bool) -> tuple[str, list[str]]:
    """What comes of a recording as text, and the lines of it that could not be read, in words.

    Raises:
        BadInput: the file cannot be read at all.
    """
    from agentscope.pipeline import replay

    kept: list[Any] = []
    problems = []
    boot, offset = "recording", 0
    for number, line in read_recording(file):
        if isinstance(line, BadInput):
            problems.append(f"{file}, line {number}: {line}")
            continue
        kept.append(line.data)
        if line.type == "agentscope.ready":
            boot, offset = line.data.boot_id, line.data.wall_ns - line.data.at_ns  # type: ignore[union-attr] # the type says Ready
    recorder = Recorder(boot, offset)
    shown: list[str] = []
    replay(kept, lambda event: shown.extend(told(event, recorder, as_json=as_json)))
    return "".join(shown) or ("" if as_json else "The recording holds no incident.\n"), problems


def told(event: Any, recorder: Recorder, *, as_json: bool) -> list[str]:
    """One event of a replay as text: its line, or the report of an incident."""
    if as_json:
        line = recorder.encode(event)
        return [line.decode()] if line else []
    if not isinstance(event, IncidentOpened):
        return []
    from agentscope.views.report import render_report, wants_color, width_of

    when_ns = recorder.boot_wall_ns + event.at_ns
    return [render_report(event, width=width_of(sys.stdout), color=wants_color(sys.stdout), when_ns=when_ns), "\n"]
