"""Errors that a person can act on, and the exit statuses of the command line (DESIGN.md section 3)."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What `agentscope` exits with."""

    HEALTHY = 0
    UNEXPECTED = 1
    NO_SUCH_PROCESS = 3
    NOT_PERMITTED = 4
    FAULT_FOUND = 10
    UNDETERMINED = 20
    USAGE = 64
    BAD_INPUT = 65
    UNAVAILABLE = 69
    CANNOT_WRITE = 74


class AgentscopeError(Exception):
    """Something a person must know: what happened, why, and what to type next.

    The command line prints it as one sentence a line and exits with `status`; there is no traceback.
    """

    status: ExitStatus = ExitStatus.UNEXPECTED

    def __init__(self, what: str, why: str = "", try_this: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.try_this = try_this

    def __str__(self) -> str:
        because = f": {self.why}" if self.why else ""
        hint = f". Try: {self.try_this}" if self.try_this else ""
        return f"{self.what}{because}{hint}"


class NoSuchProcess(AgentscopeError):
    """The process that was asked for is not there and left no record."""

    status = ExitStatus.NO_SUCH_PROCESS


class NotPermitted(AgentscopeError):
    """The caller lacks a privilege; `try_this` names the command that has it."""

    status = ExitStatus.NOT_PERMITTED


class UsageError(AgentscopeError):
    """The command line or the config file asks for something that cannot be."""

    status = ExitStatus.USAGE


class BadInput(AgentscopeError):
    """A file that was given to read is not what it should be."""

    status = ExitStatus.BAD_INPUT


class EngineUnavailable(AgentscopeError):
    """This machine cannot run the probes; `why` says what is missing."""

    status = ExitStatus.UNAVAILABLE


class CannotWrite(AgentscopeError):
    """Output could not be written: a full disk, a closed pipe, a folder that refuses."""

    status = ExitStatus.CANNOT_WRITE
