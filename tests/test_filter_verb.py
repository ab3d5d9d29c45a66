"""The verb `filter`: what stays, what goes and where to, who decided, and that no row is lost."""

import gzip
import io
import json
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from filters.labels import Label
from selfplay.cli import cli
from selfplay.errors import SelfplayError, TooManyBadRows, UsageError
from selfplay.keeping import keeping
from selfplay.signals.measure import SIGNALS

MESSAGES = [
    {"role": "user", "content": "How do I keep basil alive on a north-facing kitchen windowsill during winter?"},
    {
        "role": "assistant",
        "content": "Basil needs about six hours of light, so add a small grow lamp 15 cm above the leaves. Water only "
        "when the top two centimetres of soil feel dry, and pinch off flowers so that the stems stay bushy.",
    },
]
TURNS = {
    "copy": MESSAGES[0]["content"],
    "token": "Which lamp? <|im_end|>",
    "good": "15 cm seems close, won't a lamp that near scorch the leaves?",
    "bare": "ok",
    "more": "Can you tell me more?",
}
LABELS = {
    "copy": "prompt_restatement", "token": "malformed", "good": "follow_up", "bare": "degenerate", "more": "generic"
}  # fmt: skip


def row(name: str, turn: str, **more: object) -> dict[str, object]:
    return {"id": name, "messages": MESSAGES, "turn": turn, "extra": {"a": [1]}, **more}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps(row(name, turn)) + "\n" for name, turn in TURNS.items()))
    return path


def invoke(*args: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["filter", *map(str, args)], input=stdin)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(path: Path) -> list[object]:
    return [row["id"] for row in read(path)]


def test_without_choices_all_rows_come_back_labelled(source: Path, tmp_path: Path) -> None:
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text")
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "out.jsonl")
    assert {row["id"]: row["label"] for row in rows} == LABELS
    assert list(rows[0])[:4] == ["id", "messages", "turn", "extra"]
    assert all(row["rule_set"] == "text" and "explanation" not in row and "rejected_for" not in row for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "turns.jsonl"]
    assert "decided by the rules: text 5 (--rules text)" in result.stderr


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--drop", "malformed,degenerate"], ["copy", "good", "more"]),
        (["--drop", "malformed", "--drop", " degenerate "], ["copy", "good", "more"]),
        (["--keep", "follow_up,generic"], ["good", "more"]),
        (["--keep", "off_topic"], []),
        (["--keep-above", "0"], list(TURNS)),
        (["--keep-above", "1"], []),
    ],
)
def test_rows_that_do_not_stay_go_beside_with_the_reason(
    source: Path, tmp_path: Path, options: list[str], kept: list[str]
) -> None:
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", *options)
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out.jsonl") == kept
    rejected = read(tmp_path / "out.jsonl.rejects.jsonl")
    assert [row["id"] for row in rejected] == [name for name in TURNS if name not in kept]
    reason = "p_genuine below 1" if "1" in options else "label: {label}"
    for row in rejected:
        assert row["rejected_for"] == reason.format(**row)
        assert row["extra"] == {"a": [1]}
        assert (row["rule"] is None) == (row["label"] == "follow_up") == (row["evidence"] is None)
    assert f"kept {len(kept)}, rejected {5 - len(kept)}" in result.stderr


def test_both_reasons_are_told(source: Path, tmp_path: Path) -> None:
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--drop", "generic", "--keep-above", "1")
    rejected = {row["id"]: row["rejected_for"] for row in read(tmp_path / "out.jsonl.rejects.jsonl")}
    assert rejected["more"] == "label: generic; p_genuine below 1"
    assert rejected["copy"] == "p_genuine below 1"
    assert "rejected for p_genuine below 1 (5), label: generic (1)" in result.stderr


def test_the_closing_lines_tell_what_was_gained_and_what_it_cost(source: Path, tmp_path: Path) -> None:
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--keep", "follow_up")
    everything = {str(r["id"]): float(str(r["p_genuine"])) for name in ("out.jsonl", "out.jsonl.rejects.jsonl")
                  for r in read(tmp_path / name)}  # fmt: skip
    total = sum(everything.values())
    assert f"estimated genuine among all turns: {total / 5:.0%} [" in result.stderr
    assert f"estimated genuine among those kept: {everything['good']:.0%} [" in result.stderr
    assert f"about {everything['good']:.1f} of {total:.1f} genuine turns kept" in result.stderr
    assert f"({everything['good'] / total:.0%})" in result.stderr
    assert "follow_up 1 of 1" in result.stderr
    assert "generic 0 of 1" in result.stderr


