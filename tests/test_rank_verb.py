"""The verb `rank` on files: rows come back in order with unknown columns, what cannot be had is said."""

import gzip
import json

import pytest
from click.testing import CliRunner

from selfplay.cli import cli
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from selfplay.signals import tiers
from selfplay.signals.measure import NUMBERS
from tests.test_measure import FakeScorer, FakeTemplate

MESSAGES = [
    {"role": "user", "content": "Can I put solar panels on my old garage?"},
    {"role": "assistant", "content": "The panels add 240 kg to the roof, so the rafters need doubling."},
]
ROWS = [
    {"id": 7, "messages": MESSAGES, "turn": "Write a poem about cats.", "extra": {"a": [1]}},
    {"id": 8, "messages": MESSAGES, "turn": "Is 240 kg with the rafters doubled on one side still fine?"},
    {"id": 9, "messages": [*MESSAGES, *MESSAGES], "turn": "ok"},
]


class ClosingScorer(FakeScorer):
    def close(self):
        pass


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "turns.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


def invoke(*args, **kwargs):
    return CliRunner().invoke(cli, ["rank", *map(str, args)], **kwargs)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_order_and_columns_and_are_ranked_by_site(source, tmp_path):
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--tiers", "text")
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [7, 8, 9]
    assert rows[0]["extra"] == {"a": [1]}
    assert [row["rank"] for row in rows] == [2, 1, 1]
    assert all(0 <= row["groundedness"] <= 1 and row["ranked_with"] == "text+wording" for row in rows)
    assert "3 turns at 2 sites ranked with text" in result.stderr


def test_stdin_to_stdout():
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    result = invoke("-", "--tiers", "text", input=text)
    assert [json.loads(line)["rank"] for line in result.stdout.splitlines()] == [2, 1, 1]


def test_flagged_rows_of_the_file_come_last(tmp_path):
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps({**row, "genuine": row["id"] != 8}) + "\n" for row in ROWS))
    invoke(path, "-o", tmp_path / "out.jsonl", "--tiers", "text")
    assert [row["rank"] for row in read(tmp_path / "out.jsonl")] == [1, 2, 1]


def test_auto_without_models_ranks_by_text_and_says_why(source, tmp_path, monkeypatch):
    reasons = dict.fromkeys(("embedding", "state", "likelihood"), "torch not installed")
    monkeypatch.setattr(tiers, "available_tiers", lambda: (frozenset({"text"}), reasons))
    result = invoke(source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert "without embedding signals: torch not installed" in result.stderr
    assert read(tmp_path / "out.jsonl")[0]["ranked_with"] == "text+wording"


def test_tiers_asked_for_by_name_must_be_met(source, monkeypatch):
    monkeypatch.setattr(tiers, "available_tiers", lambda: (frozenset({"text"}), {"embedding": "torch not installed"}))
    result = invoke(source, "--tiers", "text+embedding")
    assert isinstance(result.exception, SelfplayError)
    assert "torch not installed" in str(result.exception)
    assert result.stdout == ""


def test_signals_in_the_file_are_used_and_not_measured_again(tmp_path, monkeypatch):
    """But for hidden states, which no file carries: without them the likelihoods of the file serve."""
    signals = dict.fromkeys(NUMBERS, 0.5)
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps({**row, **signals}) + "\n" for row in ROWS))
    asked = []

    def measures(table, tiers, **_):
        asked.extend(tiers)
        return table

    monkeypatch.setattr(tiers, "measure", measures)
    monkeypatch.setattr(tiers, "default_scorer", lambda model: (ClosingScorer(), FakeTemplate()))
    invoke(path, "-o", tmp_path / "out.jsonl", catch_exceptions=False)
    rows = read(tmp_path / "out.jsonl")
    assert {row["ranked_with"] for row in rows} == {"text+wording+embedding+likelihood"}
    assert rows[0]["cos_query"] == 0.5
    assert asked == ["state"]


def test_the_control_is_measured_on_request_and_written(tmp_path, monkeypatch):
    other = [{"role": "user", "content": "Which glue for a cup?"}, {"role": "assistant", "content": "Epoxy."}]
    source, out = tmp_path / "turns.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in (*ROWS[:2], ROWS[2] | {"messages": other})))
    monkeypatch.setattr(tiers, "default_scorer", lambda model: (ClosingScorer(), FakeTemplate()))
    invoke(source, "-o", out, "--tiers", "text", "--control", catch_exceptions=False)
    gap = len(MESSAGES[-1]["content"]) - len("Epoxy.")
    # The fake scorer's logprobs fall by one for each character before the turn.
    assert [row["answer_pmi_swapped"] for row in read(out)] == [-gap, -gap, gap]
    assert {row["ranked_with"] for row in read(out)} == {"text+wording"}
    invoke(source, "-o", out, "--tiers", "text")
    assert "answer_pmi_swapped" not in read(out)[0]


