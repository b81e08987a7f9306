"""The ledger on a disk that is really full, and anchored in a journal that is really journald's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("root")]
PRIVATELY = ("unshare", "--mount", "--propagation", "private")
ROOT = Path(__file__).resolve().parent.parent.parent
JOURNALD = Path("/lib/systemd/systemd-journald")


def privately(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own, from the project's folder."""
    command = [*PRIVATELY, "bash", "-euc", f'P="{sys.executable}"\n{script}', "bash", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)


FULL = """
import os, sys
from pathlib import Path
from agentscope.errors import CannotWrite
from agentscope.ledger import Ledger, Settings
from tests.ledger_builders import is_whole, lines, segment
state, filler = Path(sys.argv[1]) / "state", Path(sys.argv[1]) / "filler"

def fill():
    with open(filler, "ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def refused(line, **how):
    try:
        ledger.append(line, **how)
    except CannotWrite as error:
        assert error.why == "No space left on device", error
        assert "df -h" in error.try_this
        return True
    return False

ledger = Ledger(state, Settings(anchor="none"))
fill()
for line in lines(3, "before there was a key"):
    assert refused(line)
filler.unlink()
ledger.append(lines(1, "begun")[0], durable=True)
ledger.close(20)  # a head that is replaced frees a page
fill()
size = segment(state).stat().st_size
tried = lines(40, "x" * 400)
kept = [line for line in tried if not refused(line)]
assert len(kept) < 20, len(kept)
assert refused(lines(1, "x" * 5000)[0], durable=True)
assert is_whole(state).records == 1 + 1 + len(kept)
filler.unlink()
ledger.append(lines(1, "there is room")[0], durable=True)
ledger.close(20)
found = is_whole(state)
told = [envelope.data for envelope in Ledger(state).read()]
lost = [event for event in told if event.source == "ledger"]
assert [event.count for event in lost if "could not be written" in event.says] == [3, len(tried) - len(kept) + 1], lost
assert len([event for event in told if event.source == "test"]) == 1 + len(kept) + 1
assert found.unsigned == ()
print(len(kept), found.records)
"""

TORN = """
import sys
from pathlib import Path
from agentscope.errors import CannotWrite
from agentscope.ledger import Ledger, Settings
from tests.ledger_builders import is_whole, kept, lines, segment
state, filler = Path(sys.argv[1]) / "state", Path(sys.argv[1]) / "filler"
kept(state, 2, Settings(anchor="none"))
with segment(state).open("ab") as file:
    file.write(b"torn" * 500)
with open(filler, "ab", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
ledger = Ledger(state, Settings(anchor="none"))
try:
    ledger.append(lines(1)[0])
    raise SystemExit("it was written")
except CannotWrite:
    pass
assert segment(state).read_bytes().endswith(b"torn" * 500), "what has no room to be set aside stays where it is"
filler.unlink()
ledger.append(lines(1)[0])
ledger.close(20)
assert is_whole(state).last == 5
assert [path.read_bytes() for path in state.glob("ledger/torn-*")] == [b"torn" * 500]
"""


@pytest.mark.parametrize("script", [FULL, TORN], ids=["records", "a torn line"])
def test_a_full_disk(tmp_path, script):
    """On a full disk an append is refused in a sentence and leaves nothing; with room again the loss is a record, and all is whole."""
    told = privately('mount -t tmpfs -o size=256k none "$1"; "$P" -c "$2" "$1"', str(tmp_path), script)
    assert told.returncode == 0, told.stderr[-3000:]


START = """
mount -t tmpfs none /run; mount -t tmpfs none /var/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/test.conf
timeout 60 /lib/systemd/systemd-journald & journald=$!
trap 'kill $journald' EXIT
for _ in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
verify() { journalctl --sync >/dev/null 2>&1 || sleep 0.5; "$P" -m agentscope ledger verify --json --state-dir "$1"; }
"""
KEPT = "import sys; from pathlib import Path; from tests.ledger_builders import kept, Settings; kept(Path(sys.argv[1]), 5, Settings(every=1))"
FALSE = """
import socket, sys
text = sys.argv[1].replace('"seq":5', '"seq":500')
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
    sender.connect("/run/systemd/journal/socket")
    sender.send(b"MESSAGE=x\\nMESSAGE_ID=5b1d3c0f6e5a4b6c9a2f7d8e4c1b0a93\\nAGENTSCOPE_LEDGER=" + text.encode() + b"\\n")
"""


@pytest.mark.skipif(not JOURNALD.exists() or shutil.which("journalctl") is None, reason="there is no journald here")
def test_the_journal_is_a_second_place(tmp_path):
    """Heads go to journald without any config; a whole ledger that is deleted is missed, and what other users say is not heard."""
    script = f"""{START}
      "$P" -c "$2" "$1"; verify "$1"
      head=$(cat "$1/ledger/head.json")
      setpriv --reuid=65534 --regid=65534 --clear-groups "$(readlink -f "$P")" -c "$3" "$head"; verify "$1"
      rm -r "$1/ledger"; verify "$1" || echo $?
      "$P" -c "$2" "$1"; verify "$1" || echo $?
    """
    told = privately(script, str(tmp_path / "state"), KEPT, FALSE)
    lines = told.stdout.splitlines()
    assert len(lines) == 6, told.stderr[-3000:]
    first, second, gone, status, anew, again = lines
    assert json.loads(first)["anchor"] == "journal"
    assert json.loads(first)["anchored"] == [{"first": 1, "last": 5}]
    assert json.loads(second)["whole"]
    assert (status, again) == ("10", "10")
    for each in (gone, anew):
        assert any("a whole chain is missing" in problem["what"] for problem in json.loads(each)["problems"])
