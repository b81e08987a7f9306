"""The readers on what runtimes really print here and now: programs that fail are run, and their words are read."""

import shutil
import subprocess
import sys

import pytest

from agentscope.readers import diagnose_text, read

PYTHON = {
    "an exception nobody caught": (
        "{}['plan']",
        "exception/uncaught",
        {"exception_type": "KeyError", "message": "'plan'", "line": 1},
    ),
    "an exception with a cause": (
        "try:\n 1/0\nexcept Exception as e:\n raise RuntimeError('later') from e",
        "exception/uncaught",
        {"chained": True, "root_type": "ZeroDivisionError", "line": 4},
    ),
    "an exception group": (
        "raise ExceptionGroup('g', [ValueError('a'), KeyError('b')])",
        "exception/uncaught",
        {"group": True},
    ),
    "a task group whose peer refuses": (
        (
            "import asyncio\nasync def f(): raise ConnectionRefusedError(111, 'Connection refused')\nasync def main():\n"
            " async with asyncio.TaskGroup() as g: g.create_task(f())\nasyncio.run(main())"
        ),
        "exception/network",
        {"group": True},
    ),
    "an exception of a pool's worker": (
        "import multiprocessing as m\ndef f(x): return 1/x\nif __name__ == '__main__':\n m.set_start_method('fork')\n with m.Pool(1) as p: p.map(f, [0])",
        "exception/uncaught",
        {"exception_type": "ZeroDivisionError", "remote": True},
    ),
    "notes": ("e = ValueError('v'); e.add_note('hint'); raise e", "exception/uncaught", {"message": "v"}),
    "deep recursion": ("def f(): f()\nf()", "exception/uncaught", {"exception_type": "RecursionError"}),
    "a syntax error": ("def f(:", "exception/uncaught", {"exception_type": "SyntaxError", "function": None}),
    "a missing module": ("import zzz_absent", "drift/python-import", {"message": "No module named 'zzz_absent'"}),
    "a missing name": ("from os import zzz_absent", "drift/python-import", {"exception_type": "ImportError"}),
    "a missing library": ("import ctypes; ctypes.CDLL('libzzz.so.9')", "drift/missing-library", {"library": "libzzz.so.9"}),
    "a missing symbol": ("import ctypes; ctypes.CDLL(None).zzz_absent", "drift/symbol", {"symbol": "zzz_absent"}),
    "a refused connection": (
        "import urllib.request as u; u.urlopen('http://127.0.0.1:1')",
        "exception/network",
        {"chained": True},
    ),
    "a full device": ("f = open('/dev/full', 'w', buffering=1); f.write('x\\n')", "exception/disk-full", {"errno": 28}),
    "too many files": (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (20, 20)); x = [open('/dev/null') for _ in range(99)]",
        "exception/fd-exhausted",
        {"errno": 24, "path": "/dev/null"},
    ),
    "too little address space": (
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (300 << 20,) * 2); b = bytearray(1 << 30)",
        "oom/runtime-heap",
        {"exception_type": "MemoryError"},
    ),
    "a rich traceback": (
        "from rich.traceback import install; install(show_locals=True)\ndef deep(x):\n return [1][x]\ndeep(7)",
        "exception/uncaught",
        {"exception_type": "IndexError", "function": "deep", "line": 3},
    ),
    "a segmentation fault under faulthandler": (
        "import ctypes, faulthandler, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); faulthandler.enable(); ctypes.string_at(0)",
        "crash/segfault",
        {"signal": "SIGSEGV", "function": "string_at"},
    ),
    "a logged exception, and work after it": (
        "import logging; logging.basicConfig(level=20)\ntry: 1/0\nexcept Exception: logging.exception('bad')\nlogging.info('next job')",
        None,
        {},
    ),
    "an exception in a finaliser": ("class A:\n def __del__(self): 1/0\nA()", None, {}),
    "a task nobody waited for": (
        "import asyncio\nasync def f(): 1/0\nasync def main():\n asyncio.create_task(f()); await asyncio.sleep(0.02)\nasyncio.run(main())",
        None,
        {},
    ),
}

NODE = {
    "an error nobody caught": ("null.x", "exception/uncaught", {"exception_type": "TypeError", "line": 1}),
    "a rejection nobody caught": ("Promise.reject('no')", "exception/uncaught", {"reason": "no"}),
    "a refused connection": ("require('net').connect(1)", "exception/network", {"code": "ECONNREFUSED", "port": 1}),
    "a missing module": ("require('zzz')", "drift/missing-library", {"code": "MODULE_NOT_FOUND"}),
    "several errors at once": (
        "Promise.any([Promise.reject(new Error('a'))])",
        "exception/uncaught",
        {"exception_type": "AggregateError"},
    ),
    "a file that is not there": ("require('fs').readFileSync('/zz')", "exception/uncaught", {"code": "ENOENT", "path": "/zz"}),
}


def words_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


@pytest.mark.parametrize("case", sorted(PYTHON))
def test_python_says(case):
    """What this interpreter prints gets the right cause and facts."""
    program, cause, facts = PYTHON[case]
    words = words_of(sys.executable, "-c", program)
    assert words, "the program was to fail and say so"
    findings = diagnose_text(words, kind="stderr")["findings"]
    assert [finding["cause"] for finding in findings] == ([] if cause is None else [cause]), words
    for name, value in facts.items():
        assert findings[0]["facts"].get(name) == value, (name, words)
    if cause is None:
        assert read(words), "it is read, and known to end nothing"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("case", sorted(NODE))
def test_node_says(case):
    """What this Node.js prints gets the right cause and facts."""
    program, cause, facts = NODE[case]
    words = words_of("node", "-e", program)
    (finding,) = diagnose_text(words, kind="stderr")["findings"]
    assert finding["cause"] == cause, words
    for name, value in facts.items():
        assert finding["facts"].get(name) == value, (name, words)
