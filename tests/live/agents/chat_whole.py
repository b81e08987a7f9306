"""The openai SDK in a loop of one's own. It asks again after every error that the SDK gives up on."""

import signal
import sys
import time

import openai

client = openai.OpenAI()
history = [{"role": "user", "content": "What next?"}]
print("ready", flush=True)
sys.stdin.readline()
signal.alarm(90)
print("hanging", time.monotonic_ns(), flush=True)
while True:
    try:
        answer = client.chat.completions.create(model="m", messages=history)
    except (openai.RateLimitError, openai.APIConnectionError):
        continue
    history.append({"role": "assistant", "content": answer.choices[0].message.content})
