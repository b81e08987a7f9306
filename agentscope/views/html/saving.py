"""Where the page goes: a file for our eyes only, whole or not at all, or standard output."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from agentscope.errors import CannotWrite
from agentscope.views import safe
from agentscope.views.wording import size


def save_page(page: str, file: str) -> str:
    """Write the page beside FILE and put it there; the sentence that tells it.

    What a link leads to, and what is no regular file, is left alone. Nobody who had an earlier file of this name open reads the new one.

    Raises:
        CannotWrite: it cannot be written there; what stood there stands.
    """
    path = Path(os.path.abspath(file))  # noqa: PTH100 - Path.resolve would follow the last link
    content = page.encode("utf-8", "replace")
    beside: str | None = None
    try:
        with contextlib.suppress(FileNotFoundError):
            refuse_odd(path, os.lstat(path).st_mode)
        opened, beside = tempfile.mkstemp(prefix=f".{path.name[:80]}.", dir=path.parent)  # O_EXCL, O_NOFOLLOW, 0600
        with os.fdopen(opened, "wb") as written:
            written.write(content)
        os.replace(beside, path)  # noqa: PTH105 - the name of the other comes from mkstemp
        beside = None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise CannotWrite(f"cannot write {safe(str(path))}", why, "another folder, or --html - > FILE") from None
    finally:
        if beside is not None:
            with contextlib.suppress(OSError):
                os.unlink(beside)  # noqa: PTH108
    whose = "only root can read it; for a file of your own: --html - > FILE" if os.geteuid() == 0 else "only you can read it"
    return f"{safe(str(path))}: {size(len(content))}, {whose}\n"


def refuse_odd(path: Path, mode: int) -> None:
    """Let nothing but a regular file be replaced.

    Raises:
        CannotWrite: a link, a device, a folder stands there.
    """
    if stat.S_ISREG(mode):
        return
    what = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no regular file"
    raise CannotWrite(
        f"cannot write {safe(str(path))}", f"it is {what}, which is not replaced", "another name, or --html - > FILE"
    )


def for_output(page: str, encoding: str | None) -> str:
    """The page as an output of this encoding can carry it: what it cannot is spelled as HTML spells it."""
    name = encoding or "utf-8"
    return page.encode(name, "xmlcharrefreplace").decode(name)
