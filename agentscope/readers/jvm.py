"""What a Java virtual machine says last: exceptions nobody caught, heaps that are full, its own crash report.

Sources: java.lang.ThreadGroup and Throwable.printStackTrace of OpenJDK, src/hotspot/share/utilities/vmError.cpp (hs_err) and
debug.cpp. Kotlin, Scala, Groovy and Clojure print the same.
"""

import re
from collections.abc import Iterator

from agentscope.model import Reading
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage
from agentscope.readers._words import cause_in, cause_of_signal

KINDS = frozenset({"stderr", "docker", "k8s", "systemd"})

_CLASS = r"(?P<type>(?:[a-z_]\w{0,60}\.){1,12}[A-Z][\w$]{0,120})"
_THREAD = late(r'^Exception in thread "(?P<thread>[^"\n]{1,200})" ' + _CLASS + r"(?:: (?P<message>.*))?$")
_BARE = late(r"^" + _CLASS + r"(?:: (?P<message>.*))?$")
_BY_UNCAUGHT = late(
    r"Exception: java\.lang\.OutOfMemoryError thrown from the UncaughtExceptionHandler in thread \"(?P<thread>[^\"\n]{1,200})\""
)
_CAUSED = late(r"^\s{0,8}Caused by: " + _CLASS + r"(?:: (?P<message>.*))?$")
_FRAME = late(
    r"^\s{1,8}at (?:[\w.@/-]{1,120}/{1,2})?(?P<function>[\w$.<>/-]{1,400})\((?:(?P<file>[\w$.-]{1,200}):(?P<line>\d{1,9})|[^)\n]{0,200})\)"
)
_TERMINATING = late(r"^(?:Terminating|Aborting) due to java\.lang\.OutOfMemoryError: (?P<message>[^\n]{1,200})")
_NATIVE = late(
    r"insufficient memory for the Java Runtime Environment|Out of Memory Error \(|os::commit_memory\([^)]{0,120}\) failed; error='(?:Cannot allocate|Not enough)"
)
_CRASH = late(
    r"^#\s{1,4}(?:(?P<signal>SIG[A-Z]{2,6}) \(0x[0-9a-f]{1,4}\) at pc=(?P<ip>0x[0-9a-fA-F]{1,16})|Internal Error \((?P<where>[^)\n]{1,200})\))"
    r"(?P<sent> \(sent by kill\))?, pid=(?P<pid>\d{1,10}), tid=(?P<tid>0x[0-9a-fA-F]{1,16}|\d{1,20})(?P<rest>[^\n]{0,80})"
)
_PROBLEM = late(
    r"^# (?P<kind>[CVJjvA])\s{1,8}(?:\[(?P<object>[^+\]\n]{1,200})\+0x[0-9a-fA-F]{1,16}\]\s{0,4})?(?P<frame>[^\n]{0,400})$"
)
_NO_CLASS = late(r"^Error: Could not find or load main class (?P<name>[^\n]{1,300})")
_FATAL_HEAD = late(
    r"Application run failed|[Uu]ncaught|[Ff]atal|startup failed|[Tt]erminating|[Ee]xiting|shutting down the JVM"
)
_NETWORK = frozenset(
    {
        *(
            "ConnectException",
            "UnknownHostException",
            "SocketTimeoutException",
            "SocketException",
            "SSLException",
            "SSLHandshakeException",
        ),
        *(
            "NoRouteToHostException",
            "HttpTimeoutException",
            "HttpConnectTimeoutException",
            "ConnectTimeoutException",
            "NoHttpResponseException",
        ),
        *(
            "HttpHostConnectException",
            "CommunicationsException",
            "ClosedChannelException",
            "UnresolvedAddressException",
            "HttpClientErrorException",
        ),
    }
)
_TYPES = {
    "OutOfMemoryError": "oom/runtime-heap",
    "NoSuchMethodError": "drift/symbol",
    "NoSuchFieldError": "drift/symbol",
    "AbstractMethodError": "drift/symbol",
    "IncompatibleClassChangeError": "drift/abi",
    "UnsupportedClassVersionError": "drift/abi",
    "NoClassDefFoundError": "drift/missing-library",
    "ClassNotFoundException": "drift/missing-library",
    "UnsatisfiedLinkError": "drift/missing-library",
}


