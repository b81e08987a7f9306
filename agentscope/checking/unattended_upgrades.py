"""Whether the system changes by itself under it, and whether what it has mapped is part of that.

Sources: apt.conf(5), /etc/apt/apt.conf.d/20auto-upgrades, unattended-upgrade(8), apt-mark(8), dnf-automatic(8), dnf5-automatic(8).
"""

import re
from collections.abc import Iterator
from contextlib import suppress

from agentscope.checking import Checked, Subject
from agentscope.symbols.rooted import directory, read_in, read_regular, state_of

PLACE = 4
TITLE = "unattended upgrades"
CONFIG_LIMIT_BYTES = 256 << 10
LIST_LIMIT_BYTES = 8 << 20
STATUS_LIMIT_BYTES = 64 << 20
FILES_LIMIT = 20_000
NAMED = 8
APT_FOLDER, LISTS, STATUS = "/etc/apt/apt.conf.d", "/var/lib/dpkg/info", "/var/lib/dpkg/status"
COMMENT = re.compile(r"/\*(?:[^*]|\*(?!/)){0,65536}+\*/|(?m:^[ \t]{0,200}+(?://|#)[^\n]*$)")
SWITCH = re.compile(r"(?:APT::Periodic::|\b)(Unattended-Upgrade|Enable)\s+\"([^\"\n]{0,20})\"\s*;")
BLACKLIST = re.compile(r"Unattended-Upgrade::Package-Blacklist\s*(?:::)?\s*\{([^}]{0,8192})\}")
DNF = ("dnf-automatic.timer", "dnf-automatic-install.timer", "dnf5-automatic.timer")
WANTS = "/etc/systemd/system/timers.target.wants"


def check(subject: Subject) -> Checked:
    """The settings of apt and dnf inside its root, and the packages that own what it has mapped."""
    root = subject.facts.root if subject.facts is not None else None
    if subject.facts is None or subject.standing is None:
        return Checked(None, "its root could not be looked into")
    where = "" if subject.facts.own_root else " of its container"
    if dnf_upgrades(root):
        return Checked(
            False, f"dnf-automatic installs upgrades by itself{where}", "sudo systemctl disable --now dnf-automatic.timer"
        )
    text = apt_settings(root)
    if text is None or not stands("/usr/bin/unattended-upgrade", root) or not is_on(text):
        return Checked(True, f"no tool that upgrades by itself is set up in the system{where} (apt, dnf)")
    owners = packages_of([file.path for file in subject.standing.mapped], root)
    free = sorted(owners - held_back(root, text, owners))
    if not free:
        return Checked(
            True, f"unattended-upgrades is on{where}, but nothing of what it has mapped is a package that it may touch"
        )
    more = f" and {len(free) - NAMED} more" if len(free) > NAMED else ""
    return Checked(
        False,
        f"unattended-upgrades is on{where}, and may replace what it has mapped: {', '.join(free[:NAMED])}{more}",
        f"sudo apt-mark hold {' '.join(free[:NAMED])}",
    )


def is_on(text: str) -> bool:
    """The last word of the settings: apt reads them in the order of their names."""
    found = dict(SWITCH.findall(COMMENT.sub("", text)))
    return found.get("Unattended-Upgrade", "0") not in {"0", ""} and found.get("Enable", "1") != "0"


def apt_settings(root: str | None) -> str | None:
    """All of apt's configuration, in order; None where there is no apt."""
    parts = []
    try:
        with directory(APT_FOLDER, root=root) as folder:
            for name in sorted(names_in(folder)):
                with suppress(OSError):
                    parts.append(read_in(folder, name, limit_bytes=CONFIG_LIMIT_BYTES)[0])
    except OSError:
        return None
    with suppress(OSError):
        parts.append(read_regular("/etc/apt/apt.conf", root=root, limit_bytes=CONFIG_LIMIT_BYTES))
    return b"\n".join(parts).decode("utf-8", "replace")


def names_in(folder: int) -> Iterator[str]:
    """Names in an open folder, at most as many as are looked at."""
    import os
    from itertools import islice

    with os.scandir(folder) as entries:
        for entry in islice(entries, FILES_LIMIT):
            yield entry.name


def stands(path: str, root: str | None) -> bool:
    """Whether something is there."""
    with suppress(OSError):
        return state_of(path, root=root, follow=False) is not None
    return False


def dnf_upgrades(root: str | None) -> bool:
    """Whether a timer of dnf is enabled that installs, and not only downloads."""
    if not any(stands(f"{WANTS}/{name}", root) for name in DNF):
        return False
    if stands(f"{WANTS}/dnf-automatic-install.timer", root):
        return True
    for path in ("/etc/dnf/automatic.conf", "/etc/dnf/dnf5-plugins/automatic.conf"):
        with suppress(OSError):
            text = read_regular(path, root=root, limit_bytes=CONFIG_LIMIT_BYTES).decode("utf-8", "replace")
            if re.search(r"(?mi)^\s*apply_updates\s*=\s*(?:yes|true|1)\s*$", text):
                return True
    return False


def packages_of(paths: list[str], root: str | None) -> frozenset[str]:
    """The Debian packages whose lists name any of these files, in one pass over the lists."""
    wanted: set[bytes] = set()
    for path in paths:
        with suppress(UnicodeEncodeError):
            file = path.encode("utf-8")
            # before and after /usr was merged
            wanted |= {file, file.removeprefix(b"/usr"), b"/usr" + file}
    found = set()
    with suppress(OSError), directory(LISTS, root=root) as folder:
        for name in names_in(folder):
            if not name.endswith(".list"):
                continue
            with suppress(OSError):
                lines = read_in(folder, name, limit_bytes=LIST_LIMIT_BYTES)[0].split(b"\n")
                if not wanted.isdisjoint(lines):
                    found.add(name.removesuffix(".list").partition(":")[0])
    return frozenset(found)


def held_back(root: str | None, text: str, owners: frozenset[str]) -> frozenset[str]:
    """Those of them that are held (apt-mark hold) or on unattended-upgrades' own list (regular expressions from the beginning)."""
    held = set()
    with suppress(OSError):
        for stanza in read_regular(STATUS, root=root, limit_bytes=STATUS_LIMIT_BYTES).split(b"\n\n"):
            if b"\nStatus: hold " in stanza:
                held.add(stanza.partition(b"\n")[0].removeprefix(b"Package: ").decode("utf-8", "replace"))
    for block in BLACKLIST.findall(COMMENT.sub("", text)):
        for pattern in re.findall(r'"([^"]{1,100})"', block):
            # only a plain name or its beginning: another's regular expression is not run here
            held |= {owner for owner in owners if owner.startswith(pattern.removesuffix("$"))}
    return frozenset(held & owners)
