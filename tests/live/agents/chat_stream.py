"""The openai SDK, token by token. It asks again after a 429, and dies of any other error."""

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
        stream = client.chat.completions.create(model="m", messages=history, stream=True)
    except openai.RateLimitError:
        continue
    text = ""
    for piece in stream:
        text += piece.choices[0].delta.content or ""
    history.append({"role": "assistant", "content": text})
