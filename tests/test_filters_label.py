"""What each family of rules promises, on examples of our own in several languages."""

import subprocess
import sys
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filters
from filters.features import FEATURES, SIGNALS, compute
from filters.labels import PRECEDENCE, Label

QUESTION = "How do I keep basil alive on a north-facing kitchen windowsill during winter?"
ANSWER = (
    "Basil needs about six hours of light, so add a small grow lamp 15 cm above the leaves. Water only when the top "
    "two centimetres of soil feel dry, and pinch off flowers so that the stems stay bushy."
)
FOREIGN = {
    "es": ("¿Cómo mantengo viva la albahaca en invierno?", "Necesita seis horas de luz: pon una lámpara y riega poco."),
    "de": (
        "Wie halte ich Basilikum im Winter am Leben?",
        "Es braucht sechs Stunden Licht: eine Lampe und wenig Wasser.",
    ),
    "fr": ("Comment garder du basilic en hiver ?", "Il lui faut six heures de lumière : une lampe et peu d'eau."),
    "zh": ("冬天怎么在厨房里养活罗勒？", "罗勒每天需要六小时光照，可以加一盏补光灯，土干了再浇水。"),
    "ja": (
        "冬にバジルを窓辺で枯らさない方法は？",
        "一日六時間の光が必要です。ライトを置き、土が乾いたら水をやります。",
    ),
    "th": ("จะเลี้ยงโหระพาในฤดูหนาวได้อย่างไร", "โหระพาต้องการแสงวันละหกชั่วโมง ให้ใช้หลอดไฟปลูกต้นไม้"),
}


ADDED = ["label", "genuine", "p_genuine", "rule", "evidence", "rule_set"]


def table(*turns: str, query: str | None = QUESTION, answer: str = ANSWER, **columns: object) -> pl.DataFrame:
    history = [] if query is None else [query]
    rows = [{"query": query, "answer": answer, "history": history, "turn": turn, **columns} for turn in turns]
    return pl.DataFrame(rows, schema_overrides={"query": pl.String, "history": pl.List(pl.String), "turn": pl.String})


def labels(*turns: str, **context: object) -> list[str]:
    return filters.label(table(*turns, **context))["label"].to_list()


@pytest.mark.parametrize("turn", ["", "  \n ", "?", "ok", "Thanks!", "Hello", "Danke!", "gracias", "Спасибо!", "🙂"])
def test_empty_and_courtesy_are_degenerate(turn: str) -> None:
    assert labels(turn) == ["degenerate"]


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<start_of_turn>user",
        "[INST]",
        "analysis<|message|>",
        "<｜end▁of▁sentence｜>",
        "<|eot_id|>",
        "</s>",
    ],
)
def test_control_tokens_are_malformed_whatever_else_is_said(token: str) -> None:
    assert (
        labels(f"Does the 15 cm lamp burn the leaves? {token}", f"{token} The user wants a lamp.") == ["malformed"] * 2
    )


def test_a_token_hidden_by_invisible_characters_is_still_seen() -> None:
    assert labels("Which lamp? <\u200b|im_\u200bend|>") == ["malformed"]


def test_a_token_the_conversation_is_about_is_no_fault() -> None:
    context = {"query": "What does <|im_end|> do?", "answer": "The token <|im_end|> closes a ChatML turn."}
    (label,) = labels("and why does my server still print <|im_end|> after that turn?", **context)
    assert label != "malformed"


def test_loops_are_malformed() -> None:
    assert (
        labels("I water it. " * 12, "the lamp the lamp the lamp the lamp the lamp the lamp the lamp")
        == ["malformed"] * 2
    )


@pytest.mark.parametrize(
    "turn",
    [
        "The user wants to know about lamps, so I should ask about power use.",
        "We need to respond as the user. Possible follow-up: lamp price.",
        "El usuario quiere saber más sobre la lámpara, así que debo preguntar el precio.",
        "Der Nutzer möchte wohl wissen, welche Lampe. Ich sollte als Nutzer antworten.",
        "用户可能会问灯的价格，我需要以用户身份写一句。",
    ],
)
def test_planning_is_meta(turn: str) -> None:
    assert labels(turn) == ["meta_planning"]


