"""Readers of text: what kernel lines and last words say, and that hostile text neither stops nor slows them."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentscope.readers import diagnose_text, read
from agentscope.readers._passage import MAX_LINE, MAX_LINES, MAX_TEXT, passage_of
from agentscope.readers.kernel_fault import read_fault_lines
from agentscope.readers.kernel_oom import read_oom_reports
from agentscope.readers.kernel_other import read_xid_lines

TEXTS = Path(__file__).parents[1] / "fixtures" / "texts"


def sample(name: str) -> tuple[dict, str]:
    """What is expected of a sample, and its text: the first line of the file is the expectation."""
    expected, text = (TEXTS / f"{name}.txt").read_text().split("\n", 1)
    return json.loads(expected), text


@pytest.mark.parametrize("name", sorted(path.stem for path in TEXTS.glob("*.txt")))
def test_reads_the_form(name):
    """Each form under fixtures/texts gets the cause, the facts and the pids that its first line states."""
    expected, text = sample(name)
    findings = diagnose_text(text)["findings"]
    cause = findings[0]["cause"] if findings else None
    if "class" in expected:
        assert cause is not None
        assert cause.split("/")[0] == expected["class"]
    else:
        assert cause == expected["cause"]
    for fact, value in expected.get("facts", {}).items():
        assert findings[0]["facts"].get(fact) == value, fact
    if "pids" in expected:
        assert [finding["pid"] for finding in findings] == expected["pids"]


def test_every_cause_is_in_the_contract():
    """A reader suggests only causes that the public contract names."""
    contract = {
        "oom": "cgroup global runtime-heap gpu userspace-killer",
        "drift": "missing-library symbol libc-version python-import abi segfault",
        "hang": "deadlock event-loop-blocked event-loop-stalled stuck-io stuck-connect pool-exhausted retry-loop spin pipe-full "
        "child-wait file-lock stopped frozen throttled disk-wait",
        "exception": "uncaught network disk-full fd-exhausted panic",
        "crash": "segfault stack-overflow abort bus illegal-instruction fpe seccomp",
        "killed": "sigkill sigterm hangup limit signal",
        "exit": "status",
    }
    allowed = {f"{family}/{name}" for family, names in contract.items() for name in names.split()}
    said = {
        reading.suggests
        for path in TEXTS.glob("*.txt")
        for reading in read(path.read_text().split("\n", 1)[1])
        if reading.suggests is not None
    }
    assert said <= allowed
    assert len(said) > 25


def test_a_finding_has_the_public_shape():
    """A finding carries cause, subtype, pid, culprit and facts, and can be written as JSON."""
    (finding,) = diagnose_text(sample("fault-pie-65")[1])["findings"]
    assert set(finding) == {"cause", "subtype", "pid", "culprit", "facts"}
    assert (finding["cause"], finding["subtype"], finding["pid"]) == ("crash/segfault", "segfault", 15888)
    assert finding["culprit"] == "libc.so.6 at offset 167ad8"
    json.dumps(finding)


def test_stderr_cannot_pose_as_the_kernel():
    """A kernel line in what a process printed is believed in a pasted log, but not where it is known to be stderr."""
    _, text = sample("oom-nested-parent")
    assert diagnose_text(text)["findings"][0]["cause"] == "oom/cgroup"
    assert diagnose_text(text, kind="stderr")["findings"] == []


def test_names_the_culprit_in_own_code():
    """The culprit of a Python death is the innermost frame outside libraries; the facts keep the innermost of all."""
    _, text = sample("python-proxies")
    (finding,) = diagnose_text(text)["findings"]
    assert finding["culprit"].startswith("agent.py:6 <module>: TypeError: ")
    assert finding["facts"]["file"].endswith("_base_client.py")


def test_a_handled_traceback_is_a_reading_without_a_cause():
    """A logged exception is still shown, with the reason why it ended nothing."""
    readings = read(sample("python-logged-goes-on")[1])
    assert [reading.suggests for reading in readings] == [None]
    assert "went on working" in readings[0].says


def test_oom_report_of_one_kill():
    """A report holds the limit, the trigger, the victim's sizes and the task table with its largest tasks."""
    lines = sample("oom-v2-group")[1].splitlines()
    reports = read_oom_reports(lines)
    assert [report.pid for report in reports] == [412, 415]
    report = reports[0]
    assert (report.cause, report.group, report.oom_memcg) == ("oom/cgroup", True, "/agents/a1")
    assert (report.usage_kb, report.limit_kb, report.failcnt) == (24576, 24576, 28)
    assert (report.trigger_comm, report.trigger_pid, report.kernel) == ("hog", 412, "6.12.33-amd64")
    assert (report.total_vm_kb, report.anon_rss_kb, report.file_rss_kb, report.uid) == (27140, 24352, 980, 1000)
    assert [(task.pid, task.rss_kb) for task in report.largest] == [(412, 25332), (415, 1332)]


