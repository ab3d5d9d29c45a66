"""Reports, views and sheets in a real Chromium: keys, filters, search, labels saved, hostile text that stays text."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.report_size import large_run, opened
from selfplay.report.contents import gathered
from selfplay.results import open_results
from selfplay.viewing import annotating, browsing
from selfplay.viewing.drawing import draw
from selfplay.viewing.marked import Marked
from selfplay.viewing.server import Routes, Server
from tests.folders import candidate, run_folder
from tests.report_pages import HOSTILE, hostile_folder, report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.integration
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def quiet(chromium: Browser, allowed: str, **how: Any) -> Iterator[Page]:
    """A page; in the end nothing was asked for but what begins with `allowed`, no dialog came, nothing complained."""
    page = chromium.new_page(viewport={"width": 1300, "height": 800}, **how)
    bad: list[str] = []
    page.on("console", lambda message: bad.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: bad.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (bad.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(allowed) else bad.append(f"asked: {request.url}"))
    yield page
    page.wait_for_timeout(100)
    page.close()
    assert bad == []


def ready(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("html[data-ready]", state="attached")


@contextmanager
def served(routes: Routes) -> Iterator[str]:
    with Server(routes) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


ANSWER = "Eight minutes in boiling water, then straight into cold water so that they peel well."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 sites: each with a chosen turn, one that a rule flagged with a quote, one that was cut."""
    quote = 'share of its words in the answer 0.9 >= 0.7; "Then straight  into cold water"'
    sites = [
        [candidate(f"Why cold water, number {i}?", 0.9, 0.8, sample=1),
         candidate("So then straight into COLD water, okay.", 0.5, 0.2, "flagged", label="assistant_restatement",
                   rule="same words as the answer", evidence=quote, sample=0),
         candidate("Ok." if i % 10 else "needle in a haystack", 0.2, 0.1, "truncated", sample=2,
                   finish_reason="length")]
        for i in range(200)
    ]  # fmt: skip
    contexts = {f"c{i}": [{"role": "user", "content": f"How do I boil egg {i}?"},
                          {"role": "assistant", "content": ANSWER}] for i in range(200)}  # fmt: skip
    return run_folder(tmp_path_factory.mktemp("browser") / "run", [sites], contexts, {"domain": "cooking"})


@pytest.fixture(scope="module")
def written(run: Path) -> str:
    report(run, run.parent / "report.html")
    return (run.parent / "report.html").as_uri()


def test_keys(chromium: Browser, written: str) -> None:
    with quiet(chromium, written) as page:
        ready(page, written)
        expect(page.locator("#overview")).to_be_visible()
        page.keyboard.press("b")
        expect(page.locator("#browse")).to_be_visible()
        head = page.locator(".sitehead h2")
        for key, site in {"j": "c1#1", "ArrowDown": "c2#1", "k": "c1#1", "G": "c199#1", "g": "c0#1"}.items():
            page.keyboard.press(key)
            expect(head).to_have_text(site)
        expect(page.locator(".row[aria-selected=true]")).to_have_count(1)
        active = page.locator(".candidate.active .turn")
        for key, turn in {"n": "So then", "ArrowRight": "needle", "p": "So then"}.items():
            page.keyboard.press(key)
            expect(active).to_contain_text(turn)
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("j")  # the help is open: nothing moves behind it
        page.keyboard.press("Escape")
        expect(page.locator("#help")).to_be_hidden()
        expect(head).to_have_text("c0#1")
        page.keyboard.press("o")
        expect(page.locator("#overview")).to_be_visible()


def test_every_candidate_with_label_rule_evidence_and_score(chromium: Browser, written: str) -> None:
    with quiet(chromium, written) as page:
        ready(page, f"{written}#browse&site=c7%231")
        expect(page.locator(".sitehead h2")).to_have_text("c7#1")
        boxes = page.locator(".candidate")
        expect(boxes).to_have_count(3)
        expect(boxes.nth(0)).to_contain_text("★ chosen")
        expect(boxes.nth(0)).to_contain_text("groundedness 0.90")
        expect(boxes.nth(2)).to_contain_text("cut at the token limit")
        flagged = boxes.nth(1)
        for words in ("✕ assistant_restatement", "p genuine 0.20", "same words as the answer", "0.9 >= 0.7"):
            expect(flagged).to_contain_text(words)
        expect(flagged.locator("mark")).to_have_text("then straight into COLD water")
        expect(page.locator("#context mark")).to_have_count(0)  # it is another candidate that is looked at
        flagged.click()
        expect(page.locator("#answer mark")).to_have_text("then straight into cold water")


