"""Forged files for every reader of drift: none of them may crash, hang, or read outside of the root. `make fuzz` runs 100,000.

Each case builds files in a root of its own and calls the reader on them. What is forged is mostly right, so that it gets past the
first check: real files with a few bytes changed, real lines between others.
"""

import argparse
import gzip
import os
import resource
import sqlite3
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentscope.baseline import Baseline
from agentscope.baseline.mapped import build_id_of, parsed
from agentscope.baseline.store import Baselines, encoded
from agentscope.changes import Place, apk, apt, dpkg, pacman, rpm, unattended_upgrades
from agentscope.changes._look import Look, Spent
from agentscope.changes._sqlite import rows
from agentscope.distributions.called import called_package
from agentscope.distributions.installed import installed, owner_of_file, requirements_of
from agentscope.distributions.lockfile import NotALock, parse_lock
from agentscope.distributions.node import node_packages
from agentscope.distributions.system import packages_of_status
from agentscope.symbols import elf, rooted
from agentscope.symbols.libraries import read_cache
from agentscope.symbols.needs import needs_of

LONGEST_S = 5.0
SITE = "/s/site-packages"
WINDOW = {"since_ns": 0, "until_ns": 1 << 62}

Check = Callable[[Path, Random], None]

PIECES = (
    b"\xff" * 8,
    bytes(8),
    b"\xff\xff\xff\x7f",
    b"\n",
    b"\0",
    b"\x1b[2J",
    b"/../",
    b"[" * 60,
    b'"',
    b" -> ",
    b"(",
    b"\\",
    b"\x80" * 4,
)
LINES = (
    "2026-11-22 20:02:38 upgrade libfoo1:amd64 1.0-1 1.1-1",
    "2026-11-22 20:02:38 status installed libfoo1:amd64 1.1-1",
    "2026-10-25 02:30:00 install a:all <none> 2",
    "Start-Date: 2026-11-22  20:02:38",
    "Commandline: apt-get install -y libfoo1",
    "Requested-By: alice (1000)",
    "Upgrade: libfoo1:amd64 (1.0-1, 1.1-1), b:all (1, automatic)",
    "End-Date: 2026-11-22  20:02:39",
    "",
    "2026-11-22 20:02:04,832 INFO Packages that will be upgraded: tzdata a b",
    "2026-11-22 20:02:07,833 INFO All upgrades installed",
    "[2026-11-22T20:02:30+0100] [PACMAN] Running 'pacman -Syu'",
    "[2026-11-22T20:02:38+0100] [ALPM] upgraded openssl (3.0.7-1 -> 3.0.8-1)",
    "[2026-03-14 21:33] [ALPM] removed libev (4.25-1)",
    "Running `apk add ssl` at 2026-11-22 20:02:38",
    "( 1/12) Upgrading ssl@edge (3.0-r1 -> 3.1-r0)",
    "2026-11-22T20:02:38+0100 SUBDEBUG Upgrade: openssl-libs-1:3.2.2-6.el9.x86_64",
    "2026-11-22T20:02:40+0100 SUBDEBUG Upgraded: openssl-libs-1:3.0.7-27.el9.x86_64",
)
LOGS = {
    "/var/log/dpkg.log": dpkg.read,
    "/var/log/apt/history.log": apt.read,
    "/var/log/unattended-upgrades/unattended-upgrades.log": unattended_upgrades.read,
    "/var/log/pacman.log": pacman.read,
    "/var/log/apk.log": apk.read,
    "/var/log/dnf.rpm.log": rpm.read,
}
LOCKS = {
    "requirements.txt": ("httpx==0.27.2", "a[b,c] == 1 ; python_version < '3'", "-r other.txt", "\\", "--hash=sha256:aa", "x @ https://u:p@h/y"),
    "uv.lock": ("[[package]]", 'name = "httpx"', 'version = "0.27.2"', "version = 1", "x = {a = [1, 2]}", 'marker = "os_name == \'x\'"'),
    "pylock.toml": ("[[packages]]", 'name = "a"', 'version = "1"', "marker = \"python_version > '3'\"", "packages = 3", "a.b.c = 1"),
    "Pipfile.lock": ('{"default": {"a": {"version": "==1"}}}', '{"default": [1]}', "{", '"develop": null', "}", "[]"),
    "package-lock.json": ('{"packages": {"node_modules/a": {"version": "1"}}}', '{"packages": 1}', "[", "null", '{"packages": {"": {}}}', "1e999"),
}  # fmt: skip


