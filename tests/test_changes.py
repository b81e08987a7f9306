"""What package tools say they changed: every source on its own form of log, joined, and none of them able to hurt us."""

import gzip
import json
import lzma
import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agentscope.changes import By, Change, Place, change_of, join, read_changes, sources
from agentscope.changes import _look as look_module
from agentscope.changes._sqlite import rows

SECOND = 1_000_000_000
YEAR = 365 * 86_400 * SECOND
DPKG = """\
2026-11-22 20:02:38 startup archives unpack
2026-11-22 20:02:38 upgrade libfoo1:amd64 1.0-1 1.1-1
2026-11-22 20:02:38 status half-configured libfoo1:amd64 1.0-1
2026-11-22 20:02:38 status unpacked libfoo1:amd64 1.1-1
2026-11-22 20:02:38 configure libfoo1:amd64 1.1-1 <none>
2026-11-22 20:02:38 status installed libfoo1:amd64 1.1-1
2026-11-22 20:03:00 install libbar2:amd64 <none> 2.0-1
2026-11-22 20:04:00 remove libold:amd64 0.9 <none>
2026-11-22 20:05:00 upgrade libfoo1:amd64 1.1-1 1.0-1
2026-11-22 20:06:00 upgrade same:all 1.0 1.0
"""
APT = """
Start-Date: 2026-11-22  20:02:38
Commandline: apt-get install -y -qq libfoo1
Requested-By: alice (1000)
Upgrade: libfoo1:amd64 (1.0-1, 1.1-1)
End-Date: 2026-11-22  20:02:38

Start-Date: 2026-11-22  20:03:00
Commandline: apt-get install libbar-tools
Install: libbar2:amd64 (2.0-1, automatic), libbar-tools:amd64 (2.0-1)
End-Date: 2026-11-22  20:03:02

Start-Date: 2026-11-22  20:05:00
Commandline: apt-get install -y --allow-downgrades libfoo1=1.0-1
Downgrade: libfoo1:amd64 (1.1-1, 1.0-1)
End-Date: 2026-11-22  20:05:01
"""


def at(text, zone=UTC):
    """Nanoseconds since 1970 of a moment in a zone."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND


@pytest.fixture
def root(tmp_path):
    """An empty root file system with a folder of logs."""
    (tmp_path / "var/log/apt").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    return tmp_path


def put(root, path, text):
    """A file in the root."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def told(root, **more):
    """All that is told of the year around the samples."""
    window = {"since_ns": at("2026-01-01T00:00:00"), "until_ns": at("2027-12-31T00:00:00")}
    return read_changes(Place(root=str(root), **window | more))


def only(root, name, **more):
    """The changes of one package."""
    return [change for change in told(root, **more).changes if change.what == name]


def test_the_folder_is_the_list():
    """Every file of the folder is a source under its own name; shared steps begin with an underscore."""
    import agentscope.changes

    files = {path.stem for path in Path(agentscope.changes.__file__).parent.glob("[!_]*.py")}
    assert set(sources()) == files
    assert {"apt", "dpkg", "unattended_upgrades", "rpm", "pacman", "apk", "nix", "python", "node", "image"} <= files


def test_a_system_without_any_log_tells_nothing(root):
    """No tool, no change, and nothing is called unread that is not there."""
    found = told(root)
    assert (found.changes, found.unread) == ((), ())


def test_dpkg_and_apt_tell_of_one_change_together(root):
    """Dpkg has the second and the versions, apt the command and the user: one change with both."""
    put(root, "/var/log/dpkg.log", DPKG)
    put(root, "/var/log/apt/history.log", APT)
    up, down = only(root, "libfoo1")
    assert (up.kind, up.from_version, up.to_version, up.architecture) == ("upgraded", "1.0-1", "1.1-1", "amd64")
    assert up.wall_ns == at("2026-11-22T20:02:38")
    assert up.precision_ns == SECOND
    assert up.source in {"/var/log/dpkg.log", "/var/log/apt/history.log"}
    assert up.by == By(tool="apt-get", command="apt-get install -y -qq libfoo1", user="alice (1000)", requested=True)
    assert up.says() == "libfoo1 1.0-1 -> 1.1-1"
    assert (down.kind, down.to_version) == ("downgraded", "1.0-1")
    (bar,) = only(root, "libbar2")
    assert (bar.kind, bar.from_version, bar.by.requested) == ("installed", None, False)
    (old,) = only(root, "libold")
    assert (old.kind, old.from_version, old.to_version, old.by.tool) == ("removed", "0.9", None, "dpkg")
    assert only(root, "same")[0].kind == "reinstalled"
    # dpkg does not list it: the transaction of apt stands alone, with its span
    (tools,) = only(root, "libbar-tools")
    assert tools.precision_ns == 3 * SECOND


