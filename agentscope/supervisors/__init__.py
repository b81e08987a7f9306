"""Who owns an agent's process and would start it again: one file each; being in the folder is being registered.

agentscope asks the owner and never fights it: two that restart one agent make two instances. The rule, in `chosen`:

1. Of those that claim an agent the nearest to its process counts: `agentscope run`, then supervisord, a container's runtime, systemd.
2. An owner that starts the agent again by itself after such an end is deferred to, whatever the policy's `restart` says: we wait for
   it and act only through it, once it has given up.
3. Else the policy's own `restart` command is the act (under `agentscope run`: what is started in place of the first command).
4. Else the owner is asked to start it. With neither there is nobody, and nothing is started.
"""

import importlib
import os
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from agentscope.commands import Identity, gid_of
from agentscope.model import Agent, ExitRecord, Value
from agentscope.policy import Policy
from agentscope.stopping import nobody
from agentscope.stopping.tree import Members

FARTHEST = 1000  # the nearness of a command: it claims an agent only by what the policy says


class Owner(Value, frozen=True):
    """Who starts this agent. `kind` is the module's name; `name` is the agent in the owner's words (a unit, a program, a container).

    `restarts` tells whether it starts the agent again by itself after such an end: then we wait for that and validate it.
    `at` is where the owner is asked (a socket, a user's own service manager), in the module's own words. `under`: a command starts it,
    but this one has its process.
    """

    kind: str
    name: str
    restarts: bool
    says: str
    at: str = ""
    under: "Owner | None" = None


class Started(Value, frozen=True):
    """What came of asking for a start: `pid` is the new main process, None where it could not be learnt; `why` is empty on success.

    `says` tells what was done. `stopped`: a person stopped the agent meanwhile, so nothing was started and nothing should be.
    """

    pid: int | None
    why: str = ""
    says: str = ""
    stopped: bool = False


class Means(Value, frozen=True):
    """With whose rights and with what knowledge a start is asked for.

    `owner_uid` is whose the config is: a config that is not root's gets no more done than its owner may. `state` is the state
    directory. `members` tells the processes of the agent's tree by birth; it is called from another thread, so it returns a copy.
    """

    owner_uid: int
    state: Path
    members: Members = nobody


class Supervisor(Protocol):
    """What the module of a supervisor has. `nearness`: the lower, the nearer to the agent's process.

    `owner_of` and `living` ask the supervisor and may wait for it for some seconds: they are called beside the loop. What a process
    is to its supervisor can be read only while it lives, so `owner_of` is called when an agent is first seen, and again at its end.
    """

    nearness: int

    def owner_of(self, agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:
        """Whether it owns this agent (which may have ended already: what is known of it is in the value). None as `end`: not ended."""
        ...

    def living(self, owner: Owner) -> int | None:
        """The main process that it has for this agent now, whoever started it; None where it has none."""
        ...

    async def restart(self, owner: Owner, agent: Agent, policy: Policy, words: dict[str, str | None], means: Means) -> Started:
        """Have one new instance, and never two: a living one is stopped first. `words` are what `{session}` and the like become."""
        ...


@lru_cache
def every() -> dict[str, Supervisor]:
    """All supervisors by name."""
    return {
        found.name: importlib.import_module(f"{__name__}.{found.name}")  # a module is the object
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    }


def chosen(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:
    """Through whom this agent is started again, by the rule above; None where nobody would. May wait for some seconds."""
    owner = claimed(agent, policy, end)
    if owner is not None and (owner.restarts or owner.kind == "run" or not policy.restart):
        return owner
    return every()["command"].owner_of(agent, policy, end)


def claimed(agent: Agent, policy: Policy, end: ExitRecord | None = None) -> Owner | None:
    """Whoever has this agent's process and stands nearest to it, the policy's command aside. May wait for some seconds."""
    ranked = sorted(every().values(), key=lambda each: each.nearness)
    return next((found for each in ranked if each.nearness < FARTHEST and (found := each.owner_of(agent, policy, end))), None)


def rights_of(owner_uid: int) -> Identity | None:
    """Whose rights an act of the config's owner has: root's config acts as root, that of a user as that user.

    A restart is not a hook: `systemctl restart` needs the rights of whoever wrote the config, not those of the agent. None: ours.
    """
    if os.geteuid() != 0 or owner_uid == 0:
        return None
    return Identity(uid=owner_uid, gid=gid_of(owner_uid), groups=tuple(os.getgrouplist(name_of(owner_uid), gid_of(owner_uid))))


def name_of(uid: int) -> str:
    """The name a user logs in with, or the number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
