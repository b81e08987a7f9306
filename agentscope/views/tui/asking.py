"""The keys of the screen that have something done: diagnose, stacks, recover, add, export, play. Whoever opened the screen does it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from agentscope.errors import AgentscopeError
from agentscope.model import Agent
from agentscope.views.board import Board, Happened, Row
from agentscope.views.tui.adding import Adding
from agentscope.views.tui.deeds import Candidate, Deeds, Look, Means
from agentscope.views.tui.listing import Listing
from agentscope.views.tui.pages import Page, Question
from agentscope.views.tui.playing import Player

if TYPE_CHECKING:
    from textual.app import App

    from agentscope.views.tui.parts import Parts

    Base = App[None]
else:
    Base = object

RECORDING = "this is a recording: nothing can be done in it"
NOBODY = "no agent is chosen"
LETTERS = frozenset({"leave", "help", "filter", "diagnose", "stacks", "recover", "add", "export", "play", "pick"})
LIKELY_SHOWN = 9
LIKELY_AGAIN_S = 10.0


class Asking(Base):
    """Half of the app: its keys that ask for deeds."""

    board: Board
    deeds_of: Callable[[], Deeds | None]
    player: Player | None
    replay: bool
    likely: list[Candidate]
    likely_at_s = 0.0
    begun: set[asyncio.Task[None]]

    @property
    def deeds(self) -> Deeds | None:
        """Who does what is asked; None in a recording, and until the probes are attached."""
        return self.deeds_of()

    @property
    def why_none(self) -> str:
        """Why nothing can be done."""
        return RECORDING if self.replay else "the probes are being attached: again in a moment"

    def tell(self, notice: str) -> None:
        """A sentence in the last line."""
        raise NotImplementedError

    def redraw(self) -> None:
        """The main screen."""
        raise NotImplementedError

    # --- whom it is about ----------------------------------------------------------------------------------------------

    def subject(self) -> Happened | Row | None:
        """Whom the page is about, or who is chosen in the list."""
        if isinstance(self.screen, Page):
            return self.screen.subject
        chosen = self.focused.current if isinstance(self.focused, Listing) else None
        return chosen if isinstance(chosen, Happened | Row) else None

    def row_of(self, subject: Happened | Row) -> Row | None:
        """The agent's row, where it has one: of an incident, that of the instance which runs now."""
        if isinstance(subject, Row):
            return subject
        agent = subject.incident.agent
        same = self.board.rows.get((agent.pid, agent.start_ns))
        named = [row for row in self.board.rows.values() if row.agent.name == agent.name and row.ended is None]
        return same if same is not None and (same.ended is None or not named) else next(iter(named), None)

    def living(self) -> Agent | None:
        """The living agent that a key is about; where there is none, that is said."""
        subject = self.subject()
        row = None if subject is None else self.row_of(subject)
        if row is None or row.ended is not None:
            name = "" if subject is None else (subject.agent if isinstance(subject, Row) else subject.incident.agent).name
            self.tell(f"{name} does not run any more: Enter shows what is known of it" if name else NOBODY)
            return None
        if self.deeds is None:
            self.tell(self.why_none)
            return None
        return row.agent

    # --- beside the loop ----------------------------------------------------------------------------------------------

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the drawing; we keep a hold of it, or it may be collected in the middle."""
        task = asyncio.get_running_loop().create_task(work)
        self.begun.add(task)
        task.add_done_callback(self.begun.discard)

    async def attempt(self, work: Awaitable[Any]) -> Any:
        """What came of it; what went wrong is said, and is None."""
        try:
            return await work
        except (AgentscopeError, OSError) as error:
            self.tell(f"{error}")
        except Exception as error:  # noqa: BLE001 - a look that fails costs its answer, never the screen
            self.tell(f"that failed: {type(error).__name__}: {error}")
        return None

    async def fill(self, page: Page, work: Awaitable[Look], parts: "Callable[[Look], Parts]") -> None:
        """Put on a page what came of it."""
        from agentscope.views.tui.parts import said_parts

        try:
            page.show(parts(await work))
        except (AgentscopeError, OSError) as error:
            page.show(said_parts("That could not be done", [str(error)]))
        except Exception as error:  # noqa: BLE001 - a look that fails costs its answer, never the screen
            page.show(said_parts("That failed", [f"{type(error).__name__}: {error}"]))

    # --- keys ----------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - textual's signature
        """Letters are keys where nothing is typed."""
        typing = isinstance(self.focused, Input) or isinstance(self.screen, Adding)
        return not typing or action not in LETTERS

    async def action_leave(self) -> None:
        """Quit."""
        await self.action_quit()

    def action_diagnose(self) -> None:
        """Examine the agent now."""
        from agentscope.views.tui.parts import look_parts

        agent = self.living()
        if agent is None or self.deeds is None:
            return
        page = self.page_for(agent, "looking; a busy process takes three seconds, because its system calls are traced")
        self.begin(self.fill(page, self.deeds.look(agent), lambda look: look_parts(look, self.board.now_ns)))

    def action_stacks(self) -> None:
        """Its stacks now; those of an incident that is over are in its record."""
        from agentscope.views.tui.parts import stacks_parts

        subject = self.subject()
        row = self.row_of(subject) if subject is not None else None
        if isinstance(subject, Happened) and (row is None or row.ended is not None or self.deeds is None):
            incident = subject.incident
            because = [
                f"{each.kind}: {each.because}" for each in incident.missing if "stack" in each.kind or "thread" in each.kind
            ]
            self.push_screen(
                Page(stacks_parts(incident.agent, incident.evidence, "its stacks as they were", because), subject=subject)
            )
            return
        agent = self.living()
        if agent is None or self.deeds is None:
            return
        page = self.page_for(agent, "taking its stacks")
        self.begin(self.fill(page, self.deeds.stacks(agent), found_stacks))

    def page_for(self, agent: Agent, doing: str) -> Page:
        """A page that says what is being done."""
        from agentscope.views.tui.parts import said_parts

        subject = self.subject()
        page = Page(said_parts(f"{agent.name} (pid {agent.pid}): {doing} …", []), subject=subject)
        self.push_screen(page)
        return page

    def action_recover(self) -> None:
        """Tell how it can be brought back, and ask."""
        from agentscope.views.tui.parts import means_parts

        subject = self.subject()
        if subject is None:
            self.tell(NOBODY)
            return
        row = self.row_of(subject)
        agent = row.agent if row is not None else subject.agent if isinstance(subject, Row) else subject.incident.agent
        means = Means(says=(self.why_none,)) if self.deeds is None else self.deeds.means(agent)
        parts = means_parts(agent, means, row, self.board)
        if means.can and self.deeds is not None:
            self.push_screen(Question(parts, functools.partial(self.recover, agent)))
        else:
            self.push_screen(Page(parts))

    def recover(self, agent: Agent) -> None:
        """It was meant."""

        async def work() -> None:
            assert self.deeds is not None
            said = await self.attempt(self.deeds.recover(agent))
            if said is not None:
                self.tell(said)

        self.tell(f"bringing {agent.name} back")
        self.begin(work())

    def action_add(self) -> None:
        """Pick one more process to watch."""
        if self.deeds is None:
            self.tell(self.why_none)
        elif len(self.screen_stack) == 1:
            screen = Adding(self.add)
            self.push_screen(screen)

            async def work() -> None:
                assert self.deeds is not None
                found = await self.attempt(self.deeds.processes())
                screen.show(found or (), "" if found else "no process was found that could be watched")

            self.begin(work())

    def add(self, candidate: Candidate) -> None:
        """Watch it."""

        async def work() -> None:
            assert self.deeds is not None
            said = await self.attempt(self.deeds.add(candidate))
            if said is not None:
                self.tell(said)

        self.begin(work())

    def find_likely(self) -> None:
        """Look for processes that may be agents, for the screen that has none, every ten seconds."""
        waited = self.board.ready is None or self.board.rows or asyncio.get_running_loop().time() < self.likely_at_s
        if self.deeds is None or waited:
            return
        self.likely_at_s = asyncio.get_running_loop().time() + LIKELY_AGAIN_S

        async def work() -> None:
            assert self.deeds is not None
            found = await self.attempt(self.deeds.processes())
            self.likely = [each for each in found or () if each.because][:LIKELY_SHOWN]
            self.redraw()

        self.begin(work())

    def action_pick(self, digit: int) -> None:
        """One of the likely processes, while there is no agent."""
        if not self.board.rows and len(self.screen_stack) == 1 and digit <= len(self.likely):
            self.add(self.likely[digit - 1])

    def action_play(self, what: str) -> None:
        """The pace of a replay."""
        if self.player is None or len(self.screen_stack) > 1:
            return
        if what == "pause":
            self.player.pause()
        elif what == "skip":
            self.player.skip()
        else:
            self.player.faster(2.0 if what == "faster" else 0.5)
        self.redraw()

    def action_export(self) -> None:
        """Write the chosen incident to files here."""
        from agentscope.views.tui.exporting import export

        subject = self.subject()
        happened = (
            subject if isinstance(subject, Happened) else (subject.incident or subject.last) if subject is not None else None
        )
        if happened is None:
            self.tell("no incident is chosen: Tab goes to the incidents")
            return
        try:
            written = export(happened, self.board, Path.cwd())
        except (AgentscopeError, OSError) as error:
            self.tell(str(error))
        else:
            self.tell(f"written: {written[0].name} and {written[1].suffix} in {Path.cwd()}")


def found_stacks(look: Look) -> "Parts":
    """The page of stacks that were taken."""
    from agentscope.views.tui.parts import stacks_parts

    missing = [f"{each.cause}: {each.because}" for each in look.not_checked if "stack" in each.cause or "thread" in each.cause]
    return stacks_parts(look.agent, look.evidence, "its stacks now", missing)
