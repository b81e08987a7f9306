"""Which cause a Python exception names: by its type first, by its words where the type says little."""

from agentscope.readers._late import late
from agentscope.readers._tracebacks import Trace
from agentscope.readers._words import cause_in, cause_of_signal

UNCAUGHT = "exception/uncaught"

_MEMORY = frozenset({"MemoryError", "_ArrayMemoryError", "ArrowMemoryError"})
_IMPORTS = frozenset({"ModuleNotFoundError", "ImportError", "PackageNotFoundError", "DistributionNotFound", "VersionConflict"})
_MORE_IMPORTS = frozenset({"ContextualVersionConflict", "APIRemovedInV1", "PydanticImportError", "UnknownExtra"})
_NETWORK = frozenset(
    {
        *("ConnectionRefusedError", "ConnectionResetError", "ConnectionAbortedError", "ConnectionError", "gaierror", "herror"),
        *(
            "MaxRetryError",
            "NewConnectionError",
            "NameResolutionError",
            "ProtocolError",
            "IncompleteRead",
            "RemoteDisconnected",
        ),
        *("URLError", "HTTPError", "SSLError", "SSLEOFError", "SSLCertVerificationError", "SSLZeroReturnError", "ConnectError"),
        *("ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError", "HTTPStatusError", "PoolTimeout", "ProxyError"),
        *("ServerDisconnectedError", "ClientConnectorError", "ClientOSError", "ClientResponseError", "ClientPayloadError"),
        *(
            "APIConnectionError",
            "APITimeoutError",
            "APIStatusError",
            "RateLimitError",
            "AuthenticationError",
            "BadRequestError",
        ),
        *("InternalServerError", "ServiceUnavailableError", "PermissionDeniedError", "UnprocessableEntityError", "APIError"),
        *("OverloadedError", "InvalidRequestError", "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
        *("ServerSelectionTimeoutError", "AutoReconnect", "NetworkTimeout", "NoBrokersAvailable", "AMQPConnectionError"),
        *("HfHubHTTPError", "LocalEntryNotFoundError", "GatedRepoError", "RepositoryNotFoundError", "OfflineModeIsEnabled"),
        *(
            "ConnectionClosedError",
            "ConnectionClosed",
            "InvalidStatusCode",
            "InvalidStatus",
            "InvalidHandshake",
            "_InactiveRpcError",
        ),
        *(
            "ResourceExhausted",
            "ServiceUnavailable",
            "DeadlineExceeded",
            "TooManyRequests",
            "DistNetworkError",
            "ChunkedEncodingError",
        ),
        *(
            "AioRpcError",
            "ContextWindowExceededError",
            "ContentTypeError",
            "TransportError",
            "NetworkError",
            "ConnectionTimeout",
        ),
    }
)
_NETWORK_HOMES = (
    *(
        "openai.",
        "anthropic.",
        "litellm.",
        "httpx.",
        "httpcore.",
        "requests.",
        "urllib3.",
        "aiohttp.",
        "urllib.error.",
        "http.client.",
    ),
    *("ssl.", "socket.", "botocore.exceptions.", "google.api_core.exceptions.", "google.genai.errors.", "grpc.", "websockets."),
    *(
        "huggingface_hub.errors.",
        "huggingface_hub.utils._",
        "ollama.",
        "groq.",
        "mistralai.",
        "cohere.",
        "together.",
        "redis.exceptions.",
    ),
)
_NOT_NETWORK = late(
    r"JSONDecodeError|MissingSchema|InvalidURL|InvalidSchema|LocationParseError|UnsupportedProtocol|APIRemoved|LengthFinishReason"
    r"|ContentFilter|APIResponseValidation|OpenAIError|DataError|ResponseError\b|NoCredentials|ParamValidation|InvalidHeader"
    r"|HFValidationError|WatchError|LockError|UnicodeError|StreamConsumed|ProfileNotFound|NoRegion|CookieConflict"
)
_AMBIGUOUS = frozenset({"ConnectionError", "TimeoutError", "ReadTimeout", "HTTPError"})
_GPU_TYPES = frozenset({"OutOfMemoryError", "OutOfMemoryException"})
_NETWORK_CODE = late(
    r"[/\\](?:socket|ssl|selector_events|streams)\.py$|[/\\](?:httpx|httpcore|aiohttp|urllib3?|requests|openai|anthropic|grpc)[/\\]"
)
_SOCKET_TIMEOUTS = frozenset(
    {"timed out", *(f"The {what} operation timed out" for what in ("read", "write", "connect", "handshake"))}
)
_ERRNO = late(r"\[Errno (\d{1,4})\]")
_NETWORK_ERRNOS = frozenset({100, 101, 102, 103, 104, 107, 110, 111, 112, 113, -2, -3})
_API_GONE = late(
    r"module '[\w.]{1,200}' has no attribute|cannot import name|with minimum required version|is required for a normal functioning"
    r"|has been (?:removed|moved) (?:in|from|to) |requires? [\w.-]{1,60} ?[<>=!~]=? ?\d|[\w.-]{1,60}[<>=!~]=[\w.,<>=!]{1,60} is required"
    r"|No module named|was removed in (?:NumPy|pandas|Python|version)|no longer supported in version"
)
_NEW_SIGNATURE = late(r"__init__\(\) got an unexpected keyword argument")
_CIRCULAR = late(r"partially initialized module|circular import|attempted relative import|most likely due to")
_ATTRIBUTE_OF_MODULE = late(r"module '([\w.]{1,200})' has no attribute")
PASSING = frozenset({"KeyboardInterrupt", "SystemExit", "CancelledError", "GeneratorExit"})
# Exceptions of a parent that say by which signal its worker died: then that death is what happened.
_CARRIERS = frozenset({"ProcessExitedException", "ChildFailedError", "WorkerLostError"})
_CARRIED = late(
    r"[Ss]ignal \d{1,2} \((SIG[A-Z]{2,6})\)|terminated with signal (SIG[A-Z]{2,6})|killed by signal: ([A-Z][a-z]{2,20}(?: [a-z]{3,20})?)"
)
_CARRIED_WORDS = {
    "Killed": "SIGKILL",
    "Bus error": "SIGBUS",
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Terminated": "SIGTERM",
}
_RAISED = late(r"finished raised (\w{1,80})")
_FOLLOWS = late(
    r"See root cause above|[Rr]oot cause|Engine core initialization failed|Engine (?:process|core|loop).{0,40}(?:fail|die|dead)"
    r"|Background loop has errored|can't create new thread at interpreter shutdown|died with <Signals|terminated abruptly"
    r"|cannot schedule new futures after|Event loop is closed|worker.{0,20} (?:died|failed)"
)
_FOLLOWING_TYPES = frozenset(
    {
        *("EngineDeadError", "AsyncEngineDeadError", "MQEngineDeadError", "ChildFailedError", "ProcessExitedException"),
        *(
            "BrokenProcessPool",
            "ActorDiedError",
            "WorkerCrashedError",
            "CalledProcessError",
            "RuntimeEnvSetupError",
            "TerminatedWorkerError",
        ),
    }
)


def is_passing(trace: Trace) -> bool:
    """Whether this exception only says that the program was asked to end."""
    return short(trace) in PASSING


def is_follow_up(trace: Trace) -> bool:
    """Whether this exception reports the death of something else: then the other one is the cause, if it is there."""
    if is_passing(trace) or short(trace) in _FOLLOWING_TYPES or _FOLLOWS.search(trace.words[:2000]):
        return True
    innermost = trace.innermost
    return (
        innermost is not None
        and short(trace) in ("EOFError", "ConnectionResetError", "BrokenPipeError")
        and "multiprocessing" in innermost.file
    )


def short(trace: Trace) -> str:
    """The class name without its module and without the wrapped type."""
    return (trace.type or "").split("(", 1)[0].rsplit(".", 1)[-1]


def cause_of(trace: Trace) -> str:
    """The cause that this exception names, its chain and the members of its group included."""
    own = _own_cause(trace)
    if own != UNCAUGHT:
        return own
    if len(trace.subs) >= 1 and trace.group:
        inner = {_own_cause(sub) for sub in trace.subs if not sub.group}
        if len(inner) == 1:
            return inner.pop()
    above = trace.above
    for _ in range(8):
        if above is None or above.type is None:
            break
        cause = _own_cause(above)
        if cause.startswith(("oom/", "exception/")) and cause != UNCAUGHT:
            return cause
        if cause.startswith("drift/") and trace.link not in (None, "During"):
            return cause
        above = above.above
    return UNCAUGHT


def _own_cause(trace: Trace) -> str:
    name, kind, words = trace.type or "", short(trace), trace.words[:4000]
    first = trace.message[:2000] or words[:2000]
    if kind in _MEMORY:
        return "oom/runtime-heap"
    named = cause_in(f"{first}\n{words}" if kind not in _NETWORK else first)
    if kind in _GPU_TYPES and (named is None or named.startswith("oom/")):
        return "oom/gpu"
    if kind in _IMPORTS or kind in _MORE_IMPORTS or first.startswith("Failed to import "):
        return _import_cause(words, named)
    if (kind in _CARRIERS or "DataLoader worker" in first) and (signal := _signal_in(words)):
        return cause_of_signal(signal)
    if kind == "RetryError" and (raised := _RAISED.search(first)) and raised.group(1) in _NETWORK:
        return "exception/network"
    if named is not None and named != "exception/network":
        return named
    if _is_network(name, kind, first, trace):
        return "exception/network"
    if named == "exception/network" and not _NOT_NETWORK.search(kind):
        return named
    if kind == "AttributeError" and _CIRCULAR.search(words):
        return UNCAUGHT
    if _API_GONE.search(first) and kind in (
        "AttributeError",
        "Exception",
        "RuntimeError",
        "AssertionError",
        "TypeError",
        "ValueError",
    ):
        return "drift/python-import"
    if kind == "TypeError" and _NEW_SIGNATURE.search(first) and _in_library(trace):
        return "drift/python-import"
    return UNCAUGHT


def _signal_in(words: str) -> str | None:
    match = _CARRIED.search(words)
    if match is None:
        return None
    return match.group(1) or match.group(2) or _CARRIED_WORDS.get(match.group(3))


def _import_cause(words: str, named: str | None) -> str:
    if named is not None and named.startswith(("drift/", "oom/")):
        return named
    return UNCAUGHT if _CIRCULAR.search(words) else "drift/python-import"


def _is_network(name: str, kind: str, message: str, trace: Trace) -> bool:
    if _NOT_NETWORK.search(kind):
        return False
    if (number := _ERRNO.search(message)) and int(number.group(1)) in _NETWORK_ERRNOS:
        return True
    if kind == "TimeoutError":
        innermost = trace.innermost
        return (
            message in _SOCKET_TIMEOUTS
            or "urllib" in name
            or (innermost is not None and bool(_NETWORK_CODE.search(innermost.file)))
        )
    return kind in _NETWORK or name.startswith(_NETWORK_HOMES)


def _in_library(trace: Trace) -> bool:
    innermost = trace.innermost
    return innermost is not None and ("site-packages" in innermost.file or "dist-packages" in innermost.file)
