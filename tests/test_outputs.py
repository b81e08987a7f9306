"""When agents last wrote to their outputs: asked of those that have written, and of the others from time to time."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from agentscope.incidents import Incidents
from agentscope.lastseen import HISTORY_KEPT, MemoryCourse
from agentscope.model import Agent, AgentSeen, ProcessSample, ThreadSample
from agentscope.outputs import EVERYBODY_NS, Outputs

SECOND = 1_000_000_000
THREAD = ThreadSample(
    tid=7, comm="a", state="S", user_ns=0, system_ns=0, voluntary_switches=1, involuntary_switches=0, written_bytes=10
)
SAMPLE = ProcessSample(pid=7, start_ns=1, anon_bytes=1, rss_bytes=1, threads=(THREAD,))


def wrote(written):
    """The process with another count of bytes written, by its one thread."""
    return msgspec.structs.replace(SAMPLE, threads=(msgspec.structs.replace(THREAD, written_bytes=written),))


@pytest.fixture
def outputs():
    """Of one agent, pid 7; `outputs.questions` are the pids that were asked."""
    incidents = Incidents()
    incidents.apply(AgentSeen(at_ns=1, agent=Agent(name="a", pid=7, start_ns=1, start_time="", command="a"), because="a test"))
    with ThreadPoolExecutor(1) as threads:
        made = Outputs(threads, lambda pid: made.questions.append(pid) or len(made.questions))
        made.questions, made.trees = [], incidents.trees
        yield made


def looked(outputs, at_ns):
    """A look at this time, and how many questions there were until it was over."""
    outputs.look(outputs.trees, at_ns)
    if outputs.looking is not None:
        outputs.looking.result(5)
    return len(outputs.questions)


def test_an_output_is_asked_about_when_its_process_has_written(outputs):
    """At first, then after bytes were written; not of one that only woke up."""
    now = 100 * SECOND
    outputs.sampled([SAMPLE])
    assert looked(outputs, now) == 1
    outputs.sampled([SAMPLE])
    assert looked(outputs, now + SECOND) == 1
    outputs.sampled([wrote(10)])
    assert looked(outputs, now + 2 * SECOND) == 1
    outputs.sampled([wrote(11)])
    assert looked(outputs, now + 3 * SECOND) == 2
    assert outputs.wrote_ns(outputs.trees[0]) == 2


def test_what_no_count_tells_is_found_after_a_while(outputs):
    """Another process may write to the same file: everybody is asked again after a quarter of a minute."""
    now = 100 * SECOND
    outputs.sampled([SAMPLE])
    assert looked(outputs, now) == 1
    assert looked(outputs, now + EVERYBODY_NS - 1) == 1
    assert looked(outputs, now + EVERYBODY_NS) == 2


@pytest.mark.parametrize("samples", [[], [wrote(None)]], ids=["not sampled", "not counted"])
def test_a_process_whose_bytes_are_not_counted_is_asked_every_time(outputs, samples):
    """Without counts there is nothing to save by."""
    outputs.sampled(samples)
    assert [looked(outputs, (100 + second) * SECOND) for second in range(3)] == [1, 2, 3]


def test_of_processes_that_are_gone_nothing_is_kept(outputs):
    """The next look at everybody forgets them."""
    outputs.sampled([SAMPLE])
    looked(outputs, 100 * SECOND)
    del outputs.trees[0].live[7]
    looked(outputs, 200 * SECOND)
    assert (outputs.found, outputs.samples, outputs.written, outputs.due) == ({}, {}, {}, set())


def test_the_course_of_memory_is_the_last_ten_minutes():
    """Oldest first, a sample that could not be had is None and not 0; of a pid that was used again only the later process's."""
    course = MemoryCourse()
    assert course.of(7, 0) == ()
    for second in range(2000):
        course.add(second, {7: second, 8: None if second % 2 else 0} if second % 10 else {7: second})
    assert [(each.at_ns, each.rss_bytes) for each in course.of(7, 0)] == [(n, n) for n in range(2000 - HISTORY_KEPT, 2000)]
    assert [each.at_ns for each in course.of(7, 1990)] == list(range(1990, 2000))
    assert [(each.at_ns, each.rss_bytes) for each in course.of(8, 1988)] == [
        (n, None if n % 2 else 0) for n in range(1988, 2000) if n % 10
    ]
