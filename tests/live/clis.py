"""The command-line agents of the session tests: how each is installed, started without a person, and gone on with."""

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from scenario import BUILD, which
from zoo import Broken

PACKAGES = BUILD / "clis"
BIN = PACKAGES / "node_modules" / ".bin"
INSTALL_S = 240
UNREACHABLE = re.compile(r"ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|ENETUNREACH|E5\d\d|EIDLETIMEOUT")
ADDRESS = "http://127.0.0.1:{port}"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Cli(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. `{port}` and `{work}` are filled in; `again` is added to the resume command, so that it needs no person.

    `depth` is how many launchers of its own stand above the process that works; `action` is what it calls its shell, None where it
    writes that down too late.
    """

    slug: str
    tool: str
    package: str
    argv: tuple[str, ...]
    again: tuple[str, ...]
    env: dict[str, str]
    action: str | None
    files: dict[str, str] = {}
    depth: int = 0
    terminal: bool = False
    resume: tuple[str, ...] = ("{program}", "--resume", "{session}")
    instead: tuple[str, ...] = ()  # of the resume command, where that one needs a person's terminal

    @property
    def program(self) -> str:
        """What it is called."""
        return self.argv[0]


CODEX = """model = "m"
model_provider = "fake"
[model_providers.fake]
name = "fake"
base_url = "{address}/v1"
env_key = "FAKE_KEY"
wire_api = "responses"
[projects."{work}"]
trust_level = "trusted"
"""
OPENCODE = """{"autoupdate": false, "model": "fake/m", "small_model": "fake/m", "provider": {"fake": {"npm": "@ai-sdk/openai-compatible", "name": "fake",
"options": {"baseURL": "{address}/v1", "apiKey": "x"}, "models": {"m": {"name": "m"}}}}}"""
FIRST, SECOND = "wait-a-while", "go-on-then"  # as tool_model.py has them

CLIS = (
    Cli(
        slug="claude-code",
        tool="Claude Code",
        package="@anthropic-ai/claude-code@2.1.332",
        argv=("claude", "-p", FIRST, "--model", "claude-sonnet-4-5", "--allowedTools", "Bash"),
        again=("-p", SECOND, "--model", "claude-sonnet-4-5"),
        env={
            "ANTHROPIC_BASE_URL": ADDRESS,
            "ANTHROPIC_API_KEY": "x",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        action="Bash",
    ),
    Cli(
        slug="codex",
        tool="Codex",
        package="@openai/codex@0.169.0",
        argv=("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", FIRST),
        again=(SECOND,),
        env={"FAKE_KEY": "x"},
        files={".codex/config.toml": CODEX},
        action="exec_command",
        depth=1,
        terminal=True,
        resume=("{program}", "resume", "{session}"),
    ),
    Cli(
        slug="opencode",
        tool="opencode",
        package="opencode-ai@1.18.33",
        argv=("opencode", "run", FIRST),
        again=(SECOND,),
        env={"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        files={".config/opencode/opencode.json": OPENCODE},
        action="bash",
        resume=("{program}", "-s", "{session}"),
        instead=("{program}", "run", "-s", "{session}"),
    ),
    Cli(
        slug="qwen",
        tool="Qwen Code",
        package="@qwen-code/qwen-code@0.24.4",
        argv=("qwen", "--auth-type", "openai", "--yolo", "-p", FIRST),
        again=("--auth-type", "openai", "-p", SECOND),
        env={"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": f"{ADDRESS}/v1", "OPENAI_MODEL": "m"},
        action="run_shell_command",
        depth=2,
    ),
    Cli(
        slug="gemini",
        tool="Gemini CLI",
        package="@google/gemini-cli@0.61.0",
        argv=("gemini", "--yolo", "-m", "gemini-2.5-flash", "-p", FIRST),
        again=("-m", "gemini-2.5-flash", "-p", SECOND),
        env={"GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": ADDRESS, "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        files={".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'},
        action=None,
        depth=1,
    ),
)


def installed() -> str | None:
    """Install them, once for each list of versions; the reason why that cannot be done here, where it is none of ours."""
    npm, stamp = which("npm"), PACKAGES / "stamp"
    wanted = "\n".join(cli.package for cli in CLIS)
    if stamp.exists() and stamp.read_text() == wanted and all((BIN / cli.program).exists() for cli in CLIS):
        return None
    if npm is None:
        return "npm is not installed: apt-get install npm"
    PACKAGES.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    (PACKAGES / "package.json").write_text('{"private": true}')
    argv = [npm, "install", "--no-fund", "--no-audit", "--omit=dev", "--loglevel=error", *wanted.split("\n")]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=INSTALL_S, cwd=PACKAGES)
    except subprocess.TimeoutExpired:
        return f"the npm registry did not deliver within {INSTALL_S} s"
    if done.returncode != 0:
        if UNREACHABLE.search(done.stderr):
            return f"the npm registry does not answer: {done.stderr[-300:]}"
        raise Broken(f"the agents could not be installed: {done.stderr[-2000:]}")
    stamp.write_text(wanted)
    return None


def sessions_of(cli: Cli, home: Path) -> set[str]:
    """The ids of all sessions that it has, found by other means than ours: the names of its files, or its database."""
    if cli.slug == "opencode":
        base = sqlite3.connect(f"file:{home}/.local/share/opencode/opencode.db?mode=ro", uri=True)
        try:
            return {row[0] for row in base.execute("SELECT id FROM session")}
        finally:
            base.close()
    if cli.slug == "gemini":
        return {json.loads(path.read_text().split("\n")[0])["sessionId"] for path in home.glob(".gemini/tmp/*/chats/*.jsonl")}
    found = set()
    for path in home.rglob("*.jsonl"):
        match = re.search(rf"({UUID})\.jsonl$", path.name)
        if match:
            found.add(match[1])
    return found


def tree_of(pid: int) -> list[int]:
    """A process and the first child of each, downwards."""
    line = [pid]
    while True:
        try:
            children = Path(f"/proc/{line[-1]}/task/{line[-1]}/children").read_text().split()
        except OSError:
            return line
        if not children:
            return line
        line.append(int(children[0]))


def owner() -> dict[str, Any]:
    """Whose processes the agents are: somebody who is not root, where that one can reach the packages."""
    open_to_all = all(part.stat().st_mode & 0o001 for part in (PACKAGES, *PACKAGES.parents))
    node = Path(os.path.realpath(which("node") or "/"))
    reachable = all(part.stat().st_mode & 0o001 for part in (node, *node.parents))
    return {"user": 65534, "group": 65534, "extra_groups": []} if open_to_all and reachable else {}
