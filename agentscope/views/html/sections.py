"""The parts of the page in the order in which they are read: verdict, proof, what to do, what was done; then all that backs it up."""

from collections.abc import Iterable, Iterator, Sequence

from agentscope import __version__
from agentscope.model import EvidenceRecord, IncidentOpened, RuledOut
from agentscope.views import page as told
from agentscope.views import safe
from agentscope.views.html import plot
from agentscope.views.html.markup import Html, element
from agentscope.views.stories import NS_PER_MS, Act, Story
from agentscope.views.wording import clock, count_of, span

STACKS_SHOWN = 60
STACKS_OPEN = 4  # the rest are there, folded
FRAMES_SHOWN = 200
WORD_LINES = 300
WORD_LINES_OPEN = 30
ROWS_SHOWN = 300
FIELD_CHARACTERS = 2000
TITLE_CHARACTERS = 40
TONES = {"certain": "bad", "likely": "bad", "possible": "unsure", "undetermined": "unsure"}
OUTCOMES = {"done": "good", "failed": "bad", "refused": "bad", "unknown": "unsure"}


def page(story: Story) -> Iterator[Html]:
    """Everything within the body."""
    incident = story.opened
    yield verdict(story)
    yield proof(incident)
    yield from memory(incident)
    yield advice(incident)
    yield done(story)
    yield from ruled_out(incident)
    yield from not_checked(incident)
    yield from timeline(incident)
    yield from stacks(incident)
    yield from words(incident)
    yield from fields(incident)
    yield from explanation(incident)
    yield footer(incident)


def section(title: str, *children: str, note: str = "") -> Html:
    """A part under its heading."""
    noted = [" ", element("small", note)] if note else []
    return element("section", element("h2", title, *noted), *children)


def chip(words: str, tone: str = "") -> Html:
    """A word in a box; what its colour says, the word says too."""
    return element("span", words, class_=f"chip {tone}".rstrip())


def pairs(rows: Iterable[tuple[str, str]], class_: str = "facts") -> Html:
    """Labels with what they are."""
    return element("dl", *(element("div", element("dt", label), element("dd", value)) for label, value in rows), class_=class_)


def folded(title: str, *children: str) -> Html:
    """What is there for who wants it; opened in print."""
    return element("details", element("summary", title), *children)


def at_most(rows: Sequence[Html], limit: int = ROWS_SHOWN) -> list[Html]:
    """The first rows, and how many there are besides."""
    left_out = len(rows) - limit
    return [*rows[:limit], element("li", f"{count_of(left_out, 'more')} not shown")] if left_out > 0 else list(rows)


# --- what happened ------------------------------------------------------------------------------------------------------


def verdict(story: Story) -> Html:
    """The headline, whom to blame, and the few facts that stand beside them."""
    incident = story.opened
    facts = [row for row in told.facts_of(incident, clock(story.wall_ns, with_date=True)) if row[0] != "Blame"]
    tone = TONES[incident.confidence]
    kicker = element("p", "agentscope incident", " · ", told.who_of(incident), class_="kicker")
    chips = element("p", chip(told.slug_of(incident)), " ", chip(told.confidence_of(incident), tone), class_="chips")
    blame = told.blame_of(incident)
    blamed = [element("p", element("b", "Blame"), " ", element("span", blame), class_="blame")] if blame else []
    return element(
        "header", kicker, element("h1", told.title_of(incident)), chips, *blamed, pairs(facts), class_=f"verdict {tone}"
    )


def proof(incident: IncidentOpened) -> Html:
    """Each fact with where it came from, those that the verdict cites first; then what else was known."""
    records = told.proof_of(incident)
    cited = [evidence(record) for record in records if record.weight != "context"]
    beside = [evidence(record) for record in records if record.weight == "context"]
    parts = [element("ul", *at_most(cited), class_="proof")] if cited else [element("p", told.no_proof(incident))]
    others = told.others_of(incident)
    if others:
        parts += [element("h3", "It may also be"), element("ul", *(element("li", other) for other in others))]
    if beside:
        parts += [element("h3", "Also known, but no proof"), element("ul", *at_most(beside), class_="proof")]
    return section("Proof", *parts)


