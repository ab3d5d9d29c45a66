"""What no rule set may break: copies are never genuine, control tokens never help, no text takes for ever."""

import json
import random
import re
import time
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import filters
from filters.features import SIGNALS, STATE
from filters.labels import LABELS, Label
from filters.probe import Probe

QUESTION = "How do I keep basil alive on a north-facing kitchen windowsill during winter?"
ANSWER = (
    "Basil needs about six hours of light, so add a small grow lamp 15 cm above the leaves. Water only when the top "
    "two centimetres of soil feel dry, and pinch off flowers so that the stems stay bushy."
)
FLATTERING = {
    "cos_query": 0.45, "cos_answer": 0.6, "cos_answer_best": 0.7, "cos_margin": 0.25, "answer_pmi": 1.5,
    "answer_pmi_sum": 30.0, "answer_pmi_share": 0.5, "role_ratio": 1.0, "copy_gain": 1.0, "fluency": -3.0,
    "mean_logprob": -2.0, "min_logprob": -7.0,
}  # fmt: skip
"""Signals of a turn that reacts to its answer. The promises must not hang on what a model thinks of a copy."""

WORDS = (
    "basil lamp winter window leaves why does my the not 15 3.5 £300 café don't naïve Lampe Fenster warum nicht für "
    "añadir luz ¿cuánto? lumière j'ai лампа зимой почему 灯 冬天怎么养 ライト 水やり दीपक सर्दी "
    "مصباح الشتاء x=1 `git` (a) - !? 🙂"
)


def rows(turns: list[str], history: list[str], answer: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query": [history[-1] if history else None] * len(turns),
            "answer": [answer] * len(turns),
            "history": [history] * len(turns),
            "turn": turns,
        },
        schema={"query": pl.String, "answer": pl.String, "history": pl.List(pl.String), "turn": pl.String},
    )


@cache
def adoring() -> filters.Rules:
    """The shipped rules with probes to which whatever is said is surely genuine."""
    shipped = filters.load_rules()
    full = shipped.sets["full"]
    assert full.scores is not None
    assert full.genuine is not None
    likes = tuple((9.0,) if label == Label.FOLLOW_UP.value else (0.0,) for label in LABELS)
    probe = Probe(20, likes, (0.0,) * len(LABELS), (-9.0,) * len(LABELS), (9.0,) * len(LABELS))
    adores = replace(full, scores=replace(full.scores, probe=probe), genuine=replace(full.genuine, probe=probe))
    return replace(shipped, sets={**shipped.sets, "full": adores})


def by_both_sets(table: pl.DataFrame) -> list[pl.DataFrame]:
    """Labelled without signals, with flattering ones, and with a hidden state that the probe adores."""
    measured = table.with_columns(pl.lit(FLATTERING[signal.name]).alias(signal.name) for signal in SIGNALS)
    stated = measured.with_columns(pl.Series(STATE, [[1.0]] * len(table), pl.List(pl.Float32)))
    return [filters.label(table), filters.label(measured), filters.label(stated, adoring())]


def copies(text: str, chance: random.Random) -> dict[str, str]:
    """The text as somebody might hand it back without a thought of his own."""
    words = text.split()
    shuffled = chance.sample(words, len(words))
    middle = len(words) // 2
    return {
        "verbatim": text,
        "trimmed": text.strip(),
        "padded": f"\n {text} \n",
        "without end": text.strip().rstrip(".?!。？！ "),
        "upper": text.upper(),
        "lower": text.lower(),
        "swapped case": text.swapcase(),
        "one line": " ".join(words),
        "shuffled": " ".join(shuffled),
        "backwards": " ".join(reversed(words)),
        "turned round": " ".join(words[middle:] + words[:middle]),
    }


REORDERED = ("shuffled", "backwards", "turned round")


@cache
def contexts() -> list[tuple[str, list[str], str]]:
    """Id, what the user said, and the answer, of every judged conversation."""
    lines = (files("filters") / "judged" / "contexts.jsonl").read_text("utf-8").removesuffix("\n").split("\n")
    found = []
    for context in map(json.loads, lines):
        said = [message["content"] for message in context["messages"] if message["role"] == "user"]
        found.append((context["id"], said, context["messages"][-1]["content"]))
    return found


def test_no_copy_of_what_the_user_said_is_genuine_in_any_judged_conversation() -> None:
    chance = random.Random(0)
    tables = []
    for name, said, answer in contexts():
        for text in {said[0], said[-1]} if said else ():
            kinds = copies(text, chance)
            table = rows(list(kinds.values()), said, answer)
            tables.append(table.with_columns(pl.Series("kind", list(kinds)), pl.lit(name).alias("context")))
    for labelled in by_both_sets(pl.concat(tables)):
        passed = labelled.filter("genuine").select("context", "kind", "turn")
        assert passed.is_empty(), passed.rows()[:3]


