"""The Debian package as an administrator gets it: built, installed, used, upgraded and purged in roots of its own, this machine untouched."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentscope import __version__
from agentscope.config import read_config
from tests.live.test_wheel import NETWORK, REPOSITORY

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
NEEDED = ("dh", "dpkg-deb", "unshare", "chroot", "/usr/bin/py3compile", "/usr/bin/python3.11")
LAB = Path(__file__).parent / "systemd" / "lab.sh"
TOO_SLOW = 75  # EX_TEMPFAIL of lab.sh
NEWER = f"{__version__}+1"
BYSTANDER = "[Service]\nExecStart=/bin/sleep 300\n"  # the lab is up when its agent.service is


def ran(*argv: str, env: dict[str, str] | None = None) -> str:
    """A step that must succeed, and what it said."""
    run = subprocess.run(argv, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=300)
    if run.returncode != 0 and any(sign in run.stdout + run.stderr for sign in NETWORK):
        pytest.skip(f"packages cannot be fetched: {(run.stderr or run.stdout).strip().splitlines()[-1]}")
    assert run.returncode == 0, f"{argv}: {run.stdout[-2000:]}{run.stderr[-3000:]}"
    return run.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, not compressed."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"not on this machine: {', '.join(missing)}. Try: apt-get install debhelper")
    folder = tmp_path_factory.mktemp("deb")
    ran("make", "deb", f"DEB_DESTDIR={folder}", "DEB_COMPRESSION=-Znone")
    (built,) = folder.glob("*.deb")
    return built


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the next version, whose example of a config says more."""
    folder = tmp_path_factory.mktemp("newer")
    tree = folder / "tree"
    ran("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {__version__}\n", f"Version: {NEWER}\n"))
    with (tree / "etc" / "agentscope.toml").open("a") as example:
        example.write("# of the next version\n")
    ran("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(folder / "agentscope.deb"))
    shutil.rmtree(tree)
    return folder / "agentscope.deb"


def inside(package: Path, script: str) -> dict[str, str]:
    """Run a script over a root that is this machine's without this checkout; what it writes is in memory, and gone with it.

    Returns:
        What the script said, a `name: value` a line.
    """
    begin = f"""set -e; cd {package.parent}
mkdir -p layer; mount -t tmpfs layer layer; mkdir layer/upper layer/work layer/new
mount -t overlay -o lowerdir=/,upperdir=layer/upper,workdir=layer/work overlay layer/new
for each in proc sys dev; do mount --rbind /$each layer/new/$each; done
mount -t tmpfs tmp layer/new/tmp; cp {package} layer/new/tmp/agentscope.deb
mount -t tmpfs -o ro none layer/new{REPOSITORY}
rm -rf layer/new/var/lib/agentscope layer/new/var/log/agentscope layer/new/etc/agentscope.toml # of this machine's own
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb
printf '#!/bin/sh\\nexit 101\\n' > layer/new/usr/sbin/policy-rc.d; chmod 755 layer/new/usr/sbin/policy-rc.d
in_root() {{ unshare --net chroot layer/new "$@"; }} # without a network
quietly() {{ in_root "$@" > log 2>&1 || {{ cat log >&2; exit 1; }}; }}
"""
    said = ran("unshare", "--mount", "--propagation", "private", "bash", "-c", begin + script)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in said.splitlines())}


def test_what_the_package_is(package: Path) -> None:
    """It is of agentscope's version, names its architecture and what it needs of Debian, and carries no bytecode and no test of ours."""
    fields = dict(line.split(": ", 1) for line in ran("dpkg-deb", "--field", str(package)).splitlines() if line[:1] != " ")
    assert (fields["Package"], fields["Version"]) == ("agentscope", __version__)
    assert fields["Architecture"] == ran("dpkg", "--print-architecture").strip()
    assert "libbpf1" in fields["Depends"]
    assert "python3 (<< 3.12)" in fields["Depends"]
    listed = [line.split(maxsplit=5) for line in ran("dpkg-deb", "--contents", str(package)).splitlines()]
    modes = {words[5]: words[0] for words in listed}
    for wanted in (
        "./lib/systemd/system/agentscope.service",
        "./etc/agentscope.toml",
        "./usr/share/man/man1/agentscope.1.gz",
        "./usr/share/bash-completion/completions/agentscope",
        "./usr/share/zsh/vendor-completions/_agentscope",
        "./usr/share/fish/vendor_completions.d/agentscope.fish",
        "./usr/lib/agentscope/lib/python3.11/site-packages/agentscope/sources/probes/x86_64/core.bpf.o",
    ):
        assert modes[wanted] == "-rw-r--r--"
    assert modes["./usr/lib/agentscope/bin/agentscope"] == modes["./usr/lib/agentscope/bin/py-spy"] == "-rwxr-xr-x"
    assert "./usr/bin/agentscope -> ../lib/agentscope/bin/agentscope" in modes
    assert {words[1] for words in listed} == {"root/root"}
    assert not [name for name, mode in modes.items() if mode[0] != "l" and ("s" in mode or mode[5] == "w" or mode[8] == "w")]
    assert not [
        name for name in modes if name.startswith("./usr/local") or name.endswith(".pyc") or "site-packages/tests/" in name
    ]