@pytest.mark.parametrize("reason", [None, "the weights were learned with another"])
def test_the_control_takes_the_scorer_of_the_likelihoods_loaded_once_and_closed(tmp_path, monkeypatch, reason):
    """Also where the likelihoods cannot be had, since the weights were learned with another scorer."""
    source, out = tmp_path / "turns.jsonl", tmp_path / "out.jsonl"
    cosines = dict.fromkeys(tiers.SIGNALS["embedding"], 0.5)
    source.write_text("".join(json.dumps(row | cosines) + "\n" for row in ROWS[:2]))
    events = []

    class Watched(FakeScorer):
        def close(self):
            events.append("closed")

    def load(model):
        events.append("loaded")
        return Watched(), FakeTemplate()

    monkeypatch.setattr(tiers, "default_scorer", load)
    monkeypatch.setattr(tiers, "obstacle", lambda tier, *_: reason)
    done = invoke(source, "-o", out, "--control", "--tiers", "auto" if reason else "all", catch_exceptions=False)
    assert events == ["loaded", "closed"]
    assert "answer_pmi_swapped" in read(out)[0]
    used = {row["ranked_with"] for row in read(out)}
    assert used == {"text+wording+embedding" + ("" if reason else "+likelihood")}
    assert (f"without state signals: {reason}" in done.stderr) == bool(reason)


def test_bad_rows_are_counted_and_too_many_write_nothing(tmp_path):
    path = tmp_path / "turns.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n{broken\n")
    out = tmp_path / "out.jsonl"
    result = invoke(path, "-o", out, "--tiers", "text", "--max-bad", "10%")
    assert isinstance(result.exception, TooManyBadRows)
    assert not out.exists()
    result = invoke(path, "-o", out, "--tiers", "text", "--quarantine", tmp_path / "bad.jsonl")
    assert result.exit_code == 0
    assert [entry["line"] for entry in read(tmp_path / "bad.jsonl")] == [2]


def test_mistakes_are_one_line(source, tmp_path):
    for args, named in (
        (("nowhere.jsonl", "--tiers", "text"), "nowhere.jsonl"),
        ((source, "--weights", tmp_path / "none.json"), "none.json"),
    ):
        result = invoke(*args)
        assert isinstance(result.exception, UsageError)
        assert named in str(result.exception)
        assert "\n" not in str(result.exception)


def test_choosing_on_request_adds_selected_and_says_what_came_of_it(source, tmp_path):
    out = tmp_path / "out.jsonl"
    invoke(source, "-o", out, "--tiers", "text")
    assert "selected" not in read(out)[0]
    result = invoke(source, "-o", out, "--tiers", "text", "--select", "1", catch_exceptions=False)
    rows = read(out)
    assert [row["selected"] for row in rows] == [row["rank"] == 1 for row in rows]
    assert {row["rejected_for"] for row in rows if not row["selected"]} <= {"lower_rank"}
    assert f"{sum(row['selected'] for row in rows)} turns selected at" in result.stderr
    assert "distinct-2" in result.stderr


def test_flagged_cut_and_ungrounded_rows_are_not_chosen(tmp_path):
    path, out = tmp_path / "turns.jsonl", tmp_path / "out.jsonl"
    changed = [ROWS[0] | {"genuine": False}, *({**row, "finish_reason": "length"} for row in ROWS[1:])]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    result = invoke(path, "-o", out, "--tiers", "text", "--select", "2")
    assert not any(row["selected"] for row in read(out))
    assert "not selected: truncated 2, flagged 1" in result.stderr
    invoke(path, "-o", out, "--tiers", "text", "--select", "2", "--allow-truncated", "--min-groundedness", "1")
    assert [row["rejected_for"] for row in read(out)] == ["flagged", "below_minimum", "below_minimum"]


def test_options_of_choosing_without_select_are_a_mistake(source):
    result = invoke(source, "--tiers", "text", "--diversity", "0.5")
    assert result.exit_code == 2
    assert "--select 1" in result.stderr


def test_a_whole_number_is_a_site_id(tmp_path):
    path, out = tmp_path / "turns.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({**row, "site_id": 5}) + "\n" for row in ROWS))
    assert "3 turns at 1 sites" in invoke(path, "-o", out, "--tiers", "text").stderr
    assert sorted(row["rank"] for row in read(out)) == [1, 2, 3]
    assert [row["site_id"] for row in read(out)] == [5, 5, 5]


@pytest.mark.parametrize("option", ["--scorer-model", "--cross-encoder"])
def test_a_model_without_a_name_is_refused(source, option):
    done = invoke(source, option, " ")
    assert done.exit_code == 2
    assert f"'{option}': it is empty" in done.stderr