def evidence(record: EvidenceRecord) -> Html:
    """One fact."""
    weight = [] if record.weight == "context" else [chip(record.weight, "good" if record.weight == "decisive" else ""), " "]
    source = element("small", told.sources_of(record), class_="source")
    return element("li", *weight, element("span", safe(record.says)), " ", source, class_=record.weight)


def memory(incident: IncidentOpened) -> Iterator[Html]:
    """The plot, where samples were taken."""
    course = told.course_of(incident)
    if course is not None:
        yield section("Memory", plot.drawing(course, told.zero_of(incident)))


# --- what to do, and what was done --------------------------------------------------------------------------------------


def advice(incident: IncidentOpened) -> Html:
    """What to do, numbered."""
    steps = [element("li", safe(step)) for step in incident.advice]
    return section("What to do", element("ol", *steps, class_="advice") if steps else element("p", "Nothing is advised."))


def done(story: Story) -> Html:
    """Each remedy with what came of it, and whether it held."""
    parts = []
    if story.acts:
        parts.append(element("ol", *at_most([act(each) for each in story.acts]), class_="acts"))
    if story.closed is not None:
        word, tone = {True: ("held", "good"), False: ("did not hold", "bad"), None: ("over", "")}[story.closed.held]
        parts.append(element("p", chip(word, tone), " ", safe(story.closed.outcome)))
    return section("What was done", *(parts or [element("p", "Nothing was done about it.")]))


def act(each: Act) -> Html:
    """One remedy: what, why, and what came of it."""
    intent, outcome, looked = each.started, each.finished, each.looked
    lines = [element("p", element("b", safe(intent.remedy, 60)), " ", element("code", safe(intent.act, 400)))]
    if intent.because:
        lines.append(element("p", "because ", element("span", safe(intent.because, 400)), class_="source"))
    if outcome is None:
        unknown = " no outcome on record: under way, or agentscope ended in the middle of it"
        lines.append(element("p", chip("unknown", "unsure"), unknown))
    else:
        instance = f", new process {outcome.pid}" if outcome.pid is not None else ""
        took = f" after {span(outcome.took_ms * NS_PER_MS)}{instance}: "
        lines.append(element("p", chip(outcome.outcome, OUTCOMES[outcome.outcome]), took, element("span", safe(outcome.says))))
    if looked is not None:
        word, tone = ("well", "good") if looked.outcome == "done" else ("not well", "bad")
        later = f" after {span(looked.took_ms * NS_PER_MS)} more: "
        lines.append(element("p", chip(word, tone), later, element("span", safe(looked.says))))
    return element("li", *lines)


# --- what it was not ----------------------------------------------------------------------------------------------------


def causes_with_reasons(entries: Iterable[tuple[str, Sequence[str]]]) -> Html:
    """Each reason beside the causes that share it."""
    rows = [
        element("li", element("span", *spaced(element("code", slug) for slug in slugs)), ": ", element("span", because))
        for because, slugs in entries
    ]
    return element("ul", *at_most(rows))


def spaced(parts: Iterable[Html]) -> Iterator[str]:
    """With commas between."""
    for number, part in enumerate(parts):
        if number:
            yield ", "
        yield part


def ruled_out(incident: IncidentOpened) -> Iterator[Html]:
    """What it was not and why; those without any sign are folded."""
    reasons, no_sign = told.sift(incident.ruled_out)
    parts = [causes_with_reasons(reasons)] if reasons else []
    if no_sign:
        unsigned = set(no_sign)
        absent = told.grouped(entry for entry in incident.ruled_out if safe(entry.cause, 60) in unsigned)
        parts.append(folded(f"No sign of {count_of(len(no_sign), 'other cause')}", causes_with_reasons(absent)))
    if parts:
        yield section("Ruled out", *parts)


def not_checked(incident: IncidentOpened) -> Iterator[Html]:
    """What nobody could check, and which evidence could not be had."""
    parts = []
    if incident.not_checked:
        parts.append(causes_with_reasons(told.grouped(incident.not_checked)))
    if incident.missing:
        missing = told.grouped(RuledOut(cause=each.kind, because=each.because) for each in incident.missing)
        parts += [element("h3", "Evidence that could not be had"), causes_with_reasons(missing)]
    if parts:
        yield section("Not checked", *parts)


