"""Which cause the words of an error name, whatever the language: errno names and their texts, loader and GPU messages.

Texts are those of glibc and musl `strerror`, libuv, Go's syscall package, Rust's `io::ErrorKind` and .NET. Only the words are
judged here; whether the program lived on is the reader's matter.
"""

import re

from agentscope.readers._late import late

# Order counts: the first that matches names the cause.
_CAUSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (cause, late(pattern, re.IGNORECASE))
    for cause, pattern in (
        (
            "oom/gpu",
            (
                r"\b(?:CUDA|HIP|XPU|MPS backend|cudaMalloc|cuMem\w{1,20}|ROCm)\b[^\n]{0,120}\bout of (?:device )?memory"
                r"|out of memory[^\n]{0,40}\b(?:CUDA|GPU|HBM)\b|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
                r"|cudaErrorMemoryAllocation|(?:CUDA_ERROR|HIP_ERROR)_OUT_OF_MEMORY|hipErrorOutOfMemory|ErrorOutOfDeviceMemory"
                r"|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating tensor|No available memory for the cache blocks"
                r"|larger than the (?:available KV cache memory|maximum number of tokens that can be stored in KV cache)"
                r"|less than desired GPU memory utilization|try to increase --mem-fraction-static|GPUCommandBufferCallbackErrorOutOfMemory"
            ),
        ),
        (
            "oom/runtime-heap",
            (
                r"Cannot allocate memory|\[Errno 12\]|\bENOMEM\b|std::bad_alloc|\bbad allocation\b|can't allocate memory"
                r"|not enough memory: you tried to allocate|Unable to allocate [\d.]{1,20} ?[KMGTPE]i?B for an array"
                r"|memory allocation of \d{1,20} bytes failed|Array buffer allocation failed"
            ),
        ),
        (
            "exception/disk-full",
            (
                r"No space left on device|\[Errno 28\]|database or disk is full|Disk quota exceeded|StorageFull"
                r"|There is not enough space on the disk|\bENOSPC\b(?!: System limit)"
            ),
        ),
        ("exception/fd-exhausted", r"Too many open files|\[Errno 2[34]\]|\bEMFILE\b|\bENFILE\b|No file descriptors available"),
        ("drift/libc-version", r"version [`'\"]?(?:GLIBC|GLIBCXX|CXXABI|GCC|LIBC)\w{0,12}_?[\w.]{0,24}'? not found"),
        (
            "drift/missing-library",
            r"cannot open shared object file|Error loading shared library|DLL load failed|Library not loaded:",
        ),
        ("drift/symbol", r"undefined symbol:|symbol not found|symbol lookup error"),
        (
            "drift/abi",
            (
                r"size changed, may indicate|compiled against (?:ABI|API) version|compiled using NumPy 1\.x|NODE_MODULE_VERSION"
                r"|Descriptors cannot (?:not )?be created directly|numpy\.core\.(?:multiarray|umath) failed to import"
                r"|_ARRAY_API not found|wrong ELF class|invalid ELF header|does not define module export function"
                r"|no kernel image is available for execution|compiled with different CUDA|Driver/library version mismatch"
                r"|driver version is insufficient for CUDA runtime|NVIDIA driver on your system is too old"
                r"|compiled against a different Node\.js version|class file version \d|built with a different version of package"
                r"|incompatible library version|operator torchvision::\w{1,40} does not exist|version mismatch: this is the"
            ),
        ),
        (
            "exception/network",
            (
                r"Connection refused|Connection reset|Connection timed out|connect timed? ?out|Read timed out|i/o timeout|no such host"
                r"|Name or service not known|Temporary failure in name resolution|nodename nor servname|No address associated with"
                r"|certificate verify failed|certificate has expired|x509: |Max retries exceeded|Failed to establish a new connection"
                r"|Network is unreachable|No route to host|Remote end closed connection|Server disconnected|TLS handshake"
                r"|\bE(?:CONNREFUSED|CONNRESET|CONNABORTED|TIMEDOUT|HOSTUNREACH|NETUNREACH|AI_AGAIN)\b|\bENOTFOUND\b|\bUND_ERR_\w{3,24}"
                r"|getaddrinfo|fetch failed|socket hang up|couldn't connect to|Could not (?:connect to|resolve host)|net::ERR_\w{3,40}|connection attempt failed"
                r"|ConnectionRefused|ConnectionReset|error trying to connect|SSL: [A-Z_]{4,60}|dns error|deadline has elapsed"
                r"|CERT_HAS_EXPIRED|SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF"
            ),
        ),
    )
)

