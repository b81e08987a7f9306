"""Which processes are AI agents, where nobody said which to watch: by command line, or by what a process has and does.

By command line a program is known by its whole name, its npm package, or its Python module; of what `npx` or `uvx` starts, by the
package. Otherwise two signs together count: the name of a model's key in the environment (proc_pid_environ(5); never its value), a
library of a model's API that is loaded, and a connection that the process opened to a model's API. One of them alone says nothing:
a shell has the key, a browser has the connection.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from agentscope.commandlines import SHELLS, Program, is_wrapper, plain_name, program_of, split_title
from agentscope.examination import Socket
from agentscope.examination.environment import ENVIRON_LIMIT_BYTES, llm_hosts_in
from agentscope.examination.proc import link_of, numbers_in, read_proc, read_stat
from agentscope.model import MissingEvidence, ProcessExec
from agentscope.transcripts import readers, tool_of

# --- by command line ---------------------------------------------------------------------------------------------------------

# Beside those whose sessions `transcripts` can read. Names that other programs have as well are in `CONDITIONS`.
PROGRAMS = frozenset(
    {"claude", "claude-code", "codex", "opencode", "openclaw", "openclaw-gateway", "clawdbot", "moltbot", "gemini", "gemini-cli", "qwen", "qwen-code",
     "aider", "goose", "goosed", "cursor-agent", "amp", "crush", "plandex", "copilot", "cline", "sweagent", "mini-swe-agent", "openhands",
     "open-interpreter", "interpreter", "gptme", "autogenstudio", "crewai", "langgraph", "adk", "letta", "metagpt", "smolagent", "babyagi"}
)  # fmt: skip
MODULES = frozenset(
    {"aider", "crewai", "langgraph", "langgraph_cli", "langgraph_api", "autogen", "autogen_agentchat", "autogenstudio", "openai_agents", "openhands",
     "sweagent", "minisweagent", "interpreter", "gptme", "letta", "metagpt", "smolagents", "agno", "pydantic_ai", "google.adk", "goose"}
)  # fmt: skip
PACKAGES = {  # of npm and PyPI, where the package's name is not its program's
    "@anthropic-ai/claude-code": "claude", "@openai/codex": "codex", "@google/gemini-cli": "gemini", "@qwen-code/qwen-code": "qwen",
    "opencode-ai": "opencode", "@sourcegraph/amp": "amp", "@github/copilot": "copilot", "@charmland/crush": "crush", "aider-chat": "aider",
    "aider-install": "aider", "langgraph-cli": "langgraph", "open-interpreter": "interpreter", "google-adk": "adk", "openhands-ai": "openhands",
}  # fmt: skip
MCP_SERVER = re.compile(r"mcp-server-[a-z0-9-]{1,40}")
SAMPLE = re.compile(r"/agentscope-drill-[^/]+/(?:[^/]+/)*(drill-[a-z]+)$")  # the sample agents of `agentscope drill`
SUFFIX = re.compile(r"\.(?:js|mjs|cjs)$")  # a script of the user may be called claude.py
# A command line that is over in a moment is no agent.
ONCE = frozenset(
    {"--version", "-V", "--help", "-h", "help", "version", "completion", "completions", "update", "upgrade", "install", "uninstall", "login", "logout",
     "auth", "doctor", "config", "configure", "create", "init", "new", "build"}
)  # fmt: skip
LAUNCHERS = {  # with the words that make them start something
    "npx": (), "bunx": (), "uvx": (), "npm": ("exec", "x"), "pnpm": ("exec", "dlx"), "yarn": ("exec", "dlx"), "bun": ("x",), "uv": ("tool", "run"),
    "pipx": ("run",),
}  # fmt: skip
WITH_VALUE = frozenset(
    {"--from", "--with", "--with-editable", "--with-requirements", "--python", "-p", "--package", "--index", "--index-url", "--default-index",
     "--extra-index-url", "--find-links", "--directory", "--project", "--cache-dir", "--env-file", "--spec", "--registry", "--prefix"}
)  # fmt: skip
_SPEC = re.compile(r"(@[a-z0-9._-]{1,100}/)?([A-Za-z0-9._-]{1,100})")


def _runs_on_node(program: Program, exe: str | None) -> bool:
    names = {program.interpreter, plain_name(exe or "")}
    return not names.isdisjoint({"node", "nodejs", "bun"}) or "/node_modules/" in program.path


def _runs_on_python(program: Program, exe: str | None) -> bool:
    return any((name or "").startswith("python") for name in (program.interpreter, plain_name(exe or "")))


def _first_of(*allowed: str) -> Callable[[Program, str | None], bool]:
    return lambda program, _exe: bool(program.words) and program.words[0] in allowed


CONDITIONS: dict[str, Callable[[Program, str | None], bool]] = {
    "gemini": _runs_on_node,  # servers of the Gemini protocol
    "amp": _runs_on_node,  # an editor
    "copilot": _runs_on_node,  # the deployment tool of AWS
    "interpreter": _runs_on_python,
    # goose of Pressly migrates databases: `goose up`, `goose postgres DSN status`
    "goose": lambda program, _exe: (
        not program.words or program.words[0] in {"session", "s", "run", "web", "acp", "serve", "mcp", "term"}
    ),
    "crewai": _first_of("run", "chat", "flow", "train"),
    "langgraph": _first_of("dev", "up"),
    "adk": _first_of("web", "run", "api_server"),
    "letta": _first_of("server", "run"),
    "autogenstudio": _first_of("ui", "serve"),
}


def is_name(word: str) -> bool:
    """Whether a word, such as one of a wrapper's command line, is the name of a known agent."""
    return SUFFIX.sub("", word) in PROGRAMS or MCP_SERVER.fullmatch(word) is not None