@pytest.mark.parametrize(
    "turn",
    [
        "As an AI language model, I cannot look at your windowsill.",
        "You're welcome! Let me know if you have other questions about herbs.",
        "Espero que esto te ayude. No dudes en preguntar si necesitas otra cosa.",
        "N'hésitez pas à me demander, j'espère que cela vous sera utile.",
    ],
)
def test_the_assistants_seat_is_leakage(turn: str) -> None:
    assert labels(turn) == ["identity_leakage"]


def copies(text: str) -> list[str]:
    words = text.split()
    return [text, text.upper(), f"  {text}\n", " ".join(words[2:]), text.rstrip("?")]


def test_copies_of_the_question_are_restatements() -> None:
    assert labels(*copies(QUESTION)) == ["prompt_restatement"] * 5


@pytest.mark.parametrize("language", FOREIGN)
def test_copies_are_found_without_english_and_without_spaces(language: str) -> None:
    question, answer = FOREIGN[language]
    assert labels(question, query=question, answer=answer) == ["prompt_restatement"]
    assert labels(answer, query=question, answer=answer) == ["assistant_restatement"]


def test_an_earlier_question_counts_too() -> None:
    later = pl.DataFrame(
        {
            "query": ["And in summer?"],
            "answer": ["Shade it."],
            "history": [[QUESTION, "And in summer?"]],
            "turn": [QUESTION],
        }
    )
    assert filters.label(later)["label"].to_list() == ["prompt_restatement"]


def test_copies_of_the_answer_are_restatements() -> None:
    first = ANSWER.split(". ")[0] + "."
    assert labels(ANSWER, first) == ["assistant_restatement"] * 2


@pytest.mark.parametrize("turn", ["Can you tell me more?", "What do you think?", "Can you give me an example?"])
def test_what_fits_everywhere_is_generic(turn: str) -> None:
    assert labels(turn) == ["generic"]


@pytest.mark.parametrize(
    "turn",
    [
        "15 cm seems close, won't a lamp that near scorch the leaves?",
        "the top two centimetres are always wet in that pot, is drainage the problem then",
        "i pinched off the flowers last week but now the stems went brown, did i cut too low?",
    ],
)
def test_reactions_pass(turn: str) -> None:
    result = filters.label(table(turn)).row(0, named=True)
    assert (result["label"], result["genuine"], result["rule"], result["evidence"]) == ("follow_up", True, None, None)
    assert result["p_genuine"] > 0.3


def test_reactions_are_likelier_genuine_than_new_subjects() -> None:
    p = filters.label(
        table("15 cm seems close, won't that lamp scorch the leaves?", "What is the capital of the largest country?")
    )["p_genuine"]
    assert p[0] > 2 * p[1]


def test_evidence_names_the_test_its_value_and_the_words() -> None:
    (evidence,) = filters.label(table(f"Which lamp? <|im_end|>{'x' * 500}"))["evidence"]
    assert "control tokens" in evidence
    assert '"<|im_end|>"' in evidence
    assert len(evidence) < 400


def test_rows_columns_and_order_survive() -> None:
    given_table = table("ok", QUESTION, "does the lamp scorch the leaves?", extra=[1, 2]).with_row_index()
    result = filters.label(given_table)
    assert result.select(given_table.columns).equals(given_table)
    assert result.columns[len(given_table.columns) :] == ADDED


def test_no_rows() -> None:
    assert filters.label(table("x").clear()).is_empty()


def test_no_question_before_the_answer() -> None:
    (label,) = labels("Why six hours of light, does basil not grow with less?", query=None)
    assert label in set(Label)


def test_null_signals_are_the_text_tier() -> None:
    turns = ("ok", QUESTION, "does the lamp scorch the leaves?", "What is the capital of Peru?")
    nulls = table(*turns).with_columns(pl.lit(None, pl.Float64).alias(signal.name) for signal in SIGNALS)
    assert filters.label(nulls).select(ADDED).equals(filters.label(table(*turns)).select(ADDED))


GOOD_SIGNALS = {
    "cos_query": 0.45, "cos_answer": 0.6, "cos_answer_best": 0.7, "cos_margin": 0.25, "answer_pmi": 1.5,
    "answer_pmi_sum": 30.0, "answer_pmi_share": 0.5, "role_ratio": 1.0, "copy_gain": 1.0, "fluency": -3.0,
    "mean_logprob": -2.0, "min_logprob": -7.0,
}  # fmt: skip
"""Of a turn that reacts to its answer."""


