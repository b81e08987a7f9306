"""What agentscope loads before it works: a program that people start at 3 a.m. starts at once, and a headless one stays small."""

import json
import statistics
import subprocess
import sys

import pytest

# what draws, speaks to others, or is an extra: each costs more than all the rest of a start
HEAVY = frozenset(
    {"textual", "rich", "httpx", "cryptography", "prometheus_client", "opentelemetry", "nats", "google", "requests", "pyroute2",
     "elftools", "jsonschema", "packaging", "psutil", "asyncio"}
)  # fmt: skip
SAYS = "import sys, json\n%s\nprint(json.dumps(sorted(set(sys.modules))), file=sys.stderr)"
TURNS = 9


def loaded(code):
    """The modules that Python has loaded after `code`."""
    run = subprocess.run([sys.executable, "-c", SAYS % code], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(run.stderr.splitlines()[-1])


def command(*words):
    """Code that runs agentscope with these words, to its end."""
    return (
        f"sys.argv = ['agentscope', *{words!r}]\nfrom agentscope.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code"
    )


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("diagnose", "--help"), ("watch", "--help"), ("run", "--help")])
def test_help_loads_nothing_that_only_work_needs(words):
    """Help and version are click and our own words: no drawing, no network, no cryptography, no extra, and no source of events."""
    modules = loaded(command(*words))
    assert HEAVY & {name.partition(".")[0] for name in modules} == set()
    assert [name for name in modules if name.startswith(("agentscope.sources", "agentscope.views", "agentscope.sinks"))] == []


def test_the_engine_loads_nothing_that_draws():
    """The probes, the pipeline and the stream start without a drawing library, an extra or HTTP."""
    modules = loaded("import agentscope.live, agentscope.pipeline, agentscope.sources.ebpf, agentscope.sinks.stdout")
    drawing = HEAVY - {"asyncio", "psutil", "packaging", "pyroute2", "elftools"}
    assert drawing & {name.partition(".")[0] for name in modules} == set()
    assert len(modules) <= 450


@pytest.mark.parametrize(("words", "modules"), [(("--help",), 90), (("incidents", "--help"), 90), (("--version",), 80)])
def test_a_start_stays_small(words, modules):
    """The number of modules is what a start costs on any machine, loaded or not: it stays within its budget beyond Python's own (67 measured)."""
    assert len(set(loaded(command(*words))) - set(loaded("pass"))) <= modules


def test_help_takes_a_few_times_what_python_takes():
    """`--help` against `python -c pass`, in turns, the medians of processor time: at most nine times (five to seven measured)."""
    import resource

    def cost_s(argv):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, ours = [sys.executable, "-c", "pass"], [sys.executable, "-m", "agentscope", "--help"]
    cost_s(ours)
    ratios = []
    for _ in range(TURNS):
        base = cost_s(bare)
        ratios.append(cost_s(ours) / base)
    assert statistics.median(ratios) <= 9, sorted(ratios)
