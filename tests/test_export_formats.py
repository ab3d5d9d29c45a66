"""What goes into each format, from runs, cleaned data and plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.errors import UsageError
from selfplay.exporting.formats import FORMATS, Options, openai
from selfplay.inputs.shapes import split_row
from selfplay.results import open_results
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, play_folder, run_folder

SITE = [
    candidate("From the fridge?", 0.9, 0.8),
    candidate("Just curious.", 0.4, 0.5, "lower_rank"),
    candidate("Eggs?", 0.1, 0.1, "flagged", label="prompt_restatement"),
    candidate("And then I thou", 0.1, 0.1, "flagged", label="malformed", finish_reason="length"),
    candidate(" ", 0.0, 0.1, "flagged", label="degenerate"),
]
SEEN = [{"role": "assistant", "content": "Eggs?"}, {"role": "user", "content": "Eight minutes."}]
TALK = CONTEXT + dialogue(2)


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def rows(folder: Path, name: str, **options: Any) -> list[dict[str, Any]]:
    """Rows of a format; the id that decides the split is the row's own, where it has one."""
    found = list(FORMATS[name](open_results(folder), Options(**options)))
    assert all(row.get("conversation_id", key) == key for key, row in found)
    ids = [row["id"] for _, row in found if "id" in row]
    assert len(set(ids)) == len(ids)
    return [row for _, row in found]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", [[SITE], [[candidate("Eggs?", 0.1, 0.1, "flagged")]]], extra={"lang": "en"})


def test_prompt_and_completion_of_the_chosen_turn(run: Path) -> None:
    (row,) = rows(run, "prompt-completion")
    assert row == {
        "id": "c0#2/1/0", "conversation_id": "c0", "prompt": SEEN,
        "completion": [said("assistant", "From the fridge?")],
        "model": "tiny", "primed": False, "temperature": 1.0, "sample": 0, "p_genuine": 0.8, "groundedness": 0.9,
    }  # fmt: skip


def test_columns_of_the_input_that_were_asked_for(run: Path) -> None:
    assert rows(run, "dpo", columns=("lang", "none"))[0]["lang"] == "en"
    assert "lang" not in rows(run, "dpo")[0]


def test_a_system_message_and_an_opening_come_before_the_simulators_own_turns(run: Path) -> None:
    before = [said("system", "You are the user."), said("user", "Hello?")]
    for name in ("prompt-completion", "dpo", "kto", "reward"):
        assert rows(run, name, system="You are the user.", opening="Hello?")[0]["prompt"] == [*before, *SEEN]
    (row,) = rows(run, "messages", opening="Hello?")
    assert row["messages"] == [said("user", "Hello?"), *SEEN, said("assistant", "From the fridge?")]


def test_no_opening_where_the_assistant_spoke_first(tmp_path: Path) -> None:
    spoke = {"c0": [said("assistant", "Hi! What is it?")]}
    run_folder(tmp_path, [[[candidate("Eggs?")]]], spoke)
    (row,) = rows(tmp_path, "prompt-completion", opening="Hello?")
    assert row["prompt"] == [said("user", "Hi! What is it?")]