def test_filters_and_links_to_them(chromium: Browser, written: str) -> None:
    with quiet(chromium, written) as page:
        ready(page, written)
        page.click("#about-rules a")
        expect(page.locator("#found")).to_have_text("200 of 200 sites, 200 turns")
        expect(page.locator(".candidate.other")).to_have_count(2)
        expect(page.locator(".candidate.active .turn")).to_contain_text("So then")
        page.select_option("[data-column=outcome]", label="truncated")
        expect(page.locator("#found")).to_have_text("0 of 200 sites, 0 turns")
        expect(page.locator("#site")).to_contain_text("No conversation meets all of these")
        page.keyboard.press("Escape")
        page.keyboard.press("x")
        expect(page.locator("#found")).to_have_text("200 of 200 sites, 600 turns")
        page.check("#labels input[value=assistant_restatement]")
        expect(page.locator("#found")).to_have_text("200 of 200 sites, 200 turns")
        page.click("#clear")
        expect(page.locator("#labels input:checked")).to_have_count(0)


def test_search(chromium: Browser, written: str) -> None:
    with quiet(chromium, written) as page:
        ready(page, written)
        page.keyboard.press("/")
        page.keyboard.type("NEEDLE in")  # j, k and n among them are letters here
        expect(page.locator("#found")).to_have_text("20 of 200 sites, 60 turns")
        page.keyboard.press("Enter")
        page.keyboard.press("j")
        expect(page.locator(".sitehead h2")).to_have_text("c10#1")
        expect(page.locator("mark.hit")).to_have_text("needle in")
        page.fill("#search", "(egg [")
        expect(page.locator("#found")).to_have_text("0 of 200 sites, 0 turns")
        page.fill("#search", "boil egg 19?")
        expect(page.locator("#context mark.hit")).to_have_text("boil egg 19?")


def walk(page: Page, count: int) -> str:
    """Looks at every site and candidate; gives what was to be read."""
    seen = page.locator("#overview").inner_text()
    page.keyboard.press("b")
    for _ in range(count):
        page.wait_for_timeout(50)
        for _ in range(3):
            page.keyboard.press("n")
        page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        seen += page.locator("#site").inner_text()
        page.keyboard.press("j")
    return seen


def test_hostile_text_is_text(chromium: Browser, tmp_path: Path) -> None:
    folder = hostile_folder(tmp_path / "<b>run")
    report(folder, tmp_path / "report.html")
    url = (tmp_path / "report.html").as_uri()
    with quiet(chromium, url) as page:
        ready(page, url)
        seen = walk(page, len(HOSTILE))
        for text in ("<img src=x onerror=alert(2)>", "{{ 7 * 7 }}", "<!--<script>", "&amp; &#x3c;"):
            assert text in seen
        for code in ("U+202E", "U+2066", "U+0000", "U+001B", "U+2028"):
            assert code in seen
        assert not re.search("[\u202e\u2066\x00\x1b\u2028]", seen)
        page.keyboard.press("/")
        page.keyboard.type("<img src=x")
        expect(page.locator("#found")).to_have_text(re.compile("^1 of"))
        assert page.locator("img, iframe, #site script").count() == 0
    results = open_results(folder)
    with (
        gathered(results, 100, served=True) as contents,
        served(browsing.routes(contents)) as url,
        quiet(chromium, url) as page,
    ):
        ready(page, url)
        assert "<img src=x onerror=alert(2)>" in walk(page, len(HOSTILE))
    items = draw(results, 100, 0)
    with served(annotating.routes(items, Marked(tmp_path / "a.jsonl", "a"))) as url, quiet(chromium, url) as page:
        page.goto(url)
        for _ in items:
            page.keyboard.press("7")
            page.keyboard.press("q")
        expect(page.locator("#status")).to_have_text("saved")
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == len(items)