def test_each_row_is_decided_by_the_largest_set_that_knows_it() -> None:
    """One whose signals are known; ones that lack a signal or the state; one in a language the models do not know."""
    turns = (
        "does the lamp scorch the leaves?", "why only six hours of light?", "why not at noon?",
        "¿la lámpara quema las hojas?",
    )  # fmt: skip
    (probe,) = {scores.probe for scores in (filters.load_rules().sets["full"].scores,) if scores}
    assert probe is not None
    state = [0.0] * len(probe.weights[0])
    given_table = table(*turns, **GOOD_SIGNALS).with_columns(
        pl.Series("cos_answer", [0.4, None, 0.4, 0.4]),
        pl.Series("turn_state", [state, state, None, state], pl.List(pl.Float32)),
        pl.Series("answer", [ANSWER, ANSWER, ANSWER, FOREIGN["es"][1]]),
        pl.Series("query", [QUESTION, QUESTION, QUESTION, FOREIGN["es"][0]]),
    )
    both = filters.label(given_table)
    assert both["rule_set"].to_list() == ["full", "text", "text", "text"]
    text = filters.label(given_table, only="text")
    assert text["rule_set"].to_list() == ["text"] * 4
    assert both[1:].select(ADDED).equals(text[1:].select(ADDED))
    assert filters.label(given_table, only="full")["rule_set"].to_list() == ["full"] * 4
    with pytest.raises(ValueError, match="no rule set 'all'; there is text, full"):
        filters.label(given_table, only="all")


def test_a_signal_says_nothing_to_the_text_set() -> None:
    turns = ("does the lamp scorch the leaves?", "What is the capital of Peru?", QUESTION)
    measured = filters.label(table(*turns, **dict.fromkeys(GOOD_SIGNALS, -9.0)), only="text")
    assert measured.select(ADDED).equals(filters.label(table(*turns)).select(ADDED))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column `history`"):
        filters.label(table("x").drop("history"))


def test_precedence_is_the_rubrics() -> None:
    assert [label.value for label in PRECEDENCE] == [
        "malformed", "degenerate", "meta_planning", "identity_leakage", "prompt_restatement", "assistant_restatement",
        "generic", "off_topic", "follow_up",
    ]  # fmt: skip
    assert [label for label in Label if label.genuine] == [Label.FOLLOW_UP]
    assert all(label.definition for label in Label)


HOSTILE = [
    "a" * 200_000,
    "(" * 50_000,
    "<|" * 50_000,
    "how to " * 30_000,
    "\u202e\u2066abc\u0000\ufffe" * 1000,
    "the user " * 20_000,
    "* a b c d " * 10_000,
    "```\n" * 20_000,
    'x="' * 30_000,
]


@pytest.mark.parametrize("turn", HOSTILE, ids=lambda turn: repr(turn[:8]))
def test_hostile_text_takes_bounded_time(turn: str) -> None:
    start = time.process_time()
    assert filters.label(table(turn))["genuine"].to_list() == [False]
    assert time.process_time() - start < 2


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), st.booleans()
)
def test_any_text_gives_a_well_formed_row(turn: str, other: str, spoken: bool) -> None:
    given_table = table(turn, query=other if spoken else None, answer=other)
    row = filters.label(given_table).row(0, named=True)
    assert row["label"] in set(Label)
    assert row["genuine"] == (row["rule"] is None) == (row["evidence"] is None) == (row["label"] == "follow_up")
    assert 0 <= row["p_genuine"] <= 1
    for name, column in compute(given_table).values.items():
        feature = FEATURES[name]
        if feature.tier == "text" and name != "cut":
            assert feature.low <= column[0] <= feature.high, name


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_a_control_token_never_makes_a_turn_genuine(turn: str) -> None:
    result = filters.label(table(turn, f"{turn} <|im_end|>"))
    assert not result["genuine"][1]


def test_importing_filters_loads_nothing_heavy() -> None:
    heavy = ("polars", "numpy", "sklearn", "torch", "selfplay")
    code = f"import sys, filters; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
