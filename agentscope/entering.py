"""Run as a program of its own: enters cgroups, gives up its rights, and becomes a command.

Between fork and exec of a process with threads nothing of Python may run, and a command that is put into its cgroup after it began
may have had children before. So this small program goes first. It imports nothing of agentscope, and its arguments are:
uid, gid, groups with commas (each "-": as they are), the number of `cgroup.procs` files, those, and the command.
"""

import os
import sys

CANNOT_START = 127  # as a shell has it


def main(words: list[str]) -> None:
    """Enter, drop, become; does not come back. A cgroup that refuses is left out: its limits are a precaution."""
    uid, gid, groups, count = words[:4]
    files, command = words[4 : 4 + int(count)], words[4 + int(count) :]
    for path in files:
        try:
            opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(opened, b"0")  # whoever writes (cgroups(7))
            finally:
                os.close(opened)
        except OSError:
            continue
    try:
        if uid != "-":
            os.setgroups([int(group) for group in groups.split(",") if group])
            os.setgid(int(gid))
            os.setuid(int(uid))
        os.execvp(command[0], command)  # noqa: S606 - there is no shell, by design
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
        os._exit(CANNOT_START)


if __name__ == "__main__":
    main(sys.argv[1:])