@pytest.mark.parametrize(
    ("header", "row", "rss_kb"),
    [
        (
            "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name",
            "[ 4242]     7  4242   100       25  1       0      0 x y",
            100,
        ),
        (
            "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
            "[ 4242]     7  4242   100  25   5  0   0 x y",
            100,
        ),
        (
            "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
            "[   4242]  7  4242 100  25  5 0 -999 x y",
            100,
        ),
    ],
)
def test_task_table_is_read_by_its_header(header, row, rss_kb):
    """The columns of the task table differ from kernel to kernel; the header decides."""
    (report,) = read_oom_reports(
        ["a invoked oom-killer: gfp_mask=0x0, order=0", header, row, "Killed process 4242 (x y) total-vm:1kB"]
    )
    assert [(task.pid, task.comm, task.uid, task.rss_kb) for task in report.tasks] == [(4242, "x y", 7, rss_kb)]


def test_two_oom_kills_do_not_mix():
    """Each kill keeps its own numbers."""
    lines = [
        "a invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0",
        "memory: usage 10kB, limit 10kB, failcnt 1",
        "Memory cgroup out of memory: Killed process 1 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
        "b invoked oom-killer: gfp_mask=0x2, order=0, oom_score_adj=0",
        "Out of memory: Killed process 2 (b) total-vm:2kB, anon-rss:2kB, file-rss:0kB",
    ]
    first, second = read_oom_reports(lines)
    assert (first.pid, first.cause, first.limit_kb, first.gfp_mask) == (1, "oom/cgroup", 10, "0x1")
    assert (second.pid, second.cause, second.limit_kb, second.gfp_mask) == (2, "oom/global", None, "0x2")


def test_fault_lines_of_raw_kmsg():
    """Fault lines are typed: numbers as text in hexadecimal, the object with its place."""
    (fault,) = read_fault_lines(
        [
            "6,91,1234567,-;python3[22180]: segfault at 7fee6492a140 ip 00007fee64921126 sp 00007fff5346be00 error 7 in libfoo.so.1.1[1126,7fee64921000+1000]"
        ]
    )
    assert (fault.pid, fault.comm, fault.address, fault.error_code) == (22180, "python3", "7fee6492a140", "7")
    assert (fault.object, fault.object_offset, fault.base, fault.size) == ("libfoo.so.1.1", "1126", "7fee64921000", "1000")


def test_xid_lines():
    """GPU errors of the driver are typed: number, device and process."""
    (xid,) = read_xid_lines(sample("kernel-xid")[1].splitlines())
    assert (xid.xid, xid.device, xid.pid, xid.comm) == (31, "PCI:0000:3b:00", 22110, "python3")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[  599.515700][T23028] ",
        "[Sat Apr 27 22:56:09 2019] ",
        "[dim. 19 avril 18:03:30 2026] ",
        "6,30574067,3816544225424,-;",
        "<6>[    1.234567] ",
        "Mar 25 13:23:43 lab kernel: ",
        "2026-09-02T00:54:21.607510+00:00 srv kernel: ",
        " 9월 06 23:25:06 box kernel: ",
        "2026-05-05T10:00:00.123456789Z stderr F ",
        "worker-1  | ",
        "\x1b[31m",
    ],
)
def test_prefixes_come_off(prefix):
    """The same line says the same behind every prefix."""
    (finding,) = diagnose_text(
        f"{prefix}a b[7]: segfault at 0 ip 0000000000000001 sp 0000000000000002 error 4 in x[1000+1000]"
    )["findings"]
    assert (finding["pid"], finding["facts"]["comm"], finding["facts"]["object"]) == (7, "a b", "x")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "app_1  | ",
        "(EngineCore_0 pid=7) ",
        "2026-05-05 10:00:00 ",
        "[api] ",
        "[rank0]: ",
        "2026-05-05T10:00:00.1Z stderr F ",
    ],
)
def test_prefixes_of_programs_come_off(prefix):
    """A traceback is the same traceback behind the prefix of a supervisor or a worker."""
    text = "\n".join(prefix + line for line in sample("python-memoryerror")[1].splitlines())
    (finding,) = diagnose_text(text)["findings"]
    assert (finding["cause"], finding["facts"]["line"], finding["facts"]["function"]) == ("oom/runtime-heap", 5, "grow")


