"""The Debian package as an administrator gets it: built, installed, used and purged in a root of its own, this machine untouched."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope import __version__
from tests.live.test_wheel import NETWORK, REPOSITORY

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
NEEDED = ("dh", "dpkg-deb", "unshare", "chroot", "/usr/bin/py3compile", "/usr/bin/python3.11")


def ran(*argv: str, env: dict[str, str] | None = None) -> str:
    """A step that must succeed, and what it said."""
    run = subprocess.run(argv, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=300)
    if run.returncode != 0 and any(sign in run.stderr for sign in NETWORK):
        pytest.skip(f"packages cannot be fetched: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, f"{argv}: {run.stdout[-2000:]}{run.stderr[-3000:]}"
    return run.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, barely compressed."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("deb")
    ran("make", "deb", f"DEB_DESTDIR={folder}", "DEB_COMPRESSION=-Zgzip -z1")
    (built,) = folder.glob("*.deb")
    return built


@pytest.fixture(scope="module")
def place(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for a root that is this machine's, with a layer above it that takes what is written; it lives in a mount namespace."""
    folder = tmp_path_factory.mktemp("root")
    shutil.copy(package, folder / "agentscope.deb")
    return folder


def inside(place: Path, script: str) -> str:
    """Run a script in a root that is this machine's; what it writes is in place/layer/upper at its end, and nowhere else."""
    begin = f"""set -e; cd {place}
mkdir -p layer; mount -t tmpfs layer layer; mkdir layer/upper layer/work layer/new
mount -t overlay -o lowerdir=/,upperdir=layer/upper,workdir=layer/work overlay layer/new
for each in proc sys dev; do mount --rbind /$each layer/new/$each; done
mount -t tmpfs tmp layer/new/tmp; cp agentscope.deb layer/new/tmp/
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb
printf '#!/bin/sh\\nexit 101\\n' > layer/new/usr/sbin/policy-rc.d; chmod 755 layer/new/usr/sbin/policy-rc.d
in_root() {{ chroot layer/new "$@"; }}
"""
    return ran("unshare", "--mount", "--propagation", "private", "bash", "-c", begin + script)


def test_what_the_package_is(package: Path) -> None:
    """It is of agentscope's version, names its architecture and what it needs of Debian, and carries no bytecode and no test."""
    fields = dict(line.split(": ", 1) for line in ran("dpkg-deb", "--field", str(package)).splitlines() if line[:1] != " ")
    assert (fields["Package"], fields["Version"]) == ("agentscope", __version__)
    assert fields["Architecture"] == ran("dpkg", "--print-architecture").strip()
    assert "libbpf1" in fields["Depends"]
    assert "python3 (<< 3.12)" in fields["Depends"]
    names = [line.split(maxsplit=5)[5] for line in ran("dpkg-deb", "--contents", str(package)).splitlines()]
    for wanted in (
        "./usr/bin/agentscope -> ../lib/agentscope/bin/agentscope",
        "./lib/systemd/system/agentscope.service",
        "./usr/share/man/man1/agentscope.1.gz",
        "./usr/share/bash-completion/completions/agentscope",
        "./usr/share/zsh/vendor-completions/_agentscope",
        "./usr/share/fish/vendor_completions.d/agentscope.fish",
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith(("./etc", "./usr/local")) or name.endswith(".pyc")]
    assert not [name for name in names if "site-packages/tests/" in name]


def test_it_is_installed_used_and_purged(place: Path) -> None:
    """Without a network: it is installed, runs, loads its probes, has its pages and a unit that systemd takes; a purge leaves nothing."""
    script = """
in_root dpkg --install /tmp/agentscope.deb > log 2>&1 || { cat log >&2; exit 1; }
echo "version: $(unshare --net chroot layer/new agentscope --version)"
echo "doctor: $(in_root agentscope doctor --json || true)"
echo "page: $(in_root man --path agentscope-diagnose)"
echo "completion: $(in_root bash -c '. /usr/share/bash-completion/completions/agentscope && complete -p agentscope')"
if command -v systemd-analyze > verify; then echo "verify: $(in_root systemd-analyze verify agentscope.service 2>&1 | grep agentscope || true)"; fi
echo "enabled: $(find layer/upper/etc -name agentscope.service)"
echo "compiled: $(find layer/upper/usr/lib/agentscope -name 'pipeline.*.pyc' | wc -l)"
in_root agentscope drill exception --json > drill 2>&1 || true
echo "spy: $(in_root /usr/lib/agentscope/bin/py-spy --version)"
mkdir -p layer/new/var/lib/agentscope/ledger layer/new/var/log/agentscope; echo x > layer/new/var/lib/agentscope/ledger/x
in_root dpkg --remove agentscope > log 2>&1 || { cat log >&2; exit 1; }
echo "kept: $(find layer/new/var/lib/agentscope -type f)"
in_root dpkg --purge agentscope > log 2>&1 || { cat log >&2; exit 1; }
echo "left: $(find layer/upper -path '*agentscope*' -not -type c | tr '\\n' ' ')"
"""
    said = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in inside(place, script).splitlines())
    assert __version__ in said["version"]
    core = next(check for check in json.loads(said["doctor"])["checks"] if check["name"] == "engine core")
    assert core["ok"], core
    assert said["page"].strip().endswith("/agentscope-diagnose.1.gz")
    assert "_agentscope_completion" in said["completion"]
    assert said.get("verify", "").strip() == ""
    assert said["enabled"].strip() == ""
    assert said["compiled"].strip() == "1"
    assert said["spy"].startswith("py-spy")
    assert said["kept"].strip().endswith("/ledger/x")
    assert said["left"].strip() == ""
