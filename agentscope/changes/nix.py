"""Generations of Nix profiles: each is a link `NAME-NUMBER-link` whose time is when it was made (nix-env(1), "Profiles")."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress

from agentscope.changes import By, Change
from agentscope.changes._look import SECOND_NS, Look
from agentscope.distributions import plain
from agentscope.symbols.rooted import directory

PROFILES = "/nix/var/nix/profiles"
USERS_LIMIT = 200
_GENERATION = re.compile(r"^(.{1,100})-(\d{1,9})-link$")
_STORE = re.compile(r"^(?:/nix/store/)?[a-z0-9]{32}-(.{1,200})$")


def read(look: Look) -> Iterator[Change]:
    """One change for each generation in the window, against the generation before it."""
    folders = [PROFILES, *(f"{PROFILES}/per-user/{user}" for user in look.names(f"{PROFILES}/per-user")[:USERS_LIMIT])]
    folders += [f"{home}/.local/state/nix/profiles" for home in look.place.homes]
    for folder in folders:
        generations: dict[str, list[tuple[int, int, str]]] = {}
        with suppress(OSError), directory(folder, root=look.place.root) as opened:
            for name in look.names(folder):
                found = _GENERATION.match(name)
                if found is None:
                    continue
                status = os.stat(name, dir_fd=opened, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    target = os.readlink(name, dir_fd=opened)
                    generations.setdefault(found[1], []).append((int(found[2]), status.st_mtime_ns, target))
        for profile, links in generations.items():
            links.sort()
            for place, (number, made_ns, target) in enumerate(links):
                if not look.within(made_ns):
                    continue
                yield Change(
                    what=plain(f"{profile} profile"),
                    ecosystem="nix",
                    kind="changed" if place else "installed",
                    wall_ns=made_ns,
                    precision_ns=SECOND_NS,
                    source=f"{folder}/{plain(profile)}-{number}-link",
                    from_version=_named(links[place - 1][2]) if place else None,
                    to_version=_named(target),
                    by=By(tool="nixos-rebuild" if profile == "system" else "nix"),
                )


def _named(target: str) -> str:
    """What a store path is called; the first of its hash too, because generations of one version differ by it only."""
    found = _STORE.match(target)
    store = target.removeprefix("/nix/store/")
    return plain(f"{found[1]} ({store[:8]})" if found else target)
