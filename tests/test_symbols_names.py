"""Numbers to names: signals, si_code values, system calls."""

import errno
import os
import platform
import signal

import pytest

from agentscope.symbols.signals import code_name, signal_name, signal_number
from agentscope.symbols.syscalls import syscall_name, syscall_number


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="the numbers are those of x86-64 and aarch64")
def test_standard_signals_are_named_as_python_names_them():
    """Every signal that this system's headers name has the same name here."""
    for number in range(1, 32):
        assert number == getattr(signal, signal_name(number))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (34, "SIGRTMIN"),
        (35, "SIGRTMIN+1"),
        (49, "SIGRTMIN+15"),
        (50, "SIGRTMAX-14"),
        (63, "SIGRTMAX-1"),
        (64, "SIGRTMAX"),
        (32, "SIG32"),
    ],
)
def test_realtime_signals_are_named_as_kill_lists_them(number, name):
    """Real-time signals count from the nearer end, as in the list of `kill -l`."""
    assert signal_name(number) == name


def test_numbers_that_are_no_signal_stay_numbers():
    """A number that names nothing is shown, never hidden and never an error."""
    assert [signal_name(number) for number in (0, 65, -3)] == ["signal 0", "signal 65", "signal -3"]


def test_signal_names_lead_back_to_their_numbers():
    """A name with or without SIG, in any case, gives its number; a word that is none gives None."""
    assert all(signal_number(signal_name(number)) == number for number in range(1, 65))
    assert signal_number("kill") == 9
    assert signal_number("nothing") is None


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (11, 1, "SEGV_MAPERR"),
        (11, 2, "SEGV_ACCERR"),
        (11, 0, "SI_USER"),
        (11, 128, "SI_KERNEL"),
        (6, -6, "SI_TKILL"),
        (7, 2, "BUS_ADRERR"),
        (8, 1, "FPE_INTDIV"),
        (31, 1, "SYS_SECCOMP"),
        (15, 1, "code 1"),
        (11, 99, "code 99"),
    ],
)
def test_codes_are_named_for_their_signal(number, code, name):
    """The same code means different things with different signals; an unknown one stays a number."""
    assert code_name(number, code) == name


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="no table for this machine")
def test_the_number_of_getpid_is_the_kernels():
    """A number from the table, given to the kernel, does what its name says; one without a name is refused."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(syscall_number("getpid")) == os.getpid()
    assert libc.syscall(syscall_number("getppid")) == os.getppid()
    assert syscall_name(999) is None
    assert libc.syscall(999) == -1
    assert ctypes.get_errno() == errno.ENOSYS


def resolver():
    """Libseccomp's own table: the name of a number on an architecture of the audit subsystem (seccomp_syscall_resolve_num_arch(3))."""
    import ctypes

    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp.so.2 on this machine")
    ask = library.seccomp_syscall_resolve_num_arch
    ask.restype, ask.argtypes = ctypes.c_void_p, (ctypes.c_uint32, ctypes.c_int)
    library.free = ctypes.CDLL(None).free
    library.free.argtypes = (ctypes.c_void_p,)

    def name_of(architecture, number):
        found = ask(architecture, number)
        name = ctypes.string_at(found).decode() if found else None
        library.free(found)
        return name

    return name_of


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])  # linux/audit.h
def test_the_table_is_that_of_libseccomp(machine, architecture):
    """Every number that libseccomp names on either processor has the same name here, and none of ours is another's."""
    name_of = resolver()
    theirs = {number: name for number in range(600) if (name := name_of(architecture, number))}
    assert len(theirs) > 300
    assert {number: syscall_name(number, machine) for number in theirs} == theirs


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 45, "recvfrom"),
        ("x86_64", 202, "futex"),
        ("x86_64", 232, "epoll_wait"),
        ("x86_64", 453, "map_shadow_stack"),
        ("aarch64", 207, "recvfrom"),
        ("aarch64", 98, "futex"),
        ("aarch64", 62, "lseek"),
        ("aarch64", 435, "clone3"),
        ("aarch64", 232, "mincore"),
        ("riscv64", 98, None),
    ],
)
def test_system_calls_are_named_for_their_machine(machine, number, name):
    """Numbers differ between machines; a machine without a table gives None and no wrong name."""
    assert syscall_name(number, machine) == name