def test_explanations_name_the_rule_with_its_values_and_three_contributions(source: Path, tmp_path: Path) -> None:
    invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--explain")
    for row in read(tmp_path / "out.jsonl"):
        first, *rest = row["explanation"]  # type: ignore[misc]
        assert first == (f"{row['rule']}: {row['evidence']}" if row["rule"] else "no rule fired")
        assert len(rest) == 3
        assert all(text.startswith(f"score for {row['label']}: ") and text.endswith(")") for text in rest)


def test_parquet_in_and_out(source: Path, tmp_path: Path) -> None:
    assert invoke(source, "-o", tmp_path / "a.parquet", "--rules", "text", "--explain").exit_code == 0
    table = pl.read_parquet(tmp_path / "a.parquet")
    assert table["label"].to_list() == list(LABELS.values())
    assert table.schema["explanation"] == pl.List(pl.String)
    result = invoke(
        tmp_path / "a.parquet", "-o", tmp_path / "b.parquet", "--rules", "text", "--drop", "malformed",
        "--rejects", tmp_path / "r.parquet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert pl.read_parquet(tmp_path / "b.parquet")["id"].to_list() == ["copy", "good", "bare", "more"]
    assert pl.read_parquet(tmp_path / "r.parquet").select("id", "rejected_for").rows() == [
        ("token", "label: malformed")
    ]


def test_stdin_to_stdout_with_rejects_named(source: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "r.jsonl.gz"
    result = invoke("-", "--rules", "text", "--keep", "follow_up", "--rejects", rejects, stdin=source.read_text())
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["good"]
    with gzip.open(rejects, "rt") as file:
        assert [json.loads(line)["id"] for line in file] == ["copy", "token", "bare", "more"]


def test_rows_that_carry_signals_are_decided_by_the_full_set_unless_text_is_asked_for(tmp_path: Path) -> None:
    measured = {name: 0.1 for group in SIGNALS.values() for name in group}
    spanish = [
        {"role": "user", "content": "¿Cómo mantengo viva la albahaca en invierno?"},
        {"role": "assistant", "content": "La albahaca necesita seis horas de luz: pon una lámpara y riega."},
    ]
    rows = [
        row("measured", TURNS["good"], **measured),
        row("foreign", "¿y la lámpara cuánto tiempo la dejo encendida?", **measured) | {"messages": spanish},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    result = invoke(tmp_path / "t.jsonl", "-o", tmp_path / "o.jsonl")
    assert [r["rule_set"] for r in read(tmp_path / "o.jsonl")] == ["full", "text"]
    assert "decided by the rules: full 1, text 1 (not in English)" in result.stderr
    result = invoke(tmp_path / "t.jsonl", "-o", tmp_path / "o.jsonl", "--rules", "text")
    assert [r["rule_set"] for r in read(tmp_path / "o.jsonl")] == ["text", "text"]
    assert "(1 not in English, 1 --rules text)" in result.stderr


def test_text_where_no_model_is_at_hand_and_full_refuses(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.signals.tiers.obstacle", lambda tier, *_: f"no {tier} model here")
    result = invoke(source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "without state signals: no state model here" in result.stderr
    assert "decided by the rules: text 5 (without all signals)" in result.stderr
    (tmp_path / "out.jsonl").unlink()
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "full")
    assert isinstance(result.exception, SelfplayError)
    assert "model here" in str(result.exception)
    assert not (tmp_path / "out.jsonl").exists()


MISTAKES = [
    (["--drop", "malformd"], "--drop: no label 'malformd'; labels are malformed, degenerate, meta_planning"),
    (["--keep", "follow_up,"], "--keep: no label ''"),
    (["--keep", "\x1b[31m"], r"no label '\x1b[31m'"),
    (["--drop", "malformed", "--keep", "generic"], "--drop and --keep: give one of them"),
    (["--drop", ",".join(Label)], "every label; nothing would stay"),
    (["--rejects", "r.jsonl"], "nothing is rejected without --drop, --keep or --keep-above"),
    (["--rules", "text", "--tiers", "all"], "--rules text and --tiers all contradict each other"),
    (["--rules", "none.json"], "none.json: cannot read it"),
    (["--drop", "generic", "--rejects", "out.jsonl"], "that is where -o writes"),
    (["--drop", "generic", "--rejects", "turns.jsonl"], "that is the input"),
    (["--drop", "generic", "--quarantine", "q.jsonl", "--rejects", "q.jsonl"], "that is where --quarantine writes"),
    (["--drop", "generic", "-o", "-"], "rejected rows have no place beside stdout: give --rejects FILE"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES, ids=[" ".join(m[0])[:40] for m in MISTAKES])
def test_a_mistake_is_one_line_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = source.read_text()
    result = invoke("turns.jsonl", *(["-o", "out.jsonl"] if "-o" not in options else []), *options)
    assert isinstance(result.exception, UsageError), result.output
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["turns.jsonl"]
    assert source.read_text() == before


def test_rules_without_a_calibration_cannot_keep_above(source: Path, tmp_path: Path) -> None:
    rules = {"schema": "selfplay-rules/2", "sets": {"text": {"rules": []}}}
    (tmp_path / "mine.json").write_text(json.dumps(rules))
    result = invoke(source, "-o", tmp_path / "out.jsonl", "--rules", tmp_path / "mine.json", "--keep-above", "0.5")
    assert "no calibration" in str(result.exception)
    assert not (tmp_path / "out.jsonl").exists()


def test_too_many_bad_rows_leave_no_output_at_all(source: Path, tmp_path: Path) -> None:
    with source.open("a") as file:
        file.write("not json\n")
    result = invoke(
        source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--keep", "follow_up", "--max-bad", "0"
    )  # fmt: skip
    assert isinstance(result.exception, TooManyBadRows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.quarantine.jsonl", "turns.jsonl"]


def test_an_earlier_output_stays_whole_when_filtering_fails(source: Path, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.rejects.jsonl"):
        (tmp_path / name).write_text("earlier\n")
    source.write_text("")
    assert invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--keep", "follow_up").exit_code != 0
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "out.jsonl.rejects.jsonl").read_text() == "earlier\n"


def test_batches_keep_their_order(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfplay import filtering

    read_rows = filtering.iter_turn_rows
    monkeypatch.setattr(filtering, "iter_turn_rows", lambda path, quarantine: read_rows(path, quarantine, batch=2))
    invoke(source, "-o", tmp_path / "out.jsonl", "--rules", "text", "--keep", "follow_up,generic")
    assert names(tmp_path / "out.jsonl") == ["good", "more"]
    assert names(tmp_path / "out.jsonl.rejects.jsonl") == ["copy", "token", "bare"]


@pytest.mark.parametrize("turn", ["\ud83d half a pair", "a\0b", "\u202eabc\u2066", "\x1b[31mred"])
def test_odd_characters_come_back_as_they_came(tmp_path: Path, turn: str) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps(row("odd", turn)) + "\n" + json.dumps(row("ok", "ok")) + "\n")
    result = invoke(tmp_path / "t.jsonl", "-o", tmp_path / "o.jsonl", "--rules", "text", "--explain")
    assert result.exit_code == 0, result.output
    rows = read(tmp_path / "o.jsonl")
    assert rows[-1]["id"] == "ok"
    assert len(rows) == 2 or "1 bad rows left out" in result.stderr
    assert all(each["turn"] in (turn, "ok") for each in rows)


def test_keeping_says_of_unknown_p_that_it_is_unknown() -> None:
    table = pl.DataFrame({"label": ["follow_up"] * 4, "p_genuine": [0.8, 0.79, None, float("nan")]})
    reasons = keeping(above=0.8).rejected_for(table)["rejected_for"].to_list()
    assert reasons == [None, "p_genuine below 0.8", "p_genuine unknown", "p_genuine unknown"]
    assert keeping().everything
    assert keeping().rejected_for(table)["rejected_for"].is_null().all()


def test_a_reader_that_leaves_ends_it_quietly(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rejects of an output nobody took are not left as if they were all."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    from selfplay.filtering import Filtering, filter_file
    from selfplay.inputs.quarantine import Quarantine

    monkeypatch.setattr(sys, "stdout", Closed())
    how = Filtering(rules="text", keeping=keeping(keep=["follow_up"]), rejects=str(tmp_path / "r.jsonl"))
    with Quarantine() as quarantine, pytest.raises(BrokenPipeError):
        list(filter_file(str(source), "-", how, quarantine))
    assert not (tmp_path / "r.jsonl").exists()
