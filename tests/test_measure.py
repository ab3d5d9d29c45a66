"""The arithmetic of every signal, what is asked of engine and embedder, and nulls, with both of them scripted."""

import json
import math

import numpy as np
import polars as pl
import pytest

from selfplay.core import Prompt
from selfplay.engines.base import ScoreRequest
from selfplay.errors import SelfplayError
from selfplay.prompting.jinja import TemplateError
from selfplay.signals import measure as measuring
from selfplay.signals.likelihood import MAX_TOKENS, arithmetic, site_prefixes
from selfplay.signals.measure import EMBEDDING_SIGNALS, LIKELIHOOD_SIGNALS, measure, mismatches, missing_tiers

USER, ASSISTANT = 1, 2


class FakeTokenizer:
    """One token per character; headers are tokens 1 and 2."""

    model, revision, template_hash, context_length = "fake", None, "abc", 400

    def encode(self, text, special=True):
        assert special is False, "text from outside must not become control tokens"
        return [ord(c) for c in text]


class FakeTemplate:
    def __init__(self, assistant_header=True, strict=False):
        self.tokenizer = FakeTokenizer()
        self.assistant_header, self.strict = assistant_header, strict

    def _ids(self, messages, last):
        if self.strict and messages[0]["role"] != "user":
            raise TemplateError("must start with the user")
        return Prompt("", (*(ord(c) for m in messages for c in f"{m['role'][0]}:{m['content']}|"), last))

    def user_prompt(self, messages, system="keep"):
        return self._ids(messages, USER)

    def assistant_prompt(self, messages):
        return self._ids(messages, ASSISTANT) if self.assistant_header else None

    def bare_user_prompt(self):
        return Prompt("", (USER,))

    def empty_answer(self, messages):
        return (*messages[:-1], {"role": "assistant", "content": ""}), "empty"


class FakeScorer:
    """Logprob of a token = -(length of the prefix) - its place, so every pass can be told apart."""

    def __init__(self):
        self.requests: list[ScoreRequest] = []

    def score(self, requests):
        self.requests += requests
        return [[[-len(r.prefix) - i for i in range(len(c))] for c in r.continuations] for r in requests]


class FakeEmbedder:
    """Unit vectors in the plane, by a written angle in degrees."""

    def __init__(self, **angles):
        self.angles, self.seen = angles, []

    def encode(self, texts):
        self.seen += texts
        turns = [math.radians(self.angles.get(text, 90)) for text in texts]
        return np.array([[math.cos(a), math.sin(a)] for a in turns], dtype=np.float32)

    def describe(self):
        return {"model": "angles", "revision": "r1"}


def site(answer, *turns, question="Q"):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [{"messages": json.dumps(messages), "query": question, "answer": answer, "turn": turn} for turn in turns]


def test_cosines_and_margin():
    embedder = FakeEmbedder(**{"Q": 0, "One. Two.": 20, "One.": 10, "Two.": 50, "t": 60})
    row = measure(pl.DataFrame(site("One. Two.", "t")), {"embedding"}, embedder=embedder).row(0, named=True)
    assert row["cos_query"] == pytest.approx(math.cos(math.radians(60)), abs=1e-6)
    assert row["cos_answer"] == pytest.approx(math.cos(math.radians(40)), abs=1e-6)
    assert row["cos_answer_best"] == pytest.approx(math.cos(math.radians(10)), abs=1e-6)
    assert row["cos_margin"] == pytest.approx(row["cos_answer_best"] - row["cos_query"], abs=1e-6)


def test_each_text_is_encoded_once():
    embedder = FakeEmbedder()
    measure(
        pl.DataFrame(site("One. Two.", "t", "t", "One.", "Q") + site("One.", "t")), {"embedding"}, embedder=embedder
    )
    assert sorted(embedder.seen) == sorted({"One. Two.", "One.", "Two.", "Q", "t"})


