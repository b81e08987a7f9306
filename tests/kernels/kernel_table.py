"""The table scenario by kernel and engine."""

import pytest
from table_scenarios import ENGINES, KERNELS

WORTHS = ("right", "undetermined", "wrong", "not played")
TABLE = pytest.StashKey[dict[tuple[str, str, str], str]]()  # by scenario, kernel and engine


def table_of(worths: dict[tuple[str, str, str], str]) -> list[str]:
    """The table, scenario by kernel and engine, with the sums below it; `worths` is by scenario, kernel and engine."""
    columns = [
        (kernel, engine) for kernel in KERNELS for engine in ENGINES if any(key[1:] == (kernel, engine) for key in worths)
    ]
    titles = [f"{kernel} {engine}" for kernel, engine in columns]
    slugs = sorted({slug for slug, _, _ in worths})
    lines = [f"{'':28}" + "".join(f"{title:14}" for title in titles)]
    lines += [f"{slug:28}" + "".join(f"{worths.get((slug, *column), '-'):14}" for column in columns) for slug in slugs]
    for worth in WORTHS:
        counts = [sum(1 for key, found in worths.items() if key[1:] == column and found == worth) for column in columns]
        lines.append(f"{worth:28}" + "".join(f"{count:<14}" for count in counts))
    return [line.rstrip() for line in lines]
