"""Whether the versions of its packages are pinned, and installed as pinned: else the next install is another program."""

from agentscope.checking import Checked, Subject
from agentscope.symbols.rooted import read_regular

PLACE = 3
TITLE = "pins and lock file"
TEXT_LIMIT_BYTES = 1 << 20
LINE_LIMIT = 2000
INSTALLS = {
    "uv.lock": "uv sync --locked",
    "poetry.lock": "poetry sync",
    "pdm.lock": "pdm sync",
    "pylock.toml": "uv pip sync pylock.toml",
    "Pipfile.lock": "pipenv sync",
    "package-lock.json": "npm ci",
    "requirements.txt": "pip install -r requirements.txt",
}


def check(subject: Subject) -> Checked:
    """The lock file of the config, or one by a usual name beside it, against what is installed."""
    standing = subject.standing
    if standing is None:
        return Checked(None, "what it stands on could not be read")
    lock = standing.lock
    if lock is None:
        if standing.interpreter is None and not standing.node_folders:
            return Checked(None, "it runs neither Python nor Node packages, and no lock file of others is known")
        write = "npm install --package-lock-only && npm ci" if standing.node_folders else "uv lock && uv sync --locked"
        return Checked(
            False, "there is no lock file in its folder or beside its script: the next install may be another", write
        )
    name = lock.path.rpartition("/")[2]
    if lock.unread is not None:
        return Checked(None, f"{lock.path} could not be read: {lock.unread}", f"ls -l {lock.path}")
    loose = unpinned(lock.path, subject.facts.root if subject.facts else None) if name.endswith(".txt") else []
    if loose:
        shown = f"{', '.join(loose[:3])}{f' and {len(loose) - 3} more' if len(loose) > 3 else ''}"
        return Checked(False, f"{lock.path} names no exact version of {shown}", f"pip freeze > {name}")
    if lock.count:
        first = lock.deviating[0].says()
        more = f", and {lock.count - 1} more" if lock.count > 1 else ""
        return Checked(
            False, f"{lock.path} is not what is installed: {first}{more}", INSTALLS.get(name, f"install {name} again")
        )
    if lock.locked is None:
        return Checked(None, f"{lock.path} is there, but is not compared: its form is not read here, or it is too long")
    if not lock.locked:
        return Checked(False, f"{lock.path} pins nothing", "pip freeze > requirements.txt")
    return Checked(True, f"{lock.path} pins {lock.locked} packages, and whatever of them is installed is as it says")


def unpinned(path: str, root: str | None) -> list[str]:
    """The packages that a requirements.txt names without an exact version."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    text = read_regular(path, root=root, limit_bytes=TEXT_LIMIT_BYTES, follow=True).decode("utf-8", "replace")
    for line in text.replace("\\\n", " ").splitlines():
        stated = line.partition(" #")[0].partition(" --")[0].strip()
        if not stated or stated.startswith(("#", "-")) or len(stated) > LINE_LIMIT:
            continue
        try:
            requirement = Requirement(stated)
        except InvalidRequirement:
            continue
        exact = any(part.operator in {"==", "==="} and "*" not in part.version for part in requirement.specifier)
        if not exact and requirement.url is None:
            found.append(requirement.name)
    return found
