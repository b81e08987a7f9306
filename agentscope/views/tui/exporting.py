"""An incident as files to keep or to attach: its records as the stream has them, and the page."""

import os
import re
from pathlib import Path

from agentscope.errors import CannotWrite
from agentscope.record import Recorder
from agentscope.views.board import Board, Happened
from agentscope.views.stories import Story, continued

NAME_LETTERS = 80
TRIES = 100
SUFFIX = ".ndjson"


def export(happened: Happened, board: Board, folder: Path) -> list[Path]:
    """Write what is known of an incident: one JSON object a line, which `agentscope replay` reads, and an HTML page.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    stem = f"agentscope-{re.sub(r'[^A-Za-z0-9.:-]+', '_', happened.incident.incident)[:NAME_LETTERS].strip('.')}"
    written = [write_new(folder, stem, SUFFIX, records_of(happened, board))]
    return [*written, write_new(folder, stem, ".html", html_of(happened, board))]


def records_of(happened: Happened, board: Board) -> bytes:
    """The incident and what was done about it; secrets are taken out at this door too."""
    boot_wall_ns = happened.clock_ns - happened.incident.at_ns if happened.wall_ns is not None else 0
    recorder = Recorder(board.ready.boot_id if board.ready else "exported", boot_wall_ns)
    events = [happened.incident, *board.done.get(happened.incident.incident, ())]
    return b"".join(line for event in events if (line := recorder.encode(event)) is not None)


def html_of(happened: Happened, board: Board) -> bytes:
    """The page of it."""
    from agentscope.views.html import render_html

    return render_html(story_of(happened, board)).encode("utf-8", "replace")


def write_new(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write a file that was not there, for our eyes only: what stands in its place, a link too, is left alone.

    Raises:
        CannotWrite: it cannot be written.
    """
    for number in range(1, TRIES):
        path = folder / f"{stem}{f'-{number}' if number > 1 else ''}{suffix}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            raise CannotWrite(
                f"cannot write {path}", os.strerror(error.errno or 0), "cd to a folder of yours, then again"
            ) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise CannotWrite(f"cannot write {path}", os.strerror(error.errno or 0), f"df -h {folder}") from None
        return path
    raise CannotWrite(f"cannot write {folder / stem}", f"{TRIES} files of this name are there", f"rm {stem}*")


def story_of(happened: Happened, board: Board) -> Story:
    """The incident with what was done about it so far."""
    story = Story(opened=happened.incident, wall_ns=happened.wall_ns)
    for event in board.done.get(happened.incident.incident, ()):
        story = continued(story, event)
    return story
