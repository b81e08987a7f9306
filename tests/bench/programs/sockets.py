"""A Python process that talks: one byte through a socket pair, again and again. Says the nanoseconds of one call."""

import socket
import sys
import time

count = int(sys.argv[1])
a, b = socket.socketpair()
began = time.perf_counter()
for _ in range(count):
    a.send(b"x")
    b.recv(16)
print((time.perf_counter() - began) * 1e9 / (2 * count))
