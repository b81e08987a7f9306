"""A small real service for recovery tests: answers GET /health, dies as it is asked to, and writes down each of its lives.

service.py FOLDER PORT: `lives` in the folder gets a line for each start; a second instance beside a living one writes `twice`.
The file `sick` makes it answer 503, the file `doomed` lets it die of an exception as soon as it has started. It ends after a minute.
"""

import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

signal.alarm(60)
folder, port = Path(sys.argv[1]), int(sys.argv[2])
lock = os.open(folder / "instance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    (folder / "twice").write_text(f"{os.getpid()}\n")
with (folder / "lives").open("a") as lives:
    lives.write(f"{os.getpid()} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n")
if (folder / "doomed").exists():
    raise KeyError("doomed")
listening = socket.create_server(("127.0.0.1", port), reuse_port=False)
with (folder / "ready").open("a") as ready:
    ready.write(f"{os.getpid()} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n")
while True:
    client, _ = listening.accept()
    asked = client.recv(4096)
    if asked.startswith(b"GET /crash"):
        raise KeyError("crash")
    if asked.startswith(b"GET /abort"):
        os.abort()
    if asked.startswith(b"GET /hang"):
        time.sleep(1000)
    status = b"503 Service Unavailable" if (folder / "sick").exists() else b"200 OK"
    client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    client.close()