def test_unattended_upgrades_are_named_as_the_author(root):
    """A run that ended well gives the names; its author stands above the command line that cron gave it."""
    log = """\
2026-11-22 20:02:04,832 INFO Packages that will be upgraded: tzdata libssl3
2026-11-22 20:02:07,833 INFO All upgrades installed
2026-11-23 06:00:00,001 INFO Packages that will be upgraded: broken
2026-11-23 06:00:09,000 ERROR Installing the upgrades failed!
"""
    put(root, "/var/log/unattended-upgrades/unattended-upgrades.log", log)
    put(root, "/var/log/dpkg.log", "2026-11-22 20:02:05 upgrade tzdata:all 2025b-0+deb12u1 2026f-0+deb12u1\n")
    history = "Start-Date: 2026-11-22  20:02:05\nCommandline: /usr/bin/unattended-upgrade -v\nUpgrade: tzdata:amd64 (2025b-0+deb12u1, 2026f-0+deb12u1)\nEnd-Date: 2026-11-22  20:02:06\n"
    put(root, "/var/log/apt/history.log", history)
    changes = only(root, "tzdata")
    assert {change.by.tool for change in changes} == {"unattended-upgrades"}
    assert str(changes[0].by) == "unattended-upgrades"
    assert changes[0].to_version == "2026f-0+deb12u1"
    (ssl,) = only(root, "libssl3")
    assert (ssl.to_version, ssl.wall_ns, ssl.precision_ns) == (None, at("2026-11-22T20:02:04"), 4 * SECOND)
    assert only(root, "broken") == []


def test_local_times_are_read_in_the_zone_of_the_root(root):
    """The log of a machine in Berlin is an hour ahead; the hour that its clock goes through twice is said to be unsure."""
    zone = ZoneInfo("Europe/Berlin")
    raw = next(
        Path(folder, "Europe/Berlin").read_bytes()
        for folder in ("/usr/share/zoneinfo",)
        if Path(folder, "Europe/Berlin").exists()
    )
    put(root, "/usr/share/zoneinfo/Europe/Berlin", raw)
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Berlin")
    lines = "2026-11-22 20:02:38 upgrade a:all 1 2\n2026-10-25 02:30:00 upgrade b:all 1 2\n"
    put(root, "/var/log/dpkg.log", lines)
    (sure,), (unsure,) = only(root, "a"), only(root, "b")
    assert sure.wall_ns == at("2026-11-22T19:02:38") == at("2026-11-22T20:02:38", zone)
    assert unsure.wall_ns == at("2026-10-25T00:30:00")
    assert unsure.precision_ns == 3601 * SECOND


def test_older_logs_are_read_as_far_as_the_window_reaches(root):
    """Rotated parts count, compressed too; one that was last written before the window is not opened."""
    put(root, "/var/log/dpkg.log", "2026-11-22 20:00:00 upgrade a:all 1 2\n")
    put(root, "/var/log/dpkg.log.1", "2026-10-22 20:00:00 upgrade b:all 1 2\n")
    put(root, "/var/log/dpkg.log.2.gz", gzip.compress(b"2026-09-22 20:00:00 upgrade c:all 1 2\n"))
    put(root, "/var/log/dpkg.log-20260801.xz", lzma.compress(b"2026-07-22 20:00:00 upgrade d:all 1 2\n"))
    stale = put(root, "/var/log/dpkg.log.3.gz", b"no gzip at all")
    os.utime(stale, ns=(1, 1))
    found = told(root)
    assert [change.what for change in found.changes] == ["d", "c", "b", "a"]
    assert found.unread == ()
    assert "/var/log/dpkg.log.2.gz" in found.sources
    assert [change.what for change in told(root, since_ns=at("2026-10-01T00:00:00")).changes] == ["b", "a"]


