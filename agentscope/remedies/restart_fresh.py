"""Starts the agent again without what the dead one carried: no session is taken up, and its state is set aside.

The files and folders that the policy calls `fresh` are renamed beside themselves, never removed. The new instance finds
AGENTSCOPE_FRESH=1 in its environment where the owner can hand that on, and `{session}` in its command is empty.
"""

import asyncio
from pathlib import Path

from agentscope import supervisors
from agentscope.agents import same_identity, start_ns_of
from agentscope.remedies import Done, Order, restart
from agentscope.snapshots.places import set_aside

FRESH = "fresh"  # among the words that a supervisor is given: "1"


def intent(order: Order) -> str:
    """What would be set aside, and through whom it would be started."""
    aside = f", with {', '.join(order.policy.fresh)} set aside" if order.policy.fresh else ""
    return f"{'stop it and ' if order.lives else ''}start {order.agent.name} afresh{restart.through(order)}{aside}"


async def act(order: Order) -> Done:
    """Set aside what it would stumble over again, and have one new instance."""
    told, failed = await asyncio.to_thread(aside, order)
    words = restart.words_of(order) | dict.fromkeys(order.session or {}) | {"session": None, FRESH: "1"}
    done = await restart.started(order, words)
    says = "; ".join([*told, *failed, done.says])
    return Done(outcome=done.outcome, says=says, pid=done.pid)


def newcomer(order: Order) -> int | None:
    """The instance that its owner has started already, which works on the state that would be set aside."""
    if order.owner is None:
        return None
    pid = supervisors.every()[order.owner.kind].living(order.owner)
    start_ns = start_ns_of(pid) if pid is not None else None
    if start_ns is None or same_identity(start_ns, order.agent.start_ns):
        return None
    return pid


def aside(order: Order) -> tuple[list[str], list[str]]:
    """Rename what is to be fresh: what was done and what could not be, in sentences; blocks."""
    told: list[str] = []
    failed: list[str] = []
    pid = newcomer(order) if order.policy.fresh else None
    if pid is not None:
        return told, [f"{', '.join(order.policy.fresh)} is in use by pid {pid}, which was started meanwhile, and stays"]
    for path in order.policy.fresh:
        try:
            new = set_aside(Path(path), order.owner_uid)
        except OSError as error:
            failed.append(f"{path} could not be set aside: {error.strerror or error}")
        else:
            told.append(f"{path} is now {new}" if new is not None else f"{path} is not there")
    return told, failed
