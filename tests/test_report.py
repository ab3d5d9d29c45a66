"""A report says what the results hold, shows every candidate, and takes no text for markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.evidence import evidence
from filters.features import Features, compute
from filters.labels import Label
from filters.rule import Rule, Threshold
from selfplay.cli import cli
from selfplay.config import SampleConfig
from selfplay.errors import UsageError
from selfplay.report import plots
from selfplay.report.packing import Packer, quoted
from selfplay.report.tally import Tally
from selfplay.report.writing import read
from selfplay.results import SITES, TURNS, open_results
from selfplay.runs import Run
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, play_folder, run_folder
from tests.report_pages import HOSTILE, Page, hostile_folder, report

SITE = [
    candidate("From the fridge?", 0.9, 0.8, sample=2, completion_tokens=5),
    candidate("Why eight?", 0.6, 0.7, "lower_rank", sample=1, completion_tokens=7),
    candidate("Ok.", 0.1, 0.2, "flagged", sample=0, completion_tokens=2),
]
BARREN = [candidate("Ok.", 0.1, 0.2, "flagged", completion_tokens=3), candidate("Hm.", 0.2, 0.1, "truncated")]


@pytest.fixture
def pictures() -> None:
    """For tests that need them: drawing takes longer than all the rest."""


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(plots, "available", lambda: False)


def tallied(folder: Path, *by: str) -> Tally:
    tally = Tally(by)
    for part in open_results(folder).parts():
        tally.add(*part)
    return tally


def section(page: str, name: str) -> str:
    """The words of a section."""
    found = re.search(rf'<section id="about-{name}".*?</section>', page, re.S)
    assert found, f"no section {name}"
    return " ".join(Page(found.group()).text.split())


def test_figures_do_not_depend_on_the_parts(tmp_path: Path) -> None:
    sites = [SITE, BARREN, SITE[:1], [*SITE, *BARREN], BARREN[:1]]
    run_folder(tmp_path / "one", [sites])
    run_folder(tmp_path / "many", [[site] for site in sites])
    one, many = tallied(tmp_path / "one"), tallied(tmp_path / "many")
    for field in dataclasses.fields(Tally):
        if field.name not in ("keys", "grounded", "_conversations"):
            assert getattr(one, field.name) == getattr(many, field.name), field.name
    assert {k: v.tolist() for k, v in one.grounded.items()} == {k: v.tolist() for k, v in many.grounded.items()}
    assert (one.conversations, many.conversations) == (5, 5)


def test_what_the_first_n_candidates_gave(tmp_path: Path) -> None:
    run_folder(tmp_path, [[SITE, BARREN]])
    tally = tallied(tmp_path)
    # In the order of drawing the first site has a flagged turn, then two that may be chosen, the better one last.
    assert {n: (at.served, round(at.best, 3), at.tokens) for n, at in tally.at.items()} == {
        1: (0, 0, 5), 2: (1, 0.6, 12), 3: (1, 0.9, 17),
    }  # fmt: skip
    assert (tally.sites, tally.turns, tally.passed, tally.served, tally.barren) == (2, 5, 3, 1, 0)
    page = report(tmp_path, tmp_path / "r.html")
    assert "2 1 (50.0%) 0.60 12 12" in section(page, "yield")
    assert "A site with fewer candidates counts with those it has" in section(page, "yield")


def columns_folder(folder: Path, count: int) -> Path:
    run = Run(folder, SampleConfig(source="s", source_hash="h", model="m").as_json(), {})
    keys = [{"site_id": f"c{i}#1", "ordinal": i, "conversation_id": f"c{i}"} for i in range(count)]
    more = [{"domain": "abc"[i % 3], "source": "one", "topic": f"t{i}", "grade": i % 2} for i in range(count)]
    sites = [key | {"messages": json.dumps(CONTEXT), "extra": json.dumps(m)} for key, m in zip(keys, more, strict=True)]
    run.write("sites", 0, pl.DataFrame(sites))
    turns = [key | {"model": "m", "temperature": t, "sample": 0, "finish_reason": "stop"} | candidate("Why?")
             for key in keys for t in (0.7, 10.0)]  # fmt: skip
    run.write("sampled", 0, pl.DataFrame(turns))
    run.write("turns", 0, pl.DataFrame(turns))
    run.save(status="done")
    run.close()
    return folder


def test_labels_are_counted_by_what_tells_rows_apart(tmp_path: Path) -> None:
    columns_folder(tmp_path, 30)
    assert tallied(tmp_path).columns() == ["temperature", "domain"]  # one source only, and every topic is another
    assert tallied(tmp_path).values("temperature") == ["T=0.7", "T=10"]
    assert tallied(tmp_path, "grade").columns() == ["temperature", "domain", "grade"]
    page = report(tmp_path, tmp_path / "r.html", by=("grade", "source"))
    assert Page(page).packed("index")["names"].keys() >= {"domain", "grade", "source", "temperature"}
    for column in ("nothing", "topic"):
        with pytest.raises(UsageError, match=f"--by {column}"):
            report(tmp_path, tmp_path / "r.html", by=(column,))


def test_of_many_sites_the_browser_holds_some_and_the_figures_all(tmp_path: Path) -> None:
    columns_folder(tmp_path, 30)
    page = report(tmp_path, tmp_path / "r.html", most=10)
    index = Page(page).packed("index")
    assert len(index["sites"]["ids"]) == 10
    assert "60 (2 per site)" in section(page, "flow")
    assert "The browser holds 10 of the sites" in Page(page).text


TEXT = st.text(max_size=40)
TURNS_OF_A_SITE = st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT, TURNS_OF_A_SITE), max_size=150))
def test_every_candidate_comes_out_of_its_chunk_as_the_index_says(
    given: list[tuple[str, list[tuple[str, str, str | None]]]],
) -> None:
    sites, turns = [], []
    for number, (content, candidates) in enumerate(given):
        key = {"site_id": f"c{number}#0", "ordinal": number, "conversation_id": f"c{number}"}
        messages = json.dumps([{"role": "assistant", "content": content}])
        sites.append(key | {"messages": messages, "next_user": None, "extra": json.dumps({"x": content})})
        for rank, (text, label, rule) in enumerate(candidates):
            turns.append(key | {"turn": text, "label": label, "rule": rule, "rank": rank, "temperature": 1.0})
    packer = Packer(["x"])
    parts = pl.DataFrame(sites, schema=SITES), pl.DataFrame(turns, schema_overrides=TURNS, schema=None)
    parts = parts[0], parts[1].select(
        pl.col(n) if n in parts[1].columns else pl.lit(None, t).alias(n) for n, t in TURNS.items()
    )  # fmt: skip
    chunks = [unpacked(chunk) for chunk in (*packer.add(*parts), *packer.rest())]
    index = unpacked(packer.index())
    assert index["starts"] == [sum(map(len, chunks[:i])) for i in range(len(chunks))]
    found = [site for chunk in chunks for site in chunk]
    assert [site["id"] for site in found] == index["sites"]["ids"]
    assert [len(site["turns"]) for site in found] == index["sites"]["counts"]
    shown = [turn for site in found for turn in site["turns"]]
    told = [(text, label, rule) for _, candidates in given for text, label, rule in candidates]
    assert [(turn["turn"], turn["label"], turn.get("rule")) for turn in shown] == told
    for column in ("label", "rule"):
        names = index["names"].get(column, [])
        coded = [None if code < 0 else names[code] for code in index["turns"].get(column, [])]
        assert coded == [turn.get(column) for turn in shown]


def unpacked(data: bytes) -> Any:
    import gzip

    return json.loads(gzip.decompress(data))


def test_the_quote_is_what_evidence_quotes() -> None:
    query = "How long do I boil an egg"
    row = {"query": [query], "answer": ["Eight minutes."], "history": [[query]]}
    turn = "So tell me how long do I boil an egg"
    features: Features = compute(pl.DataFrame({"turn": [turn], "finish_reason": ["stop"], **row}))
    rule = Rule("n", Label.PROMPT_RESTATEMENT, (Threshold("query_cover", ">=", 0.1),))
    said = evidence(rule, features, 0, turn, [query], "Eight minutes.")
    assert quoted(said) == "how long do I boil an egg"
    assert quoted('cues 1 >= 1; "he said "no"; "why"') == 'he said "no"; "why'
    assert quoted('cues 1 >= 1; "cut he…"') == "cut he"
    assert [quoted(none) for none in (None, "", "cues 1 >= 1", 'cues 1 >= 1; "')] == [None] * 4


def test_no_text_is_taken_for_markup(tmp_path: Path, pictures: None) -> None:
    harmless = [[candidate("a", model="x"), candidate("b", 0.4, 0.2, "flagged", model="y", rule=f"r{i}", evidence="e")]
                for i in range(len(HOSTILE))]  # fmt: skip
    run_folder(tmp_path / "plain", [harmless], extra={"domain": "d"}, input={"rows": 10, "bad_by_reason": {"z": 2}})
    hostile = Page(report(hostile_folder(tmp_path / "hostile"), tmp_path / "h.html"))
    plain = Page(report(tmp_path / "plain", tmp_path / "p.html"))
    assert {*hostile.tags} == {*plain.tags}
    assert {name for name, _ in hostile.attributes} == {name for name, _ in plain.attributes}
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert HOSTILE[1] in hostile.text  # as text, in a table
    assert "\u202e" not in hostile.text
    turns = [turn["turn"] for chunk in hostile.chunks() for site in chunk for turn in site["turns"]]
    assert turns[::2] == list(HOSTILE)


def test_a_page_needs_nothing_else_and_runs_nothing_but_its_own_script(tmp_path: Path, pictures: None) -> None:
    run_folder(tmp_path / "run", [[SITE, BARREN]])
    page = Page(report(tmp_path / "run", tmp_path / "r.html"))
    policy = next(v for _, v in page.attributes if "default-src" in v)
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (text,) = page.inside[f"{kind}#"]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    loading = {"src", "srcset", "data", "action", "poster", "background", "style"}
    assert not loading & {name for name, _ in page.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "xlink:href"))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_pictures_follow_the_theme_and_hold_text_as_text(tmp_path: Path, pictures: None) -> None:
    run_folder(tmp_path / "run", [[[candidate("a", model="$x^2$ <b>")], [candidate("b", model="other")]]])
    page = report(tmp_path / "run", tmp_path / "r.html")
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(pictures) >= 3
    joined = "".join(pictures)
    assert ">$x^2$ &lt;b&gt;</text>" in joined
    assert "var(--ink)" in joined
    colours = set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(id|href|clip-path)="[^"]*"', "", joined)))
    assert not colours, "a colour that does not follow the theme"
    assert "<style" not in joined
    for reference in re.findall(r"url\(#(.*?)\)|href=\"#(.*?)\"", joined):
        assert f'id="{"".join(reference)}"' in joined


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [value / 255 for value in bytes.fromhex(digits)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text_is_enough(theme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", read("page.css"), re.S)[:2]
    colours = dict(re.findall(r"--(\w+): (#\w+);", light if theme == "light" else dark))
    plain = ("paper", "card", "on")
    grounds = {"ink": (*plain, "mark", "hit"), "faint": plain, "good": plain, "bad": plain}
    for text, behind in grounds.items():
        for ground in behind:
            high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"


def test_what_has_nothing_to_say_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "sampled", SampleConfig(source="s", source_hash="h", model="m").as_json(), None)
    keys = {"site_id": ["a#2"] * 2, "ordinal": [0] * 2, "conversation_id": ["a"] * 2}
    run.write("sites", 0, pl.DataFrame({k: v[:1] for k, v in keys.items()} | {"messages": [json.dumps(CONTEXT)]}))
    drawn = {"turn": ["hm", "so"], "model": "m", "temperature": 1.0, "sample": [0, 1]}
    run.write("sampled", 0, pl.DataFrame({**keys, **drawn}))
    run.save(status="done")
    run.close()
    page = report(tmp_path / "sampled", tmp_path / "r.html")
    assert re.findall(r'<section id="about-(.*?)"', page) == ["flow", "settings"]
    assert "passed" not in section(page, "flow")

    row = {"messages": CONTEXT + dialogue(2), "user_turns": [judged(3), judged(5, bad=True)], "source": "web"}
    dropped = {"id": "d", "dropped_for": "malformed", **row}
    clean_folder(tmp_path / "clean", [{"id": f"c{i}", **row} for i in range(3)], [dropped],
                 summary={"conversations": {"cut": 2}, "duplicates": {"commonest": {"Ok.": 7}}})  # fmt: skip
    page = report(tmp_path / "clean", tmp_path / "r.html")
    assert re.findall(r'<section id="about-(.*?)"', page) == ["flow", "labels", "rules", "variety", "settings"]
    assert "user turns 8 (1 per site)" in section(page, "flow")
    assert "kept 6 (75.0%)" in section(page, "flow")
    assert "conversations: cut 2" in section(page, "flow")
    assert "malformed 4 (50.0%) 3 (50.0%)" in section(page, "labels")
    assert "not kept: malformed 2 (25.0%)" in section(page, "flow")

    play_folder(tmp_path / "play", 2, [{"id": "c0", "messages": CONTEXT + dialogue(2), "ending": "rounds"}])
    page = report(tmp_path / "play", tmp_path / "r.html")
    assert "sites 4 candidates 8 (2 per site)" in section(page, "flow")
    assert len(Page(page).packed("index")["sites"]["ids"]) == 4
    assert "label 1 2 no rule fired 50.0% 50.0%" in section(page, "labels-0")
    assert "Labels by round" in page


def test_the_record_is_told_whole(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE]], summary={"estimated_genuine": {"before": {
        "mean": 0.2, "low": 0.1, "high": 0.3, "extrapolated": True, "why": "another model"}}})  # fmt: skip
    page = report(tmp_path / "run", tmp_path / "r.html")
    assert "sample.temperatures.1 4" in section(page, "settings")
    assert "estimated genuine, all candidates 20.0% [10.0%, 30.0%] extrapolated: another model" in section(page, "flow")


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE]])
    out = tmp_path / "r.html"
    report(tmp_path / "run", out)
    report(tmp_path / "run", out)  # its own it replaces
    out.write_text("<p>mine</p>")
    for place in (out, tmp_path / "run", tmp_path / "run" / "run.json"):
        done = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "-o", str(place)])
        assert isinstance(done.exception, UsageError)
    assert out.read_text() == "<p>mine</p>"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    run_folder(tmp_path / "empty", [])
    (tmp_path / "other").mkdir()
    for folder, says in (("none", "no such folder"), ("other", "holds no run.json"), ("empty", "holds no turns")):
        with pytest.raises(UsageError, match=says):
            report(tmp_path / folder, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_without_matplotlib_there_are_tables(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE]])
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html")])
    assert "pip install 'selfplay-turns[plot]'" in done.stderr
    page = (tmp_path / "r.html").read_text()
    assert "<svg" not in page
    assert "no rule fired 2 (66.7%) 1 (100.0%)" in section(page, "labels")
