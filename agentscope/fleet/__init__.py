"""The streams of many hosts as one: read from NATS JetStream, on one clock, with the host before each name.

`sinks/nats.py` is the other end. `reading` brings lines and knows which it has brought already, `joining` makes them events of one
stream, so that the screen of one host shows all of them.
"""
