"""A client outside the agent: `client.py PORT ask|keep`; says `port N` (its own), then `ready`.

`ask` waits for an answer as long as it takes and asks again 20 ms after it; `keep` asks once and keeps the connection.
"""

import signal
import socket
import sys
import time

signal.alarm(330)
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("port", connection.getsockname()[1])
print("ready", flush=True)
while True:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n")
    if not connection.recv(65536):
        sys.exit("the agent closed the connection")
    if sys.argv[2] == "keep":
        time.sleep(100)
    time.sleep(0.02)