messages = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=40).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(messages, messages, st.one_of(messages, st.just(ANSWER)), st.randoms(use_true_random=False))
def test_no_copy_is_genuine_whatever_the_language(first: str, last: str, answer: str, chance: random.Random) -> None:
    turns = [*copies(first, chance).values(), *copies(last, chance).values()]
    for labelled in by_both_sets(rows(turns, [first, last], answer)):
        assert labelled.filter("genuine")["turn"].to_list() == []


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), messages)
def test_no_copy_of_any_text_is_genuine(text: str, answer: str) -> None:
    """In another case too, for letters that stay one letter then: Turkish and Armenian have some that do not."""
    cases = [changed for changed in (text.upper(), text.lower()) if len(changed) == len(text)]
    for labelled in by_both_sets(rows([text, text.strip(), *cases], [text], answer)):
        assert labelled.filter("genuine")["turn"].to_list() == []


@pytest.mark.parametrize("text", ["Straße?", "Wie groß ist der Fuß einer Straßenlaterne, außen gemessen?"])
def test_a_letter_that_is_two_in_capitals_hides_no_copy(text: str) -> None:
    for labelled in by_both_sets(rows([text.upper(), text.swapcase(), text.lower()], [text], ANSWER)):
        assert labelled.filter("genuine")["turn"].to_list() == []


@cache
def long_message(words: int) -> str:
    every = [word for _, said, _ in contexts() for text in said for word in text.split()]
    return " ".join(random.Random(0).sample(every * 5, words))


@pytest.mark.parametrize("words", [400, 3_000, 20_000])
def test_no_copy_of_a_long_message_is_genuine(words: int) -> None:
    """2,000 to 107,000 characters: more than a turn or a message is looked at.

    Of a reordered copy that long, parts are seen whose origin is not: there the promise ends at 20,000 characters.
    """
    kinds = copies(long_message(words), random.Random(0))
    if words > 3_000:
        kinds = {kind: text for kind, text in kinds.items() if kind not in REORDERED}
    for labelled in by_both_sets(rows(list(kinds.values()), [long_message(words)], ANSWER)):
        assert labelled.with_columns(pl.Series("kind", list(kinds))).filter("genuine")["kind"].to_list() == []


def test_no_copy_of_the_first_message_of_a_long_conversation_is_genuine() -> None:
    said = [text for _, texts, _ in contexts() for text in texts][:40]
    kinds = copies(said[0], random.Random(0))
    for labelled in by_both_sets(rows(list(kinds.values()), said, ANSWER)):
        assert labelled.with_columns(pl.Series("kind", list(kinds))).filter("genuine")["kind"].to_list() == []


def test_half_of_what_the_user_said_is_not_genuine() -> None:
    tables = []
    for _, said, answer in contexts():
        words = said[-1].split() if said else []
        if len(words) >= 10:
            half = len(words) // 2
            tables.append(rows([" ".join(words[:half]), " ".join(words[half:])], said, answer))
    assert filters.label(pl.concat(tables)).filter("genuine")["turn"].to_list() == []


def template_tokens() -> set[str]:
    """Control tokens that stand in the chat templates the prompts are tested with."""
    pattern = re.compile(r"<\|[\w ]+\|>|<｜[^｜\n]+｜>|\[/?[A-Z_]{3,}\]|</?[a-z_]+>")
    return {
        token
        for path in (Path(__file__).parent / "templates").glob("*.jinja")
        for token in pattern.findall(path.read_text("utf-8"))
    }


MORE_TOKENS = """
<|begin_of_text|> <|python_tag|> <|endoftext|> <|endofprompt|> <|constrain|> <|call|> <|header_start|> <|eot|>
<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <BOS_TOKEN> <|start_of_role|> <|end_of_role|> <|im_middle|> <|turn>
<turn|> <bos> <eos> <pad> <unk> <s> </s> <<SYS>> <</SYS>> [gMASK] <sop> <eoa> <eoh> <eom> <start_of_image>
<end_of_utterance> [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] [AVAILABLE_TOOLS] [THINK] [/THINK] [IMG] [BOS] [EOS]
<SPECIAL_12> <unused7> <seed:bos> <seed:eos> <minimax:tool_call> <longcat_user> [|user|] [|endofturn|]
<role>HUMAN</role> <reserved_106> <extra_id_1> <0x0A> <｜hy_User｜> <arg_key> </arg_value> <think> </think> <tool_call>
</tool_response> <fim_prefix> <file_sep> <jupyter_code> <issue_comment> <gh_stars> <empty_output> <|im_end <|im_end|
|im_end|>
"""
TOKENS = sorted(template_tokens() | set(MORE_TOKENS.split()))


def insertions(text: str, token: str, place: float) -> list[str]:
    cut = round(len(text) * place)
    return [
        f"{text}{token}", f"{text} {token}", f"{text}\n{token}\n", f"{token}{text}", f"{token}\n{text}",
        f"{text[:cut]}{token}{text[cut:]}", f"{text} {token} {token}user {text}",
    ]  # fmt: skip


