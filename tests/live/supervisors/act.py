"""Does to one agent what is asked and has its supervisor bring it back; prints what came of it as one line of JSON.

act.py PID crash|hang|ITS-OWN-WORDS… POLICY-JSON [STATE] — run beside the supervisor, in its namespaces.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from agentscope.agents import agent_of, read_process
from agentscope.model import ExitRecord
from agentscope.policy import Policy
from agentscope.stopping import is_living
from agentscope.supervisors import Means, chosen, every


def main() -> None:
    """One agent, one end, one restart."""
    pid, act, policy = int(sys.argv[1]), sys.argv[2], msgspec.json.decode(sys.argv[3], type=Policy)
    agent = agent_of(read_process(pid), time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    owner = chosen(agent, policy)
    end = ExitRecord(code=None, signal=None, core_dumped=False)
    if act == "crash":
        os.kill(pid, signal.SIGUSR2)
        while is_living(agent.pid, agent.start_ns):  # agentscope hears of an end when it has happened
            time.sleep(0.001)
        end = ExitRecord(code=None, signal="SIGSEGV", core_dumped=False)
    elif act == "late":  # it was not known before it ended
        os.kill(pid, signal.SIGUSR2)
        time.sleep(float(os.environ.get("LATE_S", "0.5")))
        owner = chosen(agent, policy, ExitRecord(code=None, signal="SIGSEGV", core_dumped=False))
    elif act == "stopped":
        os.kill(pid, signal.SIGSTOP)
    elif act != "hang":
        subprocess.run(json.loads(act), check=True, timeout=30, stdout=subprocess.DEVNULL)
        time.sleep(0.3)
    if owner is None:
        print(json.dumps({"owner": None}))
        return
    began = time.monotonic()
    means = Means(owner_uid=0, state=Path(sys.argv[4] if len(sys.argv) > 4 else "/tmp/agentscope-state"))
    words: dict[str, str | None] = {"session": None, "pid": str(pid), "name": agent.name}
    started = asyncio.run(every()[owner.kind].restart(owner, agent, policy, words, means))
    took_s = time.monotonic() - began
    now = every()[owner.kind].living(owner)
    print(json.dumps({"owner": msgspec.to_builtins(owner), "took_s": took_s, "living": now, "end": msgspec.to_builtins(end), **msgspec.to_builtins(started)}))  # fmt: skip


main()
