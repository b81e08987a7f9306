"""What dnf and rpm did on Fedora, RHEL and their kin: dnf's history (commands and users), else the log of rpm transactions.

dnf 4 keeps /var/lib/dnf/history.sqlite (libdnf, swdb/sql/create_tables.sql), dnf 5 /usr/lib/sysimage/libdnf5/
transaction_history.sqlite (libdnf5, transaction/db/sql); both write a line a package to a log.
"""

import re
import sqlite3
from collections.abc import Iterator

from agentscope.changes import By, Change, ChangeKind
from agentscope.changes._look import SECOND_NS, Look
from agentscope.changes._sqlite import rows
from agentscope.distributions import plain
from agentscope.symbols.rooted import read_regular

DNF4, DNF5 = "/var/lib/dnf/history.sqlite", "/usr/lib/sysimage/libdnf5/transaction_history.sqlite"
LOG = "/var/log/dnf.rpm.log"
# dnf 4 writes actions as numbers of libdnf/transaction/Types.hpp: 1 install, 2 downgrade, 3 downgraded, 4 obsolete, 5 obsoleted,
# 6 upgrade, 7 upgraded, 8 remove, 9 reinstall, 10 reinstalled; reason 1 dependency, 2 user
_DNF4_ACTIONS: dict[str, str] = {
    "1": "installed",
    "2": "downgraded",
    "3": "-",
    "5": "removed",
    "6": "upgraded",
    "7": "-",
    "8": "removed",
    "9": "reinstalled",
    "10": "-",
}
_DNF5_ACTIONS: dict[str, str] = {
    "Install": "installed",
    "Upgrade": "upgraded",
    "Downgrade": "downgraded",
    "Reinstall": "reinstalled",
    "Remove": "removed",
    "Replaced": "-",
}
_DNF4_QUERY = """
    SELECT trans.id, trans.dt_begin, trans.dt_end, trans.user_id, trans.cmdline, trans_item.action, trans_item.reason,
           rpm.name, rpm.epoch, rpm.version, rpm.release, rpm.arch
    FROM trans_item, trans, rpm WHERE trans.id = trans_item.trans_id AND rpm.item_id = trans_item.item_id
    AND trans.dt_begin >= ? AND trans.dt_begin <= ?"""
_DNF5_QUERY = """
    SELECT trans.id, trans.dt_begin, trans.dt_end, trans.user_id, trans.description, trans_item_action.name, trans_item.reason_id,
           pkg_names.name, rpm.epoch, rpm.version, rpm.release, archs.name
    FROM trans_item, trans, rpm, pkg_names, archs, trans_item_action
    WHERE trans.id = trans_item.trans_id AND rpm.item_id = trans_item.item_id AND pkg_names.id = rpm.name_id
    AND archs.id = rpm.arch_id AND trans_item_action.id = trans_item.action_id AND trans.dt_begin >= ? AND trans.dt_begin <= ?"""
_LINE = re.compile(
    r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d(?::?\d\d)?)?) SUBDEBUG "
    r"(Installed|Upgrade|Upgraded|Downgrade|Downgraded|Reinstall|Reinstalled|Erase|Erased|Removed): (\S{1,400})$",
    re.MULTILINE,
)
_LINE_KINDS: dict[str, ChangeKind] = {
    "Installed": "installed",
    "Upgrade": "upgraded",
    "Downgrade": "downgraded",
    "Reinstall": "reinstalled",
    "Erase": "removed",
    "Erased": "removed",
    "Removed": "removed",
}
_HALF_NAMED = {"Upgraded", "Downgraded"}
_NEVRA = re.compile(r"^(.{1,200})-(?:(\d{1,9}):)?([^-:]{1,200})-([^-]{1,200}?)(?:\.([a-z0-9_]{1,20}))?$")
_PATIENCE_NS = 3_600 * SECOND_NS  # between an "Upgrade" line and its "Upgraded" line lies the rest of the transaction


def read(look: Look) -> Iterator[Change]:
    """From the histories; the log is read as well, since other tools than dnf write there too."""
    for path, query, actions, tool in ((DNF4, _DNF4_QUERY, _DNF4_ACTIONS, "dnf"), (DNF5, _DNF5_QUERY, _DNF5_ACTIONS, "dnf5")):
        raw = look.content(path)
        if raw is None:
            continue
        since_s, until_s = look.place.since_ns // SECOND_NS - 86_400, look.place.until_ns // SECOND_NS
        try:
            found = list(rows(raw, query, (max(0, since_s), max(0, until_s))))
        except (sqlite3.Error, OverflowError) as error:
            look.unread.append(f"{path}: {plain(str(error))}")
            continue
        yield from _of_history(look, path, found, actions, tool)
    for path, raw in look.rotated(LOG):
        yield from _of_log(look, path, raw.decode("utf-8", "replace"))