def test_no_question_gives_null_question_signals_only():
    rows = site("One.", "t")
    rows[0]["query"] = None
    table = pl.DataFrame(rows, schema_overrides={"query": pl.String})
    row = measure(table, {"embedding"}, embedder=FakeEmbedder()).row(0, named=True)
    assert row["cos_query"] is None
    assert row["cos_margin"] is None
    assert row["cos_answer_best"] is not None


def test_arithmetic_of_the_likelihood_signals():
    found = arithmetic([-1.0, -2.0, -6.0], [-4.0, -2.5, -5.0], [-2.0, -2.0, -2.0], [-3.0, -3.0, -9.0])
    assert found == pytest.approx(
        {
            "answer_pmi": 2.5 / 3,
            "answer_pmi_sum": 2.5,
            "answer_pmi_share": 1 / 3,
            "role_ratio": -1.0,
            "copy_gain": 2.0,
            "fluency": -5.0,
            "mean_logprob": -3.0,
            "min_logprob": -6.0,
        }
    )


def test_four_passes_and_their_prefixes():
    scorer = FakeScorer()
    row = measure(pl.DataFrame(site("abcd", "xy")), {"likelihood"}, scorer=scorer, template=FakeTemplate()).row(
        0, named=True
    )
    full, empty, bare = len("u:Q|a:abcd|") + 1, len("u:Q|a:|") + 1, 1
    assert row["mean_logprob"] == -full - 0.5
    assert row["min_logprob"] == -full - 1
    assert row["answer_pmi"] == empty - full  # first - second
    assert row["role_ratio"] == 0
    assert row["fluency"] == -bare - 0.5
    assert {r.prefix[-1] for r in scorer.requests} == {USER, ASSISTANT}
    assert len(scorer.requests) == 4


def test_sites_are_grouped_and_each_turn_scored_once_per_pass():
    scorer = FakeScorer()
    table = pl.DataFrame(site("abcd", "x", "y", "x") + site("efgh", "x") + site("abcd", "z"))
    measure(table, {"likelihood"}, scorer=scorer, template=FakeTemplate())
    bare, *per_site = scorer.requests
    assert [sorted(map(chr, (t[0] for t in bare.continuations)))] == [["x", "y", "z"]]
    assert [len(r.continuations) for r in per_site] == [3, 3, 3, 1, 1, 1]


def test_sites_with_a_common_beginning_follow_one_another():
    def turns(*contents):
        roles = ("user", "assistant") * len(contents)
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
        return {"messages": json.dumps(messages), "query": "", "answer": contents[-1], "turn": "t"}

    scorer = FakeScorer()
    table = pl.DataFrame([turns("q1", "a1"), turns("z", "z"), turns("q1", "a1", "q2", "a2")])
    measure(table, {"likelihood"}, scorer=scorer, template=FakeTemplate())
    firsts = ["".join(map(chr, r.prefix[:-1])) for r in scorer.requests[1::3]]
    assert firsts == ["u:q1|a:a1|", "u:q1|a:a1|u:q2|a:a2|", "u:z|a:z|"]


def test_blank_turns_are_null_and_nothing_is_asked_for_them():
    scorer, embedder = FakeScorer(), FakeEmbedder()
    table = pl.DataFrame(site("abcd", "", " \n"))
    found = measure(table, {"embedding", "likelihood"}, embedder=embedder, scorer=scorer, template=FakeTemplate())
    for name in (*EMBEDDING_SIGNALS, *LIKELIHOOD_SIGNALS):
        assert found[name].to_list() == [None, None]
    assert scorer.requests == []


def test_own_token_ids_are_scored_as_drawn_and_others_encoded():
    table = pl.DataFrame(site("abcd", "xy", "zw")).with_columns(token_ids=pl.Series([[7, 8, 9], None]))
    scorer = FakeScorer()
    measure(table, {"likelihood"}, scorer=scorer, template=FakeTemplate(), own_tokens=True)
    assert set(scorer.requests[1].continuations) == {(7, 8, 9), (ord("z"), ord("w"))}
    scorer = FakeScorer()
    measure(table, {"likelihood"}, scorer=scorer, template=FakeTemplate())
    assert set(scorer.requests[1].continuations) == {(ord("x"), ord("y")), (ord("z"), ord("w"))}


