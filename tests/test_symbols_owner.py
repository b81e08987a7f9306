"""Which package a file came with, from files made for the purpose and from this machine's own."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest

from agentscope.symbols.owner import Owner, owner_of


@pytest.fixture
def root(tmp_path):
    """A root file system with a merged /usr, two Debian packages of one name, and a virtual environment."""
    lists = tmp_path / "var/lib/dpkg/info"
    lists.mkdir(parents=True)
    (lists / "libc6:amd64.list").write_text("/.\n/lib\n/lib/x86_64-linux-gnu/libc.so.6\n")
    (lists / "libc6:i386.list").write_text("/.\n/lib/i386-linux-gnu/libc.so.6\n")
    (lists / "bash.list").write_text("/.\n/bin/bash")
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: shell\n Version: 0 is no field\n\n"
        "Package: libc6\nArchitecture: i386\nVersion: 2.30-1\n\nPackage: libc6\nArchitecture: amd64\nVersion: 2.36-9+deb12u14\n"
    )
    site = tmp_path / "venv/lib/python3.11/site-packages"
    for name, number, files in (
        ("numpy", "2.2.6", ["numpy/core/_multiarray.so", "numpy.libs/libopenblas-0cf.so"]),
        ("tokenizers", "0.19.1", ["tokenizers/tokenizers.abi3.so"]),
    ):
        info = site / f"{name}-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n\nVersion: 9 is text\n")
        (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))
    for place, name in (("node_modules/@scope/addon", "@scope/addon"), ("node_modules/plain", "plain")):
        folder = tmp_path / "app" / place
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"name": name, "version": "9.4.3"}))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "libc6 2.36-9+deb12u14"),
        ("/lib/i386-linux-gnu/libc.so.6", "libc6 2.30-1"),
        ("/usr/bin/bash", "bash 5.2"),
        ("/bin/bas", None),
        ("/x86_64-linux-gnu/libc.so.6", None),
        ("/venv/lib/python3.11/site-packages/numpy/core/_multiarray.so", "numpy 2.2.6"),
        ("/venv/lib/python3.11/site-packages/numpy.libs/libopenblas-0cf.so", "numpy 2.2.6"),
        ("/venv/lib/python3.11/site-packages/tokenizers/tokenizers.abi3.so", "tokenizers 0.19.1"),
        ("/venv/lib/python3.11/site-packages/numpy/core/stray.so", None),
        ("/app/node_modules/@scope/addon/build/addon.node", "@scope/addon 9.4.3"),
        ("/app/node_modules/plain/x.node", "plain 9.4.3"),
        ("/app/node_modules/absent/x.node", None),
        ("relative", None),
        ("/a\nb", None),
    ],
)
def test_the_package_that_installed_a_file_is_named(root, path, says):
    """Lists, records and package files are asked for exactly this path; a file that none names has no owner."""
    owner = owner_of(path, root=str(root))
    assert (str(owner) if owner else None) == says


def test_an_upgrade_is_seen(root):
    """The answer is kept only until the folder it came from changes."""
    site = root / "venv/lib/python3.11/site-packages"
    path = "/venv/lib/python3.11/site-packages/numpy/core/_multiarray.so"
    assert owner_of(path, root=str(root)).version == "2.2.6"
    (site / "numpy-2.2.6.dist-info/METADATA").write_text("Name: numpy\nVersion: 2.3.0\n\n")
    (site / "numpy-2.2.6.dist-info").rename(site / "numpy-2.3.0.dist-info")
    os.utime(site, ns=(5, 5))
    assert owner_of(path, root=str(root)).version == "2.3.0"


def test_hostile_records_are_not_followed(root):
    """A RECORD that is a link or a FIFO, and text that is no JSON, own nothing and stop nobody."""
    info = root / "venv/lib/python3.11/site-packages/numpy-2.2.6.dist-info"
    (info / "RECORD").unlink()
    os.mkfifo(info / "RECORD")
    os.utime(info.parent, ns=(7, 7))
    assert owner_of("/venv/lib/python3.11/site-packages/numpy/core/_multiarray.so", root=str(root)) is None
    (root / "app/node_modules/plain/package.json").write_text("[" * 100_000)
    assert owner_of("/app/node_modules/plain/deep.node", root=str(root)) is None


def test_control_characters_of_a_version_do_not_get_through(root):
    """A version is text of a stranger: what could steer a terminal becomes a question mark."""
    (root / "app/node_modules/plain/package.json").write_text(json.dumps({"name": "a\x1b[2J", "version": "1\n2"}))
    assert owner_of("/app/node_modules/plain/y.node", root=str(root)) == Owner(name="a?[2J", version="1?2", kind="node")


def test_our_own_extension_is_owned_by_its_distribution():
    """On this machine msgspec's extension belongs to the msgspec that the interpreter itself reports."""
    folder = Path(msgspec.__file__).parent
    extension = next(folder.glob("_core*.so"))
    assert str(owner_of(str(extension))) == f"msgspec {version('msgspec')}"


@pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(), reason="no Debian system")
def test_the_interpreter_is_owned_by_what_dpkg_says():
    """On a Debian system the interpreter's package is the one that dpkg itself names."""
    import subprocess

    path = os.path.realpath(sys.executable)
    said = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip("the interpreter did not come with a Debian package")
    package = said.stdout.split(":")[0]
    number = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=True
    ).stdout
    assert str(owner_of(path)) == f"{package} {number}"
