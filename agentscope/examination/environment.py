"""Which model APIs the environment of a process names: hosts and ports of variables like OPENAI_BASE_URL, and nothing else of it."""

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from agentscope.examination.proc import read_proc

ENVIRON_LIMIT_BYTES = 1 << 20  # of /proc/PID/environ; a process may make its own larger
HOST_LIMIT = 16
VALUE_LIMIT_BYTES = 2048

_NAMES = re.compile(rb"(?:\w{0,64}(?:_BASE_URL|_API_BASE)|AZURE_OPENAI_ENDPOINT|OLLAMA_HOST)=", re.ASCII)
# a scheme, anything before the last "@" of the authority (credentials), a host and a port
_ADDRESS = re.compile(
    r"(?:(?P<scheme>https?)://)?(?:[^/?#]*@)?(?P<host>\[[0-9a-f:.]{2,45}\]|[0-9a-z_](?:[0-9a-z._-]{0,252})?|)(?::(?P<port>[0-9]{1,5}))?(?:[/?#]|$)",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_OLLAMA_PORT = 11434  # where OLLAMA_HOST has neither scheme nor port


def read_llm_hosts(pid: int) -> tuple[str, ...]:
    """Host and port of every model API that the environment of a process names (proc_pid_environ(5)); () if it cannot be read.

    It is the environment that the process was started with, wherever that memory now holds it: a claim of the process.
    """
    raw = read_proc(f"/proc/{pid}/environ", ENVIRON_LIMIT_BYTES)
    return () if raw is None else llm_hosts_in(raw)


def llm_hosts_in(environ: bytes) -> tuple[str, ...]:
    """The same of the bytes of an environment, "NAME=value" each ended by NUL."""
    found: dict[str, None] = {}
    for entry in environ.split(b"\0"):
        named = _NAMES.match(entry)
        if named is None:
            continue
        value = entry[named.end() : named.end() + VALUE_LIMIT_BYTES].decode("utf-8", "replace").strip()
        default = _OLLAMA_PORT if named.group() == b"OLLAMA_HOST=" else 443
        host = host_and_port(value, default)
        if host is not None:
            found[host] = None
            if len(found) == HOST_LIMIT:
                break
    return tuple(found)


def host_and_port(address: str, default_port: int) -> str | None:
    """Of a URL or an address: "host:port" or "[v6]:port"; None if it is neither. `default_port` is for one that has no scheme."""
    told = _ADDRESS.match(address)
    if told is None or not (told["host"] or told["port"]):
        return None
    port = int(told["port"]) if told["port"] else _DEFAULT_PORTS.get((told["scheme"] or "").lower(), default_port)
    host = _plain_host((told["host"] or "localhost").lower())
    return f"{host}:{port}" if host is not None and 0 < port < 1 << 16 else None


def _plain_host(host: str) -> str | None:
    """A host as a socket's address would show it; a name stays as it is."""
    if not host.startswith("["):
        return host
    try:
        address = inet_pton(AF_INET6, host[1:-1])
    except OSError:
        return None
    mapped = address.startswith(bytes(10) + b"\xff\xff")
    return inet_ntop(AF_INET, address[12:]) if mapped else f"[{inet_ntop(AF_INET6, address)}]"