DNF_LOG = """\
2026-11-22T20:02:37+0100 INFO --- logging initialized ---
2026-11-22T20:02:38+0100 SUBDEBUG Upgrade: openssl-libs-1:3.2.2-6.el9.x86_64
2026-11-22T20:02:39+0100 SUBDEBUG Installed: flac-1.3.3-3.fc29.x86_64
2026-11-22T20:02:40+0100 SUBDEBUG Upgraded: openssl-libs-1:3.0.7-27.el9.x86_64
2026-11-22T20:03:40+0100 SUBDEBUG Erase: gone-0.1-1.noarch
"""


def history(version):
    """A history of dnf 4 or 5 in which user 1000 upgraded openssl-libs and pulled in a dependency."""
    database = sqlite3.connect(":memory:")
    began = at("2026-11-22T19:02:30") // SECOND
    if version == 4:
        database.executescript(f"""
            CREATE TABLE trans (id INTEGER PRIMARY KEY, dt_begin INTEGER, dt_end INTEGER, user_id INTEGER, cmdline TEXT, state INTEGER);
            CREATE TABLE trans_item (id INTEGER PRIMARY KEY, trans_id INTEGER, item_id INTEGER, action INTEGER, reason INTEGER);
            CREATE TABLE rpm (item_id INTEGER, name TEXT, epoch INTEGER, version TEXT, release TEXT, arch TEXT);
            INSERT INTO trans VALUES (1, {began}, {began + 20}, 1000, 'upgrade openssl-libs', 1);
            INSERT INTO rpm VALUES (1,'openssl-libs',1,'3.2.2','6.el9','x86_64'),(2,'openssl-libs',1,'3.0.7','27.el9','x86_64'),
                (3,'fips',0,'1.0','1','noarch'),(4,'old',0,'9','1','noarch');
            INSERT INTO trans_item VALUES (1,1,1,6,2),(2,1,2,7,2),(3,1,3,1,1),(4,1,4,8,3);""")
    else:
        database.executescript(f"""
            CREATE TABLE trans (id INTEGER PRIMARY KEY, dt_begin INTEGER, dt_end INTEGER, user_id INTEGER, description TEXT);
            CREATE TABLE trans_item_action (id INTEGER PRIMARY KEY, name TEXT);
            INSERT INTO trans_item_action VALUES (1,'Install'),(2,'Upgrade'),(3,'Downgrade'),(4,'Reinstall'),(5,'Remove'),(6,'Replaced');
            CREATE TABLE pkg_names (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE archs (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE trans_item (id INTEGER PRIMARY KEY, trans_id INTEGER, item_id INTEGER, action_id INTEGER, reason_id INTEGER);
            CREATE TABLE rpm (item_id INTEGER, name_id INTEGER, epoch INTEGER, version TEXT, release TEXT, arch_id INTEGER);
            INSERT INTO trans VALUES (1, {began}, {began + 20}, 1000, 'dnf upgrade openssl-libs');
            INSERT INTO pkg_names VALUES (1,'openssl-libs'),(2,'fips'),(3,'old'); INSERT INTO archs VALUES (1,'x86_64'),(2,'noarch');
            INSERT INTO rpm VALUES (1,1,1,'3.2.2','6.el9',1),(2,1,1,'3.0.7','27.el9',1),(3,2,0,'1.0','1',2),(4,3,0,'9','1',2);
            INSERT INTO trans_item VALUES (1,1,1,2,2),(2,1,2,6,2),(3,1,3,1,1),(4,1,4,5,3);""")
    database.commit()
    return database.serialize()