def test_a_runs_dialogues_end_with_the_chosen_turn(run: Path) -> None:
    (row,) = rows(run, "messages")
    assert row["messages"] == [*SEEN, said("assistant", "From the fridge?")]
    (row,) = rows(run, "openai")
    assert row == {"messages": [SEEN[0] | {"weight": 0}, SEEN[1], said("assistant", "From the fridge?", weight=1)]}
    (row,) = rows(run, "sharegpt")
    assert row["conversations"] == [
        {"from": "gpt", "value": "Eggs?"}, {"from": "human", "value": "Eight minutes."},
        {"from": "gpt", "value": "From the fridge?"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["assistant", "messages", "prompt-completion", "openai", "sharegpt"])
def test_no_assistant_learns_from_turns_that_have_no_answer(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match="have no answers"):
        rows(run, name, side="assistant")


def test_pairs_against_survivors_and_faults_with_a_margin(run: Path) -> None:
    assert [(r["rejected"][0]["content"], r["kind"]) for r in rows(run, "dpo")] == [
        ("Just curious.", "survivors"), ("Eggs?", "flagged"),
    ]  # fmt: skip
    assert [r["kind"] for r in rows(run, "dpo", margin=0.6)] == ["flagged"]
    assert [r["kind"] for r in rows(run, "dpo", pairs="survivors")] == ["survivors"]


def test_kto_has_what_is_surely_good_and_what_is_surely_bad(run: Path) -> None:
    found = [(row["completion"][0]["content"], row["label"], row["turn_label"]) for row in rows(run, "kto")]
    assert found == [
        ("From the fridge?", True, "follow_up"), ("Eggs?", False, "prompt_restatement"), ("Eggs?", False, "generic"),
    ]  # fmt: skip


def test_reward_grades_all_turns_that_can_be_read_whole(run: Path) -> None:
    found = [(row["completion"][0]["content"], row["score"], row["passed"]) for row in rows(run, "reward")]
    assert found == [
        ("From the fridge?", pytest.approx(0.72), True), ("Just curious.", pytest.approx(0.2), True),
        ("Eggs?", pytest.approx(0.01), False), ("Eggs?", pytest.approx(0.01), False),
    ]  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    replaced = [*TALK[:5], said("user", "Better?")]
    return clean_folder(
        tmp_path / "clean",
        [
            {"id": "whole", "messages": TALK, "user_turns": [judged(3), judged(5)], "lang": "en"},
            {"id": "flagged", "messages": TALK, "user_turns": [judged(3), judged(5, bad=True)]},
            {"id": "cut", "messages": TALK[:5], "original_messages": TALK,
             "user_turns": [judged(3), judged(5, bad=True)]},
            {"id": "replaced", "messages": replaced, "original_messages": TALK,
             "user_turns": [judged(3), judged(5, bad=True)]},
            {"id": "bad", "messages": TALK, "user_turns": [judged(3, bad=True), judged(5)]},
        ],
        [{"id": "dropped", "messages": TALK, "user_turns": [judged(3, bad=True), judged(5)], "dropped_for": "x"}],
    )  # fmt: skip


def test_dialogues_of_cleaned_data_stop_before_the_first_bad_turn(clean: Path) -> None:
    found = {
        row["id"]: [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        for row in rows(clean, "messages")
    }
    assert found == {
        "whole": ["Eggs?", "Turn 1?", "Turn 2?"], "flagged": ["Eggs?", "Turn 1?"], "cut": ["Eggs?", "Turn 1?"],
        "replaced": ["Eggs?", "Turn 1?", "Better?"],
    }  # fmt: skip
    for row in rows(clean, "messages"):
        assert row["messages"][-1]["role"] == "assistant"


def test_the_assistants_dialogues_end_with_an_answer(clean: Path) -> None:
    found = {row["id"]: row["messages"] for row in rows(clean, "assistant", columns=("lang",))}
    assert found == {
        "whole": TALK, "flagged": TALK[:5], "cut": TALK[:5], "replaced": TALK[:5], "bad": TALK[:3],
    }  # fmt: skip
    assert rows(clean, "messages", side="assistant", columns=("lang",))[0]["lang"] == "en"


def test_answers_to_good_turns_of_cleaned_data(clean: Path) -> None:
    found = rows(clean, "prompt-completion", side="assistant")
    assert [(row["id"], row["completion"]) for row in found] == [
        ("whole#3", [TALK[4]]), ("whole#5", [TALK[6]]), ("flagged#3", [TALK[4]]), ("cut#3", [TALK[4]]),
        ("replaced#3", [TALK[4]]),
    ]  # fmt: skip
    assert found[1]["prompt"] == TALK[:6]


def test_an_answer_comes_with_the_tools_that_it_called(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"what": "eggs"}}}
    answer = [
        said("assistant", "", tool_calls=[call]),
        said("tool", "8", tool_call_id="1"),
        said("assistant", "Eight."),
    ]
    talk = [*CONTEXT, said("user", "Look it up."), *answer]
    clean_folder(tmp_path, [{"id": "c", "messages": talk, "user_turns": [judged(3)], "tools": [{"name": "find"}]}])
    (row,) = rows(tmp_path, "prompt-completion", side="assistant")
    assert (row["completion"], json.loads(row["tools"])) == (answer, [{"name": "find"}])
    (row,) = rows(tmp_path, "openai", side="assistant")
    assert row["messages"][4]["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"what": "eggs"}'}
    assert set(row) == {"messages", "tools"}
    (row,) = rows(tmp_path, "sharegpt", side="assistant")
    assert json.loads(row["conversations"][4]["value"]) == call["function"]
    (row,) = rows(tmp_path, "messages")
    assert [message["content"] for message in row["messages"]] == ["Eggs?", "Eight minutes.", "Look it up."]


def test_turns_of_cleaned_data(clean: Path) -> None:
    assert [row["id"] for row in rows(clean, "prompt-completion")] == [
        "whole#2", "whole#4", "flagged#2", "cut#2", "replaced#2", "bad#4",
    ]  # fmt: skip
    assert {row["id"] for row in rows(clean, "kto") if not row["label"]} == {
        "flagged#4", "cut#4", "replaced#4", "bad#2", "dropped#2",
    }  # fmt: skip
    assert [row["id"] for row in rows(clean, "kto") if row["label"]] == [
        "whole#2", "whole#4", "flagged#2", "cut#2", "replaced#2", "bad#4",
    ]  # fmt: skip
    assert all(row["score"] == row["p_genuine"] for row in rows(clean, "reward"))


def test_pairs_of_cleaned_data_need_replacements(clean: Path) -> None:
    with pytest.raises(UsageError, match="nothing to pair; clean with --on-bad replace"):
        rows(clean, "dpo")
    run_folder(clean / "replacements", [[SITE]], {"replaced": TALK[:5]})
    first, *others = rows(clean, "dpo")
    assert (first["kind"], first["rejected_label"]) == ("replaced", "malformed")
    assert first["prompt"] == [
        *SEEN, said("assistant", "Turn 1?"), said("user", "Answer 1."),
    ]  # fmt: skip
    assert (first["chosen"], first["rejected"]) == ([said("assistant", "Better?")], [said("assistant", "Turn 2?")])
    assert [row["kind"] for row in others] == ["survivors", "flagged"]
    assert [row["kind"] for row in rows(clean, "dpo", margin=0.1)] == ["survivors", "flagged"]
    assert "c0#2/1/0" in {row["id"] for row in rows(clean, "prompt-completion")}


@pytest.fixture
def play(tmp_path: Path) -> Path:
    finished = [
        {"id": "c0", "messages": TALK, "ending": "rounds"},
        {"id": "c1", "messages": [*TALK, said("user", "Unanswered?")], "ending": "budget"},
        {"id": "c2", "messages": CONTEXT, "ending": "no_survivor", "tools": None},
        {"id": "c3", "messages": TALK, "ending": "rounds", "user_turns": [{"index": 5}], "cut_answers": [6]},
        {"id": "c4", "messages": TALK, "ending": "rounds", "user_turns": [{"index": 3}], "cut_answers": [2, 4]},
    ]
    return play_folder(tmp_path / "play", 2, finished)


def test_a_plays_dialogues_and_turns(play: Path) -> None:
    assert [(row["id"], row["messages"][-1]["content"]) for row in rows(play, "messages")] == [
        ("c0", "Turn 2?"), ("c1", "Unanswered?"), ("c3", "Turn 2?"), ("c4", "Turn 1?"),
    ]  # fmt: skip
    assert {row["id"]: row["messages"] for row in rows(play, "assistant")} == {
        "c0": TALK, "c1": TALK, "c2": CONTEXT, "c3": TALK[:5],
    }  # fmt: skip
    assert [row["completion"] for row in rows(play, "prompt-completion", side="assistant")] == [
        [TALK[4]],
        [TALK[6]],
    ] * 2
    assert [row["id"] for row in rows(play, "prompt-completion")] == ["c0#2/1/0", "c1#2/1/0", "c0#4/1/0", "c1#4/1/0"]
    assert [row["kind"] for row in rows(play, "dpo")] == ["flagged"] * 4


def test_sharegpt_is_read_back_by_our_own_reader(clean: Path) -> None:
    for row, plain in zip(rows(clean, "sharegpt", side="assistant"), rows(clean, "assistant"), strict=True):
        assert list(split_row(row, None)[2]) == plain["messages"]


def test_rows_of_a_play_that_are_damaged_are_named(play: Path) -> None:
    with open(play / "conversations.jsonl", "a") as file:
        file.write('{"messages": "x"}\n')
    with pytest.raises(UsageError, match="line 6 is no row of `selfplay play`"):
        rows(play, "messages")


MESSAGE = st.one_of(
    st.builds(said, st.sampled_from(["user", "assistant", "system", "tool"]), st.sampled_from(["", "x", "y"])),
)


@given(st.lists(MESSAGE, max_size=8), st.booleans())
def test_weights_stand_on_the_good_turns_whatever_flipping_leaves_out(
    tmp_path_factory: pytest.TempPathFactory, between: list[dict[str, Any]], opening: bool
) -> None:
    talk = [
        *CONTEXT,
        said("user", "good 0"),
        *between,
        said("assistant", "a"),
        said("user", "good 1"),
        said("tool", "t"),
    ]
    places = [place for place, message in enumerate(talk) if message["content"].startswith("good")]
    folder = tmp_path_factory.mktemp("clean")
    clean_folder(folder, [{"id": "c", "messages": talk, "user_turns": [judged(place) for place in places]}])
    ((_, row),) = openai(open_results(folder), Options(opening="Hi" if opening else None))
    assert [message["content"] for message in row["messages"] if message.get("weight")] == ["good 0", "good 1"]
    assert all("weight" in message for message in row["messages"] if message["role"] == "assistant")


def test_kto_leaves_out_turns_that_were_kept_though_a_rule_fired(tmp_path: Path) -> None:
    doubtful = judged(5) | {"label": "off_topic", "genuine": False}
    clean_folder(tmp_path, [{"id": "c", "messages": TALK, "user_turns": [judged(3), doubtful]}])
    assert [(row["id"], row["label"]) for row in rows(tmp_path, "kto")] == [("c#2", True)]
    assert [row["id"] for row in rows(tmp_path, "prompt-completion")] == ["c#2", "c#4"]
