"""A package or the interpreter of its Python is not what it was, and an import or a call of it fails now.

What it means: pip, uv or a lock file that nobody looked at brought another version of a package, often as a
dependency of something else; a name that was imported, a keyword that was passed, is not there any more. Or the
Python that a venv was made of was upgraded or moved away.

How agentscope knows: the error that ended it names a package, or came up inside a library that asks for that package;
and the metadata of the installed packages shows another version of it than when the agent last worked. An error that
only passed through an upgraded package is not blamed on it.

What to do: install the version again that the report names, and pin it. After an upgrade of Python itself make the
venv anew: python3 -m venv --upgrade VENV, or delete it and install from the lock file.

What looks like it but is not: an error of its own code after an innocent upgrade (exception/uncaught); compiled code
that does not fit (drift/abi); a package that was never installed (exception/uncaught).
"""

from agentscope.causes import No
from agentscope.causes.drift import Refusal, Told, finding, interpreter_moved, judged, not_shown, suspect
from agentscope.causes.exception import first_line, place_of
from agentscope.model import Finding


def match(refusal: Refusal) -> Finding | No:
    """An error of Python about a package that changed, or an interpreter that is not where it was."""
    told = judged(refusal, "drift/python-import", "package that fails")
    if isinstance(told, No):
        return told
    found = suspect(refusal, told.reading) if told.reading is not None else None
    if found is not None and told.reading is not None:
        place = place_of(told.reading)
        headline = f"{first_line(told.reading)}{f' at {place}' if place else ''}, after a package changed under it"
        more = f"{place and ', met at '}{place}"
        sure = told.confidence if found.sure else "possible"
        return finding(headline, found.culprit, ("last-words",), sure, more=more)
    moved = interpreter_moved(refusal, told.reading)
    if moved is None:
        return not_shown(refusal.difference, refusal.changes)
    anew = (
        "make the venv anew for the Python that is there: python3 -m venv --upgrade VENV, then install from the lock file",
        f"or put the old one back where it was: {moved.path or moved.name}",
    )
    return finding(f"Its Python is not what it was{said(told)}", moved, ("last-words",), told.confidence, advice=anew)


def said(told: Told) -> str:
    """The error in a clause, where there was one."""
    return f": {first_line(told.reading)}" if told.reading is not None else ", and could not be started"
