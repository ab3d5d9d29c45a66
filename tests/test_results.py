"""What our verbs left is read back as sites and turns, and mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay.config import SampleConfig
from selfplay.errors import UsageError
from selfplay.results import SITES, TURNS, open_results
from selfplay.runs import Run
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, lines, play_folder, run_folder

TWO = [candidate("From the fridge?", 0.9, 0.8), candidate("Ok.", 0.1, 0.2, "flagged")]


def rows(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All sites and turns; every part has the schema that is promised."""
    sites, turns = [], []
    for some_sites, some_turns in open_results(folder).parts():
        assert (some_sites.schema, some_turns.schema) == (SITES, TURNS)
        assert set(some_turns["site_id"]) <= set(some_sites["site_id"])
        sites += some_sites.to_dicts()
        turns += some_turns.to_dicts()
    return sites, turns


def test_a_run_part_by_part(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[TWO, TWO], [TWO]], extra={"lang": "en"})
    results = open_results(tmp_path / "run")
    assert (results.verb, results.record["sample"]["model"]) == ("run", "tiny")
    assert [len(sites) for sites, _ in results.parts()] == [2, 1]
    sites, turns = rows(tmp_path / "run")
    assert [site["site_id"] for site in sites] == ["c0#2", "c1#2", "c2#2"]
    assert json.loads(sites[0]["messages"]) == CONTEXT
    assert (sites[0]["next_user"], json.loads(sites[0]["extra"])) == ("And tea?", {"lang": "en"})
    assert [turn["turn"] for turn in turns] == ["From the fridge?", "Ok."] * 3
    assert [(t["selected"], t["bad"], t["rejected_for"]) for t in turns[:2]] == [
        (True, False, None), (False, True, "flagged"),
    ]  # fmt: skip


def test_parts_come_in_reading_order_whatever_their_numbers(tmp_path: Path) -> None:
    run_folder(tmp_path, [[TWO], [TWO]])
    for kind in ("sites", "turns"):
        first, second = (tmp_path / kind / f"part-00000{n}.parquet" for n in (0, 1))
        first.rename(tmp_path / "aside")
        second.rename(first)
        (tmp_path / "aside").rename(second)
    assert [site["ordinal"] for site in rows(tmp_path)[0]] == [0, 1]


def test_a_run_that_only_sampled_has_turns_that_nobody_judged(tmp_path: Path) -> None:
    run = Run(tmp_path, SampleConfig(source="s", source_hash="h", model="m").as_json(), None)
    keys = {"site_id": ["a#1"], "ordinal": [0], "conversation_id": ["a"]}
    run.write("sites", 0, pl.DataFrame({**keys, "messages": [json.dumps(CONTEXT)]}))
    run.write("sampled", 0, pl.DataFrame({**keys, "turn": ["hm"], "model": ["m"], "temperature": [1.0], "sample": [0]}))
    run.save(status="done")
    run.close()
    _, (turn,) = rows(tmp_path)
    assert (turn["turn"], turn["label"], turn["bad"], turn["selected"]) == ("hm", None, None, None)