def changed(raw: bytes, dice: Random, places: tuple[int, ...] = ()) -> bytes:
    """A few bytes changed, near the places that matter as often as anywhere, and perhaps the end cut off."""
    forged = bytearray(raw)
    for _ in range(dice.randrange(7)):
        place = dice.choice(places) + dice.randrange(64) if places and dice.random() < 0.7 else dice.randrange(len(raw) + 1)
        piece = dice.choice(PIECES) if dice.random() < 0.3 else dice.randbytes(dice.randrange(1, 9))
        if dice.random() < 0.9:
            forged[place : place + len(piece)] = piece
        else:
            forged[place:place] = piece * dice.randrange(1, 40)
    if dice.randrange(10) == 0:
        del forged[dice.randrange(len(forged) + 1) :]
    return bytes(forged)


def some_lines(lines: tuple[str, ...], dice: Random, most: int) -> bytes:
    """Right lines in any order, strange ones between them."""
    chosen = [dice.choice(lines) if dice.random() < 0.8 else strange(dice) for _ in range(dice.randrange(most))]
    return "\n".join(chosen).encode("utf-8", "replace")


def strange(dice: Random) -> str:
    """A short text of any characters."""
    return "".join(
        chr(dice.choice((dice.randrange(32), dice.randrange(128), dice.randrange(0x3000)))) for _ in range(dice.randrange(30))
    )


