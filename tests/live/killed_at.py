"""agentscope, killed with SIGKILL at one chosen moment of a recovery: `killed_at.py N ARGUMENTS…` at the N-th, counted from 1.

The moments are before and after each thing that outlives us: a line of the ledger, an act, a step. Each is told on standard error.
"""

import os
import signal
import sys

from agentscope.cli import run_command
from agentscope.model import IncidentOpened
from agentscope.pipeline import Pipeline
from agentscope.recovery.acting import Acting
from agentscope.recovery.keeper import Keeper

WANTED = int(sys.argv[1])
told: list[str] = []  # the moments that have passed
begun: list[IncidentOpened] = []  # nothing counts before there is one


def moment(name: str) -> None:
    """One of them: the end, if it is the chosen one."""
    if not begun:
        return
    told.append(name)
    sys.stderr.write(f"moment {len(told)} {name}\n")
    sys.stderr.flush()
    if len(told) == WANTED:
        os.kill(os.getpid(), signal.SIGKILL)


keep, keep_durably, act, step = Pipeline.keep, Pipeline.keep_durably, Acting.act, Keeper.go_on


def kept(self, event):
    if isinstance(event, IncidentOpened):
        begun.append(event)
    moment(f"before keeping {type(event).__name__}")
    keep(self, event)
    moment(f"after keeping {type(event).__name__}")


async def kept_durably(self, event):
    moment(f"before keeping {type(event).__name__} {event.remedy}")
    await keep_durably(self, event)
    moment(f"after keeping {type(event).__name__} {event.remedy}")


async def acted(self, wanted, *rest):
    moment(f"before {wanted.remedy}")
    done = await act(self, wanted, *rest)
    moment(f"after {wanted.remedy}")
    return done


async def stepped(self, chain, wanted, turn):
    moment(f"before step {type(wanted).__name__}")
    await step(self, chain, wanted, turn)


Pipeline.keep, Pipeline.keep_durably, Acting.act, Keeper.go_on = kept, kept_durably, acted, stepped
sys.exit(run_command(sys.argv[2:]))
