"""Command lines, read as a person reads them: which program it is, with what after it, and whether it only starts another one."""

import re
from typing import NamedTuple

# Programs whose only job is to start another one and to mirror its end.
WRAPPERS = frozenset(
    {"env", "timeout", "gtimeout", "nohup", "nice", "ionice", "chrt", "taskset", "numactl", "setsid", "stdbuf", "time", "sudo", "doas", "su", "runuser",
     "setpriv", "gosu", "su-exec", "chroot", "unshare", "nsenter", "setarch", "bwrap", "firejail", "tini", "dumb-init", "docker-init", "catatonit",
     "npx", "bunx", "uvx", "pipx", "systemd-run", "systemd-inhibit", "systemd-cat", "flock", "script", "unbuffer", "cgexec", "dotenv", "direnv",
     "prlimit", "choom", "faketime", "with-contenv", "s6-setuidgid", "chpst", "multilog", "ltrace", "strace", "catchsegv"}
)  # fmt: skip
RUNNERS = {  # these are wrappers only with such a sub-command
    "uv": {"run", "tool"}, "poetry": {"run"}, "pdm": {"run"}, "hatch": {"run"}, "pipenv": {"run"}, "rye": {"run"}, "conda": {"run"}, "mamba": {"run"},
    "micromamba": {"run"}, "npm": {"exec", "run", "start", "x", "test"}, "pnpm": {"exec", "run", "dlx", "start"}, "yarn": {"run", "exec", "start", "dlx"},
    "bun": {"run", "x"}, "deno": set(), "mise": {"exec", "x"}, "asdf": {"exec"}, "busybox": {"timeout", "env", "nohup"},
}  # fmt: skip
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish"})
NODE_LAUNCHERS = {
    "npx-cli.js": "npx",
    "npx": "npx",
    "npm-cli.js": "npm",
    "npm": "npm",
    "yarn.js": "yarn",
    "pnpm.cjs": "pnpm",
    "pnpm": "pnpm",
}
INTERPRETERS = re.compile(r"^(?:python[0-9.]*|pypy[0-9.]*|node|nodejs|ruby|perl|php|bun|deno|tsx|ts-node)$")
# npm writes its own title over its command line, as one word (npm/lib/npm.js)
TITLES = re.compile(r"^(?:npm|pnpm|yarn) [a-z]+( |$)")


class Program(NamedTuple):
    """The program of a command line: its name as a person says it, its path, the words after it, and the interpreter that runs it.

    `module` is the whole dotted name of a Python module that was started with -m.
    """

    name: str
    path: str
    words: tuple[str, ...] = ()
    interpreter: str | None = None
    module: str | None = None


def plain_name(word: str) -> str:
    """The base name of a program's path; a login shell's leading hyphen is no part of it."""
    return word.rsplit("/", 1)[-1].lstrip("-")


def split_title(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a command line, also where the program has written its title over them."""
    return tuple(argv[0].split()) if len(argv) == 1 and TITLES.match(argv[0]) else argv


def program_of(argv: tuple[str, ...], comm: str = "") -> Program:
    """The program: the script or module of an interpreter, else argv[0]."""
    if not argv:
        return Program(comm, "")
    first = plain_name(argv[0]) or comm
    if INTERPRETERS.match(first):
        position = 1
        while position < len(argv):
            word = argv[position]
            if word == "-m" and position + 1 < len(argv):
                module = argv[position + 1]
                return Program(module.split(".")[0], argv[0], argv[position + 2 :], first, module)
            if word in {"-c", "-e", "--eval", "-p"}:
                break
            if not word.startswith("-"):
                return Program(word.rsplit("/", 1)[-1], word, argv[position + 1 :], first)
            # python(1), node(1): these take the next word
            position += 2 if word in {"-X", "-W", "-r", "--require", "--import", "--loader", "--env-file"} else 1
        return Program(first, argv[0], argv[1:], first)
    return Program(first, argv[0], argv[1:])


def program_name(argv: tuple[str, ...], comm: str = "") -> str:
    """What a person would call the program: the script of an interpreter, else the base name of argv[0]."""
    return program_of(argv, comm).name


def is_wrapper(argv: tuple[str, ...]) -> bool:
    """Whether this command line only starts another program and mirrors its end."""
    argv = split_title(argv)
    if not argv:
        return False
    first = plain_name(argv[0])
    if first in SHELLS:
        return any(word.startswith("-") and not word.startswith("--") and "c" in word for word in argv[1:4])
    if first in {"node", "nodejs"} and len(argv) > 1:
        launcher = NODE_LAUNCHERS.get(argv[1].rsplit("/", 1)[-1])
        return launcher is not None and (launcher == "npx" or len(argv) < 3 or argv[2] in RUNNERS.get(launcher, set()))
    if first in RUNNERS:
        return any(word in RUNNERS[first] for word in argv[1:4])
    return first in WRAPPERS
