"""`agentscope show ID --html FILE`: one incident as one page to attach to a ticket, complete in itself.

It asks the network for nothing and runs no script; its own content policy would let it do neither. What a process controls reaches
it only as escaped text (`markup`), with what cannot be seen named (`visible`). Light or dark as its reader likes, and it prints.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from agentscope.views.html import sections
from agentscope.views.html.markup import Html, element, join, plain
from agentscope.views.html.visible import all_visible
from agentscope.views.page import title_of
from agentscope.views.stories import Story


@cache
def style() -> str:
    """The page's style sheet."""
    return files(__package__).joinpath("page.css").read_text()


def render_html(story: Story) -> str:
    """The whole page."""
    seen = all_visible(story)
    body = element("main", *sections.page(seen))
    page = element("html", head(seen), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def head(story: Story) -> Html:
    """The title, and what forbids the page to ask anything of anybody: only our own style sheet, known by its hash, is let in."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", plain(title_of(story.opened))),
        join((element("style", Html(style())),)),
    )
