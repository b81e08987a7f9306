"""What frames of a stack tell: whose code it is, whether an event loop is inside a callback, whether a pool was asked. Pure.

Frames of Python are innermost first everywhere. A native frame or place is "symbol+0x1c (libfoo.so)".
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from agentscope.model import PythonFrame

_INSTALLED = ("/lib/python3", "/site-packages/", "/dist-packages/", "<frozen ")
_NEAR = 16  # frames from the innermost in which a pool or a reader of answers is looked for


def is_own(frame: PythonFrame) -> bool:
    """Whether a frame is the program's own code: neither of the interpreter's library nor of an installed package."""
    return not any(part in frame.file for part in _INSTALLED)


def own_frame(frames: Iterable[PythonFrame]) -> PythonFrame | None:
    """The innermost frame of the program's own code."""
    return next((frame for frame in frames if is_own(frame)), None)


def file_name(path: str) -> str:
    """The last part of a path."""
    return path.rsplit("/", 1)[-1]


def function_of(frame: PythonFrame) -> str:
    """The bare name of a frame's function: "wait" of "Condition.wait"."""
    return frame.function.rpartition(".")[2]


def line_of(frame: PythonFrame) -> str:
    """A frame as "agent.py:12"."""
    return f"{file_name(frame.file)}:{frame.line or frame.first_line}"


def place_of(frame: PythonFrame) -> str:
    """A frame as "agent.py:12 in debit"; code of a module's top level has no function to name."""
    return line_of(frame) if frame.function == "<module>" else f"{line_of(frame)} in {frame.function}"


def blamed_place(frames: Sequence[PythonFrame]) -> str:
    """Where a thread is, for a person: the innermost line of the program's own, else the innermost; "" without frames."""
    return place_of(own_frame(frames) or frames[0]) if frames else ""


# --- event loops ----------------------------------------------------------------------------------------------------------


class _Loop(NamedTuple):
    """Where a loop runs (end of the file's path, functions) and the functions that it calls to wait."""

    file: str
    runs: frozenset[str]
    waits: frozenset[str]


_LOOPS = (
    _Loop("asyncio/base_events.py", frozenset({"run_forever", "_run_once"}), frozenset({"select"})),
    _Loop("asyncio/runners.py", frozenset({"run"}), frozenset()),  # of uvloop, whose own frames are not Python's
    _Loop("uvloop/__init__.py", frozenset({"run"}), frozenset()),
    _Loop("trio/_core/_run.py", frozenset({"unrolled_run", "run"}), frozenset({"get_events"})),
    _Loop("twisted/internet/base.py", frozenset({"mainLoop", "run"}), frozenset({"doPoll", "doIteration"})),
    _Loop("gevent/hub.py", frozenset({"run"}), frozenset()),
)


def loop_state(frames: Sequence[PythonFrame]) -> Literal["waits", "inside"] | None:
    """Whether a thread runs an event loop, and if so whether that waits for events or is inside a callback; None: no loop."""
    for depth, frame in enumerate(frames):
        loop = next((each for each in _LOOPS if frame.file.endswith(each.file) and function_of(frame) in each.runs), None)
        if loop is not None:
            return "waits" if depth == 0 or function_of(frames[depth - 1]) in loop.waits else "inside"
    return None


# --- pools of connections, and pools of workers ---------------------------------------------------------------------------

_CHECKOUTS = frozenset(
    {
        "_get_conn", "get_conn", "getconn", "get_connection", "_get_connection", "checkout", "_checkout", "_do_get",
        "wait_for_connection", "_wait_for_available_connection", "acquire_connection", "_acquire_connection", "borrow", "lease",
        "borrow_connection", "lease_connection",
    }
)  # fmt: skip
_TAKES = ("get", "acquire", "wait", "take", "checkout", "borrow", "lease", "conn", "__enter__")
_WORKERS = ("concurrent/futures/", "multiprocessing/", "threadpool", "workerpool")
_WORKER_LOOPS = (
    ("concurrent/futures/thread.py", "_worker"),
    ("concurrent/futures/process.py", "_process_worker"),
    ("multiprocessing/pool.py", "worker"),
    ("multiprocessing/pool.py", "_handle_tasks"),
    ("multiprocessing/pool.py", "_handle_results"),
    ("multiprocessing/pool.py", "_handle_workers"),
    ("multiprocessing/queues.py", "_feed"),
    ("logging/handlers.py", "_monitor"),
    ("anyio/_backends/_asyncio.py", "run"),
)
_FETCHES = frozenset(
    {
        "get",
        "wait",
        "recv",
        "recv_bytes",
        "_recv_bytes",
        "_recv",
        "poll",
        "select",
        "__enter__",
        "acquire",
        "wait_result_broken_or_wakeup",
    }
)


