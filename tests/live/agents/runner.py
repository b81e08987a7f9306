"""OpenAI's Agents SDK, token by token in an event loop. It asks again after every error that the SDK gives up on."""

import asyncio
import signal
import sys
import time

import agents
import openai


async def main() -> None:
    agent = agents.Agent(name="a", model="m")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    signal.alarm(90)
    print("hanging", time.monotonic_ns(), flush=True)
    while True:
        try:
            run = agents.Runner.run_streamed(agent, "What next?")
            async for _ in run.stream_events():
                pass
        except (openai.RateLimitError, openai.APIConnectionError):
            continue


asyncio.run(main())
