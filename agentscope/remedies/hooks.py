"""Calls the policy's own programs: the incident as JSON on stdin and in AGENTSCOPE_* of the environment.

A hook must be root's or the config owner's, and so must every folder on the way to it; it runs as the agent's user, in a cgroup of
its own where one can be made, for so long as the policy says. What it wrote is kept with the outcome. Whoever it leaves behind is ended.
"""

import asyncio
import errno
import grp
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from agentscope.cages import cage
from agentscope.commands import PATH, identity_for, run_command
from agentscope.examination.proc import plain
from agentscope.remedies import Done, Order
from agentscope.remedies._telling import environment_of, incident_json, words_of
from agentscope.snapshots.places import open_folder, trusted

START_S = 5.0
HOOKS_LIMIT = 8
_LINKS_LIMIT = 40


def intent(order: Order) -> str:
    """Which hooks would be called."""
    return f"call {', '.join(order.policy.hooks) or 'no hook: the policy has none'}"


async def act(order: Order) -> Done:
    """Call them at the same time, and wait until all have ended or had their time."""
    hooks = order.policy.hooks[:HOOKS_LIMIT]
    if not hooks:
        return Done(outcome="refused", says='there are no hooks. Try: hooks = ["/usr/local/bin/page-me"]')
    limit_s = order.policy.hook_s + START_S + 10.0
    called = await asyncio.gather(
        *(asyncio.wait_for(asyncio.to_thread(call, hook, order), limit_s) for hook in hooks), return_exceptions=True
    )
    done = [
        each
        if isinstance(each, Done)
        else Done(outcome="failed", says=f"{hook}: {str(each) or f'not back within {limit_s:g} s'}")
        for hook, each in zip(hooks, called, strict=True)
    ]
    outcomes = {each.outcome for each in done}
    return Done(
        outcome="done" if outcomes == {"done"} else "refused" if outcomes == {"refused"} else "failed",
        says="; ".join(each.says for each in done),
    )


def call(hook: str, order: Order) -> Done:
    """One hook, to its end; blocks."""
    path = hook if "/" in hook else shutil.which(hook, path=PATH)
    why = f"there is no such program in {PATH}" if path is None else why_not(path, order.owner_uid)
    if path is None or why:
        return Done(outcome="refused", says=f"{hook} is not called: {why}")
    try:
        with cage("hook") as caged:
            ran = run_command(
                (path,),
                identity_for(order.agent, order.owner_uid),
                environment_of(order),
                order.policy.hook_s,
                stdin=incident_json(order),
                cgroups=caged.folders,
            )
            hits = caged.hits()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else plain(str(error), 200)
        return Done(outcome="failed", says=f"{hook} cannot be started: {reason}")
    limits = f" ({', '.join(hits)})" if hits else ""
    return Done(outcome="done" if ran.status == 0 else "failed", says=f"{hook}: {words_of(ran, order.policy.hook_s)}{limits}")


def why_not(hook: str, owner_uid: int) -> str:
    """Why a hook must not be called: others could have put there what they like; empty where nobody could."""
    users = trusted(owner_uid)
    path = Path(hook)
    try:
        for _ in range(_LINKS_LIMIT):
            folder = open_folder(path.parent, users, lambda status: check_folder(status, users))
            try:
                status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
                link = os.readlink(path.name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else None
            finally:
                os.close(folder)
            if status.st_uid not in users:
                return (
                    f"it belongs to uid {status.st_uid}, which is neither root nor the config's owner. Try: chown root {hook}"
                )
            if link is None:
                return why_not_file(status, hook)
            path = path.parent / link
    except OSError as error:
        return error.strerror or str(error)
    return "it is a circle of links"


def why_not_file(status: os.stat_result, hook: str) -> str:
    """Why a file is no program of the owner's alone."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_mode & 0o022:
        return f"it can be written by others, its mode is {stat.S_IMODE(status.st_mode):o}. Try: chmod go-w {hook}"
    return "" if status.st_mode & 0o111 else f"it is not executable. Try: chmod +x {hook}"


def check_folder(status: os.stat_result, users: frozenset[int]) -> None:
    """Whoever may write to a folder on the way can put another file in its place; not so where the sticky bit is set.

    Raises:
        PermissionError: others may.
    """
    if status.st_uid not in users:
        raise PermissionError(errno.EACCES, f"a folder on the way belongs to uid {status.st_uid}")
    if stat.S_ISVTX & status.st_mode:
        return
    by_group = bool(status.st_mode & 0o020) and not is_trusted_group(status.st_gid, users)
    if by_group or status.st_mode & 0o002:
        raise PermissionError(
            errno.EACCES, f"a folder on the way can be written by others, its mode is {stat.S_IMODE(status.st_mode):o}"
        )


def is_trusted_group(gid: int, users: frozenset[int]) -> bool:
    """Whether nobody else is in a group: Debian lets the group "staff", which is empty, write to /usr/local."""
    if gid == 0:
        return True
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(gid).gr_mem}
    except KeyError:
        return False
    return members | {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid} <= users
