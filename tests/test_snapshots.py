"""Snapshots: a copy that is true to the last bit of rights, taken once for each change, and put back whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import signal
import stat
import time
from pathlib import Path

import pytest

from agentscope.snapshots import CannotSwitch, keep, settle, switch
from agentscope.snapshots.places import placed, set_aside, trusted

UID = os.geteuid()
needs_root = pytest.mark.skipif(UID != 0, reason="only root gives files to others")


def make(folder: Path, **content: str) -> Path:
    """A folder with files; in names `__` stands for a slash and `_dot_` for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def picture(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be told of a folder and what is in it, so that two can be compared."""
    told: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        facts = path.lstat()
        kind = stat.S_IFMT(facts.st_mode)
        content = (
            hashlib.sha256(path.read_bytes()).hexdigest()
            if stat.S_ISREG(facts.st_mode)
            else str(path.readlink())
            if stat.S_ISLNK(facts.st_mode)
            else None
        )
        xattrs = tuple(
            (name, os.getxattr(path, name, follow_symlinks=False)) for name in os.listxattr(path, follow_symlinks=False)
        )
        name = str(path.relative_to(folder))
        told[name] = (kind, stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_mtime_ns, content, xattrs)
    return told


def folder_at(path: Path) -> Path:
    """The folder itself, where the path is a link to it."""
    return path.resolve()


def shelf_of(state: Path) -> Path:
    (found,) = state.joinpath("snapshots").iterdir()
    return found


def stamps(state: Path) -> list[str]:
    return sorted(path.name for path in shelf_of(state).iterdir() if path.name.isdigit())


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


# --- what is kept ------------------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_in_every_respect(tmp_path, state):
    """Content, modes, times, links, extended attributes, set-ID bits and names that are no text come back as they were."""
    source = make(tmp_path / "venv", bin__run="#!/bin/sh\n", lib__code_dot_py="x = 1\n", secret_dot_env="KEY=1\n")
    (source / "secret.env").chmod(0o400)
    (source / "bin/run").chmod(0o6755)
    (source / "lib").chmod(0o2750)
    (source / "lib64").symlink_to("lib")
    (source / "dangling").symlink_to("/nowhere/at all")
    os.close(os.open(os.fsencode(source) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o640))
    (source / "100%25").write_text("a name that looks encoded")
    os.utime(source / "lib/code.py", ns=(1_000_000_007, 1_600_000_000_123_456_789))
    os.utime(source / "lib", ns=(1_000_000_007, 1_500_000_000_000_000_001))
    with contextlib.suppress(OSError):
        os.setxattr(source / "bin/run", "user.origin", b"wheel\0x")
    before = picture(source)
    kept = keep(source, state)
    assert (kept.copied, kept.current) == (True, True), kept.says
    (source / "bin/run").write_text("broken\n")
    (source / "lib/code.py").unlink()
    make(source, lib__new_dot_py="y\n")
    told = switch(source, state)
    assert picture(source) == before
    assert told.replaced is not None
    assert Path(told.replaced, "bin/run").read_text() == "broken\n"
    assert Path(told.replaced, "lib/new.py").exists()


@needs_root
def test_owners_come_back(tmp_path, state):
    """Files, folders and links of other users are theirs again."""
    source = make(tmp_path / "venv", a__b="1", c="2")
    for path, uid in ((source, 1001), (source / "a", 1002), (source / "a/b", 1003)):
        os.chown(path, uid, uid + 10)
    (source / "link").symlink_to("c")
    os.chown(source / "link", 1004, 1014, follow_symlinks=False)
    before = picture(source)
    assert keep(source, state).copied
    (source / "c").write_text("3")
    switch(source, state)
    assert picture(source) == before


def test_two_names_of_one_file(tmp_path, state):
    """A file with two names in the folder still is one file afterwards, and shares no inode with what was copied."""
    source = make(tmp_path / "venv", first="same")
    os.link(source / "first", source / "second")
    was = (source / "first").stat().st_ino
    assert keep(source, state).copied
    (source / "first").write_text("written in place")
    switch(source, state)
    one, two = (source / "first").stat(), (source / "second").stat()
    assert (one.st_ino, one.st_nlink) == (two.st_ino, 2)
    assert one.st_ino != was
    assert (source / "second").read_text() == "same"


@pytest.mark.parametrize("how", ["append", "truncate", "mapped", "chmod", "same size and time"])
def test_a_file_that_is_changed_in_place(how, tmp_path, state):
    """Writing into a file after the snapshot, by whatever way, changes nothing in the snapshot, and is undone."""
    source = make(tmp_path / "venv", module_dot_so="0123456789" * 1000)
    victim = source / "module.so"
    before = picture(source)
    keep(source, state)
    facts = victim.stat()
    if how == "append":
        with victim.open("a") as file:
            file.write("more")
    elif how == "truncate":
        victim.write_text("")
    elif how == "mapped":
        import mmap

        with victim.open("r+b") as file, mmap.mmap(file.fileno(), 0) as area:
            area[:4] = b"EVIL"
    elif how == "chmod":
        victim.chmod(0o777)
    else:
        with victim.open("r+b") as file:
            file.write(b"EVIL")
        os.utime(victim, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert switch(source, state).differed == 1
    assert picture(source) == before


def test_pipes_and_sockets_are_left_out(tmp_path, state):
    """A pipe in the folder does not stop the copy, is never opened, and is said."""
    source = make(tmp_path / "venv", a="1")
    os.mkfifo(source / "pipe")
    kept = keep(source, state)
    assert kept.copied
    assert "left out (1)" in kept.says


# --- when it is kept ----------------------------------------------------------------------------------------------------------


def test_nothing_is_copied_where_nothing_changed(tmp_path, state):
    """The second healthy mark finds its snapshot current; caches that Python writes by itself are no change."""
    source = make(tmp_path / "venv", lib__a_dot_py="1")
    assert keep(source, state).copied
    make(source / "lib" / "__pycache__", a="cache")
    again = keep(source, state)
    assert (again.current, again.copied) == (True, False)
    assert len(stamps(state)) == 1


def test_other_inodes_with_the_same_content(tmp_path, state):
    """A folder that was made anew with the same content is known again without another copy."""
    source = make(tmp_path / "venv", a="1")
    facts = (source / "a").stat()
    keep(source, state)
    (source / "a").unlink()
    (source / "a").write_text("1")
    os.utime(source / "a", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    again = keep(source, state)
    assert (again.current, again.copied) == (True, False)


def test_the_number_is_bounded(tmp_path, state):
    """However often it changes, the two newest snapshots are kept, and nothing else is left on the disk."""
    source = make(tmp_path / "venv", a="0")
    for number in range(5):
        (source / "a").write_text(str(number) * 3)
        assert keep(source, state).copied
        time.sleep(0.001)
    assert len(stamps(state)) == 2
    assert {path.name for path in shelf_of(state).iterdir()} == {"lock", *stamps(state)}


def test_snapshots_are_for_their_owner_only(tmp_path, state):
    """No other user can come near a snapshot, whatever the modes in it are."""
    source = make(tmp_path / "venv", a="1")
    (source / "a").chmod(0o666)
    keep(source, state)
    for path in (state / "snapshots", shelf_of(state), shelf_of(state) / stamps(state)[0]):
        assert path.stat().st_mode & 0o077 == 0 or path == state / "snapshots"
    assert shelf_of(state).stat().st_mode & 0o777 == 0o700
    assert (shelf_of(state) / stamps(state)[0] / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_what_came_after_the_start_proves_nothing(tmp_path, state):
    """A healthy agent says nothing about files that were put there after it started: no snapshot is taken of them."""
    source = make(tmp_path / "venv", lib__a_dot_py="1")
    time.sleep(0.02)
    started_ns = time.time_ns()
    time.sleep(0.02)
    assert keep(source, state, since_wall_ns=started_ns).copied
    # as package tools do: written elsewhere, with the time of the build, and renamed here
    new = tmp_path / "new"
    new.write_text("2")
    os.utime(new, ns=(1, 1))
    new.rename(source / "lib/a.py")
    kept = keep(source, state, since_wall_ns=started_ns)
    assert not kept.current
    assert "lib/a.py came after its agent started" in kept.says


def test_a_link_from_elsewhere_is_no_change(tmp_path, state):
    """The tool uv gives the files of its cache names in many venvs: another venv made from it changes nothing in this one."""
    cache = make(tmp_path / "cache", a="1")
    source = make(tmp_path / "venv" / "lib").parent
    os.link(cache / "a", source / "lib/a")
    time.sleep(0.02)
    started_ns = time.time_ns()
    time.sleep(0.02)
    os.link(cache / "a", tmp_path / "of-another-venv")
    assert keep(source, state, since_wall_ns=started_ns).copied


def test_a_folder_that_changes_meanwhile(tmp_path, state, monkeypatch):
    """A copy during which something was written is thrown away: it would be a mixture."""
    from agentscope.snapshots import trees

    source = make(tmp_path / "venv", a="1", b="2")
    content = trees.Copying._content

    def slow(self, opened, made):
        (source / "b").write_text("written while it is copied")
        return content(self, opened, made)

    monkeypatch.setattr(trees.Copying, "_content", slow)
    kept = keep(source, state)
    assert not kept.current
    assert "changed while it was copied" in kept.says
    assert stamps(state) == []


def test_a_kill_in_the_middle_of_copying(tmp_path, state):
    """Whoever was killed while copying leaves nothing that passes for a snapshot, and the next mark clears it away."""
    source = make(tmp_path / "venv", **{f"f{number}": "x" * 100_000 for number in range(300)})
    for _ in range(3):
        child = os.fork()
        if child == 0:
            keep(source, state)
            os._exit(0)
        time.sleep(random.uniform(0.005, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert keep(source, state).current
    assert {path.name for path in shelf_of(state).iterdir()} == {"lock", *stamps(state)}
    (source / "f7").write_text("broken")
    before = {name: facts for name, facts in picture(source).items() if name not in {"f7", "."}}
    switch(source, state)
    assert {name: facts for name, facts in picture(source).items() if name not in {"f7", "."}} == before
    assert (source / "f7").read_text() == "x" * 100_000


# --- what is refused ---------------------------------------------------------------------------------------------------------


def test_there_is_no_snapshot(tmp_path, state):
    """Without a snapshot the sentence says why there is none and what to do."""
    with pytest.raises(CannotSwitch, match="none was taken while its agent was well"):
        switch(make(tmp_path / "venv"), state)
    assert not (state / "snapshots").exists()


def test_nothing_would_change(tmp_path, state):
    """Where what stands there is the snapshot, a switch is refused: drift is not the cause."""
    source = make(tmp_path / "venv", a="1")
    keep(source, state)
    with pytest.raises(CannotSwitch, match="nothing would change"):
        switch(source, state)


def test_a_damaged_snapshot(tmp_path, state):
    """A snapshot that is not what was copied any more is not switched to; the one before it is, where it differs."""
    source = make(tmp_path / "venv", a="old")
    keep(source, state)
    time.sleep(0.01)
    (source / "a").write_text("newer")
    keep(source, state)
    damaged = shelf_of(state) / stamps(state)[1] / "tree" / "a"
    facts = damaged.stat()
    damaged.write_text("rotten"[:5])
    os.utime(damaged, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (source / "a").write_text("broken")
    switch(source, state)
    assert (source / "a").read_text() == "old"
    (source / "a").write_text("broken again")
    with pytest.raises(CannotSwitch, match="the snapshot is damaged at a"):
        switch(source, state)
    assert (source / "a").read_text() == "broken again"


def test_a_path_that_leads_elsewhere(tmp_path, state):
    """Where a folder on the way was exchanged for a link since, nothing is touched behind it."""
    real = make(tmp_path / "one" / "venv", a="1").parent
    other = make(tmp_path / "two" / "venv", a="precious").parent
    (tmp_path / "way").symlink_to(real)
    source = tmp_path / "way" / "venv"
    keep(source, state)
    (tmp_path / "way").unlink()
    (tmp_path / "way").symlink_to(other)
    with pytest.raises(CannotSwitch, match="leads elsewhere"):
        switch(source, state)
    assert (other / "venv/a").read_text() == "precious"


@needs_root
def test_a_link_that_the_agent_made(tmp_path, state):
    """A link on the way that another user made is not followed as root."""
    make(tmp_path / "precious" / "venv", a="1")
    (tmp_path / "way").symlink_to(tmp_path / "precious")
    os.chown(tmp_path / "way", 1001, 1001, follow_symlinks=False)
    assert "made by uid 1001" in keep(tmp_path / "way" / "venv", state).says
    assert keep(tmp_path / "precious" / "venv", state).copied


@needs_root
def test_a_config_of_a_user_gives_no_rights_of_root(tmp_path, state):
    """What a user's config names is copied and switched only where that user could do it."""
    source = make(tmp_path / "venv", a="1")
    assert "of another user" in keep(source, state, owner_uid=1001).says
    os.chown(source, 1001, 1001)
    assert "of another user" in keep(source, state, owner_uid=1001).says
    os.chown(tmp_path, 1001, 1001)
    assert keep(source, state, owner_uid=1001).copied
    (source / "a").write_text("2")
    os.chown(tmp_path, 0, 0)
    with pytest.raises(CannotSwitch, match="of another user"):
        switch(source, state, owner_uid=1001)
    os.chown(tmp_path, 1001, 1001)
    switch(source, state, owner_uid=1001)
    assert (source / "a").read_text() == "1"


@pytest.mark.parametrize("what", ["nothing", "file", "relative"])
def test_what_is_no_folder(what, tmp_path, state):
    """What is no folder is no snapshot's business, and the sentence says so."""
    path = tmp_path / "x"
    if what == "file":
        path.write_text("")
    kept = keep(Path("x") if what == "relative" else path, state)
    assert not kept.current
    assert "no folder" in kept.says or "no path from /" in kept.says


def test_two_at_once(tmp_path, state):
    """While another has the snapshots of a folder, a mark passes over it and a switch waits, but not for ever."""
    source = make(tmp_path / "venv", a="1")
    keep(source, state)
    (source / "a").write_text("22")
    with (shelf_of(state) / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another is being taken" in keep(source, state).says
        fcntl.flock(lock, fcntl.LOCK_UN)
    switch(source, state)
    assert (source / "a").read_text() == "1"


def test_a_switch_does_not_wait_for_a_long_copy(tmp_path, state, monkeypatch):
    """A copy that is under way gives way to a switch, and says so."""
    import threading

    from agentscope.snapshots import trees

    source = make(tmp_path / "venv", **{f"f{number:03d}": "1" for number in range(300)})
    keep(source, state)
    (source / "f000").write_text("22")
    content = trees.Copying._content

    def slow(self, opened, made):
        time.sleep(0.02)
        return content(self, opened, made)

    monkeypatch.setattr(trees.Copying, "_content", slow)
    told = []
    copying = threading.Thread(target=lambda: told.append(keep(source, state)))
    copying.start()
    time.sleep(0.5)
    began = time.monotonic()
    switch(source, state)
    assert time.monotonic() - began < 4.5  # the copy takes six seconds
    copying.join()
    assert "a rollback came in between" in told[0].says
    assert (source / "f000").read_text() == "1"


# --- links -------------------------------------------------------------------------------------------------------------------


def test_a_path_that_is_a_link(tmp_path, state):
    """Of a link to a release both are kept: a new release is left by the link, and a release that was broken is put back."""
    make(tmp_path / "releases" / "1", a="one")
    make(tmp_path / "releases" / "2", a="two")
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    assert keep(current, state).copied
    current.unlink()
    current.symlink_to("releases/2")
    switch(current, state)
    assert str(current.readlink()) == "releases/1"
    assert (tmp_path / "releases/2/a").read_text() == "two"
    (tmp_path / "releases/1/a").write_text("broken in place")
    switch(current, state)
    assert (current / "a").read_text() == "one"


def test_a_release_that_was_removed(tmp_path, state):
    """A release that was removed since is put there again before the link leads to it."""
    import shutil

    make(tmp_path / "releases" / "1", a="one")
    make(tmp_path / "releases" / "2", a="two")
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    keep(current, state)
    current.unlink()
    current.symlink_to("releases/2")
    shutil.rmtree(tmp_path / "releases/1")
    seen: list[tuple[str, str]] = []
    switch(current, state, at=lambda step: seen.append((step, (current / "a").read_text())))
    assert str(current.readlink()) == "releases/1"
    assert (current / "a").read_text() == "one"
    assert dict(seen)["exchanged"] == "two"  # until the link is switched, all is as it was


# --- kills -------------------------------------------------------------------------------------------------------------------


def killed_at(source: Path, state: Path, number: int) -> tuple[str | None, bool]:
    """Switch in a child that kills itself after that many steps; the name of the step, and whether it came so far."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        left, files = [number], [0]

        def at(step: str) -> None:
            files[0] += step == "copying"
            if step == "copying" and files[0] % 60:
                return  # of the many files that are copied one in sixty is a step
            left[0] -= 1
            if left[0] == 0:
                os.write(writer, step.encode())
                os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException):
            switch(source, state, at=at)
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as told:
        return told.read().decode() or None, os.WIFSIGNALED(status)


@pytest.mark.parametrize("link", [False, True], ids=["folder", "link"])
def test_a_kill_after_every_step(link, tmp_path, state):
    """Killed after any step: what stands there is whole, the old or the new; the next call leaves no trace of the interruption."""
    folder = (
        make(tmp_path / "release-1", a="old", b__c="old", only_old="1")
        if link
        else make(tmp_path / "venv", a="old", b__c="old")
    )
    source = tmp_path / "venv"
    if link:
        source.symlink_to("release-1")
    keep(source, state)
    old = picture(folder_at(source))
    steps = []
    for number in range(1, 20):
        (folder / "a").write_text("new")
        (folder / "b/c").write_text("new")
        make(folder, only_new="1")
        if link:
            make(tmp_path / "release-2", a="other")
            source.unlink()
            source.symlink_to("release-2")
        new = picture(folder_at(source))
        step, killed = killed_at(source, state, number)
        if not killed:
            break
        steps.append(step)
        now = picture(folder_at(source))
        assert now in (old, new), step
        said = settle(state)
        now = picture(folder_at(source))
        assert now in (old, new)
        assert len(said) == (step != "done"), (step, said)
        if now == new:
            switch(source, state)
        assert picture(folder_at(source)) == old
        assert settle(state) == ()
        assert not list(tmp_path.glob(".*"))
        keep(source, state)
    assert steps == ["written", "exchanged", *(["linked"] if link else []), "discarded", "kept", "done"]


def test_kills_at_any_time(tmp_path, state):
    """Killed a hundred times at random moments, never a mixture; and the next switch always comes to its end."""
    source = make(tmp_path / "venv", **{f"f{number}": "old" for number in range(40)})
    keep(source, state)
    ends = {"old": 0, "new": 0}
    for _ in range(100):
        for number in range(40):
            (source / f"f{number}").write_text("new")
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                switch(source, state)
            os._exit(0)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = {path.read_text() for path in source.iterdir()}
        assert found in ({"old"}, {"new"})
        ends[next(iter(found))] += 1
        if found == {"new"}:
            switch(source, state)
        else:
            settle(state)
        assert {path.read_text() for path in source.iterdir()} == {"old"}
        assert len(list(source.iterdir())) == 40
        assert keep(source, state).current
    assert min(ends.values()) > 0, ends


# --- setting aside -----------------------------------------------------------------------------------------------------------


def test_state_is_set_aside_and_never_lost(tmp_path):
    """What is to be fresh is renamed beside itself, twice in one second too; where nothing stands, nothing is done."""
    session = make(tmp_path / "session", a="1")
    first = set_aside(session, UID)
    make(session, a="2")
    second = set_aside(session, UID)
    assert first is not None
    assert second is not None
    assert ((first / "a").read_text(), (second / "a").read_text()) == ("1", "2")
    assert set_aside(session, UID) is None
    assert not session.exists()


@needs_root
def test_a_user_sets_only_their_own_aside(tmp_path):
    """A config that is not root's sets nothing aside that its owner could not rename."""
    session = make(tmp_path / "session", a="1")
    with pytest.raises(PermissionError):
        set_aside(session, 1001)
    assert (session / "a").read_text() == "1"


def test_links_on_the_way(tmp_path):
    """A circle of links ends with the system's own error."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as raised, placed(tmp_path / "a" / "x" / "y", trusted(UID)):
        pass
    assert raised.value.errno == errno.ELOOP