# --- what backs it up ---------------------------------------------------------------------------------------------------


def timeline(incident: IncidentOpened) -> Iterator[Html]:
    """What happened when, before and after the end."""
    rows = told.timeline_of(incident)
    if rows:
        left_out = [("", f"{count_of(len(rows) - ROWS_SHOWN, 'more')} not shown")] if len(rows) > ROWS_SHOWN else []
        yield section("Time line", pairs([*rows[:ROWS_SHOWN], *left_out], "times"))


def stacks(incident: IncidentOpened) -> Iterator[Html]:
    """Every stack, the first few unfolded."""
    found = told.stacks_of(incident, FRAMES_SHOWN, all_threads=True)
    if not found:
        return
    parts = [
        stack(each) if number < STACKS_OPEN else folded(each.title, frames(each))
        for number, each in enumerate(found[:STACKS_SHOWN])
    ]
    if len(found) > STACKS_SHOWN:
        parts.append(element("p", f"{count_of(len(found) - STACKS_SHOWN, 'more stack')} not shown"))
    yield section("Stacks", *parts, note="innermost frame first")


def stack(each: told.Stack) -> Html:
    """One stack under its name."""
    return element("div", element("h3", each.title), frames(each))


def frames(each: told.Stack) -> Html:
    """What, and where."""
    rows = [element("tr", element("td", name), element("td", where)) for name, where in each.frames]
    note = [element("p", each.note, class_="source")] if each.note else []
    return element("div", element("table", element("tbody", *rows), class_="frames"), *note, class_="wide")


def words(incident: IncidentOpened) -> Iterator[Html]:
    """The end of what it wrote, as it wrote it."""
    excerpt = told.words_of(incident, WORD_LINES)
    if excerpt is None:
        return
    above = f", {count_of(excerpt.lines_above, 'line')} above" if excerpt.lines_above else ""
    earlier, last = excerpt.lines[:-WORD_LINES_OPEN], excerpt.lines[-WORD_LINES_OPEN:]
    parts = [folded(f"{count_of(len(earlier), 'line')} before these", element("pre", "\n".join(earlier)))] if earlier else []
    yield section("Last words", *parts, element("pre", "\n".join(last)), note=f"{excerpt.source}{above}")


def fields(incident: IncidentOpened) -> Iterator[Html]:
    """Every field of every kind of evidence that no other part has shown."""
    shown = {*told.STACK_KINDS, told.WORDS_KIND}
    parts = [
        folded(safe(record.kind, 60), pairs(named_fields(record.data.items(), shorter=record.kind in told.MEMORY_KINDS)))
        for record in told.proof_of(incident)
        if record.kind not in shown and record.data
    ]
    if parts:
        yield section("Every field of the evidence", *parts[:ROWS_SHOWN])


def named_fields(rows: Iterable[tuple[str, object]], *, shorter: bool) -> list[tuple[str, str]]:
    """Names and values; of the samples of memory, which are drawn, only so many characters."""
    limit = 200 if shorter else FIELD_CHARACTERS
    return [(safe(str(name), 80), safe(str(value), limit)) for name, value in list(rows)[:ROWS_SHOWN]]


def explanation(incident: IncidentOpened) -> Iterator[Html]:
    """What this cause means in plain words: who reads the ticket may never have heard of it."""
    from agentscope.causes import causes

    cause = causes().get(incident.cause)
    if cause is not None:
        yield section(
            f"About {incident.cause}", element("div", *map(paragraph, cause.explanation.strip().split("\n\n")), class_="about")
        )


def paragraph(words: str) -> Html:
    """One of ours; its first words are its title where a colon ends them."""
    title, colon, rest = " ".join(words.split()).partition(": ")
    if colon and len(title) <= TITLE_CHARACTERS:
        return element("p", element("b", f"{title}:"), f" {rest}")
    return element("p", f"{title}{colon}{rest}")


def footer(incident: IncidentOpened) -> Html:
    """Where this page came from."""
    words = f"Written by agentscope {__version__} from its ledger. The same as records: "
    return element("footer", element("p", words, element("code", f"agentscope show {safe(incident.incident, 80)} --json")))
