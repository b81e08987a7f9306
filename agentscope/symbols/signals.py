"""Signal numbers and si_code values to names (signal(7), sigaction(2), include/uapi/asm-generic/siginfo.h).

The numbers are those of x86-64 and aarch64, which agree.
"""

_STANDARD = (
    "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM "
    "SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO "
    "SIGPWR SIGSYS"
)
_NAMES = dict(enumerate(_STANDARD.split(), start=1))
_KERNEL_RTMIN = 32
_RTMIN = 34  # glibc and musl keep 32 and 33 (musl 34 too) for cancelling threads and for setuid in all threads
_RTMAX = 64

_ANY_SIGNAL = {
    0: "SI_USER",
    0x80: "SI_KERNEL",
    -1: "SI_QUEUE",
    -2: "SI_TIMER",
    -3: "SI_MESGQ",
    -4: "SI_ASYNCIO",
    -5: "SI_SIGIO",
    -6: "SI_TKILL",
    -7: "SI_DETHREAD",
    -60: "SI_ASYNCNL",
}
_OF_SIGNAL = {
    4: "ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC ILL_BADSTK ILL_BADIADDR",
    5: "TRAP_BRKPT TRAP_TRACE TRAP_BRANCH TRAP_HWBKPT TRAP_UNK TRAP_PERF",
    7: "BUS_ADRALN BUS_ADRERR BUS_OBJERR BUS_MCEERR_AR BUS_MCEERR_AO",
    8: "FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV FPE_FLTSUB",
    11: "SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR SEGV_ACCADI SEGV_ADIDERR SEGV_ADIPERR SEGV_MTEAERR SEGV_MTESERR "
    "SEGV_CPERR",
    17: "CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED",
    29: "POLL_IN POLL_OUT POLL_MSG POLL_ERR POLL_PRI POLL_HUP",
    31: "SYS_SECCOMP SYS_USER_DISPATCH",
}
_CODES = {(signal, code): name for signal, names in _OF_SIGNAL.items() for code, name in enumerate(names.split(), start=1)} | {
    (8, 14): "FPE_FLTUNK",
    (8, 15): "FPE_CONDTRAP",
}


def signal_name(number: int) -> str:
    """Name of a signal as kill -l prints it, "SIGSEGV" or "SIGRTMIN+3"; "signal N" for a number that has none."""
    if number in _NAMES:
        return _NAMES[number]
    if _KERNEL_RTMIN <= number < _RTMIN:
        return f"SIG{number}"
    if number == _RTMAX:
        return "SIGRTMAX"
    if _RTMIN <= number < _RTMAX:
        below, above = number - _RTMIN, _RTMAX - number
        if below == 0:
            return "SIGRTMIN"
        return f"SIGRTMIN+{below}" if below <= above else f"SIGRTMAX-{above}"
    return f"signal {number}"


def signal_number(name: str) -> int | None:
    """Number of a signal by its name, with or without "SIG"; None for a word that names none."""
    wanted = name.upper() if name.upper().startswith("SIG") else "SIG" + name.upper()
    return next((number for number in range(1, _RTMAX + 1) if signal_name(number) == wanted), None)


def code_name(signal: int, code: int) -> str:
    """Name of si_code for a signal, "SEGV_MAPERR" or "SI_TKILL"; "code N" for one that has none."""
    return _ANY_SIGNAL.get(code) or _CODES.get((signal, code)) or f"code {code}"