def test_long_turns_are_capped():
    scorer = FakeScorer()
    measure(pl.DataFrame(site("a", "x" * 1000)), {"likelihood"}, scorer=scorer, template=FakeTemplate())
    assert {len(c) for r in scorer.requests for c in r.continuations} == {MAX_TOKENS}


def test_no_assistant_header_leaves_the_role_ratio_null():
    found = measure(
        pl.DataFrame(site("a", "x")), {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate(False)
    ).row(0, named=True)
    assert found["role_ratio"] is None
    assert found["answer_pmi"] is not None


def test_rows_without_messages_have_no_likelihoods():
    rows = [*site("a", "x"), {**site("b", "y")[0], "messages": None}]
    found = measure(pl.DataFrame(rows), {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate())
    assert found["fluency"].is_null().to_list() == [False, True]


def chat(*pairs):
    return [{"role": role, "content": text} for role, text in pairs]


def test_long_contexts_lose_their_oldest_messages_but_not_the_system_message():
    messages = chat(("system", "S"), ("user", "x" * 300), ("assistant", "y"), ("user", "q"), ("assistant", "a"))
    found = site_prefixes(messages, FakeTemplate())
    assert "".join(map(chr, found.answered[:-1])) == "s:S|a:y|u:q|a:a|"
    assert "".join(map(chr, found.unanswered[:-1])) == "s:S|a:y|u:q|a:|"


def test_an_answer_longer_than_the_context_loses_its_beginning():
    found = site_prefixes(chat(("user", "q"), ("assistant", "a" * 1000)), FakeTemplate())
    assert len(found.answered) == 400 - MAX_TOKENS
    assert found.answered[-1] == USER
    assert found.assistant is not None
    assert found.assistant[-1] == ASSISTANT


def test_a_context_that_the_template_refuses_is_null_and_the_others_are_measured():
    rows = [*site("a", "x"), {**site("b", "y")[0], "messages": json.dumps(chat(("assistant", "b")))}]
    found = measure(pl.DataFrame(rows), {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate(strict=True))
    assert found["fluency"].is_null().to_list() == [False, True]


def test_rows_and_other_columns_stay_as_they_were():
    table = pl.DataFrame(site("b", "x", "y") + site("a", "z")).with_row_index("n")
    found = measure(table, {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate())
    assert found.select(table.columns).equals(table)


def test_missing_tiers_are_those_without_a_value():
    table = pl.DataFrame(site("a", "x", ""))
    assert missing_tiers(table) == ["embedding", "state", "likelihood", "cross"]
    assert missing_tiers(measure(table, {"embedding"}, embedder=FakeEmbedder())) == ["state", "likelihood", "cross"]


def test_mistakes_are_named():
    with pytest.raises(SelfplayError, match="no signal tier 'embeddings'"):
        measure(pl.DataFrame(site("a", "x")), {"embeddings"})
    with pytest.raises(SelfplayError, match="`turn`"):
        measure(pl.DataFrame({"answer": ["a"]}), {"embedding"})
    with pytest.raises(SelfplayError, match="query"):
        measure(pl.DataFrame({"turn": ["a"]}), {"embedding"}, embedder=FakeEmbedder())


def test_another_scorer_than_the_learned_one_is_named():
    measured = measuring.signal_versions(FakeEmbedder(), FakeTemplate())
    assert mismatches(measured, measured) == {}
    learned = {**measured, "scorer": {**measured["scorer"], "template_hash": "xyz"}}
    found = mismatches(measured, learned)
    assert list(found) == ["state", "likelihood"]
    assert "'abc'" in found["likelihood"]
    assert "'xyz'" in found["likelihood"]


def test_an_install_without_torch_has_the_text_tier_and_says_why(monkeypatch):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    tiers, why = measuring.available_tiers()
    assert tiers == {"text"}
    assert "torch" in why["likelihood"]
    assert "selfplay-turns[local]" in why["embedding"]


def test_filters_and_rerank_read_the_names_that_are_measured():
    from filters.features import SIGNALS as read_by_filters
    from filters.features import STATE as FILTERS_STATE
    from rerank.probe import STATE as RERANK_STATE
    from rerank.weights import TIER_SIGNALS

    for tier, names in measuring.SIGNALS.items():
        if tier == "state":  # both make numbers of it by probes of their own
            assert names == (FILTERS_STATE,) == (RERANK_STATE,)
            continue
        assert set(TIER_SIGNALS[tier]) == set(names)
        if tier != "cross":  # rules know none
            assert {signal.name for signal in read_by_filters if signal.tier == tier} == set(names)


def test_what_the_sampler_knows_is_not_scored_again():
    table = pl.DataFrame(site("abcd", "xy", "zw")).with_columns(
        token_ids=pl.Series([[7, 8], [9]]), token_logprobs=pl.Series([[-0.5, -1.5], None])
    )
    scorer = FakeScorer()
    row = measure(
        table, {"likelihood"}, scorer=scorer, template=FakeTemplate(), own_tokens=True, own_logprobs=True
    ).row(0, named=True)
    assert row["mean_logprob"] == -1.0
    assert row["min_logprob"] == -1.5
    assert row["answer_pmi"] == -1.0 + len("u:Q|a:|") + 1 + 0.5  # the sampler's less the scorer's second pass
    firsts = [r.continuations for r in scorer.requests if len(r.prefix) == len("u:Q|a:abcd|") + 1]
    assert ((9,),) in firsts, "the turn without logprobs is scored"
    assert sum((7, 8) in turns for turns in firsts) == 1, "at the assistant header only"
    scorer = FakeScorer()
    measure(table, {"likelihood"}, scorer=scorer, template=FakeTemplate(), own_tokens=True)
    assert len([r for r in scorer.requests if (7, 8) in r.continuations]) == 4


def test_logprobs_after_a_longer_context_than_the_scorers_are_not_taken():
    rows = site("a" * 1000, "xy")
    table = pl.DataFrame(rows).with_columns(token_ids=pl.Series([[7, 8]]), token_logprobs=pl.Series([[-0.5, -1.5]]))
    row = measure(
        table, {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate(), own_tokens=True, own_logprobs=True
    ).row(0, named=True)
    assert row["mean_logprob"] == -(400 - MAX_TOKENS) - 0.5


def test_turns_cut_at_the_limit_can_be_left_out():
    table = pl.DataFrame(site("abcd", "x", "y", "z")).with_columns(finish_reason=pl.Series(["stop", "length", None]))
    found = measure(table, {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate(), skip_cut=True)
    assert found["fluency"].is_null().to_list() == [False, True, False]
    assert found["turn"].to_list() == ["x", "y", "z"]


def test_the_control_takes_another_sites_answer_and_only_where_asked():
    table = pl.DataFrame(
        site("abcd", "xy", question="Q") + site("efghij", "xy", question="R") + site("other", "v", question="Q")
    )
    found = measure(table, {"likelihood"}, scorer=FakeScorer(), template=FakeTemplate())
    assert "answer_pmi_swapped" not in found.columns
    scorer = FakeScorer()
    found = measure(table, {"control"}, scorer=scorer, template=FakeTemplate())
    # A logprob falls by one for every character before it: the difference is that of the answers' lengths. The third
    # site begins with the same message as the first, so neither is a stranger to the other.
    assert found["answer_pmi_swapped"].to_list() == [6 - 4, 4 - 6, 6 - 5]
    texts = {"".join(map(chr, r.prefix[:-1])) for r in scorer.requests}
    assert texts == {
        "u:Q|a:abcd|", "u:Q|a:efghij|", "u:R|a:efghij|", "u:R|a:abcd|", "u:Q|a:other|"
    }  # fmt: skip


def test_the_control_of_a_lone_site_is_null():
    found = measure(pl.DataFrame(site("abcd", "x", "")), {"control"}, scorer=FakeScorer(), template=FakeTemplate())
    assert found["answer_pmi_swapped"].to_list() == [None, None]