def read(passage: Passage) -> Iterator[Mark]:
    """The crash report, the heap that was full, or the exception that ended a thread."""
    yield from _crashes(passage)
    yield from _memory(passage)
    for index, text in passage.numbered("Could not find or load main class"):
        if match := _NO_CLASS.match(text):
            says = f"Java did not find the class {match['name']}"
            facts: dict[str, object] = {"message": text.removeprefix("Error: ")}
            yield _mark(
                passage, index, index, "exception/uncaught", says=says, culprit=match["name"], facts=facts, weight=Weight.ENDING
            )
    if passage.has("\tat ", "    at ", "Exception in thread", "Caused by: "):
        mark = _exception(passage)
        if mark is not None:
            yield mark


def _crashes(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("pid="):
        match = _CRASH.match(text)
        if match is None:
            continue
        facts: dict[str, object] = {"pid": int(match["pid"])}
        facts["tid"] = int(match["tid"], 16 if match["tid"].startswith("0x") else 10)
        if match["signal"]:
            facts.update(signal=match["signal"], ip=match["ip"])
        else:
            facts["where"] = match["where"]
        sent = match["sent"] is not None or "sent by kill" in match["rest"]
        for after in passage.lines[index + 1 : index + 14]:
            if problem := _PROBLEM.match(after.text):
                if problem["object"]:
                    facts["object"] = problem["object"]
                facts["frame"] = problem["frame"].strip()
                break
        cause = "killed/signal" if sent else cause_of_signal(match["signal"]) if match["signal"] else "crash/abort"
        if sent:
            facts["sent_by_kill"] = True
        if passage.has("irrecoverable stack overflow"):
            cause = "crash/stack-overflow"
        if match["where"] and _NATIVE.search(passage.text):
            cause = "oom/runtime-heap"
        where = f"{facts.get('frame') or match['where'] or 'no frame'} in {facts.get('object', 'the JVM')}"
        says = f"the JVM {'was sent' if sent else 'took'} {match['signal'] or 'an internal error'}: {where}"
        yield _mark(passage, index, index + 12, cause, says=says, culprit=where, facts=facts)
        return


def _memory(passage: Passage) -> Iterator[Mark]:
    for index, text in passage.numbered("OutOfMemoryError", "insufficient memory", "os::commit_memory", "Out of Memory Error"):
        if match := _TERMINATING.match(text):
            facts: dict[str, object] = {"exception_type": "java.lang.OutOfMemoryError", "message": match["message"]}
            yield _mark(
                passage,
                index,
                index,
                "oom/runtime-heap",
                says=f"the JVM ended itself: {match['message']}",
                culprit=match["message"],
                facts=facts,
            )
        elif match := _BY_UNCAUGHT.search(text):
            facts = {"exception_type": "java.lang.OutOfMemoryError", "thread": match["thread"]}
            yield _mark(
                passage,
                index,
                index,
                "oom/runtime-heap",
                says=f"thread {match['thread']} ran out of heap",
                culprit="the Java heap",
                facts=facts,
            )
        elif _NATIVE.search(text):
            says = "the JVM could not get memory from the system"
            yield _mark(passage, index, index, "oom/runtime-heap", says=says, culprit=says, facts={})
            return


def _exception(passage: Passage) -> Mark | None:
    """The last exception with a stack; one in a named thread decides over one that was only printed."""
    found: Mark | None = None
    index = 0
    while index < len(passage.lines):
        text = passage.lines[index].text
        match = _THREAD.match(text) or (_BARE.match(text) if _stack_follows(passage, index) else None)
        if match is None:
            index += 1
            continue
        last, frame, root = _stack(passage, index)
        mark = _one(passage, index, last, match, frame=frame, root=root)
        if found is None or mark.weight >= found.weight:
            found = mark
        index = last + 1
    return found


def _stack_follows(passage: Passage, index: int) -> bool:
    return any(_FRAME.match(line.text) or _CAUSED.match(line.text) for line in passage.lines[index + 1 : index + 6])


def _stack(passage: Passage, index: int) -> tuple[int, dict[str, object] | None, re.Match[str] | None]:
    """Where the stack ends, its innermost frame with a line, and the last `Caused by`."""
    frame: dict[str, object] | None = None
    root: re.Match[str] | None = None
    last = index
    strangers = 0
    for at in range(index + 1, min(len(passage.lines), index + 1000)):
        text = passage.lines[at].text
        if caused := _CAUSED.match(text):
            root = caused
        elif found := _FRAME.match(text):
            if frame is None and root is None:
                frame = {"function": found["function"]}
                if found["file"]:
                    frame.update(file=found["file"], line=int(found["line"]))
        elif not text.strip() or text.startswith((" ", "\t")) or _BARE.match(text):
            continue
        else:
            strangers += 1
            if strangers > 3 or frame is not None:
                break
        last = at
    return last, frame, root


def _one(
    passage: Passage,
    index: int,
    last: int,
    match: re.Match[str],
    *,
    frame: dict[str, object] | None,
    root: re.Match[str] | None,
) -> Mark:
    fields = match.groupdict()
    message = (fields["message"] or "").strip()
    facts: dict[str, object] = {
        "exception_type": fields["type"],
        "message": message,
        "chained": root is not None,
        **(frame or {}),
    }
    if fields.get("thread"):
        facts["thread"] = fields["thread"]
    if root is not None:
        facts.update(root_type=root["type"], root_message=(root["message"] or "").strip())
    cause: str | None = _cause(str(facts.get("root_type") or fields["type"]), f"{message} {facts.get('root_message', '')}")
    if _cause(fields["type"], message).startswith("oom/"):
        cause = "oom/runtime-heap"
    above = passage.lines[index - 1] if index else None
    logged = passage.lines[index].level is not None or (above is not None and above.level in ("error", "warning"))
    fatal = fields.get("thread") == "main" or (above is not None and bool(_FATAL_HEAD.search(above.text)))
    if not fatal and (passage.goes_on_after(last) or (logged and cause != "oom/runtime-heap")):
        cause = None
        facts["killed"] = False
    where = f"{facts['file']}:{facts['line']}: " if "file" in facts else ""
    what = f"{fields['type']}{': ' + message if message else ''}"[:400]
    weight = Weight.FATAL if cause not in (None, "exception/uncaught") else Weight.ENDING
    return _mark(passage, index, last, cause, says=f"Java: {what}", culprit=f"{where}{what}", facts=facts, weight=weight)


def _cause(name: str, words: str) -> str:
    short = name.rsplit(".", 1)[-1]
    if short in _TYPES:
        named = cause_in(words)
        return named if short == "UnsatisfiedLinkError" and named is not None else _TYPES[short]
    if short in _NETWORK:
        return "exception/network"
    return cause_in(words) or "exception/uncaught"


def _mark(
    passage: Passage,
    first: int,
    last: int,
    cause: str | None,
    *,
    says: str,
    culprit: str,
    facts: dict[str, object],
    weight: Weight = Weight.FATAL,
) -> Mark:
    pid = facts.get("pid")
    return Mark(
        reading=Reading(
            reader="jvm",
            suggests=cause,
            says=says,
            culprit=culprit,
            pid=pid if isinstance(pid, int) else None,
            facts=facts,
            excerpt=passage.excerpt(first, last),
        ),
        weight=Weight.HARMLESS if cause is None else weight,
        first=first,
        last=last,
    )