@pytest.mark.parametrize(
    ("version", "path", "tool", "command"),
    [
        (4, "/var/lib/dnf/history.sqlite", "dnf", "dnf upgrade openssl-libs"),
        (5, "/usr/lib/sysimage/libdnf5/transaction_history.sqlite", "dnf5", "dnf upgrade openssl-libs"),
    ],
)
def test_dnf_history_names_the_command_and_the_user(root, version, path, tool, command):
    """Both forms of dnf's history give both versions, who asked, and what came as a dependency; its journal is nobody's business."""
    raw = history(version)
    put(root, path, raw[:18] + b"\x02\x02" + raw[20:])  # as it lies on disk in WAL mode
    put(root, "/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    put(root, "/var/log/dnf.rpm.log", DNF_LOG)
    (ssl,) = only(root, "openssl-libs")
    assert (ssl.ecosystem, ssl.kind, ssl.from_version, ssl.to_version) == ("rpm", "upgraded", "1:3.0.7-27.el9", "1:3.2.2-6.el9")
    assert ssl.wall_ns == at("2026-11-22T19:02:38")  # of the log, which has the second of this package
    assert ssl.by == By(tool=tool, command=command, user="alice", requested=True)
    (fips,) = only(root, "fips")
    assert (fips.kind, fips.by.requested, fips.precision_ns) == ("installed", False, 21 * SECOND)
    (old,) = only(root, "old")
    assert (old.kind, old.from_version, old.to_version) == ("removed", "9-1", None)


def test_the_log_of_rpm_transactions_alone_gives_both_versions(root):
    """A line "Upgrade" names the new package and a later "Upgraded" the old one; the offset of the line counts, not our zone."""
    put(root, "/var/log/dnf.rpm.log", DNF_LOG)
    (ssl,) = only(root, "openssl-libs")
    assert (ssl.from_version, ssl.to_version, ssl.architecture) == ("1:3.0.7-27.el9", "1:3.2.2-6.el9", "x86_64")
    assert ssl.wall_ns == at("2026-11-22T19:02:38")
    assert only(root, "gone")[0].kind == "removed"
    assert only(root, "flac")[0].to_version == "1.3.3-3.fc29"


def test_a_forged_history_cannot_run_anything(tmp_path):
    """A table that is a view with an endless query ends by itself, and functions are refused."""
    database = sqlite3.connect(":memory:")
    database.executescript(
        "CREATE VIEW trans AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i AS id FROM n;"
    )
    raw = database.serialize()
    started = time.monotonic()
    with pytest.raises(sqlite3.Error):
        list(rows(raw, "SELECT id FROM trans"))
    with pytest.raises(sqlite3.Error):
        list(rows(b"not a database", "SELECT id FROM trans"))
    assert time.monotonic() - started < 5


def test_pacman_lines_of_both_ages_are_read(root):
    """A zone in the line counts; without one the time is local, without seconds it is unsure to the minute."""
    log = """\
[2026-11-22T20:02:30+0100] [PACMAN] Running 'pacman -Syu --noconfirm'
[2026-11-22T20:02:38+0100] [ALPM] transaction started
[2026-11-22T20:02:38+0100] [ALPM] upgraded openssl (3.0.7-1 -> 3.0.8-1)
[2026-11-22T20:02:39+0100] [ALPM] installed feh (3.1.3-1)
[2026-11-22T20:02:39+0100] [ALPM] removed nano (7.2-1)
[2026-03-14 21:33] [ALPM] upgraded libev (4.25-1 -> 4.27-1)
"""
    put(root, "/var/log/pacman.log", log)
    (ssl,) = only(root, "openssl")
    assert (ssl.from_version, ssl.to_version, ssl.wall_ns) == ("3.0.7-1", "3.0.8-1", at("2026-11-22T19:02:38"))
    assert str(ssl.by) == "pacman -Syu --noconfirm"
    assert only(root, "feh")[0].to_version == "3.1.3-1"
    assert (only(root, "nano")[0].from_version, only(root, "nano")[0].to_version) == ("7.2-1", None)
    assert only(root, "libev")[0].precision_ns == 60 * SECOND


def test_apk_tells_by_its_log_or_by_the_time_of_its_files(root):
    """From version 3 on apk logs in UTC; before, only the files tell that something was put there."""
    database = "P:busybox\nV:1.36.1-r5\nF:bin\nR:busybox\nZ:Q1\n\nP:ssl\nV:3.1-r0\nF:lib\nR:libssl.so.3\n\nP:virtual\nV:0\n\n"
    put(root, "/lib/apk/db/installed", database)
    put(root, "/bin/busybox", "x")
    put(root, "/lib/libssl.so.3", "x")
    window = {"since_ns": time.time_ns() - YEAR, "until_ns": time.time_ns() + YEAR}
    (busybox,) = only(root, "busybox", **window)
    assert (busybox.kind, busybox.to_version, busybox.from_version) == ("changed", "1.36.1-r5", None)
    log = """
Running `apk add ssl` at 2026-11-22 20:02:38
apk-tools 3.0.0, compiled for x86_64.
( 1/12) Upgrading ssl@edge (3.0-r1 -> 3.1-r0)
(12/12) Purging old (1-r0)
OK: 10 MiB in 20 packages
"""
    put(root, "/var/log/apk.log", log)
    (ssl,) = only(root, "ssl")
    assert (ssl.kind, ssl.from_version, ssl.to_version, ssl.wall_ns) == (
        "upgraded",
        "3.0-r1",
        "3.1-r0",
        at("2026-11-22T20:02:38"),
    )
    assert (str(ssl.by), ssl.by.requested) == ("apk add ssl", True)
    assert only(root, "old")[0].kind == "removed"
    assert only(root, "busybox", **window) == []


def test_generations_of_nix_are_changes_of_a_profile(root):
    """The link's own time is when the generation was made; the one before it is what it came from."""
    profiles = root / "nix/var/nix/profiles"
    profiles.mkdir(parents=True)
    for number, release in ((41, "23.05"), (42, "23.11")):
        link = profiles / f"system-{number}-link"
        link.symlink_to(f"/nix/store/{'a' * 32}-nixos-system-box-{release}")
        moment = at("2026-11-22T20:02:38") + number
        os.utime(link, ns=(moment, moment), follow_symlinks=False)
    (profiles / "system").symlink_to("system-42-link")
    first, second = only(root, "system profile")
    assert (first.kind, first.from_version) == ("installed", None)
    assert second.from_version.startswith("nixos-system-box-23.05")
    assert second.to_version.startswith("nixos-system-box-23.11")
    assert second.by.tool == "nixos-rebuild"


def test_python_metadata_tells_when_and_by_which_tool(root):
    """RECORD's time, INSTALLER and REQUESTED are all that pip leaves; what was there before is not told."""
    for name, requested in (("httpx", True), ("idna", False)):
        info = root / f"srv/venv/lib/python3.11/site-packages/{name}-2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 2.0\n")
        (info / "INSTALLER").write_text("uv\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
        os.utime(info / "RECORD", ns=(1, at("2026-11-22T20:02:38")))
        if requested:
            (info / "REQUESTED").touch()
    sites = ("/srv/venv/lib/python3.11/site-packages",)
    (change,) = only(root, "httpx", sites=sites)
    assert (change.ecosystem, change.to_version, change.from_version) == ("python", "2.0", None)
    assert change.by == By(tool="uv", requested=True)
    assert change.wall_ns == at("2026-11-22T20:02:38")
    assert only(root, "idna", sites=sites)[0].by.requested is None
    assert told(root, sites=sites, since_ns=at("2026-11-23T00:00:00")).changes == ()


def test_node_packages_are_joined_with_the_npm_command_that_names_them(root):
    """Npm's debug log lists the folders it changed; a package that no command names has no author."""
    for name in ("chalk", "@scope/addon", "other"):
        put(root, f"/srv/app/node_modules/{name}/package.json", json.dumps({"name": name, "version": "5.0.0"}))
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H_%M_%S")
    log = """\
0 verbose cli /usr/bin/node /usr/bin/npm
6 verbose title npm install chalk@5
7 verbose argv "install" "chalk@5"
17 silly CHANGE node_modules/chalk
18 silly ADD node_modules/@scope/addon
"""
    put(root, f"/home/alice/.npm/_logs/{stamp}_123Z-debug-0.log", log)
    window = {"since_ns": time.time_ns() - YEAR, "until_ns": time.time_ns() + YEAR}
    place = {"node_folders": ("/srv/app/node_modules",), "homes": ("/home/alice",)} | window
    (chalk,) = only(root, "chalk", **place)
    assert (chalk.ecosystem, chalk.to_version, chalk.by.command, chalk.by.requested) == (
        "node",
        "5.0.0",
        "npm install chalk@5",
        True,
    )
    assert only(root, "@scope/addon", **place)[0].by.requested is None
    assert only(root, "other", **place)[0].by is None


def test_a_removal_beside_an_installation_keeps_its_own_author(root):
    """Dpkg removes a package by itself within the two seconds in which apt installs it again: neither has the other's command."""
    put(
        root,
        "/var/log/dpkg.log",
        "2026-11-22 20:03:01 remove libbar2:amd64 2.0-1 <none>\n2026-11-22 20:03:02 install libbar2:amd64 <none> 2.0-1\n",
    )
    put(root, "/var/log/apt/history.log", APT)
    removed, installed = only(root, "libbar2")
    assert (removed.kind, removed.by, removed.to_version) == ("removed", By(tool="dpkg"), None)
    assert (installed.kind, installed.by.command) == ("installed", "apt-get install libbar-tools")


SAME_SECOND = """
Start-Date: 2026-11-22  20:02:37
Commandline: apt-get install -y libbar2
Install: libbar2:amd64 (2.0-1)
End-Date: 2026-11-22  20:02:38

Start-Date: 2026-11-22  20:02:38
Commandline: apt-get remove -y libbar2
Remove: libbar2:amd64 (2.0-1)
End-Date: 2026-11-22  20:02:38
"""


@pytest.mark.parametrize("history", ["", SAME_SECOND], ids=["dpkg alone", "with apt"])
def test_what_was_installed_and_removed_within_one_second_is_removed(root, history):
    """Logs have whole seconds: their lines tell the order, also where apt began the first of both a second earlier."""
    moment = "2026-11-22 20:02:38"
    steps = "install libbar2:amd64 <none> 2.0-1", "remove libbar2:amd64 2.0-1 <none>"
    put(root, "/var/log/dpkg.log", "".join(f"{moment} {step}\n" for step in steps))
    put(root, "/var/log/apt/history.log", history)
    changes = told(root).changes
    assert [change.kind for change in changes] == ["installed", "removed"]
    assert change_of(changes, "dpkg", "libbar2").kind == "removed"
    if history:
        assert [change.by.command for change in changes] == ["apt-get install -y libbar2", "apt-get remove -y libbar2"]


@pytest.mark.parametrize(
    ("name", "tool"), [(".package-lock.json", "npm"), (".modules.yaml", "pnpm"), (".yarn-integrity", "yarn")]
)
def test_the_tool_of_node_packages_without_a_log_is_told_by_the_file_that_it_leaves(root, name, tool):
    """It is written at the end of each installation; one from long before or after says nothing."""
    put(root, "/srv/app/node_modules/chalk/package.json", json.dumps({"name": "chalk", "version": "5.0.0"}))
    put(root, "/srv/app/node_modules/chalk/node_modules/ansi/package.json", json.dumps({"name": "ansi", "version": "1.0.0"}))
    mark = root / "srv/app/node_modules" / name
    mark.write_text("{}")
    place = {"node_folders": ("/srv/app/node_modules",), "since_ns": time.time_ns() - YEAR, "until_ns": time.time_ns() + YEAR}
    assert only(root, "chalk", **place)[0].by == only(root, "ansi", **place)[0].by == By(tool=tool)
    for seconds in (-3600, 3600):
        os.utime(mark, (time.time() + seconds, time.time() + seconds))
        assert only(root, "chalk", **place)[0].by is None


def test_what_lies_outside_of_the_root_is_never_read(root, tmp_path_factory):
    """Links that lead out end inside the root; FIFOs, devices and folders under the names of logs are passed over at once."""
    outside = tmp_path_factory.mktemp("outside") / "dpkg.log"
    outside.write_text(DPKG)
    (root / "var/log/dpkg.log").symlink_to(outside)
    (root / "var/log/dpkg.log.1").symlink_to("../" * 12 + str(outside).lstrip("/"))
    os.mkfifo(root / "var/log/pacman.log")
    (root / "var/log/apk.log").mkdir()
    (root / "var/log/apt/history.log").symlink_to("/dev/zero")
    started = time.monotonic()
    found = told(root)
    assert found.changes == ()
    assert time.monotonic() - started < 2
    assert {line.partition(":")[0] for line in found.unread} == {"/var/log/pacman.log", "/var/log/apk.log"}


def test_a_bomb_and_an_endless_log_cost_no_more_than_the_budget(root, monkeypatch):
    """A compressed file gives no more than the limit; of a long log the end is read; when all is spent, that is said."""
    monkeypatch.setattr(look_module, "FILE_LIMIT_BYTES", 1 << 20)
    monkeypatch.setattr(look_module, "LOOK_LIMIT_BYTES", 3 << 20)
    monkeypatch.setattr(look_module.Look.content, "__kwdefaults__", {"root": "", "limit_bytes": 1 << 20})
    put(root, "/var/log/dpkg.log", b"x" * (8 << 20) + b"\n2026-11-22 20:00:00 upgrade a:all 1 2\n")
    for number in range(1, 6):
        put(root, f"/var/log/dpkg.log.{number}.gz", gzip.compress(b"2026-11-22 20:00:00 upgrade b:all 1 2\n" * 300_000))
    found = told(root)
    assert {change.what for change in found.changes} >= {"a"}
    assert any("too large" in line for line in found.unread)


def test_control_characters_do_not_get_through(root):
    """What a log says of a command or a version cannot steer a terminal."""
    put(root, "/var/log/pacman.log", "[2026-11-22T20:02:38+0100] [ALPM] installed a (\x1b[2J1)\n")
    text = "Start-Date: 2026-11-22  20:02:38\nCommandline: apt \x1b]0;x\x07 install b\nInstall: b:all (1)\n"
    put(root, "/var/log/apt/history.log", text)
    for change in told(root).changes:
        assert change.says().isprintable()
        assert str(change.by).isprintable()


def change(**more):
    """One change of a package at a moment."""
    stated = {
        "what": "a",
        "ecosystem": "dpkg",
        "kind": "upgraded",
        "wall_ns": 100 * SECOND,
        "precision_ns": SECOND,
        "source": "x",
    }
    return Change(**stated | more)


def test_changes_that_contradict_stay_apart():
    """Another version, another architecture, another hour: two changes, not one."""
    apart = [
        change(to_version="2", architecture="amd64"),
        change(to_version="3", source="y"),
        change(to_version="2", architecture="i386", source="y"),
        change(to_version="2", wall_ns=4000 * SECOND, source="y"),
    ]
    assert len(join(apart)) == 4
    assert len(join([apart[0], change(source="y", by=By(tool="apt"))])) == 1


def test_the_newest_change_of_a_package_is_found_by_any_spelling():
    """Python names are compared as the specification says; the change that led to the version that stands there is preferred."""
    changes = [
        change(what="Typing_Extensions", ecosystem="python", to_version="4.12.2"),
        change(what="typing-extensions", ecosystem="python", to_version="4.5.0", wall_ns=200 * SECOND),
    ]
    assert change_of(changes, "python", "typing.extensions").to_version == "4.5.0"
    assert change_of(changes, "python", "typing-extensions", to_version="4.12.2").wall_ns == 100 * SECOND
    assert change_of(changes, "dpkg", "typing-extensions") is None


@pytest.mark.skipif(not Path("/var/log/dpkg.log").exists(), reason="no Debian system")
def test_our_own_logs_are_read_in_full():
    """Every change line of this machine's dpkg log becomes a change that says what the line says."""
    text = Path("/var/log/dpkg.log").read_text("utf-8", "replace")
    verbs = {"upgrade", "install", "remove", "purge"}
    lines = {
        (fields[3].partition(":")[0], fields[4], fields[5])
        for line in text.splitlines()
        if len(fields := line.split(" ")) == 6 and fields[2] in verbs
    }
    found = read_changes(Place(since_ns=0, until_ns=time.time_ns() + YEAR))
    told_of = {(c.what, c.from_version or "<none>", c.to_version or "<none>") for c in found.changes if c.ecosystem == "dpkg"}
    assert lines - told_of == set() or found.left_out
    assert found.unread == ()