_ERRNO_NAMES = (
    ("ENOSPC", "No space left on device"),
    ("EMFILE", "Too many open files"),
    ("ENOMEM", "Cannot allocate memory"),
    ("ECONNREFUSED", "Connection refused"),
    ("ECONNRESET", "Connection reset"),
    ("ETIMEDOUT", "timed out"),
    ("EDQUOT", "Disk quota exceeded"),
)

SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}

_SIGNAL_CAUSES = {
    "SIGSEGV": "crash/segfault",
    "SIGBUS": "crash/bus",
    "SIGILL": "crash/illegal-instruction",
    "SIGFPE": "crash/fpe",
    "SIGABRT": "crash/abort",
    "SIGIOT": "crash/abort",
    "SIGTRAP": "crash/abort",
    "SIGSYS": "crash/seccomp",
    "SIGKILL": "killed/sigkill",
    "SIGTERM": "killed/sigterm",
    "SIGHUP": "killed/hangup",
    "SIGXCPU": "killed/limit",
    "SIGXFSZ": "killed/limit",
}


_STOP = late(
    r"Gracefully [Ss]topping|^\s{0,8}Stopping \S|Container \S{1,200}\s{1,4}Stopp|(?:docker|podman)(?: compose|-compose)? (?:stop|down|kill)\b"
    r"|Aborting on container exit|press Ctrl\+C again|container (?:stop|kill) |Killing \S{1,120} {1,4}\.\.\. done",
    re.MULTILINE,
)


def asked_to_stop(text: str) -> bool:
    """Whether somebody asked the containers to stop: what then ends with 137 or 143 was ended on purpose."""
    return bool(_STOP.search(text))


def cause_in(message: str) -> str | None:
    """The cause that these words name, or None where they name none in particular."""
    message = message[:2000]
    for cause, pattern in _CAUSES:
        if pattern.search(message):
            return cause
    return None


def errno_in(message: str) -> str | None:
    """The errno name that these words mean: by its name or by its text."""
    for name, text in _ERRNO_NAMES:
        if name in message or text in message:
            return name
    return None


def cause_of_signal(name: str) -> str:
    """The cause that a death by this signal is, as far as its name tells."""
    return _SIGNAL_CAUSES.get(name, "killed/signal")


def signal_named(word: str) -> str | None:
    """A signal's full name from `SEGV`, `SIGSEGV`, `11` or `signal 11`; None if it is none."""
    word = word.strip().upper().removeprefix("SIGNAL").strip()
    if word.isascii() and word.isdecimal() and len(word) < 4:
        return SIGNALS.get(int(word))
    name = word if word.startswith("SIG") else f"SIG{word}"
    name = "SIGABRT" if name == "SIGIOT" else name
    return name if name in SIGNALS.values() else None


def signal_of_status(status: int) -> str | None:
    """The signal that a shell's or container's exit status 128+n stands for."""
    return SIGNALS.get(status - 128) if 128 < status < 160 else None


def cause_of_status(status: int) -> str | None:
    """The cause that an exit status names by itself; None for 0."""
    if status == 0:
        return None
    signal = signal_of_status(status)
    return cause_of_signal(signal) if signal else "exit/status"
