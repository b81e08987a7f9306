"""Which of two versions is the newer one, in the order of their ecosystem."""

import re
from itertools import zip_longest

_PARTS = re.compile(r"(\d+)|([^\d]+)")
_LONGEST = 200


def newer(ecosystem: str, first: str, second: str) -> bool:
    """Whether `first` is newer than `second`. Versions that cannot be compared are taken for not newer."""
    if first == second or len(first) > _LONGEST or len(second) > _LONGEST:
        return False
    if ecosystem == "python":
        from packaging.version import InvalidVersion, Version

        try:
            return Version(first) > Version(second)
        except InvalidVersion:
            return False
    if ecosystem == "node":
        return _semantic(first) > _semantic(second)
    return _debian(first, second) > 0


def _semantic(version: str) -> tuple[list[int], bool, list[tuple[int, int, str]]]:
    """A key that orders semantic versions (semver.org, 11): a pre-release stands before its release."""
    numbers, _, pre = version.partition("+")[0].partition("-")
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in pre.split(".")] if pre else []
    return [int(part) if part.isdecimal() else 0 for part in numbers.split(".")], not pre, parts


def _debian(first: str, second: str) -> int:
    """Order of two versions with epoch and revision (deb-version(7)); that of rpm and pacman differs only in rare signs."""
    (epoch_a, rest_a), (epoch_b, rest_b) = _epoch(first), _epoch(second)
    if epoch_a != epoch_b:
        return epoch_a - epoch_b
    (upstream_a, _, revision_a), (upstream_b, _, revision_b) = rest_a.rpartition("-"), rest_b.rpartition("-")
    if not upstream_a:
        upstream_a, revision_a = revision_a, ""
    if not upstream_b:
        upstream_b, revision_b = revision_b, ""
    return _part(upstream_a, upstream_b) or _part(revision_a, revision_b)


def _epoch(version: str) -> tuple[int, str]:
    before, colon, after = version.partition(":")
    return (int(before), after) if colon and before.isdecimal() else (0, version)


def _part(first: str, second: str) -> int:
    """Text and numbers in turns: numbers by value, text by letter, where "~" stands before even the end."""
    # every list begins with text, so that text meets text and numbers meet numbers
    for one, other in zip_longest(_turns(first), _turns(second), fillvalue=""):
        if one[:1].isdecimal() or other[:1].isdecimal():
            difference = int(one or 0) - int(other or 0) if (one or "0").isdecimal() and (other or "0").isdecimal() else 0
        else:
            difference = _letters(one, other)
        if difference:
            return difference
    return 0


def _turns(text: str) -> list[str]:
    found = [number or letters for number, letters in _PARTS.findall(text)]
    return ["", *found] if found and found[0].isdecimal() else found


def _letters(first: str, second: str) -> int:
    for one, other in zip_longest(first, second, fillvalue=""):
        difference = _rank(one) - _rank(other)
        if difference:
            return difference
    return 0


def _rank(letter: str) -> int:
    if letter == "~":
        return -1
    if not letter:
        return 0
    return ord(letter) if letter.isalpha() else ord(letter) + 0x110000
