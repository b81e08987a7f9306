"""What the main screen shows while there is no agent: likely processes to pick, what to type, how agents are found."""

from collections.abc import Sequence

from agentscope.views.table import NOBODY, filled
from agentscope.views.tui.adding import candidate_line
from agentscope.views.tui.deeds import Candidate
from agentscope.views.wording import cut

PICKED_BY = "123456789"
TO_TYPE = (
    ("sudo agentscope drill oom", "a sample agent dies in a sandbox; also hang, segfault, drift, exception"),
    ("sudo agentscope run -- CMD", "start CMD and watch it"),
    ("sudo agentscope watch --pid N", "watch a process that runs; also --name, --unit, --cgroup, --config"),
)
HOW_FOUND = (
    "An agent is found as it starts, or as it runs: by its command line (Claude Code, Codex, aider, LangGraph, ...), by the name of a "
    "model's key in its environment together with a connection to a model's API, or by what you ask for."
)


def empty_lines(width: int, height: int, likely: Sequence[Candidate], *, can_add: bool) -> list[str]:
    """As much of it as fits: what can be picked first, then what to type, then how agents are found."""
    picked = [f"  {digit}{candidate_line(each, width - 3)}" for digit, each in zip(PICKED_BY, likely, strict=False)]
    picks = ["These may be agents: type the number of one to watch it.", *picked] if picked else []
    picks += ["  a  any other process, from a list"] if can_add else []
    wide = max(len(command) for command, _ in TO_TYPE)
    beside = width >= wide + 40
    short = [f"  {command}" for command, _ in TO_TYPE]
    typed = [f"  {command:<{wide}}  {says}" for command, says in TO_TYPE] if beside else short
    head, how = filled(NOBODY, width), filled(HOW_FOUND, width)
    for body in (
        [*head, "", *picks, *([""] if picks else []), "Or in another terminal:", *typed, "", *how],
        [*head, "", *picks, *([""] if picks else []), *typed],
        [*head, *picks[: max(0, height - len(head) - len(short))], *short],
    ):
        if len(body) <= height:
            return [cut(line, width) for line in body]
    return [cut(line, width) for line in [*head, *short]][: max(1, height)]