def test_every_template_brings_tokens() -> None:
    assert {"<|im_end|>", "[/INST]", "<end_of_turn>", "<|eot_id|>", "<｜Assistant｜>", "<|return|>"} <= set(TOKENS)


@cache
def judged_turns() -> list[tuple[str, list[str], str]]:
    """A sample of the judged turns, with what the user said before and the answer."""
    lines = (files("filters") / "judged" / "judged_turns.jsonl").read_text("utf-8").removesuffix("\n").split("\n")
    known = {name: (said, answer) for name, said, answer in contexts()}
    sample = random.Random(0).sample([json.loads(line) for line in lines], 150)
    return [(turn["text"], *known[turn["context"]]) for turn in sample]


def test_a_control_token_makes_a_judged_turn_not_genuine_and_never_likelier() -> None:
    """Every token in turns that passed and in turns that did not, at every place."""
    chance = random.Random(1)
    bases, tables = [], []
    for number, (turn, said, answer) in enumerate(judged_turns()):
        bases.append(rows([turn], said, answer).with_columns(base=pl.lit(number)))
        for token in chance.sample(TOKENS, 6):
            if token not in f"{said}{answer}{turn}":
                turns = insertions(turn, token, chance.random())
                tables.append(rows(turns, said, answer).with_columns(base=pl.lit(number), token=pl.lit(token)))
    for before, after in zip(by_both_sets(pl.concat(bases)), by_both_sets(pl.concat(tables)), strict=True):
        passed = after.filter("genuine")["token"].unique().to_list()
        assert passed == []
        pairs = after.join(before.select("base", p_before="p_genuine"), on="base")
        raised = pairs.filter(pl.col("p_genuine") > pl.col("p_before") + 1e-9)
        assert raised.is_empty(), raised.select("token", "turn", "p_before", "p_genuine").rows()[:3]


@pytest.mark.parametrize("token", TOKENS)
def test_every_known_token_is_seen_in_a_turn_that_passes_without_it(token: str) -> None:
    turn = "15 cm seems close, won't a lamp that near scorch the leaves?"
    labelled = filters.label(rows([turn, *insertions(turn, token, 0.5)], [QUESTION], ANSWER))
    assert labelled["genuine"].to_list() == [True, *[False] * 7]


MEBI = 1 << 20
HOSTILE = {
    "one letter, 10 MB": "a" * (10 * MEBI),
    "sentences, 10 MB": "the lamp is too hot. " * (MEBI // 2),
    "a b, 10 MB": "a b " * (5 * MEBI // 2),
    "combining marks, 10 MB": "e" + "\u0301" * (5 * MEBI),
    "nested brackets": "([{<" * 100_000 + ">}])" * 100_000,
    "open brackets": "([" * 200_000,
    "newlines": "\n" * 100_000,
    "short lines": "x\n" * 100_000,
    "spaces": " " * MEBI + "x",
    "cut tokens": "<|" * 200_000,
    "tokens": "<|im_end|>" * 50_000,
    "bidi marks": "\u202e\u2066abc\u2069\u200f" * 50_000,
    "zero-width joins": "a\u200d" * 200_000,
    "NULs": "\0" * 100_000,
    "words with NULs": "lamp\0hot " * 50_000,
    "ligatures that grow eighteen times": "\ufdfa" * 50_000,
    "quotes": "\"'`" * 100_000,
    "marks": "?!." * 100_000,
    "list items": "- a\n* b\n1. c\n" * 20_000,
    "indents": (" " * 50 + "\n") * 20_000,
    "code": "x = (\n" * 50_000,
    "tags": "<a " * 100_000,
    "roles": "user: " * 50_000,
    "cues": "how to the user as an ai i hope " * 30_000,
    "no spaces": "灯" * 300_000,
    "emoji of several": "👨‍👩‍👧" * 30_000,
    "numbers": "1,000." * 100_000,
    "apostrophes": "a'" * 200_000,
}


def seconds(turn: str, said: str, answer: str) -> tuple[float, pl.DataFrame]:
    """CPU time of labelling one row, and the row."""
    table = rows([turn], [said], answer)
    start = time.process_time()
    labelled = filters.label(table)
    return time.process_time() - start, labelled


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_returns_in_bounded_time_wherever_it_stands(name: str) -> None:
    text, turn = HOSTILE[name], "15 cm seems close, won't a lamp that near scorch the leaves?"
    as_turn, labelled = seconds(text, QUESTION, ANSWER)
    assert not labelled["genuine"][0]
    as_both, labelled = seconds(text, text, ANSWER)
    assert not labelled["genuine"][0]
    others = [seconds(turn, text, ANSWER)[0], seconds(turn, QUESTION, text)[0], seconds(text, QUESTION, text)[0]]
    assert max(as_turn, as_both, *others) < 2


def test_time_does_not_grow_with_a_turn_beyond_what_is_looked_at() -> None:
    small, large = (seconds("the lamp is hot, (a b c d) " * count, QUESTION, ANSWER)[0] for count in (4_000, 400_000))
    assert large < 10 * small + 0.5