def test_labels_by_keyboard_are_saved_at_once_and_gone_on_with(chromium: Browser, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "ana.jsonl"
    items = draw(open_results(run), 5, 0)

    def saved() -> list[tuple[str, str, int | None, str | None]]:
        rows = map(json.loads, path.read_text().splitlines())
        return [(row["turn"], row["label"], row["groundedness"], row["comment"]) for row in rows]

    with served(annotating.routes(items, Marked(path, "ana"))) as url, quiet(chromium, url) as page:
        page.goto(url)
        expect(page.locator("#turn")).to_have_text(items[0]["turn"])
        page.keyboard.press("9")
        expect(page.locator("#status")).to_have_text("saved")
        assert saved() == [(items[0]["turn"], "follow_up", None, None)]
        page.keyboard.press("r")  # with label and grade the next one comes
        expect(page.locator("#turn")).to_have_text(items[1]["turn"])
        page.keyboard.press("ArrowRight")
        page.keyboard.press("6")
        page.keyboard.press("w")
        expect(page.locator("#place")).to_have_text("4 of 5, 2 labelled")
        page.keyboard.press("ArrowLeft")
        page.fill("#comment", "copied")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(200)
        assert saved() == [
            (items[0]["turn"], "follow_up", 3, None), (items[2]["turn"], "assistant_restatement", 1, "copied"),
        ]  # fmt: skip
        page.reload()
        expect(page.locator("#turn")).to_have_text(items[1]["turn"])  # the first without a label
    with served(annotating.routes(items, Marked(path, "ana"))) as url, quiet(chromium, url) as page:
        page.goto(url)
        expect(page.locator("#place")).to_have_text("2 of 5, 2 labelled")


def test_a_label_that_could_not_be_saved_is_told_and_saved_later(chromium: Browser, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "ana.jsonl"
    items = draw(open_results(run), 3, 0)
    marked = Marked(path, "ana")
    with served(annotating.routes(items, marked)) as url:
        page = chromium.new_page()
        page.goto(url)
        page.route("**/mark", lambda route: route.abort())
        page.keyboard.press("1")
        expect(page.locator("#status")).to_contain_text("NOT SAVED")
        assert not path.exists()
        page.unroute("**/mark")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("2")
        expect(page.locator("#status")).to_have_text("saved")
        page.wait_for_timeout(200)
        page.close()
    assert [row["label"] for row in marked.rows.values()] == ["malformed", "degenerate"]


def test_a_view_answers_no_other_page(chromium: Browser, run: Path) -> None:
    """The browser's own part of the guard: a page of another origin reads nothing and writes nothing."""
    asked: list[str] = []

    def routes(method: str, path: str, body: bytes) -> None:
        asked.append(f"{method} {path}")

    with served(routes) as url, served(lambda *_: None) as other:
        page = chromium.new_page()
        page.goto(other)
        tried = page.evaluate(
            """async (url) => Promise.all([fetch(url), fetch(url, {mode: "no-cors"}),
                fetch(url + "mark", {method: "POST", mode: "no-cors", body: "{}"})].map(
                  (one) => one.then(async (answer) => answer.type + await answer.text(), () => "refused")))""",
            url,
        )
        page.close()
    assert set(tried) <= {"refused", "opaque"}
    assert asked == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 900])
def test_nothing_sticks_out(chromium: Browser, written: str, width: int, scheme: Any) -> None:
    with quiet(chromium, written, color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 800})
        ready(page, written)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("b")
        page.wait_for_selector(".candidate")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for part in ("#context", "#candidates", "#list"):
            box = page.locator(part).bounding_box()
            assert box is not None
            assert box["height"] >= 150
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


def test_many_sites_open_at_once(chromium: Browser, tmp_path: Path) -> None:
    """The figure for 10,000 is in the README, by benchmarks/report_size.py."""
    large_run(tmp_path / "run", 500, 8, 0)
    report(tmp_path / "run", tmp_path / "report.html")
    found = opened(chromium, tmp_path / "report.html", 1, "drawn-499#3")
    assert (found["requests"], found["console"]) == (0, [])
    assert found["open_seconds"][0] < 2