def cleaned(name: str, messages: list[dict[str, Any]], turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": name, "messages": messages, "source": "web", "user_turns": turns, **more}


def test_cleaned_conversations_with_what_was_cut_and_dropped(tmp_path: Path) -> None:
    whole = CONTEXT + dialogue(2)
    replaced = [*whole[:3], {"role": "user", "content": "Better?"}]
    clean_folder(
        tmp_path,
        [cleaned("whole", whole, [judged(3), judged(5, bad=True)], model="gpt"),
         cleaned("cut", whole[:5], [judged(3), judged(5, bad=True)], original_messages=whole),
         cleaned("replaced", replaced, [judged(3, bad=True), judged(5)], original_messages=whole)],
        [cleaned("gone", whole, [judged(3), judged(5, bad=True)], dropped_for="malformed")],
    )  # fmt: skip
    sites, turns = rows(tmp_path)
    assert [site["ordinal"] for site in sites] == list(range(8))
    assert json.loads(sites[3]["messages"]) == whole[:5]
    assert sites[3]["next_user"] == "Turn 2?"
    assert json.loads(sites[0]["extra"]) == {"source": "web", "model": "gpt"}
    assert [(t["site_id"], t["turn"], t["selected"], t["bad"], t["rejected_for"]) for t in turns] == [
        ("whole#2", "Turn 1?", True, False, None),
        ("whole#4", "Turn 2?", True, True, None),
        ("cut#2", "Turn 1?", True, False, None),
        ("cut#4", "Turn 2?", False, True, "flagged"),
        ("replaced#2", "Turn 1?", False, True, "flagged"),
        ("replaced#4", "Turn 2?", False, False, "cut"),
        ("gone#2", "Turn 1?", False, False, "malformed"),
        ("gone#4", "Turn 2?", False, True, "malformed"),
    ]
    assert turns[0]["model"] == "gpt"
    assert turns[0]["temperature"] is None
    assert turns[0]["groundedness"] is None


def test_user_messages_in_a_row_share_their_context(tmp_path: Path) -> None:
    talk = [*CONTEXT, {"role": "user", "content": "One."}, {"role": "user", "content": "Two?"}]
    clean_folder(tmp_path, [cleaned("c", talk, [judged(3), judged(4)])])
    sites, turns = rows(tmp_path)
    assert [json.loads(site["messages"]) for site in sites] == [CONTEXT]
    assert [(turn["site_id"], turn["sample"], turn["turn"]) for turn in turns] == [
        ("c#2", 0, "One."),
        ("c#2", 1, "Two?"),
    ]


def test_memory_is_bounded_by_parts_of_cleaned_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.results.PART_CHARS", 500)
    clean_folder(tmp_path, [cleaned(f"c{i}", CONTEXT + dialogue(1), [judged(3)]) for i in range(40)])
    sizes = [len(sites) for sites, _ in open_results(tmp_path).parts()]
    assert sum(sizes) == 40
    assert max(sizes) < 10
    assert [site["ordinal"] for site in rows(tmp_path)[0]] == list(range(40))


def test_the_rounds_of_a_play_one_after_the_other(tmp_path: Path) -> None:
    talk = {"id": "c0", "messages": CONTEXT + dialogue(11), "ending": "rounds"}
    play_folder(tmp_path, 11, [talk])
    sites, turns = rows(tmp_path)
    assert [site["ordinal"] for site in sites] == list(range(22))
    assert sites[-1]["site_id"] == "c1#22"
    assert [turn["turn"] for turn in turns if turn["selected"]][::2] == [f"Turn {i}?" for i in range(1, 12)]
    assert {turn["site_id"]: turn["ordinal"] for turn in turns} == {site["site_id"]: site["ordinal"] for site in sites}
    assert list(open_results(tmp_path).conversations()) == [talk]


def test_replacements_are_a_run_beside_the_cleaned_data(tmp_path: Path) -> None:
    clean_folder(tmp_path, [])
    assert open_results(tmp_path).runs() == []
    run_folder(tmp_path / "replacements", [[TWO]])
    assert [run.verb for run in open_results(tmp_path).runs()] == ["run"]
    assert rows(tmp_path) == ([], [])


def run_json(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "is not of a selfplay"),
        ('{"name": "theirs", "status": "done"}', "is not of a selfplay"),
        ('{"verb": "dance", "status": "done"}', "is not of a selfplay"),
        ('{"sample": {}, "format": 7, "status": "done"}', "format 7"),
        ('{"sample": {}, "format": 1, "status": "interrupted"}', "status: interrupted"),
        ('{"verb": "clean", "format": 1}', "not finished"),
    ],
)
def test_what_is_not_ours_or_not_finished_gets_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as found:
        open_results(run_json(tmp_path / "x", text))
    assert "\n" not in str(found.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("nowhere", "file"):
        with pytest.raises(UsageError, match="no such folder"):
            open_results(tmp_path / place)
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        open_results(tmp_path)


@pytest.mark.parametrize("kind", ["sites", "turns"])
@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_a_damaged_part_is_named(tmp_path: Path, kind: str, harm: str) -> None:
    path = run_folder(tmp_path, [[TWO]]) / kind / "part-000000.parquet"
    path.unlink() if harm == "missing" else path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=harm):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [('{"id": "c"', "line 2"), ('{"id": "c", "messages": []}', "line 2"), ("[]", "line 2"),
     ('{"id": "c", "messages": [], "user_turns": [{"index": 3}]}', "line 2")],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    clean_folder(tmp_path, [cleaned("a", CONTEXT, [])])
    with open(tmp_path / "conversations.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(UsageError, match=told):
        rows(tmp_path)


def test_a_missing_file_is_named_and_a_run_has_no_conversations(tmp_path: Path) -> None:
    clean_folder(tmp_path / "clean", []).joinpath("conversations.jsonl").unlink()
    with pytest.raises(UsageError, match=r"conversations\.jsonl is missing"):
        rows(tmp_path / "clean")
    lines(run_folder(tmp_path / "run", [[TWO]]) / "conversations.jsonl", [])
    with pytest.raises(UsageError, match="no whole conversations"):
        next(open_results(tmp_path / "run").conversations())


def test_reading_changes_nothing(tmp_path: Path) -> None:
    run_folder(tmp_path, [[TWO]])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    rows(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
