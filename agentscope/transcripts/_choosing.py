"""Which of the sessions in one folder is that of one process."""

from collections.abc import Sequence
from itertools import pairwise, zip_longest

from agentscope.model import Value
from agentscope.transcripts import SECONDS_NS, SLACK_NS, Asked, Unread, is_id

RESUMING = frozenset({"resume", "--resume", "-r", "--continue", "-c", "--session", "-s", "--session-id", "fork", "--last"})
HEADLESS = frozenset({"-p", "--print", "--prompt", "exec", "e", "run"})
BEGINS_WITHIN_NS = 120 * SECONDS_NS


class Candidate(Value, frozen=True):
    """A session that may be the one. Times are ns since 1970; `began_ns` None: not known."""

    session: str
    path: str
    written_ns: int
    began_ns: int | None = None


def named_in(argv: Sequence[str]) -> tuple[str, ...]:
    """What a command line says after a word that resumes: ids, perhaps."""
    found = []
    for word, following in zip_longest(argv, argv[1:], fillvalue=""):
        name, _, value = word.partition("=")
        if name in RESUMING:
            found.append(value or following)
    return tuple(each for each in found if is_id(each))


def chosen(asked: Asked, tool: str, candidates: Sequence[Candidate]) -> Candidate | Unread | None:
    """The one that is this process's; Unread where that cannot be told, None where there is none.

    A wrong one is worse than none: somebody else's work would be done twice. So it must have been written since the process began,
    must not be older than the process unless its command line resumes one, and must not have rivals.
    """
    since_ns = asked.began_wall_ns - SLACK_NS
    written = {
        each.session: each for each in sorted(candidates, key=lambda each: each.written_ns) if each.written_ns >= since_ns
    }
    named = [written[word] for word in named_in(asked.argv) if word in written]
    if named:
        return named[-1]
    left = list(written.values())
    if not RESUMING.intersection(word.partition("=")[0] for word in asked.argv):
        left = [each for each in left if each.began_ns is None or each.began_ns >= since_ns]
    if len(left) < 2:
        return left[0] if left else None
    left.sort(key=lambda each: each.began_ns or 0)
    if all(each.began_ns is not None for each in left):
        if HEADLESS.intersection(asked.argv) and (left[0].began_ns or 0) - asked.began_wall_ns < BEGINS_WITHIN_NS:
            return left[0]  # one session in the life of such a process, begun at once: those begun later are of others
        # one person's, who began another: each was left before the next began
        if all(before.written_ns <= (after.began_ns or 0) + SLACK_NS for before, after in pairwise(left)):
            return left[-1]
    shown = ", ".join(each.session for each in left[-4:])
    return Unread(
        because=f"{len(left)} sessions of {tool} were written in its folder while it ran ({shown}), and which is its own cannot be told"
    )