def known_by(seen: ProcessExec) -> str | None:
    """Why this process is an agent, by its command line: "claude by its command line"; None where it is not known to be one."""
    argv = split_title(seen.argv)
    if is_wrapper(argv):
        launched = launched_by(argv)
        return f"{launched} by the command line of {SUFFIX.sub('', program_of(argv).name)}" if launched else None
    name = _agent_in(argv, seen.comm, seen.exe)
    return f"{name} by its command line" if name else None


def _agent_in(argv: tuple[str, ...], comm: str, exe: str | None) -> str | None:
    program = program_of(argv, comm)
    if _is_over_soon(program.words) or any(word.startswith("--type=") for word in argv[1:8]):
        return None  # the latter: a part of a program of Chromium's kind
    if sample := SAMPLE.search(program.path):
        return sample[1]
    name = SUFFIX.sub("", program.name)
    if name in OTHERS:
        return None  # one program of several names: that of Claude Code is its `rg` as well
    if program.module is not None:
        known = any(program.module == each or program.module.startswith(f"{each}.") for each in MODULES)
        return name if known and _runs_on_python(program, exe) else None
    if (slug := tool_of(argv, exe)) is not None and name not in CONDITIONS:
        # a compiled one may be started by another name; one that runs on Node is known by its package's folder
        return name if name in PROGRAMS else min(readers()[slug].PROGRAMS, key=len)
    if program.interpreter == "node" and (package := next((each for each in PACKAGES if f"/{each}/" in program.path), None)):
        name = PACKAGES[package]
    if name in PROGRAMS:
        return name if CONDITIONS.get(name, _always)(program, exe) else None
    return name if MCP_SERVER.fullmatch(name) else None


def _always(program: Program, exe: str | None) -> bool:  # noqa: ARG001 - what a condition is given
    return True


def _is_over_soon(words: tuple[str, ...]) -> bool:
    """Whether the first words ask for something that is told, or done, at once. `mcp` alone manages servers; `mcp serve` is one."""
    return bool(words) and (words[0] in ONCE or "--version" in words[:4] or (words[0] == "mcp" and words[1:2] != ("serve",)))


def launched_by(argv: tuple[str, ...]) -> str | None:
    """The agent whose package, or program, `npx`, `uvx` and their like are told to start."""
    first = program_of(argv)
    tool = {"npx-cli": "npx", "npm-cli": "npm"}.get(SUFFIX.sub("", first.name), first.name)
    if tool not in LAUNCHERS:
        return None
    words = [word for word in first.words if word != "--"]
    verbs = LAUNCHERS[tool]
    while verbs and words and words[0] in verbs:
        del words[0]
        verbs = ("run",) if tool == "uv" else ()
    if verbs == LAUNCHERS[tool] and verbs:
        return None
    named: list[str] = []
    while words and len(named) < 4:
        word = words.pop(0)
        option, _, value = word.partition("=")
        if option in {"--from", "--package", "--spec"} or (option == "-p" and tool in {"npx", "npm"}):
            named.append(value or (words.pop(0) if words else ""))
        elif option in WITH_VALUE and not value:
            del words[:1]
        elif not word.startswith("-"):
            named.append(word)
            break
    if _is_over_soon(tuple(words)):
        return None
    interpreter = "python" if tool in {"uvx", "uv", "pipx"} else "node"
    for word in reversed(named):
        name = _packaged(word)
        if name and CONDITIONS.get(name, _always)(Program(name, "", tuple(words), interpreter), None):
            return name
    return None