def pool_frame(frames: Sequence[PythonFrame]) -> PythonFrame | None:
    """The frame that takes a connection out of a pool, if the innermost frames are in one; a pool of workers does not count."""
    for frame in frames[:_NEAR]:
        path, function = frame.file.lower(), function_of(frame)
        if any(part in path for part in _WORKERS):
            return None
        if function in _CHECKOUTS:
            return frame
        pooled = "pool" in file_name(path) or "/pool/" in path
        if pooled and "worker" not in function.lower() and any(word in function.lower() for word in _TAKES):
            return frame
    return None


def worker_state(frames: Sequence[PythonFrame]) -> Literal["idle", "job"] | None:
    """Whether a thread is a pool's worker, and if so whether it waits for a job or has one; None: it is no such worker."""
    for depth, frame in enumerate(frames):
        if any(frame.file.endswith(file) and function_of(frame) == function for file, function in _WORKER_LOOPS):
            waits = all(not is_own(inner) and function_of(inner) in _FETCHES for inner in frames[:depth])
            return "idle" if waits else "job"
    return None


# --- what a thread that waits for bytes is doing --------------------------------------------------------------------------

_READERS = (
    "http/client.py", "urllib/request.py", "/urllib3/", "/requests/", "/httpcore/", "/httpx/", "/httpcore2/", "/httpx2/", "/aiohttp/", "/h11/", "/h2/",
    "/httplib2/", "/botocore/", "/ssl.py", "/openai/", "/anthropic/", "/psycopg", "/pymysql/", "/asyncpg/", "/pymongo/",
)  # fmt: skip
_SUBSCRIBES = (
    "subscri", "pubsub", "websocket", "listen", "sse_client", "sse_reader", "event_source", "eventsource", "notif", "consum",
    "mqtt", "pika", "kafka", "nats", "zmq", "socket_mode", "gateway", "longpoll", "long_poll", "get_updates", "getupdates",
)  # fmt: skip


def reads_answer(frames: Sequence[PythonFrame]) -> bool:
    """Whether the innermost frames are in a library that reads the answer to a question."""
    return any(part in frame.file for frame in frames[:_NEAR] for part in _READERS)


_AWAITS_HEAD = frozenset({"_read_status", "_receive_response_headers"})  # http.client and what is built on it; httpcore


def awaits_head(frames: Sequence[PythonFrame]) -> bool:
    """Whether a reader of an HTTP answer has not got its first line yet: what came before was the answer to another question."""
    return any(function_of(frame) in _AWAITS_HEAD for frame in frames[:_NEAR])


def subscribes(frames: Sequence[PythonFrame]) -> bool:
    """Whether a thread waits for news that may never come, by design: a subscription, a web socket, a message queue."""
    named = (
        f"{file_name(frame.file) if is_own(frame) else _package_of(frame)} {frame.function}".lower() for frame in frames[:_NEAR]
    )
    return any(word in text for text in named for word in _SUBSCRIBES)


def _package_of(frame: PythonFrame) -> str:
    """The last two parts of a library's path: "websocket/_core.py"."""
    return "/".join(frame.file.rsplit("/", 2)[-2:])


def is_tls(frames: Sequence[PythonFrame]) -> bool:
    """Whether the bytes that are waited for are encrypted: what comes may be the protocol's own and no answer at all."""
    return any(frame.file.endswith("/ssl.py") for frame in frames[:_NEAR])


# --- native frames --------------------------------------------------------------------------------------------------------

_CARRIERS = (
    "libc.so", "libc-", "libc.musl", "ld-linux", "ld-musl", "libpthread", "libstdc++", "libgcc_s", "linux-vdso", "[vdso]",
    "libpython", "python3", "no code",
)  # fmt: skip
_EVALUATES = ("_PyEval", "PyEval", "_PyFunction_Vectorcall", "gen_", "_Py")


def symbol_of(frame: str) -> str:
    """The symbol of a native frame, without its offset: "debit" of "debit+0x1c (agent)"."""
    name = frame.rpartition(" (")[0] or frame
    return name.partition("+0x")[0] or name


def module_of(frame: str) -> str:
    """The module of a native frame; "" where none is told."""
    return frame.rpartition(" (")[2].removesuffix(")") if frame.endswith(")") else ""


def blamed_native(frames: Sequence[str]) -> str | None:
    """The innermost native frame that is not of a library which only does as it is told: "debit (agent)"."""
    found = next((frame for frame in frames if module_of(frame) and not module_of(frame).startswith(_CARRIERS)), None)
    return None if found is None else f"{symbol_of(found)} ({module_of(found)})"


def is_interpreter(place: str) -> bool:
    """Whether a place in native code is Python's interpreter at work: it says nothing of what the program does."""
    return module_of(place).startswith(("libpython", "python")) or symbol_of(place).startswith(_EVALUATES)
