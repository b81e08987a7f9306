"""The course of memory as an SVG drawing within the page: no script, no picture file, colours from the page's own style."""

from collections.abc import Iterator

from agentscope.views.html.markup import Html, element, join, plain
from agentscope.views.page import Course
from agentscope.views.wording import NS_PER_S, size, span

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 18, 34
LINES_AT_MOST = 5
TIMES_AT_MOST = 6
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604_800)
FAR_ABOVE = 5  # a limit so many times what was used would press the course flat: it is told and not drawn

Point = tuple[float, float]  # of the drawing


class Scale:
    """From nanoseconds before the end and bytes to the drawing."""

    def __init__(self, course: Course) -> None:
        greatest = max(value for _, *values in course.points for value in values if value is not None)
        limit = course.limit_bytes
        self.shows_limit = limit is not None and 0 < limit <= FAR_ABOVE * max(greatest, 1.0)
        self.top_bytes = max(greatest, limit if limit is not None and self.shows_limit else 0.0, 1.0) * 1.06
        self.begin_ns = course.points[0][0]
        self.length_ns = max(course.points[-1][0] - self.begin_ns, -self.begin_ns, 1.0)

    def across(self, at_ns: float) -> float:
        """Right is later."""
        return round(LEFT + (at_ns - self.begin_ns) / self.length_ns * (WIDTH - LEFT - RIGHT), 1)

    def up(self, count_bytes: float) -> float:
        """Up is more."""
        return round(HEIGHT - BOTTOM - count_bytes / self.top_bytes * (HEIGHT - TOP - BOTTOM), 1)


def drawing(course: Course, end: str) -> Html:
    """The plot with its legend. `end` names the moment at which it ends."""
    scale = Scale(course)
    cgroup = pieces_of([(at_ns, cgroup) for at_ns, _, cgroup in course.points], scale)
    resident = pieces_of([(at_ns, resident) for at_ns, resident, _ in course.points], scale)
    parts: list[str] = [element("title", plain("Memory over time")), *levels(scale), *times(scale, end)]
    for piece in cgroup:
        floor = HEIGHT - BOTTOM
        parts.append(element("path", d=f"{path_of(piece)}L{piece[-1][0]:g} {floor}L{piece[0][0]:g} {floor}Z", class_="area"))
        parts.append(element("path", d=path_of(piece), class_="cgroup"))
    parts += [element("path", d=path_of(piece), class_="resident") for piece in resident]
    if scale.shows_limit and course.limit_bytes is not None:
        height = scale.up(course.limit_bytes)
        parts.append(element("path", d=f"M{LEFT} {height:g}H{WIDTH - RIGHT}", class_="limit"))
    for pieces, name in ((cgroup, "cgroup"), (resident, "resident")):
        if pieces:
            across, up = pieces[-1][-1]
            parts.append(element("circle", cx=across, cy=up, r=3.5, class_=f"dot {name}"))
    svg = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="plot")
    return element("figure", svg, element("figcaption", *legend(course, scale)))


def legend(course: Course, scale: Scale) -> Iterator[Html]:
    """What each line is, from where to where it went."""
    for name, label, column in (("resident", "resident", 1), ("cgroup", "its cgroup", 2)):
        known = [float(point[column] or 0) for point in course.points if point[column] is not None]
        if known:
            yield element(
                "span", element("i", class_=f"swatch {name}"), f"{label}: {size(known[0])} to {size(known[-1])}", class_="key"
            )
    if course.limit_bytes is not None:
        where = "" if scale.shows_limit else ", far above what is drawn"
        yield element(
            "span", element("i", class_="swatch limit"), f"limit that binds: {size(course.limit_bytes)}{where}", class_="key"
        )


def pieces_of(course: list[tuple[float, float | None]], scale: Scale) -> list[list[Point]]:
    """The course as lines; where nothing was known there is a gap, not a zero."""
    pieces: list[list[Point]] = [[]]
    for at_ns, count_bytes in course:
        if count_bytes is None:
            pieces.append([])
        else:
            pieces[-1].append((scale.across(at_ns), scale.up(count_bytes)))
    return [piece for piece in pieces if piece]


def path_of(piece: list[Point]) -> str:
    """One line as a path; a single point as the shortest line that is drawn."""
    rest = piece[1:] or [(piece[0][0] + 0.1, piece[0][1])]
    return f"M{piece[0][0]:g} {piece[0][1]:g}" + "".join(f"L{across:g} {up:g}" for across, up in rest)


def levels(scale: Scale) -> Iterator[Html]:
    """Lines across at round sizes."""
    step = 1.0
    while scale.top_bytes / step > LINES_AT_MOST:
        step *= 2
    level = 0.0
    while level <= scale.top_bytes:
        height = scale.up(level)
        yield element("path", d=f"M{LEFT} {height:g}H{WIDTH - RIGHT}", class_="grid")
        yield element("text", plain(size(level)), x=LEFT - 8, y=height + 4, class_="left")
        level += step


def times(scale: Scale, end: str) -> Iterator[Html]:
    """Round times before the end, and the end."""
    step_s = next((step for step in STEPS_S if scale.length_ns / NS_PER_S / step <= TIMES_AT_MOST), STEPS_S[-1])
    count = min(int(scale.length_ns / NS_PER_S / step_s), TIMES_AT_MOST)
    base = HEIGHT - BOTTOM
    for number in range(count + 1):
        before_ns = number * step_s * NS_PER_S
        across = scale.across(-before_ns)
        words = f"{span(before_ns)} before" if number else end
        side = "right" if not number else "middle"
        yield join(
            (
                element("path", d=f"M{across:g} {base}v5", class_="tick"),
                element("text", plain(words), x=across, y=base + 20, class_=side),
            )
        )
