"""The binding of libbpf.so.1: the only file that knows a C ABI.

Facts: libbpf's own headers (bpf/libbpf.h, bpf/bpf.h, version 1.0 and later keep them stable).
"""

import ctypes
import errno
import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from threading import Thread

from agentscope.errors import EngineUnavailable
from agentscope.machines import X86_64, this_machine

SONAME = "libbpf.so.1"

_Handle = ctypes.c_void_p
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# name: (result, arguments)
_PROTOTYPES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "libbpf_set_print": (ctypes.c_void_p, (ctypes.c_void_p,)),
    "bpf_object__open_file": (_Handle, (ctypes.c_char_p, ctypes.c_void_p)),
    "bpf_object__load": (ctypes.c_int, (_Handle,)),
    "bpf_object__close": (None, (_Handle,)),
    "bpf_object__find_program_by_name": (_Handle, (_Handle, ctypes.c_char_p)),
    "bpf_object__next_program": (_Handle, (_Handle, _Handle)),
    "bpf_object__find_map_fd_by_name": (ctypes.c_int, (_Handle, ctypes.c_char_p)),
    "bpf_program__name": (ctypes.c_char_p, (_Handle,)),
    "bpf_program__set_autoload": (ctypes.c_int, (_Handle, ctypes.c_bool)),
    "bpf_program__attach": (_Handle, (_Handle,)),
    "bpf_program__attach_perf_event": (_Handle, (_Handle, ctypes.c_int)),
    "bpf_program__attach_iter": (_Handle, (_Handle, ctypes.c_void_p)),
    "bpf_link__fd": (ctypes.c_int, (_Handle,)),
    "bpf_link__destroy": (ctypes.c_int, (_Handle,)),
    "bpf_iter_create": (ctypes.c_int, (ctypes.c_int,)),
    "bpf_map_update_elem": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64)),
    "bpf_map_lookup_elem": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)),
    "bpf_map_delete_elem": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p)),
    "bpf_map_get_next_key": (ctypes.c_int, (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)),
    "ring_buffer__new": (_Handle, (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
    "ring_buffer__consume": (ctypes.c_int, (_Handle,)),
    "ring_buffer__free": (None, (_Handle,)),
}


class _IterOptions(ctypes.Structure):
    """struct bpf_iter_attach_opts."""

    _fields_ = (("size", ctypes.c_size_t), ("scope", ctypes.c_char_p), ("scope_bytes", ctypes.c_uint32))


class BpfError(OSError):
    """A call into libbpf failed: `errno` says how, `log` is what libbpf and the verifier said, for a developer to read."""

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(number, os.strerror(number), what)
        self.log = log


class Library:
    """libbpf.so.1 with its prototypes, and the last of what it said."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(SONAME, use_errno=True)
            for name, (result, arguments) in _PROTOTYPES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise EngineUnavailable(
                "the kernel probes cannot be loaded",
                f"{SONAME} (libbpf 1.0 or later) is not on this machine",
                "apt install libbpf1 (Fedora: dnf install libbpf)",
            ) from error
        self.calls = library
        self._said: deque[str] = deque(maxlen=400)
        vsnprintf = ctypes.CDLL(None).vsnprintf
        vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

        def listen(level: int, form: bytes, arguments: int) -> int:
            if level == 0:  # LIBBPF_WARN
                text = ctypes.create_string_buffer(65536)
                vsnprintf(text, 65536, form, arguments)
                self._said.append(text.value.decode(errors="replace"))
            return 0

        self._listener = _PRINT(listen)  # libbpf keeps the pointer
        library.libbpf_set_print(ctypes.cast(self._listener, ctypes.c_void_p))

    def error(self, number: int, what: str) -> BpfError:
        """A failed call as an exception, with what libbpf said since the last one."""
        log = "".join(self._said)
        self._said.clear()
        return BpfError(abs(number), what, log)

    def last_error(self, what: str) -> BpfError:
        """The same for calls that return a null pointer and set errno."""
        return self.error(ctypes.get_errno() or errno.EINVAL, what)


@cache
def the_library() -> Library:
    """The one binding of this process: libbpf calls back into it for as long as the process lives."""
    return Library()


_PERF_TYPE_TRACEPOINT = 2
_PERF_ATTR_BYTES = 64  # PERF_ATTR_SIZE_VER0
_PERF_FLAG_FD_CLOEXEC = 8


def system_call(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library has no name for."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    typed = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result: int = call(ctypes.c_long(number), *typed)
    if result < 0:
        raise BpfError(ctypes.get_errno(), f"system call {number}")
    return result


def open_tracepoint(number: int) -> int:
    """A descriptor of a classic tracepoint, by the kernel's number of it, for a program to be attached to."""
    attributes = struct.pack("<IIQ", _PERF_TYPE_TRACEPOINT, _PERF_ATTR_BYTES, number)
    attributes = attributes.ljust(_PERF_ATTR_BYTES, b"\0")
    return system_call((this_machine() or X86_64).perf_event_open, attributes, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)


class ProbeObject:
    """One BPF object file: opened, its programs chosen, loaded, attached."""

    def __init__(self, library: Library, path: Path) -> None:
        self._library = library
        self._calls = library.calls
        self._links: dict[str, int] = {}
        self._detaching: list[Thread] = []
        self._handle = self._calls.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            raise library.last_error(f"open {path}")

    def programs(self) -> Iterator[str]:
        """Names of all programs in the object."""
        program = self._calls.bpf_object__next_program(self._handle, None)
        while program:
            yield self._calls.bpf_program__name(program).decode()
            program = self._calls.bpf_object__next_program(self._handle, program)

    def load_only(self, wanted: frozenset[str]) -> None:
        """Create the maps and load these programs; raises BpfError with the errno of the first that was refused."""
        for name in list(self.programs()):
            self._calls.bpf_program__set_autoload(self._program(name), name in wanted)
        result = self._calls.bpf_object__load(self._handle)
        if result:
            raise self._library.error(result, "load")

    def attach(self, name: str) -> None:
        """Attach a loaded program to its hook."""
        link = self._calls.bpf_program__attach(self._program(name))
        if not link:
            raise self._library.last_error(f"attach {name}")
        self._links[name] = link

    def attach_tracepoint(self, name: str, number: int) -> None:
        """Attach a classic tracepoint program to the tracepoint that `tracepoint_id` found."""
        descriptor = open_tracepoint(number)
        link = self._calls.bpf_program__attach_perf_event(self._program(name), descriptor)
        if not link:
            error = self._library.last_error(f"attach {name}")
            os.close(descriptor)
            raise error
        self._links[name] = link  # and with it the descriptor

    def attach_iterator(self, name: str) -> None:
        """Make an iterator program readable by `read_iterator`."""
        link = self._calls.bpf_program__attach_iter(self._program(name), None)
        if not link:
            raise self._library.last_error(f"attach {name}")
        self._links[name] = link

    def detach(self, name: str) -> None:
        """Detach a program; nothing happens if it is not attached."""
        link = self._links.pop(name, None)
        if link is not None:
            self._calls.bpf_link__destroy(link)

    def detach_behind(self, names: Iterable[str]) -> None:
        """Detach in a thread of its own: a classic tracepoint waits for all CPUs, 20 to 200 ms, and the GIL is free meanwhile."""
        links = [self._links.pop(name) for name in names if name in self._links]

        def destroy() -> None:
            for link in links:
                self._calls.bpf_link__destroy(link)

        if links:
            self._detaching = [thread for thread in self._detaching if thread.is_alive()]
            self._detaching.append(Thread(target=destroy, name="detach"))
            self._detaching[-1].start()

    def attached(self, name: str) -> bool:
        """Whether a program is attached now."""
        return name in self._links

    def read_iterator(self, name: str) -> bytes:
        """One pass of an attached iterator: all it wrote."""
        return self._read_link(self._links[name], name)

    def read_iterator_of(self, name: str, pid: int) -> bytes:
        """One pass of a task iterator, attached or not, over the threads of one process; nothing if there is none.

        Raises:
            BpfError: the kernel cannot scope an iterator (before 6.1).
        """
        scope = struct.pack("<IIIxxxx", 0, pid, 0)  # union bpf_iter_link_info, its member `task`: tid, pid, pid_fd
        options = _IterOptions(ctypes.sizeof(_IterOptions), scope, len(scope))
        link = self._calls.bpf_program__attach_iter(self._program(name), ctypes.byref(options))
        if not link:
            raise self._library.last_error(f"attach {name} to a process")
        try:
            return self._read_link(link, name)
        finally:
            self._calls.bpf_link__destroy(link)

    def _read_link(self, link: int, name: str) -> bytes:
        descriptor = self._calls.bpf_iter_create(self._calls.bpf_link__fd(link))
        if descriptor < 0:
            raise self._library.error(descriptor, f"iterate {name}")
        pieces: list[bytes] = []
        try:
            while True:
                try:
                    piece = os.read(descriptor, 1 << 18)
                except BlockingIOError:  # the kernel yields after a million tasks without output: bpf_seq_read()
                    continue
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
        finally:
            os.close(descriptor)

    def map_fd(self, name: str) -> int:
        """Descriptor of a map of the loaded object."""
        descriptor: int = self._calls.bpf_object__find_map_fd_by_name(self._handle, name.encode())
        if descriptor < 0:
            raise self._library.error(descriptor, f"map {name}")
        return descriptor

    def table(self, name: str, key_bytes: int, value_bytes: int) -> "Table":
        """A map of the loaded object as a table of byte strings."""
        return Table(self._library, self.map_fd(name), key_bytes, value_bytes)

    def close(self) -> None:
        """Detach everything and free the object; safe to call twice."""
        for name in list(self._links):
            self.detach(name)
        for thread in self._detaching:
            thread.join()
        if self._handle:
            self._calls.bpf_object__close(self._handle)
            self._handle = None

    def _program(self, name: str) -> int:
        program: int | None = self._calls.bpf_object__find_program_by_name(self._handle, name.encode())
        if not program:
            raise BpfError(errno.ENOENT, f"program {name}")
        return program


class Table:
    """A BPF hash or array: keys and values are byte strings of fixed length."""

    def __init__(self, library: Library, descriptor: int, key_bytes: int, value_bytes: int) -> None:
        self._library = library
        self._calls = library.calls
        self._descriptor = descriptor
        self._key_bytes = key_bytes
        self._value_bytes = value_bytes

    def put(self, key: bytes, value: bytes) -> None:
        """Insert or replace."""
        if len(key) != self._key_bytes or len(value) != self._value_bytes:
            raise ValueError(f"a key of {len(key)} and a value of {len(value)} bytes do not fit this map")
        result = self._calls.bpf_map_update_elem(self._descriptor, key, value, 0)
        if result:
            raise self._library.error(result, "map update")

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value = ctypes.create_string_buffer(self._value_bytes)
        return None if self._calls.bpf_map_lookup_elem(self._descriptor, key, value) else value.raw

    def drop(self, key: bytes) -> None:
        """Delete; a key that is not there is no error."""
        self._calls.bpf_map_delete_elem(self._descriptor, key)

    def keys(self) -> Iterator[bytes]:
        """All keys; those that come or go meanwhile may or may not be among them."""
        following = ctypes.create_string_buffer(self._key_bytes)
        if self._calls.bpf_map_get_next_key(self._descriptor, None, following):
            return
        while True:
            key = following.raw
            yield key
            if self._calls.bpf_map_get_next_key(self._descriptor, key, following):
                return


class SharedPage:
    """A value of a BPF_F_MMAPABLE array of one entry, in our own memory: reading it costs no system call."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.bytes = memoryview(self._page)[:size_bytes]

    def close(self) -> None:
        """Unmap."""
        self.bytes.release()
        self._page.close()