def test_its_example_of_a_config_is_one(tmp_path: Path) -> None:
    """What it lays in /etc asks for nothing, and with its examples taken out of their comments it is a config that agentscope takes."""
    example = REPOSITORY / "debian" / "agentscope.toml"
    assert read_config(str(example)).targets == ()
    taken = tmp_path / "agentscope.toml"
    taken.write_text(re.sub(r"^#(?=[\[a-z])", "", example.read_text(), flags=re.MULTILINE))
    config = read_config(str(taken))
    assert list(config.agents) == ["researcher"]
    assert len(config.sinks) == 1


def test_it_is_installed_used_and_purged(package: Path) -> None:
    """Without a network and this checkout it installs, runs, explains a real fault, and leaves nothing after a purge, but the record before."""
    # DelegateSubgroup= is of systemd 254, and Debian's 252 says of it that it is ignored
    script = """
quietly dpkg --force-unsafe-io --install /tmp/agentscope.deb
echo "version: $(in_root agentscope --version)"
echo "doctor: $(in_root agentscope doctor --json || true)"
echo "page: $(in_root man --path agentscope-diagnose)"
echo "completion: $(in_root bash -c '. /usr/share/bash-completion/completions/agentscope && complete -p agentscope')"
echo "verify: $(! command -v systemd-analyze > log || in_root systemd-analyze verify agentscope.service 2>&1 | grep agentscope | grep -v "'DelegateSubgroup'")"
echo "differs: $(in_root agentscope service 2> log | diff - layer/new/lib/systemd/system/agentscope.service | tr '\\n' ' ')"
echo "warned: $(cat log)"
echo "enabled: $(find layer/upper/etc -name agentscope.service)"
echo "compiled: $(find layer/upper/usr/lib/agentscope -name 'pipeline.*.pyc' | wc -l)"
in_root agentscope run --name faulty -- /usr/bin/python3 -c 'import ctypes; ctypes.string_at(0)' > log 2>&1 || true
pid=$(in_root agentscope incidents --json | grep -o '"pid":[0-9]*' | head -1 | cut -d: -f2)
echo "diagnosis: $(in_root agentscope diagnose $pid --json || true)"
echo "ledger: $(stat -c %a layer/new/var/lib/agentscope/ledger/*.ndjson | sort -u)"
echo "spy: $(in_root /usr/lib/agentscope/bin/py-spy --version)"
echo '# mine' >> layer/new/etc/agentscope.toml
quietly dpkg --remove agentscope
echo "kept: $(cat layer/new/var/lib/agentscope/ledger/*.ndjson | grep -c agentscope.incident.opened) $(tail -1 layer/new/etc/agentscope.toml)"
quietly dpkg --purge agentscope
echo "left: $(find layer/upper -path '*agentscope*' -not -type c | tr '\\n' ' ')"
"""
    said = inside(package, script)
    assert __version__ in said["version"]
    core = next(check for check in json.loads(said["doctor"])["checks"] if check["name"] == "engine core")
    assert core["ok"], core
    assert said["page"].endswith("/agentscope-diagnose.1.gz")
    assert "_agentscope_completion" in said["completion"]
    assert (said["verify"], said["differs"], said["warned"], said["enabled"]) == ("", "", "", "")
    assert said["compiled"] == "1"
    assert '"cause":"crash/segfault"' in said["diagnosis"].replace(": ", ":"), said["diagnosis"]
    assert said["ledger"] == "600"
    assert said["spy"].startswith("py-spy")
    assert said["kept"] == "1 # mine"
    assert said["left"] == ""


