"""agentscope on a bad day: `hampered.py late ARGUMENTS…` judges each end four seconds late, `blind` never sees one in the kernel."""

import sys
import time

from agentscope.cli import run_command
from agentscope.model import ProcessExit
from agentscope.pipeline import Pipeline
from agentscope.sources.ebpf import CoreEngine

LATE_S = 4.0
judged, drain = Pipeline.judged, CoreEngine.drain


def judged_late(self, ended, scene, *rest, **more):
    time.sleep(LATE_S)
    return judged(self, ended, scene, *rest, **more)


def drained_blind(self):
    return [event for event in drain(self) if not isinstance(event, ProcessExit)]


if sys.argv[1] == "late":
    Pipeline.judged = judged_late
else:
    CoreEngine.drain = drained_blind
sys.exit(run_command(sys.argv[2:]))
