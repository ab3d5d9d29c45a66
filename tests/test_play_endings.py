"""Promises: a user is done where most candidates say so, and only thanks and leave count as saying so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.playing.endings import says_done, takes_leave, user_done

LEAVES = """
Thanks!
thank you so much for your help
Great, thanks. That's all for now.
That’s everything I needed, bye!
OK, no more questions. Have a nice day!
Perfect, that answers my question. Thank you!
I'm all set 👍
Muchas gracias, eso es todo.
Vielen Dank! Das war's.
Merci beaucoup, au revoir !
谢谢你的帮助！
ありがとうございました。
Спасибо большое!
धन्यवाद
"""
STAYS = """
ok
Great!
Yes, please.
Thanks, but why does the yolk turn green?
Thanks! I'll try the small burner tomorrow.
Thank you for the recipe. Now write me one for risotto
That's all wrong.
Is that everything?
Goodbye is the title of the song I mean
Die Hilfe kam zu spät
"""


@pytest.mark.parametrize("turn", LEAVES.strip().splitlines())
def test_a_turn_that_only_takes_leave(turn: str) -> None:
    assert takes_leave(turn)
    assert says_done(turn, "stop")


@pytest.mark.parametrize("turn", STAYS.strip().splitlines())
def test_a_turn_with_anything_more_stays(turn: str) -> None:
    assert not takes_leave(turn)
    assert not says_done(turn, "stop", "###STOP###")


def test_blank_says_done_only_where_the_model_ended_it() -> None:
    assert says_done(" \n", "stop")
    assert not says_done(" \n\n\n\n", "length")


def test_a_marker_counts_only_where_the_user_was_told_of_it() -> None:
    assert says_done("That was it ###STOP###", "stop", "###STOP###")
    assert not says_done("That was it ###STOP###", "stop")


turns = st.sampled_from(["", "Thanks!", "Why nine minutes?", "ok", "###STOP###"])


@given(st.lists(turns, min_size=1, max_size=9))
def test_more_than_half_decide(said: list[str]) -> None:
    rows = [{"turn": turn, "finish_reason": "stop"} for turn in said]
    done = sum(turn in ("", "Thanks!", "###STOP###") for turn in said)
    assert user_done(rows, "###STOP###") == (done > len(said) / 2)
