"""The library: it is light, takes the verbs' options, gives what the verbs give, and loses nothing between steps."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import selfplay
from selfplay import execution, judging
from selfplay.core import Candidate, Draw
from selfplay.engines.base import SampleRequest
from selfplay.errors import SelfplayError
from selfplay.signals import tiers
from selfplay.signals.measure import SIGNALS
from tests.families import FAMILIES
from tests.scripted import ScriptedEngine
from tests.verbs import call

EXAMPLES = Path(selfplay.__file__).parent / "examples"
TURNS = EXAMPLES / "turns.jsonl"
SAID = (
    "Is three minutes in vinegar enough for {}?",
    "<|im_end|> next",
    "Thanks!",
    "Does the vinegar of {} not make the white taste sour?",
)
ROWS = [
    {
        "id": f"c{i}", "source": "kitchen",
        "messages": [
            {"role": "user", "content": f"How do I poach egg number {i}?"},
            {"role": "assistant", "content": f"Three minutes in water with vinegar, egg {i} in the middle."},
        ],
    }
    for i in range(3)
]  # fmt: skip


class Diner(ScriptedEngine):
    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        turn = SAID[draw.sample % len(SAID)].format(request.key.replace("#", " number "))
        return Candidate(draw, turn, (1, 2), (-0.5, -0.25), "stop", 3, 0, True)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder where `model` names a template, an engine without a model; `auto` is the text tier."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("filters.estimate.DRAWS", 20)
    monkeypatch.setitem(tiers.CHOICES, "auto", ())
    next(family for family in FAMILIES if family.name == "smollm2").tokenizer(tmp_path / "model")
    Path("conversations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    @contextmanager
    def stages(job: Any, config: Any, select: Any, *_: Any) -> Iterator[Any]:
        if select is None:
            yield Diner(), None
            return
        with judging.opened(select, judging.Options(tiers="text")) as judge:
            yield Diner(), judge

    monkeypatch.setattr(execution, "stages", stages)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_importing_it_loads_nothing_and_finds_everything() -> None:
    code = "import selfplay, sys; dir(selfplay); print(*{'click', 'polars', 'numpy', 'torch'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""
    assert all(callable(getattr(selfplay, name)) for name in selfplay.__all__)
    assert {*selfplay.__all__} <= {*dir(selfplay)}
    with pytest.raises(AttributeError, match="'rnak'"):
        selfplay.rnak  # noqa: B018


def test_no_module_hides_a_function() -> None:
    assert [name for name in selfplay.__all__ if find_spec(f"selfplay.{name}")] == []


@pytest.mark.usefixtures("engine")
def test_the_lines_of_the_docstring_run() -> None:
    shown = (selfplay.__doc__ or "").split("\n\n")
    code = textwrap.dedent("\n".join(block for block in shown if block.startswith("    ")))
    assert code.count("\n") < 5
    exec(code.replace("Qwen/Qwen3-8B", "model"))
    rows = lines(Path("sft/train.jsonl"))
    assert [row["conversation_id"] for row in rows] == ["c0", "c1", "c2"]
    assert all("vinegar" in row["completion"][0]["content"] for row in rows)


@pytest.mark.usefixtures("engine")
def test_the_steps_choose_what_run_chooses() -> None:
    loaded = selfplay.load("conversations.jsonl")
    turns = loaded.sample(model="model", n=4).filter().rank()
    whole = loaded.run("run", model="model", n=4, tiers="text")
    columns = ["site_id", "turn", "label", "p_genuine", "rule", "groundedness", "rank", "selected", "rejected_for"]
    assert len(turns) == 12
    assert turns.table["selected"].sum() == 3
    assert turns.table.select(columns).equals(whole.turns().table.select(columns))
    assert turns.chosen() == lines(whole.path / "chosen.jsonl")
    for format in ("prompt-completion", "dpo", "kto", "reward", "messages"):
        counts = turns.export(f"steps-{format}", format), whole.export(f"run-{format}", format)
        assert counts[0] == counts[1] != {format: {}}
        assert lines(Path(f"steps-{format}/train.jsonl")) == lines(Path(f"run-{format}/train.jsonl"))


@pytest.mark.usefixtures("engine")
def test_a_sample_is_kept_where_asked_and_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = selfplay.load("conversations.jsonl")
    how: dict[str, Any] = {"model": "model", "temperature": {0.7: 1, 1.0: 3}, "limit": 2}
    first = loaded.sample("run", **how)
    assert first.folder == Path("run")
    assert first.table.group_by("temperature").len().sort("temperature").rows() == [(0.7, 2), (1.0, 6)]
    monkeypatch.setattr(Diner, "candidate", None)
    assert loaded.sample("run", **how).table.equals(first.table)
    with pytest.raises(selfplay.UsageError, match=r"other settings \(seed"):
        loaded.sample("run", **how, seed=1)


@pytest.mark.usefixtures("engine")
def test_rows_in_memory_are_read_as_files_are() -> None:
    how: dict[str, Any] = {"model": "model", "n": 2}
    wanted = selfplay.load("conversations.jsonl").sample(**how)
    for rows in (ROWS, iter(ROWS), pl.DataFrame(ROWS)):
        found = selfplay.load(rows).sample(**how)
        assert found.table.equals(wanted.table)
        assert found.sites.drop("file").equals(wanted.sites.drop("file"))
        assert found.folder is None
    assert json.loads(wanted.sites["extra"][0]) == {"source": "kitchen"}


@pytest.mark.usefixtures("engine")
def test_bad_rows_are_told_of() -> None:
    found = selfplay.load([*ROWS, {"messages": "nothing"}]).sample(model="model", n=1)
    assert len(found) == 3
    assert any("1 bad rows left out" in note for note in found.notes)


def test_filter_and_rank_give_what_the_verbs_give(tmp_path: Path) -> None:
    turns = selfplay.turns(TURNS).filter(rules="text").rank(tiers="text", explain=True)
    call("filter", TURNS, "-o", tmp_path / "f.jsonl", "--rules", "text")
    call("rank", tmp_path / "f.jsonl", "-o", tmp_path / "r.jsonl", "--tiers", "text", "--select", 1, "--explain")
    names = ["id", "label", "p_genuine", "rule", "evidence", "groundedness", "rank", "selected", "rejected_for"]
    for mine, theirs in zip(turns.table.to_dicts(), lines(tmp_path / "r.jsonl"), strict=True):
        assert {name: mine[name] for name in names} == {name: theirs[name] for name in names}
        assert mine["rank_explanation"] == theirs["rank_explanation"]
    assert any("3 turns selected at 3 sites" in note for note in turns.notes)


def test_what_filter_takes_out_is_kept_for_pairs_and_labels(tmp_path: Path) -> None:
    labelled = selfplay.turns(TURNS).filter(rules="text")
    kept = labelled.filter(rules="text", drop=["malformed", "generic"], keep_above=0.3)
    whole, less = (turns.rank(tiers="text") for turns in (labelled, kept))
    assert len(kept) + len(kept.rejected) == len(labelled)
    assert kept.rejected["rejected_for"].null_count() == 0
    assert set(kept.table["label"]) == {"follow_up"}
    assert less.rejected["groundedness"].null_count() == 0
    for format in ("dpo", "kto", "reward"):
        for name, turns in (("whole", whole), ("less", less)):
            turns.export(tmp_path / name / format, format)
        rows = [
            sorted(json.dumps(row) for row in lines(tmp_path / name / format / "train.jsonl"))
            for name in ("whole", "less")
        ]
        assert rows[0] == rows[1] != []
    none = kept.filter(rules="text", keep_above=0.99)
    assert len(none) == 0
    assert len(none.rejected) == len(labelled)
    ranked = none.rank(tiers="text")
    assert ranked.chosen() == []
    assert ranked.export(tmp_path / "none", "kto") == {"kto": {"train": 9}}  # the faults are there to learn from
    with pytest.raises(selfplay.UsageError, match=r"^the turns: there is no turn to export as dpo"):
        ranked.export(tmp_path / "no pairs", "dpo")


def test_signals_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, set[str]]] = []

    def measure(table: pl.DataFrame, wanted: Any, **how: Any) -> pl.DataFrame:
        asked.append((len(table), {*wanted}))
        state = [0.5] * 576
        values = {name: 0.4 for tier in wanted if tier != "state" for name in SIGNALS[tier]}
        table = table.with_columns(pl.lit(value).alias(name) for name, value in values.items())
        return table.with_columns(turn_state=pl.Series([state] * len(table))) if "state" in wanted else table

    monkeypatch.setattr(tiers, "measure", measure)
    monkeypatch.setattr(tiers, "obstacle", lambda *_: None)
    monkeypatch.setattr(tiers.Measurer, "_load", lambda *_: {})
    monkeypatch.setattr("selfplay.choosing.selection.encoder", lambda tiers: None)
    turns = selfplay.turns(TURNS).filter(drop="malformed,degenerate,generic,off_topic,identity_leakage")
    assert "turn_state" not in turns.table.columns
    assert not turns.rejected.is_empty()
    rest = {tier for _, names in asked for tier in names}
    ranked = turns.rank()
    assert all(count == 12 for count, _ in asked)
    measured = [tier for _, names in asked for tier in names]
    assert sorted(measured) == sorted({*measured})
    assert rest <= {"embedding", "state", "likelihood"}
    assert "state" in rest
    assert ranked.table["ranked_with"].str.contains("state").all()
    assert ranked.rejected["ranked_with"].str.contains("state").all()


def test_another_scorers_signals_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"messages": ROWS[0]["messages"], "turn": "Why?", **dict.fromkeys(SIGNALS["likelihood"], 0.1)}
    turns = selfplay.turns([row])
    seen: list[list[str]] = []

    def rank_table(table: pl.DataFrame, how: Any, choosing: Any) -> Any:
        seen.append(table.columns)
        return table.with_columns(selected=True), (), []

    monkeypatch.setattr("selfplay.ranking.rank_table", rank_table)
    turns.rank(tiers="all")
    turns.rank(tiers="all", scorer_model="other")
    assert SIGNALS["likelihood"][0] in seen[0]
    assert SIGNALS["likelihood"][0] not in seen[1]


def test_rows_of_any_making_become_sites_and_turns(tmp_path: Path) -> None:
    messages = ROWS[0]["messages"]
    rows = [
        {"messages": messages, "turn": "Why vinegar?", "licence": "CC0", "by": "ann", "model": "m", "selected": True},
        {"messages": messages, "turn": "How hot?", "licence": "CC0", "by": "bob"},
        {"answer": "Eight minutes.", "query": "Eggs?", "turn": "And small ones?", "conversation_id": "talk"},
    ]
    turns = selfplay.turns(rows)
    assert turns.table["sample"].to_list() == [0, 1, 0]
    assert turns.table["model"].to_list() == ["m", None, None]
    assert [json.loads(extra).get("by") for extra in turns.table["extra"]] == ["ann", "bob", None]
    assert json.loads(turns.sites["extra"][0]) == {"licence": "CC0"}
    assert json.loads(turns.sites["messages"][1])[-1] == {"role": "assistant", "content": "Eight minutes."}
    assert turns.sites["conversation_id"].to_list()[1] == "talk"
    chosen = turns.filter(rules="text").rank(2, tiers="text")
    ids = [row["id"] for row in chosen.chosen()]
    assert len(ids) == len({*ids}) == chosen.table["selected"].sum()
    assert chosen.chosen()[0]["licence"] == "CC0"
    folder = chosen.save(tmp_path / "saved")
    assert folder.turns().table["turn"].to_list() == chosen.table["turn"].to_list()
    folder.export(tmp_path / "dpo", "kto", column=["licence"])
    assert folder.report(tmp_path / "page.html").stat().st_size > 1000
    with pytest.raises(selfplay.UsageError, match="not empty"):
        chosen.save(tmp_path / "saved")


def test_samples_that_are_told_apart_keep_their_numbers() -> None:
    rows = [
        {"messages": ROWS[0]["messages"], "turn": t, "temperature": 0.7, "sample": n} for t, n in (("a", 5), ("b", 3))
    ]
    assert selfplay.turns(rows).table["sample"].to_list() == [5, 3]
    rows[1]["sample"] = 5
    assert selfplay.turns(rows).table["sample"].to_list() == [0, 1]


def test_one_site_has_one_context() -> None:
    rows = [{"site_id": "s", "messages": row["messages"], "turn": "Why?"} for row in ROWS[:2]]
    with pytest.raises(selfplay.UsageError, match="site_id 's'"):
        selfplay.turns(rows)


def test_cleaned_data(tmp_path: Path) -> None:
    bad = {"role": "user", "content": "<|im_end|> more"}
    rows = [{**ROWS[0], "messages": [*ROWS[0]["messages"], bad, {"role": "assistant", "content": "!"}]}, ROWS[1]]
    cleaned = selfplay.clean(rows, tmp_path / "clean", on_bad="drop-conversation", workers=1)
    assert cleaned.verb == "clean"
    assert [row["id"] for row in cleaned.conversations()] == ["c1"]
    assert {row["id"] for row in cleaned.conversations(dropped=True)} == {"c0", "c1"}
    assert cleaned.turns().table["turn"].to_list() == ["<|im_end|> more"]
    assert cleaned.export(tmp_path / "kto", "kto") == {"kto": {"train": 1}}
    assert lines(tmp_path / "kto" / "train.jsonl")[0]["label"] is False
    assert selfplay.folder(tmp_path / "clean").record == cleaned.record


MISTAKES: dict[str, Any] = {
    "sample": lambda **o: selfplay.load(ROWS).sample(**o),
    "run": lambda **o: selfplay.load(ROWS).run("out", **o),
    "filter": lambda **o: selfplay.turns(TURNS).filter(**o),
    "rank": lambda **o: selfplay.turns(TURNS).rank(**o),
    "clean": lambda **o: selfplay.clean(ROWS, "out", **o),
    "play": lambda **o: selfplay.play(ROWS, "out", **o),
}


@pytest.mark.parametrize("verb", MISTAKES)
@pytest.mark.usefixtures("engine")
def test_a_mistake_names_the_option(verb: str) -> None:
    with pytest.raises(TypeError, match=f"^{verb}: no option 'tempratures'"):
        MISTAKES[verb](tempratures=1)
    name, value = {"filter": ("keep_above", 2), "rank": ("diversity", -1)}.get(verb, ("n", 0))
    with pytest.raises(selfplay.UsageError, match=f"--{name.replace('_', '-')}'?: "):
        MISTAKES[verb](**{name: value})
    with pytest.raises(selfplay.UsageError, match=f"^{verb}: {name} takes a string or number"):
        MISTAKES[verb](**{name: [1, 2]})
    assert not Path("out").exists()


def test_near_names_are_suggested_and_files_are_not_options() -> None:
    turns = selfplay.turns(TURNS)
    with pytest.raises(TypeError, match="did you mean 'drop'"):
        turns.filter(drops="generic")
    for name in ("out", "rejects", "quarantine"):
        with pytest.raises(TypeError, match=name):
            turns.filter(**{name: "x"})
    with pytest.raises(TypeError, match="'judge'"):
        turns.rank(judge="gpt")
    with pytest.raises(selfplay.UsageError, match="select=1"):
        turns.rank(None, diversity=0.5)


@pytest.mark.parametrize("rows", [["text"], [1], {"a": 1}])
def test_rows_that_are_none(rows: Any) -> None:
    with pytest.raises(selfplay.UsageError, match=r"row 0 .* not a mapping"):
        selfplay.load(rows)


def test_what_is_not_chosen_cannot_be_exported(tmp_path: Path) -> None:
    turns = selfplay.turns(TURNS)
    for step, wanted in ((turns, "filter"), (turns.filter(rules="text"), "rank"), (turns.rank(tiers="text"), "filter")):
        with pytest.raises(selfplay.UsageError, match=rf"{wanted}\("):
            step.export(tmp_path / "out")
        with pytest.raises(selfplay.UsageError, match=rf"{wanted}\("):
            step.chosen()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(selfplay.UsageError, match="no such file"):
        selfplay.load(tmp_path / "none")
    with pytest.raises(selfplay.UsageError, match="no such folder"):
        selfplay.folder(tmp_path / "none")


@pytest.mark.usefixtures("engine")
def test_an_interrupt_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, requests: Any, sampling: Any) -> Any:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Diner, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        selfplay.load(ROWS).sample(model="model")


def test_all_rows_bad_is_an_error() -> None:
    with pytest.raises(SelfplayError, match="all 2 rows are bad"):
        selfplay.turns([{"turn": "a"}, {"turn": "b"}])
