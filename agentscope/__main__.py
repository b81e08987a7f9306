"""`python -m agentscope`, and the script that the wheel installs."""

import sys


def main() -> None:
    """Run the command line; an error a person can act on is one sentence and its exit status, never a traceback."""
    from agentscope.cli import run_command

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
