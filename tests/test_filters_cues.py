"""Cues in what simulated and real users write: their end marks are found, their courtesies are no assistant's."""

import time

import polars as pl
import pytest

from filters.features import compute
from filters.text import cues

ANSWER = "Your booking is changed. Please let me know if you need anything else."


def count(name: str, turn: str, answer: str = ANSWER, history: tuple[str, ...] = ()) -> float:
    query = history[-1] if history else "Move my flight to Friday."
    table = pl.DataFrame({"query": [query], "answer": [answer], "history": [[query]], "turn": [turn]})
    return float(compute(table).values[name][0])


@pytest.mark.parametrize(
    "mark",
    [
        "###STOP###",
        "###TRANSFER###",
        "###OUT-OF-SCOPE###",
        "<meta>",
        "</meta>",
        "<END_OF_CONVERSATION>",
        "[END OF CONVERSATION]",
        "[CONVERSATION_END]",
        "<CAMEL_TASK_DONE>",
        "[STOP]",
        "<END>",
    ],
)
def test_marks_by_which_simulated_users_end_are_control_tokens(mark: str) -> None:
    assert count("control", f"No, that is all. {mark}") == 1
    assert count("control", f"No, that is all.{mark}") == 1


def test_an_end_mark_that_the_conversation_is_about_is_none() -> None:
    answer = "The simulated user ends with ###STOP### in that benchmark."
    assert count("control", "Why ###STOP### and not an end token?", answer) == 0
    assert count("control", "Why ###STOP### and not ###TRANSFER###?", answer) == 1


@pytest.mark.parametrize(
    "turn",
    [
        "### Notes ### are what I wanted",
        "Please STOP sending me mail. END.",
        "Is it #1 or ##2?",
        "I get <endpoint> in the log",
        "What does [end] mean here?",
        "A HEADING\n### SECOND HEADING",
        "write ###A### to the file",
    ],
)
def test_what_people_write_is_no_end_mark(turn: str) -> None:
    assert count("control", turn) == 0


@pytest.mark.parametrize(
    "turn",
    [
        "Is there anything else I should know before I finish?",
        "Is there anything else we can try?",
        "Please let me know if there's anything else I should send.",
        "Thank you for sharing that detail, and thanks for the clarification.",
        "Thank you for your patience, I have found the number.",
        "My name is Ann Lee. Please let me know if you need anything else.",
        "Let me know if you need any other information to verify me.",
    ],
)
def test_a_polite_customer_does_not_speak_from_the_assistants_seat(turn: str) -> None:
    assert count("assistant", turn) == 0


@pytest.mark.parametrize(
    "turn",
    [
        "It is resolved! Is there anything else I can assist you with?",
        "Is there anything else you'd like to change?",
        "Let me know if there is anything else you need.",
        "Let me know if you need help with that, or if you’d like an example.",
        "Roaming is off. Would you like me to turn it on for you?",
        "Let me know if there are any questions I can answer.",
        "You’re welcome! How can I help?",
    ],
)
def test_role_flips_speak_from_the_assistants_seat(turn: str) -> None:
    assert count("assistant", turn) >= 1


@pytest.mark.parametrize(
    "bait", ["#" * 200_000, "###" + "A" * 200_000, "###A" * 50_000, "[END_" * 40_000, "<A_" * 60_000]
)
def test_end_marks_are_looked_for_in_linear_time(bait: str) -> None:
    start = time.process_time()
    assert not cues.CONTROL.search(bait)
    assert time.process_time() - start < 1.0
