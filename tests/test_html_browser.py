"""The page in a real browser: it complains of nothing, asks for nothing, runs nothing, fits, and is readable in light and in dark.

Needs a Chromium (apt-get install chromium-headless-shell). To look at the pages: AGENTSCOPE_PICTURES=FOLDER.
"""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from agentscope.views.html import render_html
from agentscope.views.stories import Story
from tests.browser import Browser, installed
from tests.test_html import EVIL, STORIES, WHOLE, leaves, planted, with_text

FOUND = installed()
pytestmark = pytest.mark.skipif(FOUND is None, reason="no Chromium here: apt-get install chromium-headless-shell")

# the least contrast of each text with what it stands on, by WCAG 2.2 (1.4.3): 4.5 for text
CONTRAST = """
(() => {
  const light = c => { c = c / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const bright = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const color = text => text.match(/[\\d.]+/g).map(Number);
  let worst = [99, ''];
  for (const each of document.querySelectorAll('main *')) {
    if (![...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || !each.getClientRects().length) continue;
    let under = each;
    while (under && (color(getComputedStyle(under).backgroundColor)[3] ?? 1) === 0) under = under.parentElement;
    const svg = each instanceof SVGElement;
    const style = getComputedStyle(each);
    const a = bright(color(svg ? style.fill : style.color)), b = bright(color(getComputedStyle(under).backgroundColor));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, each.tagName + '.' + each.getAttribute('class') + ': ' + each.textContent.slice(0, 60)];
  }
  return worst;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all pages."""
    assert FOUND is not None
    folder = tmp_path_factory.mktemp("browser")
    each = Browser(FOUND, folder)
    yield each
    each.close()
    shutil.rmtree(folder, ignore_errors=True)


def shown(browser: Browser, tmp_path: Path, page: str, name: str, scheme: str, width: int) -> None:
    """Load the page from a file, as it is opened out of a ticket."""
    file = tmp_path / f"{name}.html"
    file.write_text(page)
    browser.open(file.as_uri(), scheme=scheme, width=width)
    folder = os.environ.get("AGENTSCOPE_PICTURES")
    if folder:
        browser.picture(Path(folder) / f"{name}-{scheme}-{width}.png")
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()], "nothing but the page itself is asked for"
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing runs out of the window"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1000), ("dark", 1000), ("light", 380)])
@pytest.mark.parametrize("name", STORIES)
def test_page_in_a_browser(browser, tmp_path, name, scheme, width):
    """Each page loads without a complaint or a request, fits a desk and a phone, and its text stands out in either scheme."""
    shown(browser, tmp_path, render_html(STORIES[name]()), name, scheme, width)
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor").startswith("rgb(20")
    assert dark == (scheme == "dark")
    ratio, what = browser.evaluate(CONTRAST)
    assert ratio >= 4.5, what


def test_hostile_text_runs_nothing(browser, tmp_path):
    """With hostile text in every field at once the browser builds no element of a process, and asks for nothing."""
    story = WHOLE
    for path in leaves(WHOLE):
        if with_text(path, EVIL) is not None:
            story = planted(story, path, EVIL.encode("utf-8", "replace").decode())
    shown(browser, tmp_path, render_html(msgspec.convert(story, Story)), "evil", "dark", 1000)
    assert browser.evaluate("document.querySelectorAll('script, img, a, link, iframe, object, [onload], [style]').length") == 0
    assert browser.evaluate("document.title").startswith("</title></style><script>alert(1)</script>")


def test_page_prints(browser, tmp_path):
    """On paper it is dark on white, whatever the desktop, and what is folded on the screen is there."""
    shown(browser, tmp_path, render_html(STORIES["oom-cgroup"]()), "printed", "dark", 1000)
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    height = "document.querySelector('details ul').getBoundingClientRect().height"
    assert browser.evaluate(height) > 0
    browser.ask("Emulation.setEmulatedMedia", media="")
    paper = browser.printed()
    assert paper.startswith(b"%PDF-")
    if os.environ.get("AGENTSCOPE_PICTURES"):
        Path(os.environ["AGENTSCOPE_PICTURES"], "printed.pdf").write_bytes(paper)