def _of_history(look: Look, path: str, found: list[tuple[object, ...]], actions: dict[str, str], tool: str) -> Iterator[Change]:
    """Changes of both histories; the version before is that of the row that the new one replaced."""
    kinds: dict[str, ChangeKind] = {
        "installed": "installed",
        "upgraded": "upgraded",
        "downgraded": "downgraded",
        "reinstalled": "reinstalled",
        "removed": "removed",
    }
    before: dict[tuple[object, ...], str] = {}
    for row in found:
        if actions.get(str(row[5])) == "-":
            before[row[0], row[7], row[11]] = _version(row[8], row[9], row[10])
    users: dict[object, str] = {}
    for row in found:
        kind = kinds.get(actions.get(str(row[5]), ""))
        began, ended = row[1], row[2]
        if kind is None or not isinstance(began, int) or not 0 <= began < 1 << 40:
            continue
        end_s = ended if isinstance(ended, int) and began <= ended < began + 86_400 else began
        span = (end_s - began + 1) * SECOND_NS
        if not look.within(began * SECOND_NS, span):
            continue
        version = _version(row[8], row[9], row[10])
        if row[3] not in users:
            users[row[3]] = _user(look, row[3])
        yield Change(
            what=plain(str(row[7])),
            ecosystem="rpm",
            kind=kind,
            wall_ns=began * SECOND_NS,
            precision_ns=span,
            source=path,
            from_version=version if kind == "removed" else before.get((row[0], row[7], row[11])),
            to_version=None if kind == "removed" else version,
            architecture=plain(str(row[11])) or None,
            by=By(tool=tool, command=_command(tool, row[4]), user=users[row[3]] or None, requested=_requested(row[6])),
        )


def _requested(reason: object) -> bool | None:
    return {1: False, 2: True}.get(reason) if isinstance(reason, int) else None


def _command(tool: str, said: object) -> str | None:
    """Dnf 4 records the arguments only, dnf 5 the whole command."""
    if not isinstance(said, str) or not said:
        return None
    words = plain(said, 400)
    return words if words.split(" ", 1)[0].rsplit("/", 1)[-1].startswith(("dnf", "yum", "microdnf")) else f"{tool} {words}"


def _version(epoch: object, version: object, release: object) -> str:
    text = f"{version}-{release}" if release else f"{version}"
    return plain(f"{epoch}:{text}" if epoch not in {None, 0, "0", ""} else text)


def _user(look: Look, number: object) -> str:
    """The name that passwd of this root has for a uid, else the uid; nothing where it was not recorded (2^32-1)."""
    if not isinstance(number, int) or not 0 <= number < 0xFFFFFFFF:
        return ""
    try:
        lines = read_regular("/etc/passwd", root=look.place.root, limit_bytes=1 << 20).decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return next((plain(f[0], 60) for line in lines if len(f := line.split(":")) > 2 and f[2] == str(number)), f"uid {number}")


def _of_log(look: Look, path: str, text: str) -> Iterator[Change]:
    """Lines of rpm transactions: "Upgrade" names the new package, a later "Upgraded" the old one."""
    lines = _LINE.findall(text)
    halves: dict[tuple[str, str | None], list[tuple[int, str]]] = {}
    seen = []
    for moment, verb, nevra in lines:
        at = look.local_ns(moment)
        parts = _NEVRA.match(nevra)
        if at is None or parts is None:
            continue
        name, epoch, version, release, architecture = parts.groups()
        number = _version(epoch, version, release)
        if verb in _HALF_NAMED:
            halves.setdefault((name, architecture), []).append((at[0], number))
        elif verb in _LINE_KINDS:
            seen.append((at, verb, name, number, architecture))
    for at, verb, name, number, architecture in seen:
        if not look.within(*at):
            continue
        kind = _LINE_KINDS[verb]
        later = [old for when, old in halves.get((name, architecture), ()) if 0 <= when - at[0] <= _PATIENCE_NS]
        yield Change(
            what=plain(name),
            ecosystem="rpm",
            kind=kind,
            wall_ns=at[0],
            precision_ns=at[1],
            source=path,
            from_version=number if kind == "removed" else later[0] if later and kind in {"upgraded", "downgraded"} else None,
            to_version=None if kind == "removed" else number,
            architecture=architecture,
            by=By(tool="dnf"),
        )
