"""Writes the manual pages from what the commands say of themselves: `make man`. click-man does it; lines that stay as they are are kept so."""

import re
import sys
from pathlib import Path

from click_man.core import write_man_pages

from agentscope import __version__
from agentscope.cli import main

KEPT = re.compile(r"^\.PP\n\x08\n((?:(?!\.).+\n)+)", re.MULTILINE)  # what \b keeps from being filled; click-man prints it raw


def write(folder: Path) -> None:
    """One page a command, into a folder that is there."""
    write_man_pages("agentscope", main, version=__version__, target_dir=str(folder), date="2026")
    for page in folder.glob("*.1"):
        page.write_text(KEPT.sub(r".PP\n.nf\n\1.fi\n", page.read_text()))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
