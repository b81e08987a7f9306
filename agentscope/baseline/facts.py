"""What is asked of a process before its packages can be looked for: its program, its command line, a few of its variables."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agentscope.model import Value
from agentscope.symbols.rooted import open_regular, resolved

ENVIRONMENT_LIMIT_BYTES = 1 << 20
ARGUMENTS_LIMIT_BYTES = 64 << 10
NAMES_LIMIT = 200
# Variables that say where a program takes its parts from; no value of another is kept anywhere.
_USED = frozenset(
    {
        *("PATH", "HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "NODE_PATH", "LD_LIBRARY_PATH"),
        *("LD_PRELOAD", "PYTHONUSERBASE"),
    }
)
# Names whose coming or going changes what a program does. Names only: values are secrets as often as not.
_MATTERS = re.compile(
    r"^(?:PATH|HOME|LANG|LC_ALL|TZ|VIRTUAL_ENV|CONDA_\w+|PYTHON\w+|NODE_\w+|LD_\w+|NIX_\w+|UV_\w+|PIP_\w+|NPM_CONFIG_\w+|JAVA_HOME|JAVA_TOOL_OPTIONS"
    r"|CUDA_\w+|OMP_NUM_THREADS|MKL_\w+|MALLOC_\w+|GLIBC_TUNABLES|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|OPENSSL_CONF"
    r"|(?:HTTPS?|ALL|NO)_PROXY|(?:https?|all|no)_proxy|\w+_API_KEY|\w+_BASE_URL|\w+_API_BASE|HF_\w+|TRANSFORMERS_\w+|AWS_\w+|GOOGLE_\w+)$"
)


_WITH_VALUE = frozenset({"-X", "-W", "-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file"})
_CODE = frozenset({"-c", "-e", "--eval", "-p", "--print"})


def started_with(words: Sequence[str]) -> tuple[str, ...]:
    """What an interpreter was told to run: ("agent.py",), ("-m", "agent"), ("-c", "code"); its own options are passed over."""
    passed = False
    for place, word in enumerate(words[1:40], start=1):
        if passed:
            passed = False
        elif word in _WITH_VALUE:
            passed = True
        elif word == "-m" or word in _CODE:
            return ("-m" if word == "-m" else "-c", *words[place + 1 : place + 2])
        elif not word.startswith("-"):
            return (word,)
    return ()


class ProcessFacts(Value, frozen=True):
    """One process, alive or as it was seen. `root` is "/proc/PID/root" while it lives, else None for our own.

    `environment` holds the values of a few variables that name folders, `names` the names of those that matter. `home` is that
    of its user. `own_root` tells whether its root is ours.
    """

    argv: tuple[str, ...] = ()
    exe: str | None = None
    cwd: str | None = None
    pid: int | None = None
    start_ns: int | None = None
    root: str | None = None
    own_root: bool = True
    environment: Mapping[str, str] = {}
    names: tuple[str, ...] = ()
    container: str | None = None

    @property
    def home(self) -> str | None:
        """The home folder, where its environment names one."""
        home = self.environment.get("HOME")
        return home if home and home.startswith("/") and home.isprintable() else None

    def absolute(self, path: str) -> str | None:
        """A path of the command line as an absolute one; None where its folder is not known."""
        if path.startswith("/"):
            return path
        return f"{self.cwd}/{path}" if self.cwd else None

    def program(self) -> str | None:
        """The file that argv[0] named, looked for in its PATH as execvp(3) does, links not followed."""
        first = self.argv[0].lstrip("-") if self.argv else ""
        if not first or "\0" in first or len(first) > 4096:
            return None
        if "/" in first:
            return self.absolute(first)
        for folder in self.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":")[:100]:
            path = f"{folder.rstrip('/')}/{first}"
            with suppress(OSError):
                if folder.startswith("/") and resolved(path, root=self.root):
                    return path
        return None


def facts_of(
    pid: int, *, start_ns: int | None = None, container: str | None = None, proc: str = "/proc"
) -> ProcessFacts | None:
    """What can be read of a living process; None where it is gone, or may not be looked at."""
    folder = f"{proc}/{pid}"
    try:
        exe, cwd = _link(f"{folder}/exe"), _link(f"{folder}/cwd")
        own_root = _same_root(folder)
        argv = _strings(f"{folder}/cmdline", ARGUMENTS_LIMIT_BYTES)
    except OSError:
        return None
    variables: dict[str, str] = {}
    with suppress(OSError):
        for pair in _strings(f"{folder}/environ", ENVIRONMENT_LIMIT_BYTES):
            name, equals, value = pair.partition("=")
            if equals:
                variables.setdefault(name, value)
    return ProcessFacts(
        argv=argv,
        exe=exe,
        cwd=cwd,
        pid=pid,
        start_ns=start_ns,
        root=f"{folder}/root",
        own_root=own_root,
        environment={name: value for name, value in variables.items() if name in _USED and len(value) < 65536},
        names=tuple(sorted(name for name in variables if len(name) < 80 and _MATTERS.match(name)))[:NAMES_LIMIT],
        container=container,
    )


def _link(path: str) -> str | None:
    """Where a link of /proc leads; None for a name that could not be shown, nor found again by what is shown of it."""
    target = str(Path(path).readlink()).removesuffix(" (deleted)")
    return target if target.isprintable() else None


def _same_root(folder: str) -> bool:
    theirs, ours = os.stat(f"{folder}/root"), os.stat("/")  # noqa: PTH116 - the magic link itself is meant
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _strings(path: str, limit_bytes: int) -> tuple[str, ...]:
    """NUL-ended strings of a /proc file, which has no size to ask for."""
    descriptor = open_regular(path, limit_bytes=limit_bytes)
    try:
        pieces: list[bytes] = []
        left = limit_bytes
        while left > 0 and (piece := os.read(descriptor, min(left, 65536))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        os.close(descriptor)
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    return tuple(text.removesuffix("\0").split("\0")) if text else ()