def _packaged(word: str) -> str | None:
    """The agent that a package's name, with or without a version, brings."""
    found = _SPEC.match(word)
    if found is None or "/" in word.removeprefix(found[1] or ""):
        return None  # a path
    name = f"{found[1] or ''}{found[2]}"
    return PACKAGES.get(name) or (name if name in PROGRAMS or MCP_SERVER.fullmatch(name) else None)


# --- by what it has and does ---------------------------------------------------------------------------------------------------

KEYS = re.compile(
    rb"(?:(?:ANTHROPIC|OPENAI|AZURE_OPENAI|GEMINI|GOOGLE|GROQ|MISTRAL|COHERE|DEEPSEEK|OPENROUTER|TOGETHER|FIREWORKS|PERPLEXITY|XAI|CEREBRAS|DASHSCOPE|"
    rb"MOONSHOT|ZHIPUAI|NVIDIA|LITELLM|REPLICATE|HUGGINGFACE)_API_KEY|ANTHROPIC_AUTH_TOKEN|CLAUDE_CODE_OAUTH_TOKEN|AWS_BEARER_TOKEN_BEDROCK)=(?=[^\s])"
)
HOST_NAMES = re.compile(
    rb"([A-Z][A-Z0-9_]{0,63}_BASE_URL|[A-Z][A-Z0-9_]{0,63}_API_BASE|AZURE_OPENAI_ENDPOINT|OLLAMA_HOST)=(?=[^\s])"
)
# Compiled parts of the libraries that speak to models; pure Python is not mapped. jiter reads the answers of both.
LIBRARIES = {b"/jiter/jiter.": "jiter, of the OpenAI and Anthropic libraries,", b"/tiktoken/_tiktoken.": "tiktoken"}
# Whoever has a key or a connection for another reason: it passes it on, or a person sits before it.
OTHERS = SHELLS | frozenset(
    {"tmux", "tmux: server", "screen", "zellij", "login", "sshd", "sshd-session", "ssh", "mosh-server", "su", "sudo", "systemd", "init", "cron", "crond",
     "chrome", "chromium", "chromium-browser", "google-chrome", "firefox", "firefox-bin", "firefox-esr", "brave", "msedge", "opera", "vivaldi", "epiphany",
     "electron", "code", "code-insiders", "codium", "cursor", "windsurf", "zed", "zed-editor", "vim", "nvim", "vi", "emacs", "nano", "helix", "hx", "kate",
     "gedit", "pycharm", "idea", "sublime_text", "curl", "wget", "http", "https", "xh", "grep", "rg", "git", "make", "docker", "podman", "kubectl",
     "pip", "pip3", "uv", "uvx", "pipx", "poetry", "pdm", "npm", "npm-cli", "npx", "npx-cli", "pnpm", "yarn", "conda", "mamba", "apt", "apt-get", "dnf",
     "less", "man", "htop", "top", "agentscope", "pytest", "py-spy", "gdb", "strace"}
)  # fmt: skip
_EDITORS = re.compile(r"/\.?(?:vscode|cursor|windsurf)[a-z-]*-server/|/code-server/")
_FDS_LIMIT = 1024
_PIDS_LIMIT = 32_768
_MAPS_LIMIT_BYTES = 1 << 22
_HTTPS = ":443"


class Signs(NamedTuple):
    """What one process has that never changes while it is one program: names of keys and of hosts, and the hosts themselves."""

    keys: tuple[str, ...] = ()
    hosts_named: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    python: bool = False


class Found(NamedTuple):
    """A process that is an agent by what it has and does, with its start as the kernel has it (ns since boot), and why."""

    pid: int
    start_ns: int
    because: str


def keys_in(environ: bytes) -> tuple[str, ...]:
    """The names of models' keys that have a value in an environment ("NAME=value" each ended by NUL). Their values are not kept."""
    return tuple(dict.fromkeys(found[0][:-1].decode() for entry in environ.split(b"\0") if (found := KEYS.match(entry))))


