"""A private copy of this machine, where a real apt upgrades packages and writes its logs."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from drift.places import CFLAGS, PROGRAMS, Place, Unplayable, ran

MULTIARCH = f"{os.uname().machine}-linux-gnu"
# pivot_root, not chroot: with chroot the paths in /proc/PID/maps would be those of the host
LAB = """\
set -eu
mount -t tmpfs -o size=1g,mode=755 lab "$1"; mkdir "$1/up" "$1/work" "$1/m"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/m"
cd "$1/m"
for d in proc sys dev; do mount --rbind "/$d" "$d"; done
mount -t tmpfs -o mode=755 run run
mkdir -p .old; pivot_root . .old; cd /; umount -l /.old
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists /etc/apt/apt.conf.d/*docker* /var/log/dpkg.log /var/log/apt/*.log
mkdir -p /srv/repo /var/lib/apt/lists/partial
echo 'deb [trusted=yes] file:/srv/repo ./' >/etc/apt/sources.list
echo ready
exec sleep 600
"""


class Lab:
    """A private copy of this machine, with a package repository of its own at /srv/repo and a real apt."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", LAB, "lab", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.keeper.stdout is not None
        if self.keeper.stdout.readline() != b"ready\n":
            self.keeper.kill()
            raise Unplayable(f"no overlay can be mounted here: {self.keeper.communicate()[1][-300:]!r}")
        self.root = Path(f"/proc/{self.keeper.pid}/root")
        self.inside = ("nsenter", "-t", str(self.keeper.pid), "-m", "--")
        self.repository: dict[str, str] = {}

    def close(self) -> None:
        """End the keeper: the mounts go with its namespace."""
        self.keeper.kill()
        self.keeper.communicate()

    def place(self, name: str) -> "LabPlace":
        """A place of this lab."""
        return LabPlace(name, self)


class LabPlace(Place):
    """A place in the lab, whose libraries can be packages."""

    def __init__(self, name: str, lab: Lab) -> None:
        super().__init__(name, Path("/srv") / name, lab.root / "srv" / name)
        self.lab = lab
        self.inside = lab.inside
        self.package = f"lib{name}1"

    def deb(
        self, version: str, *flags: str, package: str | None = None, more: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        """Put a version of a package into the repository: libPLACE.so.1 built with these flags, and `more` files built from libfoo.c."""
        package = package or self.package
        name = package.rstrip("0123456789-")
        soname = f"{name}.so.{package[len(name) :].strip('-') or 1}"
        tree = self.outside / "deb" / f"{package}_{version}"
        libraries = tree / "usr/lib" / MULTIARCH
        libraries.mkdir(parents=True)
        (tree / "DEBIAN").mkdir()
        source = str(PROGRAMS / "libfoo.c")
        for file, how in {soname: (f"-Wl,-soname,{soname}", *flags), **(more or {})}.items():
            ran(["gcc", *CFLAGS, "-shared", "-fPIC", "-o", str(libraries / file), source, *how])
        control = {
            "Package": package,
            "Version": version,
            "Architecture": ran(["dpkg", "--print-architecture"]).strip(),
            "Maintainer": "Nobody <nobody@localhost>",
            "Section": "libs",
            "Priority": "optional",
            "Description": "a library of the drift scenarios",
        }
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        (tree / "DEBIAN/control").write_text(text)
        (tree / "DEBIAN/triggers").write_text("activate-noawait ldconfig\n")
        built = self.lab.root / "srv/repo" / f"{package}_{version}.deb"
        ran(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(built)])
        content = built.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.lab.repository[built.name] = f"{text}Filename: ./{built.name}\nSize: {len(content)}\nSHA256: {digest}\n"
        (self.lab.root / "srv/repo/Packages").write_text("\n".join(self.lab.repository.values()))
        shutil.rmtree(tree)

    def apt(self, *words: str, user: int | None = None) -> None:
        """Run apt-get, by sudo of a user where one is given."""
        env = {"DEBIAN_FRONTEND": "noninteractive"} | ({"SUDO_UID": str(user)} if user is not None else {})
        self.run("apt-get", "update", "-qq")
        self.run("apt-get", *words, env=env)

    def program(self, *flags: str, library: str | None = None) -> tuple[str, ...]:
        """Build the agent against the library that its package has put into the system."""
        soname = library or f"lib{self.name}.so.1"
        built = f"{self.lab.root}/usr/lib/{MULTIARCH}/{soname}"
        self.compiled(self.agent, "agent.c", *flags, built)
        return (self.path(self.agent),)
