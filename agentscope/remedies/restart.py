"""Starts the agent again through whoever owns it; one that hangs is stopped first, with everything that it started.

Nobody is fought over it: where systemd, a container's runtime or supervisord starts the agent again by itself, that is waited for.
"""

import asyncio

from agentscope import supervisors
from agentscope.remedies import Done, Order
from agentscope.supervisors import Means, Owner

NOBODY = 'nobody is known who would start it, and the config names no command. Try: restart = ["systemctl", "restart", "NAME.service"]'


def intent(order: Order) -> str:
    """Through whom it would be started."""
    return f"{'stop it and ' if order.lives else ''}restart {order.agent.name}{through(order)}"


def through(order: Order) -> str:
    """Who starts it, as far as that is known before the act."""
    owner = order.owner
    if owner is not None and owner.kind != "command":
        return f" through {owner.says}"
    return f" by {' '.join(order.policy.restart)}" if order.policy.restart else ""


async def act(order: Order) -> Done:
    """Have one new instance."""
    return await started(order, words_of(order))


def words_of(order: Order) -> dict[str, str | None]:
    """What `{session}` and the like in a command become; None: that is not known, and the argument is left out."""
    known = dict.fromkeys(("session", "folder", "tool")) | (order.session or {})
    return known | {"pid": str(order.agent.pid), "name": order.agent.name}


async def started(order: Order, words: dict[str, str | None]) -> Done:
    """Have one new instance through the owner; `words` are what `{session}` and the like in its command become."""
    owner = await owner_of(order)
    if owner is None:
        return Done(outcome="refused", says=NOBODY)
    supervisor = supervisors.every()[owner.kind]
    means = Means(owner_uid=order.owner_uid, state=order.state, members=order.members)
    made = await supervisor.restart(owner, order.agent, order.policy, words, means)
    if made.stopped:
        return Done(outcome="refused", says=made.says or made.why or "a person stopped it meanwhile")
    if made.why:
        return Done(outcome="failed", says=f"{owner.says}: {made.why}", pid=made.pid)
    return Done(outcome="done", says=made.says or f"started through {owner.says}", pid=made.pid)


async def owner_of(order: Order) -> Owner | None:
    """Who starts it: as it was found while the agent lived, else asked now."""
    if order.owner is not None:
        return order.owner
    end = None if order.lives else order.incident.exit
    return await asyncio.to_thread(supervisors.chosen, order.agent, order.policy, end)
