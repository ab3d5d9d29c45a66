"""The text tier, in whole columns, says what the obvious way says row by row, and stays fast on hostile text."""

import itertools
import json
import re
import time
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import features
from filters.features import FEATURES, TEXT, compute
from filters.text import cues, matches, remarks
from filters.text.hashing import Index, mix
from filters.text.patterns import counted, spell
from filters.text.units import EMPTY_WORDS

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003134f]")


def in_word(char: str) -> bool:
    return char.isalnum() or (ord(char) < 0x2000 and unicodedata.category(char).startswith("M"))


def units(text: str) -> list[str]:
    """Units of a text, the slow and obvious way."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]", "", text)
    inside = [in_word(before) and in_word(after) for before, after in zip(text, text[2:], strict=False)]
    text = "".join(
        char for char, joins in zip(text, [False, *inside, False], strict=False) if not (joins and char in "'’")
    )
    found: list[str] = []
    for kind, group in itertools.groupby(text, lambda char: in_word(char) + 2 * bool(UNSPACED.match(char))):
        run = "".join(folded if len(folded := char.casefold()) == 1 else char for char in group)
        if kind == 1:
            found.append(stem(run))
        elif kind == 3:
            found.extend([run] if len(run) == 1 else [run[place : place + 2] for place in range(len(run) - 1)])
    return found


def stem(word: str) -> str:
    return (word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word)[:6]


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)*", unicodedata.normalize("NFKC", text).replace(",", ""))


EMPTY = {unit for word in EMPTY_WORDS for unit in units(word)}


def lcs(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for one in left:
        above = row.copy()
        for place, other in enumerate(right):
            row[place + 1] = above[place] + 1 if one == other else max(above[place + 1], row[place])
    return row[-1]


def expected(turn: str, answer: str, query: str | None) -> dict[str, float]:
    own, told, asked = units(turn), units(answer), units(query or "")
    everything, content = set(own), set(own) - EMPTY
    words = content or everything
    runs = [tuple(own[place : place + 3]) for place in range(len(own) - 2)]
    told_runs = {tuple(told[place : place + 3]) for place in range(len(told) - 2)}
    told_content = [unit for unit in told if unit not in EMPTY] or told

    figures, told_figures, asked_figures = (numbers(text) for text in (turn, answer, query or ""))

    def share(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    return {
        "content": len(content),
        "new": len(content - set(told) - set(asked)),
        "answer_only": len((content & set(told)) - set(asked)),
        "answer_only_share": share(len((content & set(told)) - set(asked)), len(content)),
        "answer_cover": share(len(words & set(told)), len(words)),
        "answer_recall": share(sum(unit in everything for unit in told_content), len(told_content)),
        "answer_run": share(len(set(runs) & told_runs), len(set(runs))),
        "answer_order": share(lcs(own, told), len(own)),
        "numbers_new": len(set(figures) - set(told_figures) - set(asked_figures)),
        "numbers_answer": len(set(figures) & set(told_figures) - set(asked_figures)),
        "numbers_changed": sum(one != other for one, other in zip(figures, asked_figures, strict=False)),
        "repeated": share(len(runs) - len(set(runs)), len(runs)),
    }


def table(rows: list[tuple[str, str, str | None]]) -> pl.DataFrame:
    columns = {
        "turn": [turn for turn, _, _ in rows],
        "answer": [answer for _, answer, _ in rows],
        "history": [[] if query is None else [query] for _, _, query in rows],
    }
    return pl.DataFrame(columns, schema={"turn": pl.String, "answer": pl.String, "history": pl.List(pl.String)})


PIECES = [
    *("model", "Models", "glass", "don't", "the", "is", "3.5", "x²", "Straße", "ÉTÉ", "это", "Модель", "हिन्दी", "में"),
    *("1,000", "12", "12"),
    *("你好吗", "世界", "モデル", "です", "ไทยดี", "🙂", "👩\u200d🔬", "\u202e", "e\u0301", "_", "'", "’", ". ", "。"),
    *("مرحبا", " ", " ", " ", "𠀀𠀁", "ｗｉｄｅ", "\n", "\x00"),
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, st.none() | TEXTS), min_size=1, max_size=4))
def test_columns_say_what_rows_say(rows: list[tuple[str, str, str | None]]) -> None:
    values = compute(table(rows)).values
    for number, row in enumerate(rows):
        for name, value in expected(*row).items():
            assert values[name][number] == pytest.approx(value), (name, row)


def judged() -> list[tuple[str, str, str | None]]:
    folder = Path(features.__file__).parent / "judged"
    contexts = {}
    for line in (folder / "contexts.jsonl").read_text("utf-8").splitlines():
        context = json.loads(line)
        users = [message["content"] for message in context["messages"] if message["role"] == "user"]
        contexts[context["id"]] = (context["messages"][-1]["content"], users[-1] if users else None)
    turns = map(json.loads, (folder / "judged_turns.jsonl").read_text("utf-8").splitlines())
    return [(turn["text"], *contexts[turn["context"]]) for turn in itertools.islice(turns, 0, None, 7)]


def test_judged_turns_have_the_values_of_the_obvious_way() -> None:
    rows = judged()
    values = compute(table(rows)).values
    for number, row in enumerate(rows):
        for name, value in expected(*row).items():
            assert values[name][number] == pytest.approx(value), (name, row)


def test_a_row_has_the_same_values_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = judged()[:40]
    together = compute(table(rows)).values
    monkeypatch.setattr(features, "CHUNK_ROWS", 1)
    monkeypatch.setattr(features, "MATCHED_ROWS", 3)
    alone = compute(table(rows)).values
    for feature in TEXT:
        np.testing.assert_array_equal(together[feature.name], alone[feature.name], feature.name)


@pytest.mark.parametrize("module", [cues, remarks])
def test_patterns_count_in_columns_what_python_finds(module: object) -> None:
    texts = [turn.lower() for turn, _, _ in judged()]
    for name in ("ASSISTANT", "ADVICE", "PLANNING", "GENERIC", "POINTING", "FIRST_PERSON", "SECOND_PERSON"):
        if pattern := getattr(module, name, None):
            column = pl.Series([spell(text) for text in texts]).str.count_matches(counted(pattern))
            differ = sum(len(pattern.findall(text)) != count for text, count in zip(texts, column, strict=True))
            assert differ <= 2, name  # Hindi marks are word characters to one of them only.


@given(st.from_regex(cues.CONTROL))
def test_every_control_token_is_looked_for(turn: str) -> None:
    assert matches.find([turn, "a < b, [x](y) > c"])["may_be_control"].tolist() == [1, 0]


@given(st.lists(st.integers(0, 40), max_size=200), st.lists(st.integers(0, 60), max_size=50))
def test_index_finds_equal_keys_and_no_others(keys: list[int], wanted: list[int]) -> None:
    index = Index(mix(np.array(keys, dtype=np.uint64)))
    found = index.find(mix(np.array(wanted, dtype=np.uint64)))
    assert [place >= 0 for place in found] == [value in keys for value in wanted]
    assert all(keys[place] == value for place, value in zip(found, wanted, strict=True) if place >= 0)
    assert index.first.sum() == len(set(keys))


@pytest.mark.parametrize(
    "turn",
    [
        "why does that work? " * 500_000,
        "a" * 10_000_000,
        "(" * 3_000_000 + "x" * 7_000_000,
        "你好" * 1_700_000,
        "\u202e\u2066\u200b" * 1_000_000,
        "<|" * 5_000_000,
        "a.b=" * 2_500_000,
    ],
    ids=["words", "one word", "brackets", "han", "bidi", "control", "code"],
)
def test_ten_megabytes_take_less_than_a_second(turn: str) -> None:
    given_table = table([(turn, turn[: len(turn) // 2], turn)])
    compute(table([("warm", "up", "now")]))
    start = time.process_time()
    values = compute(given_table).values
    assert time.process_time() - start < 1
    assert all(np.isfinite(values[feature.name][0]) for feature in TEXT if feature.name != "cut")


def test_a_table_holds_no_lone_surrogate() -> None:
    with pytest.raises(UnicodeEncodeError):
        table([("half \ud83d a pair", "x", None)])


def test_values_stay_in_their_range_and_null_texts_are_empty_ones() -> None:
    rows = [*judged()[:100], ("", "", ""), ("?", "", None), ("🙂", "🙂🙂", "🙂")]
    nulls = pl.DataFrame({"turn": [None], "answer": [None], "history": [None]}, schema=table([]).schema)
    values = compute(pl.concat([table(rows), nulls])).values
    for feature in TEXT:
        if feature.name != "cut":
            column = values[feature.name]
            assert ((column >= feature.low) & (column <= feature.high)).all(), feature.name
    assert set(values) == {name for name, feature in FEATURES.items() if feature.tier != "score"}


@pytest.mark.parametrize(
    ("turn", "name", "value"),
    [
        ("And what does Otto say about Bologna?", "names_answer", 1),
        ("And what does Otto say about Bologna?", "names_new", 1),
        ("Is 20 minutes enough?", "numbers_changed", 1),
        ("Is 15 minutes enough?", "numbers_changed", 0),
        ("but are you sure", "doubt", 2),
        ("不过你确定吗", "doubt", 2),
        ("Could you bake one?", "asks_other", 1),
        ("Bake one. Could you?", "asks_other", 0),
        ('He wrote "no yeast at all" there?', "quoted", 17 / 33),
        ("One. Two!\nThree", "sentences", 3),
        ("is it? yes", "asks_last", 0),
        ("это dough", "foreign_script", 3 / 8),
        ("Кнёт pasta", "foreign_script", 4 / 9),
        ("déjà vu 30", "foreign_script", 0),
        ("世界モデル", "foreign_script", 1),
        ("How long must I knead pasta", "same_opening", 1),
        ("¿por qué no se puede hacer con la harina de los otros?", "other_language", 1),
        ("rest it under a bowl for half an hour", "answer_stretch", 1),
    ],
)  # fmt: skip
def test_what_a_feature_sees(turn: str, name: str, value: float) -> None:
    answer = "The dough that Otto makes is done in 30 minutes. Then rest it under a bowl for half an hour, if you can."
    assert compute(table([(turn, answer, "How long must I knead pasta, 15 min?")])).values[name][0] == pytest.approx(
        value, abs=0.35 if name == "same_opening" else 1e-6
    )