class Host:
    """A real systemd of its own, over an overlay of this machine's root."""

    def __init__(self, folder: Path) -> None:
        units = folder / "units"
        units.mkdir()
        (units / "agent.service").write_text(BYSTANDER)
        started = self.lab("start", str(units), str(folder / "run"))
        if started.returncode == TOO_SLOW:
            pytest.skip(f"no systemd can be started here: {started.stderr.strip()}")
        assert started.returncode == 0, started.stderr
        self.pid = int(started.stdout.split()[-1])
        self.root = Path(f"/proc/{self.pid}/root")
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # of images for containers: there nothing may be started
        shutil.rmtree(self.root / "var/lib/agentscope", ignore_errors=True)  # this machine's own, as seen through the overlay
        (self.root / "etc/agentscope.toml").unlink(missing_ok=True)
        compiler = self.root / "usr/bin/py3compile"  # half of the time of an installation, and it has been tried above
        compiler.unlink()
        compiler.symlink_to("true")

    @staticmethod
    def lab(*words: str) -> "subprocess.CompletedProcess[str]":
        """Run the lab's script."""
        env = {**os.environ, "LAB_NAME": "zoo-package", "DEBIAN_FRONTEND": "noninteractive"}
        return subprocess.run([str(LAB), *words], check=False, timeout=150, capture_output=True, text=True, env=env)

    def does(self, *words: str) -> str:
        """Run a command inside that must succeed, and what it said."""
        done = self.lab("exec", str(self.pid), *words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout.strip()

    def install(self, package: Path) -> None:
        """Install a package as dpkg does it when nobody is there to be asked."""
        shutil.copy(package, self.root / "root" / "agentscope.deb")
        self.does("dpkg", "--force-confold,unsafe-io", "--install", "/root/agentscope.deb")

    def shows(self, fact: str) -> str:
        """What systemd knows of the service."""
        return self.does("systemctl", "show", f"--property={fact}", "--value", "agentscope.service")

    def journal(self) -> str:
        """The last that the service said."""
        return self.lab("exec", str(self.pid), "journalctl", "-n20", "--no-pager", "-u", "agentscope.service").stdout


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host that is powered off at the end."""
    if not Path("/sys/fs/cgroup/memory").is_dir() or not Path("/lib/systemd/systemd").exists():
        pytest.skip("needs systemd and cgroup v1: the lab mounts the v1 controllers")
    running = Host(tmp_path)
    yield running
    running.lab("stop", str(running.pid))


def test_its_service_lives_through_an_upgrade_and_ends_with_a_removal(package: Path, newer: Path, host: Host) -> None:
    """Installed it does nothing; started it is ready; an upgrade starts it anew with config and record kept; stop and removal end it."""
    host.install(package)
    assert host.shows("ActiveState") == "inactive"
    assert host.shows("UnitFileState") == "disabled"
    config = host.root / "etc/agentscope.toml"
    config.write_text("[agent.sleeper]\nmatch = { name = '^sleep$' }\n")
    host.does("systemctl", "start", "agentscope.service")
    assert host.shows("ActiveState") == "active"  # start of Type=notify returns after READY=1
    first = host.shows("MainPID")
    state = host.root / "var/lib/agentscope"
    (state / "mine").write_text("kept")
    host.install(newer)
    assert NEWER in host.does("dpkg-query", "--show", "agentscope")
    assert host.shows("ActiveState") == "active"
    assert host.shows("MainPID") != first
    assert config.read_text().startswith("[agent.sleeper]")
    assert (state / "mine").read_text() == "kept"
    begun = time.monotonic()
    host.does("systemctl", "stop", "agentscope.service")
    assert host.shows("Result") == "success"  # by itself, and not by a SIGKILL after TimeoutStopSec=20s
    assert time.monotonic() - begun < 20
    host.does("systemctl", "start", "agentscope.service")
    running = int(host.shows("MainPID"))
    assert (host.root / f"proc/{running}").exists()
    host.does("dpkg", "--remove", "agentscope")
    assert not (host.root / f"proc/{running}").exists()
    assert (state / "mine").exists()
    assert config.exists()
    host.does("dpkg", "--purge", "agentscope")
    assert not state.exists()
    assert not config.exists()