def test_a_passage_is_bounded():
    """However much is pasted, a bounded tail of it is read."""
    passage = passage_of(("y" * (MAX_LINE + 100) + "\n") * 400)
    assert sum(len(line.text) + 1 for line in passage.lines) <= MAX_TEXT
    assert max(len(line.text) for line in passage.lines) == MAX_LINE
    assert len(passage_of("\n" * (2 * MAX_LINES)).lines) == MAX_LINES


def test_control_sequences_are_gone():
    """No escape, control or direction-changing character of a hostile text reaches a reading."""
    (reading,) = read(
        'Traceback (most recent call last):\n  File "/a\x1b]0;evil\x07\x9b31m.py", line 1, in f\nValueError: \x1b[2J\u202eboom\x00'
    )
    shown = f"{reading.says}{reading.culprit}{reading.excerpt}{reading.facts}"
    assert not any(character in shown for character in "\x1b\x07\x9b\x00\u202e")
    assert reading.facts["message"] == "boom"


FRAGMENTS = st.sampled_from(
    [line for path in sorted(TEXTS.glob("*.txt")) for line in path.read_text().splitlines()[1:]]
    + [
        "Traceback (most recent call last):",
        '  File "',
        "Killed process ",
        "segfault at ",
        "panic: ",
        "│",
        "\x1b[",
        "(",
        "[",
        "'",
        '"""',
        "\t",
        "",
    ]
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=60)), max_size=40), st.sampled_from(["\n", "", " ", "\r\n"]))
def test_garbage_never_raises(pieces, glue):
    """Any mixture of fragments of real texts and noise is read without an error, and the answer is JSON."""
    json.dumps(diagnose_text(glue.join(pieces)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TEXTS.glob("*.txt"))), st.data())
def test_a_cut_text_never_raises(path, data):
    """A text that is cut anywhere, at either end, is read without an error."""
    text = path.read_text().split("\n", 1)[1]
    start = data.draw(st.integers(0, len(text)))
    json.dumps(diagnose_text(text[start : data.draw(st.integers(start, len(text)))]))


HOSTILE = {
    "brackets": "[" * 4000 + "\n",
    "parentheses": "(" * 3990 + "(Error)\n",
    "quotes": '"' * 4000 + "\n",
    "spaces": " " * 4000 + "x\n",
    "names before a fault": ("a" * 60 + " ") * 20 + "segfault at trap unhandled \n",
    "half a kill": "Killed process 1 (" + "(" * 3900 + "\n",
    "half a constraint": "oom-kill:constraint=CONSTRAINT_MEMCG," + "task_memcg=/a," * 280 + "\n",
    "invocations": "a invoked oom-killer: gfp_mask=0x1, order=0\n",
    "a symbol without end": "Error relocating " + "a" * 3900 + " symbol not found\n",
    "versions": "x: " * 900 + "version `G' not found\n",
    "colons": "a:" * 1900 + " failed GGML_ASSERT Assertion not found shared librar\n",
    "headers": 'Traceback (most recent call last):\n  File "a", line 1, in f\n',
    "groups": "  + Exception Group Traceback (most recent call last):\n  | a\n",
    "remote": 'multiprocessing.pool.RemoteTraceback:\n"""\n',
    "errors of node": "Error: x\n    at f (/a:1:1)\n",
    "frames of java": "a.B: x\n\tat a.b(C.java:1)\n",
    "panics of go": "panic: x\n\ngoroutine 1 [running]:\nmain.f()\n\t/a.go:1\n",
    "panics of rust": "thread 'main' panicked at src/x.rs:1:1:\nm\n",
    "quoted panics": "thread 'x' panicked at '" + "a'" * 1900 + "\n",
    "sanitizers": "==1==ERROR: AddressSanitizer: " + "a " * 1900 + "\n",
    "statuses": "exited with code exit status " * 130 + "\n",
    "states": "Reason: Error\nExit Code: 1\n",
    "empty": "\n",
}


@pytest.mark.parametrize("shape", sorted(HOSTILE))
def test_cost_is_linear(shape):
    """A hostile text of twice the length costs about twice as much: 4 times at most, where a quadratic reader would show."""
    text = HOSTILE[shape] * (1024 * 1024 // len(HOSTILE[shape]) + 1)

    def cost(size: int) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            read(text[:size])
            times.append(time.process_time() - start)
        return min(times)

    small, large = cost(MAX_TEXT // 4), cost(MAX_TEXT // 2)
    assert large < 4 * small + 0.02
    assert cost(1024 * 1024) < 16 * small + 0.1