def put(root: Path, path: str, raw: bytes) -> None:
    """A file in the root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(raw)


def _sample_elf() -> tuple[bytes, tuple[int, ...]]:
    """A small real library with symbol versions, and where its headers and tables are."""
    beside = [*Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"), *Path(msgspec.__file__).parent.glob("*.so")]
    path = min(beside, key=lambda each: each.stat().st_size)
    raw = path.read_bytes()
    opened = elf.open_elf(str(path))
    assert isinstance(opened, elf.Elf)
    with opened:
        image = opened.image
        linkage, table = image.linkage, image.dynamic
        assert linkage is not None
        assert table is not None
        places = (
            *range(0, 1024, 64),
            *range(linkage.offset, linkage.offset + 512, 48),
            table.offset,
            table.strings_offset,
            table.strings_offset + table.strings_size,
        )
    return raw, places


ELF, ELF_PLACES = _sample_elf()


def check_elf(root: Path, dice: Random) -> None:
    """A library with forged headers, dynamic section, versions and symbols, and another one that it needs."""
    put(root, "/lib/libc.so.6", changed(ELF, dice, ELF_PLACES))
    put(root, "/ext.so", changed(ELF, dice, ELF_PLACES))
    needs = needs_of("/ext.so", root=str(root), within="/lib/libc.so.6")
    for each in getattr(needs, "unmet", ()):
        assert each.says().isprintable() or "/" in each.needed_by
    with (root / "ext.so").open("rb") as file:
        build_id_of(file.fileno())


CACHE = Path("/etc/ld.so.cache")
CACHE_START = CACHE.read_bytes()[:6000] if CACHE.exists() else b"glibc-ld.so.cache1.1" + bytes(100)


def check_loader_cache(root: Path, dice: Random) -> None:
    """A forged ld.so.cache."""
    read_cache(changed(CACHE_START, dice, (0, 20, 48)))


def check_log(root: Path, dice: Random) -> None:
    """Lines of all logs in any order, some changed, in a file that is plain or compressed."""
    path = dice.choice(sorted(LOGS))
    raw = changed(some_lines(LINES, dice, 15), dice)
    form = dice.randrange(6)
    packed = gzip.compress(raw, 1)
    put(root, path, raw if form else b"")
    put(root, f"{path}.2.gz", changed(packed, dice) if form < 2 else packed)
    look = Look(Place(root=str(root), **WINDOW))
    try:
        for change in LOGS[path](look):
            assert change.says().isprintable()
            assert change.by is None or str(change.by).isprintable()
            assert change.precision_ns > 0
    except Spent:
        pass


def check_record(root: Path, dice: Random) -> None:
    """A distribution with forged RECORD, METADATA and direct_url.json."""
    folder = f"{SITE}/{dice.choice(('a-1', 'b', '-', 'x-1-py3'))}{dice.choice(('.dist-info', '.egg-info'))}"
    record = (
        b'a/__init__.py,sha256=x,1\n../../../bin/a,,\nb.cpython-311-x86_64-linux-gnu.so,,\n"c,d/e.py",,\ngoogle/rpc/x.py,,\n'
    )
    header = b"Metadata-Version: 2.1\nName: A\nVersion: 1.0\nRequires-Dist: b (>=1) ; extra == 'x'\n\nVersion: 2\n"
    put(root, f"{folder}/RECORD", changed(record, dice))
    put(root, f"{folder}/METADATA", changed(header, dice))
    put(root, f"{folder}/PKG-INFO", changed(header, dice))
    put(root, f"{folder}/direct_url.json", changed(b'{"url": "https://u:p@h/x?y", "dir_info": {}}', dice))
    found, _ = installed((SITE,), root=str(root))
    for each in found:
        assert each.name.isprintable()
        assert each.version.isprintable()
        requirements_of(each, root=str(root))
    owner_of_file(f"{SITE}/a/b.py", found, root=str(root))
    for file in (root / folder.lstrip("/")).iterdir():
        file.unlink()
    (root / folder.lstrip("/")).rmdir()


def check_lock(root: Path, dice: Random) -> None:
    """Lock files of every form, of right lines and others."""
    name = dice.choice(sorted(LOCKS))
    text = some_lines(LOCKS[name], dice, 11)
    try:
        lock = parse_lock(f"/{name}", changed(text, dice), python="3.11.2")
    except NotALock:
        return
    assert all(version.isprintable() for versions in lock.versions.values() for version in versions)


SOURCE_LINES = (
    b"const limit = require('p-limit');",
    b'const { v4, v5: limit } = require("uuid/v4");',
    b"import * as limit from '@scope/chat'",
    b"var limit_1 = __importDefault(require('p-limit'));",
    b"function f(limit) {",
    b"// limit = 3",
    b"/* limit",
    b"await limit (1)",
    b"(0, limit_1.default)('a')",
)
CALLED = ("limit is not a function", "(0 , limit_1.default) is not a function", "TypeError: v4 is not a constructor")


def check_source(root: Path, dice: Random) -> None:
    """Sources of Node in which a name is called, of right lines and others."""
    between = [dice.choice(SOURCE_LINES) for _ in range(max(0, dice.randrange(-6, 8)))]
    text = b"\n".join((dice.choice(SOURCE_LINES[:4]), *between, b"await limit(1)"))
    put(root, "/s/agent.js", changed(text, dice) if dice.random() < 0.7 else text)
    line = text.count(b"\n") + 1 if dice.random() < 0.8 else dice.randrange(-1, 99)
    found = called_package("/s/agent.js", line, dice.choice(CALLED), before_ns=1 << 62, root=str(root))
    assert found is None or (found.isprintable() and ".." not in found.split("/"))


def check_node(root: Path, dice: Random) -> None:
    """A forged package.json."""
    put(root, "/n/node_modules/a/package.json", changed(b'{"name": "a", "version": "1.0.0", "x": [1, {"y": null}]}', dice))
    for package in node_packages(("/n/node_modules",), root=str(root))[0]:
        assert package.name.isprintable()


def check_maps(root: Path, dice: Random) -> None:
    """Forged /proc/PID/maps and dpkg status texts, and a forged baseline."""
    line = b"55d1-55d2 r-xp 00001000 fe:00 100                        /usr/bin/prog (deleted)\n"
    list(parsed(changed(line * 3, dice)))
    packages_of_status(changed(b"Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n" * 2, dice))
    text = zlib.decompress(KEPT, wbits=31)
    put(
        root,
        "/baselines/a.json.gz",
        zlib.compress(changed(text, dice), wbits=31) if dice.random() < 0.5 else changed(KEPT, dice),
    )
    Baselines(root).load("a")


KEPT = encoded(Baseline(wall_ns=1, boot_id="b", kernel="k", environment=("A",)))


def _sample_history() -> bytes:
    database = sqlite3.connect(":memory:")
    database.executescript(
        "CREATE TABLE trans (id INTEGER PRIMARY KEY, dt_begin INTEGER, dt_end INTEGER, user_id INTEGER, cmdline TEXT);"
        "CREATE TABLE trans_item (id INTEGER PRIMARY KEY, trans_id INTEGER, item_id INTEGER, action INTEGER, reason INTEGER);"
        "CREATE TABLE rpm (item_id INTEGER, name TEXT, epoch INTEGER, version TEXT, release TEXT, arch TEXT);"
        "INSERT INTO trans VALUES (1, 1000, 1001, 0, 'upgrade'); INSERT INTO rpm VALUES (1,'a',0,'1','1','noarch');"
        "INSERT INTO trans_item VALUES (1,1,1,6,2);"
    )
    database.commit()
    return bytes(database.serialize())


HISTORY = _sample_history()


def check_history(root: Path, dice: Random) -> None:
    """A forged database of dnf."""
    raw = changed(HISTORY, dice, (0, 16, 100, 4096, 8192, 12288))
    try:
        list(rows(raw, "SELECT trans.id, name FROM trans, rpm WHERE dt_begin >= ?", (0,)))
    except (sqlite3.Error, ValueError, OverflowError):
        return


CHECKS: dict[str, tuple[Check, int]] = {
    # each with its share of the inputs, in percent
    "elf": (check_elf, 20),
    "loader-cache": (check_loader_cache, 5),
    "log": (check_log, 25),
    "record": (check_record, 15),
    "lock": (check_lock, 15),
    "node": (check_node, 5),
    "source": (check_source, 5),
    "maps": (check_maps, 5),
    "history": (check_history, 5),
}


@contextmanager
def fenced(root: Path) -> Iterator[None]:
    """Every path that is opened is one of the root: through the functions that resolve inside it, or by an open descriptor."""
    real = rooted._open_path

    def checked(path: str, inside: str | None, flags: int) -> int:
        assert inside == str(root) or path.startswith(str(root)), f"{path!r} was opened in {inside!r}"
        return real(path, inside, flags)

    rooted._open_path = checked  # type: ignore[assignment]
    try:
        yield
    finally:
        rooted._open_path = real


def run(name: str, inputs: int) -> tuple[int, float]:
    """So many inputs through one check; the count that was run, and the longest that one took in seconds."""
    check, _ = CHECKS[name]
    count, longest = 0, 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        root = Path(folder)

        @settings(
            max_examples=inputs, deadline=None, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
        )
        @given(st.integers(0, 2**63 - 1))
        def each(seed: int) -> None:
            # one draw an input: drawing every byte by itself would take ten times as long as reading the file
            nonlocal count, longest
            began = time.monotonic()
            check(root, Random(seed))
            count += 1
            longest = max(longest, time.monotonic() - began)
            assert longest < LONGEST_S

        with fenced(root):
            each()
    return count, longest


def main() -> int:
    """Run them all and print how many inputs there were."""
    parser = argparse.ArgumentParser(prog="python -m tests.drift_fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("checks", nargs="*", default=sorted(CHECKS))
    chosen = parser.parse_args()
    share = sum(CHECKS[name][1] for name in chosen.checks)
    total, began = 0, time.monotonic()
    for name in chosen.checks:
        started = time.monotonic()
        count, longest = run(name, -(-chosen.inputs * CHECKS[name][1] // share))
        total += count
        print(
            f"{name:<14}{count:>8} inputs in {time.monotonic() - started:6.1f} s, the longest {longest * 1e3:6.1f} ms",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{total} inputs in {time.monotonic() - began:.0f} s: no crash, no hang, no read outside of the root; peak memory {peak} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
