"""`agentscope ledger verify` as a person reads it: whole or not, the first bad record, what is proven up to where."""

from collections.abc import Sequence

from agentscope.ledger.verifying import Verified
from agentscope.ledger.walking import Problem, Run
from agentscope.views import safe
from agentscope.views.table import NARROWEST, WIDEST, filled
from agentscope.views.wording import count_of

PROBLEMS_SHOWN = 10
NOTED_SHOWN = 10
NO_ANCHOR = (
    'no anchor was found, so root could have changed them; in agentscope.toml: [ledger] anchor = "journal" or another place'
)


def render_verified(found: Verified, width: int) -> str:
    """The whole verdict as plain text."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = filled(headline_of(found), width)
    for problem in found.problems[:PROBLEMS_SHOWN]:
        lines += filled(words_of(problem), width, "  ", "    ")
    if found.problem_count > PROBLEMS_SHOWN:
        lines.append(f"  and {count_of(found.problem_count - PROBLEMS_SHOWN, 'problem')} more: --json")
    where = found.anchor or "nowhere"
    when = f", the last at {found.last_anchor}" if found.last_anchor else ""
    parts = [
        ("anchored", found.anchored, f"{count_of(found.anchors, 'anchor')} ({safe(where, 200)}){when}"),
        ("signed only", found.signed, "since the last anchor" if found.anchors else NO_ANCHOR),
        ("neither", found.unsigned, "since the last signature, or parted from it by a break"),
    ]
    if found.records:
        lines.append("")
        for name, runs, says in parts:
            if runs:
                lines += filled(f"{name:<12} {ranges_of(runs)}: {says}", width, "  ", " " * 15)
    lines += asides_of(found, width)
    return "\n".join([*lines, "", *filled(found.proves, width)]) + "\n"


def headline_of(found: Verified) -> str:
    """The verdict in a sentence."""
    if not found.whole:
        first = found.problems[0]
        return f"The ledger in {safe(found.folder, 300)} is NOT whole. First: {words_of(first)}"
    if not found.records:
        return f"The ledger in {safe(found.folder, 300)} is empty, and no anchor says that it ever was not."
    kept = f"records {found.first:,} to {found.last:,} in {count_of(found.segments, 'file')}"
    return f"The ledger in {safe(found.folder, 300)} is whole: {kept}, nothing is missing or changed."


def words_of(problem: Problem) -> str:
    """One problem, with where it was noticed."""
    place = ""
    if problem.file is not None:
        place = (
            f"{safe(problem.file, 80)}, line {problem.line}: " if problem.line is not None else f"{safe(problem.file, 80)}: "
        )
    return f"{place}{safe(problem.what, 400)}"


def ranges_of(runs: Sequence[Run]) -> str:
    """As "1 to 4,700 and 4,702"."""
    shown = [f"{run.first:,}" if run.first == run.last else f"{run.first:,} to {run.last:,}" for run in runs[:8]]
    return " and ".join([*shown, *([f"{len(runs) - 8} more"] if len(runs) > 8 else [])])


def asides_of(found: Verified, width: int) -> list[str]:
    """What is worth knowing and is nothing wrong."""
    asides = [safe(note, 400) for note in found.notes]
    if found.retired:
        asides.append(f"Retention removed the records up to {found.retired:,}; a signed tombstone says so.")
    if found.older:
        asides.append(f"From before the chain, and not covered by it: {safe(', '.join(found.older), 300)}")
    asides += [
        f"The ledger says of itself (record {each.seq:,}): {safe(each.says, 300)}" for each in found.noted[-NOTED_SHOWN:]
    ]
    lines = [line for aside in asides for line in filled(aside, width, "  ", "    ")]
    return ["", *lines] if lines else []
