"""`python -m agentscope`, and the script that the wheel installs."""

import gc
import os
import sys


def open_standard_streams() -> None:
    """Give descriptors 0, 1 and 2 something where our caller closed them, so that no file of ours ends up in their place.

    What is written to a closed standard output must fail (EBADF) and not vanish; what is said on a closed standard error may vanish.
    """
    for number, flags, stream in ((0, os.O_RDONLY, "stdin"), (1, os.O_RDONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        if getattr(sys, stream) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, stream, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def main() -> None:
    """Run the command line; an error a person can act on is one sentence and its exit status, never a traceback."""
    open_standard_streams()
    gc.disable()  # loading makes objects that stay: looking for garbage among them costs a report a tenth of its time
    from agentscope.cli import run_command

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
