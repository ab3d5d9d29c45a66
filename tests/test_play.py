"""`selfplay play` with an engine without a model: what goes into dialogues, how they end, what a kill costs."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selfplay import execution, judging
from selfplay.cli import main
from selfplay.core import Candidate, Draw
from selfplay.engines.base import SampleRequest
from selfplay.errors import EngineError
from selfplay.playing import play
from tests.families import FAMILIES
from tests.scripted import ScriptedEngine

Speak = Callable[[SampleRequest, Draw], "str | tuple[str, str] | None"]
PROMPTS = [
    {"id": "a", "prompt": "How long do I boil an egg?", "goal": "a soft yolk", "mine": 10**30},
    {"id": "b", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "goal": "tell a child"},
    {"id": "c", "prompt": "Name a tree.", "goal": "a tall one"},
]

TALK = (
    "Simmer it for nine minutes, then cool it in ice water.",
    "You say nine minutes of simmering, but does that count from when it boils, with {} eggs?",
    "Count from the first bubbles, and use the small burner so that the shell does not crack.",
    "My small burner is broken, would the shell crack on the large one if I add {} spoons of vinegar?",
    "Vinegar only seals a crack; lower the egg in with a ladle and leave the lid off.",
    "I have no ladle here, can I leave the lid off and use {} forks instead?",
    "A slotted spoon is safer than a fork.",
)
"""By the number of messages before; answers and user turns in turn."""


def answers(request: SampleRequest) -> bool:
    """Whether the assistant is asked to speak."""
    return request.messages[-1]["role"] == "user"


class Talker(ScriptedEngine):
    """Says what `speak` says: a text, or a text and why it ended; by default a good answer and good user turns."""

    def __init__(self, speak: Speak, group: int = 1, script: Callable[[str], str | None] = lambda key: None) -> None:
        super().__init__(group, script)
        self.speak = speak
        self.requests: list[SampleRequest] = []

    def candidate(self, request: SampleRequest, draw: Draw, batch: str) -> Candidate:
        self.requests.append(request)
        said = self.speak(request, draw)
        if said is None:
            said = TALK[len(request.messages) - 1].format(draw.sample)
        text, reason = (said, "stop") if isinstance(said, str) else said
        return Candidate(draw, text, (1, 2), (-0.5, -0.5), reason, 2, 0, True)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Talker]:
    """Plays PROMPTS from a folder of its own; returns the engine."""
    monkeypatch.chdir(tmp_path)
    # Hundreds of small files and dozens of estimates: what they cost is not what is tested here.
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("filters.estimate.DRAWS", 20)
    family = next(family for family in FAMILIES if family.name == "smollm2")
    family.tokenizer(tmp_path / "model")
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))

    def call(
        *arguments: object,
        code: int = 0,
        speak: Speak = lambda request, draw: None,
        group: int = 1,
        script: Callable[[str], str | None] = lambda key: None,
        verb: str = "play",
        out: str = "out",
        opening: Any = None,
    ) -> Talker:
        engine = Talker(speak, group, script)

        @contextmanager
        def stages(job: Any, config: Any, select: Any, *_: Any) -> Iterator[Any]:
            with judging.opened(select, judging.Options(tiers="text")) as judge:
                yield engine, judge

        monkeypatch.setattr(execution, "stages", stages)
        monkeypatch.setattr(play, "open_engine", opening or (lambda *_, **__: engine))
        options = ["--model", "model", "--tiers", "text", "--n", "3", *map(str, arguments)]
        monkeypatch.setattr("selfplay.cli.leave_now", sys.exit)
        monkeypatch.setattr("sys.argv", ["selfplay", verb, "prompts.jsonl", "-o", out, *options])
        with pytest.raises(SystemExit) as end:
            main()
        assert int(end.value.code or 0) == code
        return engine

    return call


def rows(name: str = "conversations.jsonl", out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / name).read_text().splitlines()]


def roles(row: dict[str, Any]) -> str:
    return "".join(message["role"][0] for message in row["messages"])


def record(out: str = "out") -> dict[str, Any]:
    return dict(json.loads((Path(out) / "run.json").read_bytes()))


def test_a_dialogue_has_the_chosen_turns_and_ends_with_an_answer(played: Callable[..., Talker]) -> None:
    engine = played("--rounds", 2)
    found = rows()
    assert [row["id"] for row in found] == ["a", "b", "c"]
    assert {roles(row) for row in found} == {"uauaua"}
    assert {row["ending"] for row in found} == {"rounds"}
    assert found[0]["mine"] == 10**30
    for number in (1, 2):
        chosen = rows("chosen.jsonl", f"out/round-0{number}")
        for row, site in zip(found, chosen, strict=True):
            turn = row["user_turns"][number - 1]
            assert row["messages"][: turn["index"] + 1] == site["messages"]
            assert turn["groundedness"] == site["groundedness"]
            assert turn["label"] == "follow_up"
            assert turn["index"] == 2 * number
    assert Counter(engine.asked) == {f"{c}#{i}": 1 for c in "abc" for i in range(5)}


def test_every_round_is_a_run_with_all_candidates(played: Callable[..., Talker]) -> None:
    played("--rounds", 2, "--temperature", "0.7:2", "--temperature", "1.0:3")
    for name in ("out/round-01", "out/round-02"):
        assert record(name)["status"] == "done"
        turns = pl.read_parquet(f"{name}/turns/*.parquet")
        assert turns.group_by("site_id").len()["len"].to_list() == [5, 5, 5]
        assert turns["rejected_for"].is_null().sum() == turns["selected"].sum() == 3
    answered = pl.read_parquet("out/answers-03/sampled/*.parquet")
    assert answered["temperature"].unique().to_list() == [0.7]
    assert len(answered) == 3


def test_the_table_tells_every_round(played: Callable[..., Talker], capsys: pytest.CaptureFixture[str]) -> None:
    def speak(request: SampleRequest, draw: Draw) -> str | None:
        return "" if request.key == "b#3" else "ok" if request.key == "a#1" else None

    played("--rounds", 2, speak=speak)
    told = capsys.readouterr().err
    summary = record()["summary"]
    assert [row["open"] for row in summary["rounds"]] == [3, 2, 1]
    assert summary["rounds"][0]["endings"] == {"no_survivor": 1}
    assert summary["rounds"][1]["endings"] == {"user_done": 1}
    assert summary["rounds"][2]["endings"] == {"rounds": 1}
    assert summary["rounds"][0]["candidates"] == 9
    assert summary["conversations"] == sum(summary["endings"].values()) == 3
    assert summary["completion_tokens"] == 2 * (3 + 9 + 2 + 6 + 1)
    assert "3 dialogues from 3 prompts; endings: rounds 1, user_done 1, no_survivor 1" in told


def test_without_a_survivor_the_dialogue_ends_with_the_answer_before(played: Callable[..., Talker]) -> None:
    played(speak=lambda request, draw: "ok" if request.key == "b#3" else None)
    ended = rows()[1]
    assert (ended["ending"], roles(ended)) == ("no_survivor", "uaua")
    assert "degenerate 3" in ended["ending_reason"]
    assert len(rows("chosen.jsonl", "out/round-02")) == 2
    assert pl.read_parquet("out/round-03/turns/*.parquet")["conversation_id"].unique().sort().to_list() == ["a", "c"]


def test_a_user_is_done_where_most_candidates_say_so(played: Callable[..., Talker]) -> None:
    def speak(request: SampleRequest, draw: Draw) -> str | None:
        if request.key == "a#1" and draw.sample < 2:
            return "" if draw.sample else "Thank you so much, that's all!"
        return "" if request.key == "b#1" and draw.sample == 0 else None

    played("--rounds", 1, speak=speak)
    assert [(row["ending"], roles(row)) for row in rows()] == [
        ("user_done", "ua"),
        ("rounds", "uaua"),
        ("rounds", "uaua"),
    ]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_cut_answer_ends_the_dialogue_before_it_unless_allowed(played: Callable[..., Talker], allowed: bool) -> None:
    def speak(request: SampleRequest, draw: Draw) -> tuple[str, str] | None:
        return ("Boil the egg for nine minutes and", "length") if request.key in ("a#0", "b#2") else None

    played("--rounds", 1, *(["--allow-cut-answers"] if allowed else []), speak=speak)
    found = {row["id"]: row for row in rows()}
    if allowed:
        assert [found[name]["cut_answers"] for name in "abc"] == [[1], [3], []]
        assert {roles(row) for row in found.values()} == {"uaua"}
        return
    assert set(found) == {"b", "c"}
    assert (found["b"]["ending"], roles(found["b"]), found["b"]["user_turns"]) == ("budget", "ua", [])
    assert "cut at 2 tokens" in found["b"]["ending_reason"]
    assert [(row["id"], row["ending"], row["mine"]) for row in rows("unanswered.jsonl")] == [("a", "budget", 10**30)]


def test_a_dialogue_ends_before_it_could_exceed_its_budget(played: Callable[..., Talker]) -> None:
    def length() -> int:
        site = pl.read_parquet("out/answers-02/sites/*.parquet").sort("ordinal")
        return int(site["prompt_tokens"].max()) + 2  # type: ignore[operator, arg-type]

    limits = ("--max-tokens", 30, "--assistant-max-tokens", 20)
    played("--rounds", 2, *limits)
    room = 30 + 20 + play.HEADERS
    assert {row["ending"] for row in rows()} == {"rounds"}
    longest = length()
    played("--rounds", 2, *limits, "--budget", longest + room, "--fresh")
    assert {row["ending"] for row in rows()} == {"rounds"}
    played("--rounds", 2, *limits, "--budget", longest + room - 1, "--fresh")
    assert Counter(row["ending"] for row in rows())["budget"] >= 1
    assert {len(row["messages"]) for row in rows() if row["ending"] == "budget"} == {4}


@pytest.mark.parametrize("answer", ["<|im_start|>user\nNo, you answer.", " \n", "<think>\nhm, an egg"])
def test_an_answer_that_cannot_be_used_takes_its_user_turn_with_it(played: Callable[..., Talker], answer: str) -> None:
    played("--rounds", 2, speak=lambda request, draw: answer if request.key == "b#2" else None)
    broken = rows()[1]
    assert (broken["ending"], roles(broken), broken["user_turns"]) == ("failed", "ua", [])
    assert "cannot be used" in broken["ending_reason"]


def test_thinking_is_kept_apart_from_the_answer(played: Callable[..., Talker]) -> None:
    def speak(request: SampleRequest, draw: Draw) -> str | None:
        return "<think>\nAn egg.\n</think>\n\nNine minutes of simmering do.\n" if request.key == "a#0" else None

    played("--rounds", 1, speak=speak)
    expected = {"role": "assistant", "content": "Nine minutes of simmering do.", "reasoning_content": "An egg."}
    assert rows()[0]["messages"][1] == expected


def test_a_site_that_failed_is_tried_again_and_its_dialogue_goes_on(played: Callable[..., Talker]) -> None:
    played("--rounds", 2, out="whole")
    played("--rounds", 2, code=1, script=lambda key: "out of memory" if key in ("b#1", "c#2") else None)
    found = rows()
    assert [(row["ending"], roles(row)) for row in found] == [("rounds", "uauaua"), ("failed", "ua"), ("failed", "ua")]
    assert found[1]["ending_reason"] == "out of memory"
    assert {row["site_id"] for row in rows("failed.jsonl")} == {"b#1", "c#2"}
    engine = played("--rounds", 2)
    assert sorted(engine.asked) == [f"{c}#{i}" for c, first in (("b", 1), ("c", 2)) for i in range(first, 5)]
    assert rows() == rows(out="whole")
    assert not Path("out/failed.jsonl").exists()


def turns(out: str) -> pl.DataFrame:
    parts = [pl.read_parquet(path) for path in sorted(Path(out).glob("round-*/turns/*.parquet"))]
    return pl.concat(parts).sort("site_id", "temperature", "sample")


@pytest.mark.parametrize(("dies_at", "group"), [("a#0", 1), ("b#1", 1), ("a#2", 2), ("c#3", 1), ("b#4", 2)])
def test_a_resumed_play_equals_an_undisturbed_one(played: Callable[..., Talker], dies_at: str, group: int) -> None:
    def die(key: str) -> None:
        if key == dies_at:
            raise EngineError("gone")

    def speak(request: SampleRequest, draw: Draw) -> str | None:
        return "ok" if request.key == "a#3" else None

    whole = played("--rounds", 2, group=group, out="whole", speak=speak)
    first = played("--rounds", 2, group=group, script=die, code=1, speak=speak)
    second = played("--rounds", 2, group=group, speak=speak)
    assert rows() == rows(out="whole")
    assert turns("out").equals(turns("whole"))
    if group == 1:
        assert sorted(first.asked + second.asked) == sorted([*whole.asked, dies_at]), "nothing finished is done twice"


def test_a_finished_play_has_nothing_to_do(played: Callable[..., Talker]) -> None:
    played("--rounds", 1)
    before, sessions = Path("out/conversations.jsonl").read_bytes(), record("out/round-01")["sessions"]
    assert not played("--rounds", 1).asked
    assert Path("out/conversations.jsonl").read_bytes() == before
    assert record("out/round-01")["sessions"] == sessions


def test_an_interrupted_play_goes_on(played: Callable[..., Talker], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(key: str) -> None:
        if key == "b#2":
            raise KeyboardInterrupt

    played("--rounds", 2, script=interrupt, code=130)
    assert "goes on from here: out" in capsys.readouterr().err
    assert record()["status"] == "interrupted"
    played("--rounds", 2)
    assert {row["ending"] for row in rows()} == {"rounds"}
    assert record()["status"] == "done"


def test_more_rounds_go_on_from_a_finished_play(played: Callable[..., Talker]) -> None:
    played("--rounds", 3, out="whole")
    played("--rounds", 1)
    engine = played("--rounds", 3)
    assert sorted(engine.asked) == [f"{c}#{i}" for c in "abc" for i in range(3, 7)]
    assert rows() == rows(out="whole")
    played("--rounds", 2, code=2)


def test_a_folder_is_refused_for_other_settings_or_another_verb(
    played: Callable[..., Talker], capsys: pytest.CaptureFixture[str]
) -> None:
    played("--rounds", 1)
    before = Path("out/run.json").read_bytes()
    for arguments, said in (
        (("--assistant-temperature", 0.2), "assistant.temperatures.0.2: default -> 1"),
        (("--allow-cut-answers",), "allow_cut_answers: False -> True"),
        (("--min-groundedness", 0.5), "min_groundedness"),
    ):
        played("--rounds", 1, *arguments, code=2)
        assert said in capsys.readouterr().err
    played(verb="run", code=2)
    assert "is not of a selfplay run" in capsys.readouterr().err
    assert Path("out/run.json").read_bytes() == before
    shutil.copytree("out/round-01", "run")
    played(out="run", code=2)
    assert "is not of a selfplay play" in capsys.readouterr().err


def test_fresh_removes_what_was_played_and_nothing_else(played: Callable[..., Talker]) -> None:
    played("--rounds", 2)
    mine = Path("out/round-02/mine.txt")
    mine.write_text("mine")
    played("--rounds", 1, "--seed", 7, "--fresh")
    assert mine.read_text() == "mine"
    assert not Path("out/answers-03").exists()
    assert [path.name for path in Path("out/round-02").iterdir()] == ["mine.txt"]
    assert {roles(row) for row in rows()} == {"uaua"}


def test_only_the_user_sees_the_persona(played: Callable[..., Talker]) -> None:
    engine = played("--rounds", 1, "--persona-column", "goal")
    assert len(engine.requests) == 3 * (1 + 3 + 1)
    for request in engine.requests:
        goal = next(row["goal"] for row in PROMPTS if row["id"] == request.key[0])
        assert (str(goal) in request.prompt.text) == (not answers(request))
        assert ("###STOP###" in request.prompt.text) == (not answers(request))
        assert str(goal) not in str(request.messages)
    assert all(row["primed"] for row in rows())
    assert pl.read_parquet("out/round-01/turns/*.parquet")["primed"].all()
    assert "asked for by instruction" in record("out/round-01")["summary"]["estimated_genuine"]["after"]["why"]


def test_a_primed_user_ends_with_the_marker(played: Callable[..., Talker]) -> None:
    def speak(request: SampleRequest, draw: Draw) -> str | None:
        if request.key == "a#1":
            return "That is what I wanted. DONE" if draw.sample else None
        return (
            "I am DONE with boiling for ten minutes, what next?" if request.key == "b#1" and not draw.sample else None
        )

    mark = ("--system", "The user wants {persona}, then writes {end}.", "--persona-column", "goal")
    engine = played("--rounds", 1, *mark, "--end-marker", "DONE", speak=speak)
    assert any("The user wants a soft yolk, then writes DONE." in request.prompt.text for request in engine.requests)
    assert [row["ending"] for row in rows()] == ["user_done", "rounds", "rounds"]


def test_each_side_may_have_an_engine_of_its_own(played: Callable[..., Talker]) -> None:
    opened: list[tuple[str, str | None, tuple[str, ...], bool]] = []
    for arguments, expected in (
        ([], []),
        (["--user-model", "other"], [("transformers", "model", (), False)]),
        (["--engine", "openai", "--assistant-chat", "--base-url", "http://a", "--user-base-url", "http://u",
          "--user-model", "other"], [("openai", "model", ("http://a",), True)]),
    ):  # fmt: skip
        shutil.copytree("model", "other", dirs_exist_ok=True)
        engine = Talker(lambda request, draw: None)

        def opening(options: Any, *_: Any, answering: bool, engine: Talker = engine, **__: Any) -> Talker:
            opened.append((options.engine, options.model, options.base_urls, options.chat))
            assert answering
            return engine

        talker = played("--rounds", 1, "--fresh", *arguments, opening=opening)
        assert opened == expected
        opened.clear()
        assert all(answers(request) for request in engine.requests)
        assert bool(engine.requests) == bool(expected)
        assert {answers(request) for request in talker.requests} == ({False} if expected else {False, True})
        assert rows()[0]["user_model"] == ("other" if expected else "model")


def test_rows_without_a_persona_or_a_prompt_are_quarantined(played: Callable[..., Talker]) -> None:
    more = [{"id": "d", "prompt": "Hi"}, {"prompt": " ", "goal": "x"}, {"id": "e"}]
    with open("prompts.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    played("--rounds", 1, "--persona-column", "goal")
    bad = rows("quarantine.jsonl")
    assert [row["line"] for row in bad] == [4, 5, 6]
    assert [row["reason"].partition(":")[0] for row in bad] == ["no persona", "no prompt", "no conversation"]
    assert len(rows()) == 3
    played("--rounds", 1, "--persona-column", "goal", "--max-bad", 2, "--fresh", code=3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--system", "Be {persona}."], "--persona-column"),
        (["--persona-column", "goal", "--system", "Be kind."], "{persona}"),
        (["--persona-column", "goal", "--system", "drop"], "--system drop"),
        (["--end-marker", "X"], "--end-marker"),
        (["--user-engine", "sglang"], "--base-url"),
        (["--assistant-chat", "--budget", "9"], "--assistant-chat"),
        (["--assistant-chat"], "--engine openai"),
        (["--engine", "sglang", "--base-url", "http://h", "--user-model", "x"], "--user-base-url"),
        (["--engine", "sglang", "--launch", "--user-engine", "transformers"], "--user-model"),
    ],
)
def test_options_that_do_not_fit_get_one_line(
    played: Callable[..., Talker], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    played(*arguments, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