class Scan:
    """Looks at every process of the host again and again. It remembers who was of no interest, so that a look costs little.

    `look` blocks for some milliseconds: beside the loop. Of processes that we may not read it knows nothing.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, str, Signs | None]] = {}  # pid -> start, exe, signs (None: of no interest)

    def look(self, passed_over: Collection[int] = ()) -> list[Found]:
        """Agents that no command line gave away, but for `passed_over`."""
        tables: dict[str, object] = {}
        found, living = [], {}
        for pid in numbers_in("/proc", _PIDS_LIMIT):
            exe = link_of(f"/proc/{pid}/exe")
            stat = read_stat(pid) if exe is not None else None
            if exe is None or stat is None:
                continue
            before = self.known.get(pid)
            fresh = before is None or before[:2] != (stat.start_ns, exe)
            signs = signs_of(pid, exe, stat.comm) if fresh or before is None else before[2]
            living[pid] = (stat.start_ns, exe, signs)
            if signs is not None and pid not in passed_over and (because := _acts_like_one(pid, signs, tables)):
                found.append(Found(pid, stat.start_ns, because))
        self.known = living
        return found


def signs_of(pid: int, exe: str, comm: str) -> Signs | None:
    """What a process has, from its environment; None where it cannot be an agent, or nothing of it points to one."""
    raw = read_proc(f"/proc/{pid}/cmdline")
    if raw is None or is_another(tuple(raw.decode("utf-8", "replace").rstrip("\0").split("\0")), comm, exe):
        return None
    environ = read_proc(f"/proc/{pid}/environ", ENVIRON_LIMIT_BYTES)
    if environ is None:
        return None
    named = tuple(dict.fromkeys(found[1].decode() for entry in environ.split(b"\0") if (found := HOST_NAMES.match(entry))))
    signs = Signs(keys_in(environ), named[:4], llm_hosts_in(environ), plain_name(exe).startswith("python"))
    return signs if signs.keys or signs.hosts or signs.python else None


def is_another(argv: tuple[str, ...], comm: str, exe: str | None) -> bool:
    """Whether a process is of a kind that has keys or connections without being an agent: a shell, a browser, an editor, an installer."""
    argv = split_title(argv)
    program = program_of(argv, comm)
    names = {comm, SUFFIX.sub("", program.name), program.name, plain_name(exe or "")}
    return (
        not names.isdisjoint(OTHERS)
        or is_wrapper(argv)
        or any(word.startswith("--type=") for word in argv[1:8])
        or any(_EDITORS.search(path) for path in (program.path, exe or ""))
    )


def _acts_like_one(pid: int, signs: Signs, tables: dict[str, object]) -> str | None:
    """Why it is an agent, of two signs together; None where it has one alone."""
    from agentscope.examination.sockets import is_model_api

    opened = [socket for socket in _opened(pid, tables) if socket.peer is not None]
    asked = next((socket for socket in opened if is_model_api(socket, signs.hosts)), None)
    names = signs.keys or signs.hosts_named
    if asked is not None and names:
        return f"{names[0]} in its environment and a connection to {asked.peer}"
    far = asked or next((socket for socket in opened if (socket.peer or "").endswith(_HTTPS)), None)
    if far is None or (asked is None and not signs.keys):
        return None
    library = _library_of(pid)
    if library is None:
        return None
    key = f"{signs.keys[0]} in its environment, " if signs.keys else ""
    return f"{key}{library} loaded and a connection to {far.peer}"


def _opened(pid: int, tables: dict[str, object]) -> Iterator[Socket]:
    """The connections over TCP that a process has opened itself."""
    from agentscope.examination.sockets import SocketTable, read_socket_table

    links = (link_of(f"/proc/{pid}/fd/{number}") for number in numbers_in(f"/proc/{pid}/fd", _FDS_LIMIT))
    inodes = {int(link[8:-1]) for link in links if link is not None and link.startswith("socket:[")}
    namespace = link_of(f"/proc/{pid}/ns/net")
    if not inodes or namespace is None:
        return
    if namespace not in tables:
        tables[namespace] = read_socket_table(pid)
    table = tables[namespace]
    if isinstance(table, MissingEvidence) or not isinstance(table, SocketTable):
        return
    for socket in table.sockets(inodes):
        if socket.kind == "tcp" and socket.state == "established" and not socket.accepted:
            yield socket


def _library_of(pid: int) -> str | None:
    """The library of a model's API that a process has loaded, as a person would name it."""
    maps = read_proc(f"/proc/{pid}/maps", _MAPS_LIMIT_BYTES) or b""
    return next((name for part, name in LIBRARIES.items() if part in maps), None)


__all__ = ["Found", "Scan", "Signs", "is_another", "is_name", "keys_in", "known_by", "launched_by", "signs_of"]
