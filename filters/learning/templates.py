"""The forms a rule may take: which features it tests in which direction, and the thresholds to choose from.

People wrote the forms, so that every rule says something a person understands; `learn` picks the thresholds from
judged turns, and drops the forms that do not earn their place. Order is precedence: the first that fires decides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from filters.features import FEATURES
from filters.labels import Label
from filters.scores import score_name

Choice = tuple[str, str, tuple[float, ...]]
"""Feature, operator, thresholds to choose from."""


@dataclass(frozen=True, slots=True)
class Template:
    """One form. `tests` become `rules.Threshold`s once a threshold is chosen for each.

    Attributes:
        least_right: Least share of the catch that must have the rule's own label.
        certain: Kept with its first thresholds whatever the data say, as it is true by the rubric's definition.
    """

    name: str
    label: Label
    tests: tuple[Choice, ...]
    least_right: float = 0.8
    certain: bool = False

    @property
    def tiers(self) -> frozenset[str]:
        """Tiers whose features it reads."""
        return frozenset(FEATURES[feature].tier for feature, _, _ in self.tests)


@dataclass(frozen=True, slots=True)
class Scored:
    """A rule on learned scores. Of a test with several values the first is where the search begins.

    Attributes:
        unless: Tier with which another form of the rule does better; this one is for sets that do not read it.
    """

    name: str
    label: Label
    tests: tuple[Choice, ...]
    unless: str | None = None

    def fits(self, tiers: Collection[str]) -> bool:
        """Whether it is for a set that reads these tiers."""
        read = {FEATURES[feature].tier for feature, _, _ in self.tests}
        return read <= {*tiers, "score"} and self.unless not in tiers


def _at_least(feature: str, *values: float) -> Choice:
    return feature, ">=", values


def _at_most(feature: str, *values: float) -> Choice:
    return feature, "<=", values


_SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_MARGINS = (-0.4, -0.35, -0.3, -0.25, -0.2, -0.15)
_NATS = (-1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.2, 0.3)

TEMPLATES = (
    Template(
        "empty or only courtesy", Label.DEGENERATE, (_at_most("content", 0), _at_most("chars", 10, 20, 30, 45, 60))
    ),
    Template("control tokens", Label.MALFORMED, (_at_least("control", 1),), certain=True),
    Template("role markers", Label.MALFORMED, (_at_least("role_marker", 1, 2),)),
    Template("repeats itself", Label.MALFORMED, (_at_least("repeated", 0.2, 0.3, 0.4, 0.5, 0.6),)),
    Template("ends in a loop", Label.MALFORMED, (_at_least("loop", 3, 4, 5, 6),)),
    Template(
        "compresses too well",
        Label.MALFORMED,
        (_at_most("compression", 0.35, 0.4, 0.45, 0.5, 0.55, 0.6), _at_least("chars", 60, 100, 150)),
    ),
    # A turn that is wholly in another script may be a person who changed language; a mixture is not.
    Template(
        "mixes in another script",
        Label.MALFORMED,
        (_at_least("foreign_script", 0.05, 0.1, 0.3), _at_most("foreign_script", 0.9)),
    ),
    Template(
        "hardly any letters",
        Label.MALFORMED,
        (_at_most("letters", 0.4, 0.5, 0.6, 0.7), _at_most("question", 0), _at_least("chars", 12, 25, 40)),
    ),
    Template("code without a message", Label.MALFORMED, (_at_least("code", 0.6, 0.8, 1.0), _at_most("question", 0))),
    Template("broken markup", Label.MALFORMED, (_at_least("unbalanced", 1, 2, 3), _at_most("question", 0))),
    Template(
        "broken markup, few letters",
        Label.MALFORMED,
        (_at_least("unbalanced", 1, 2), _at_most("letters", 0.6, 0.7, 0.8, 0.85)),
    ),
    Template(
        "runs on until it is cut",
        Label.MALFORMED,
        (_at_least("cut", 1), _at_least("new", 3, 5, 8, 12, 16, 20), _at_most("answer_only", 0, 1, 2, 4, 99)),
    ),
    Template("talks about the turn", Label.META_PLANNING, (_at_least("planning", 1, 2, 3),)),
    Template(
        "talks about the turn, asks nothing",
        Label.META_PLANNING,
        (_at_least("planning", 1), _at_most("question", 0), _at_most("first_person", 0, 0.03, 0.06, 1)),
    ),
    Template(
        "orders to oneself",
        Label.META_PLANNING,
        (_at_least("steering", 1, 2), _at_most("question", 0), _at_most("first_person", 0, 0.03)),
    ),
    Template(
        "answers its own question",
        Label.IDENTITY_LEAKAGE,
        (_at_least("after_question", 0.3, 0.5, 0.7), _at_least("lines", 2, 3), _at_least("opening", 0, 1)),
    ),
    Template("stage note", Label.META_PLANNING, (_at_least("stage_note", 1), _at_most("question", 0, 9))),
    Template("offers help", Label.IDENTITY_LEAKAGE, (_at_least("assistant", 1, 2),)),
    Template("offers help, asks nothing", Label.IDENTITY_LEAKAGE, (_at_least("assistant", 1), _at_most("question", 0))),
    Template("opens like an answer", Label.IDENTITY_LEAKAGE, (_at_least("opening", 1), _at_most("question", 0, 1))),
    Template(
        "advises at length",
        Label.IDENTITY_LEAKAGE,
        (_at_least("advice", 1, 2, 3), _at_most("question", 0), _at_most("first_person", 0, 0.02, 0.05)),
    ),
    Template(
        "same words as an earlier user message",
        Label.PROMPT_RESTATEMENT,
        (_at_least("query_cover", *_SHARES), _at_least("query_recall", *_SHARES), _at_most("answer_only", 0, 1)),
    ),
    Template(
        "only words of an earlier user message",
        Label.PROMPT_RESTATEMENT,
        (
            _at_least("query_cover", 0.9),
            _at_most("new", 0),
            _at_most("answer_only", 0),
            _at_least("content", 4),
        ),
        certain=True,
    ),
    Template(
        "part of an earlier user message",
        Label.PROMPT_RESTATEMENT,
        (_at_least("query_cover", *_SHARES), _at_least("query_run", 0.2, 0.4, 0.6, 0.8), _at_most("answer_only", 0, 1)),
    ),
    Template(
        "nearly an earlier user message",
        Label.PROMPT_RESTATEMENT,
        (_at_least("query_similarity", 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),),
    ),
    Template(
        "re-asks with few other words",
        Label.PROMPT_RESTATEMENT,
        (_at_least("query_cover", *_SHARES), _at_most("new", 0, 1, 2, 3), _at_most("answer_only", 0)),
    ),
    Template(
        "copies wording of the answer",
        Label.ASSISTANT_RESTATEMENT,
        (_at_least("answer_run", 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), _at_most("question", 0), _at_most("question_word", 0)),
    ),
    Template(
        "says the answer again",
        Label.ASSISTANT_RESTATEMENT,
        (_at_least("answer_cover", *_SHARES), _at_most("question", 0), _at_least("content", 3, 4, 5, 6, 8)),
    ),
    Template(
        "says the answer again in its order",
        Label.ASSISTANT_RESTATEMENT,
        (_at_least("answer_order", *_SHARES), _at_most("new", 1, 2, 3, 5), _at_most("question", 0)),
    ),
    Template(
        "fits everywhere",
        Label.GENERIC,
        (_at_most("specific", 0, 1, 2, 3), _at_most("answer_only", 0), _at_most("numbers_new", 0)),
    ),
    Template(
        "fits everywhere by its phrase",
        Label.GENERIC,
        (_at_least("generic", 1), _at_most("specific", 1, 2, 3, 4, 5), _at_most("answer_only", 0, 1)),
    ),
    Template(
        "textbook request",
        Label.OFF_TOPIC,
        (_at_least("textbook", 1), _at_most("answer_only", 0, 1), _at_most("reaction", 0, 9)),
    ),
    Template(
        "no tie to the answer",
        Label.OFF_TOPIC,
        (_at_most("answer_only", 0), _at_least("new", 2, 3, 4, 6, 8), _at_most("pointing", 0), _at_most("reaction", 0)),
    ),
    Template(
        "nearly all new",
        Label.OFF_TOPIC,
        (_at_least("new_share", 0.7, 0.8, 0.9, 1.0), _at_least("new", 3, 5, 7, 10), _at_most("pointing", 0, 1)),
    ),
    Template(
        "far from the answer",
        Label.OFF_TOPIC,
        (_at_most("cos_answer_best", 0.1, 0.15, 0.2, 0.25, 0.3), _at_most("answer_only", 0, 1, 9)),
    ),
    Template(
        "close to the question, not to the answer",
        Label.PROMPT_RESTATEMENT,
        (_at_least("cos_query", 0.6, 0.7, 0.8, 0.9), _at_most("answer_only", 0, 1), _at_most("cos_margin", *_MARGINS)),
    ),
    Template("unlikely wording", Label.MALFORMED, (_at_most("fluency", -7, -6.5, -6, -5.5, -5, -4.5),)),
    Template(
        "wording unlikely even here",
        Label.MALFORMED,
        (_at_most("mean_logprob", -6, -5.5, -5, -4.5, -4, -3.5), _at_most("answer_pmi", *_NATS, 9)),
    ),
    Template(
        "one impossible word",
        Label.MALFORMED,
        (_at_most("min_logprob", -16, -15, -14, -13, -12, -11), _at_most("answer_pmi", *_NATS, 9)),
    ),
    Template(
        "more likely the assistant's",
        Label.IDENTITY_LEAKAGE,
        (_at_most("role_ratio", -1, -0.7, -0.5, -0.3, -0.2, -0.1, 0), _at_most("question", 0, 9)),
    ),
    Template(
        "the answer explains nothing of it",
        Label.OFF_TOPIC,
        (_at_most("answer_pmi", *_NATS), _at_most("answer_only", 0, 1, 2, 9), _at_most("pointing", 0, 1, 9)),
    ),
    Template(
        "no word the answer explains",
        Label.OFF_TOPIC,
        (_at_most("answer_pmi_share", 0, 0.05, 0.1, 0.15), _at_most("answer_pmi", *_NATS)),
    ),
)

_SCORES = (0.4, *(round(0.1 + 0.05 * step, 2) for step in range(18)))
_DOUBTS = (1.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)
_GIBBERISH = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_HARDLY = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
_FOLLOW_UP = score_name(Label.FOLLOW_UP)


def _reads_like(words: str, label: Label, *besides: Choice, unless: str | None = None) -> Scored:
    tests = (_at_least(score_name(label), *_SCORES), _at_most("p_genuine", *_DOUBTS), *besides)
    return Scored(f"reads like {words}", label, tests, unless)


# The judged turns hold few of what people write to an agent, politely and at length, or after an answer that they go
# on from in their own words. So a score alone does not make a hard label: what the label says must be seen as well.
SCORED = (
    _reads_like("nothing said", Label.DEGENERATE),
    _reads_like("a plan for the turn", Label.META_PLANNING, unless="likelihood"),
    _reads_like("a plan for the turn", Label.META_PLANNING, _at_most("fluency", -4.0)),
    # Who asks, or speaks of himself, is a user.
    _reads_like(
        "the answer again", Label.ASSISTANT_RESTATEMENT, _at_most("question", 0), _at_most("first_person", 0.06)
    ),
    _reads_like(
        "the question again",
        Label.PROMPT_RESTATEMENT,
        _at_least("query_cover", 0.3, 0.4),
        _at_least("query_recall", 0.4, 0.5),
        unless="embedding",
    ),
    Scored(
        "reads like the question again",
        Label.PROMPT_RESTATEMENT,
        (
            _at_least(score_name(Label.PROMPT_RESTATEMENT), *_SCORES),
            _at_least("cos_query", 0.65, 0.7, 0.75),
            _at_most("cos_margin", -0.12, -0.15, -0.2),
        ),
    ),
    # `cos_query` is that to the last user message; a low one with the words of an earlier message means an older one.
    Scored(
        "reads like an older question again",
        Label.PROMPT_RESTATEMENT,
        (
            _at_least(score_name(Label.PROMPT_RESTATEMENT), *_SCORES),
            _at_least("query_cover", 0.3, 0.4),
            _at_least("query_recall", 0.8, 0.9),
            _at_most("cos_query", 0.5, 0.4, 0.35),
        ),
    ),
    Scored(
        "offers help like the assistant",
        Label.IDENTITY_LEAKAGE,
        (_at_least(score_name(Label.IDENTITY_LEAKAGE), 0.4, 0.5, 0.6, 0.7), _at_least("assistant", 1)),
    ),
    _reads_like(
        "the assistant's voice",
        Label.IDENTITY_LEAKAGE,
        _at_most("question", 0),
        _at_most("first_person", 0.06),
        unless="likelihood",
    ),
    _reads_like(
        "the assistant's voice",
        Label.IDENTITY_LEAKAGE,
        _at_most("question", 1),
        _at_most("role_ratio", 0.1, 0.0, -0.05),
    ),
    Scored(
        "reads like gibberish",
        Label.MALFORMED,
        (_at_least(score_name(Label.MALFORMED), *_GIBBERISH), _at_most("p_genuine", 0.3, 0.2, 0.1, 0.05)),
        unless="likelihood",
    ),
    Scored(
        "reads like gibberish",
        Label.MALFORMED,
        (
            _at_least(score_name(Label.MALFORMED), *_GIBBERISH),
            _at_most("p_genuine", 0.3, 0.2, 0.1, 0.05),
            _at_most("mean_logprob", -3.5, -4.0),
        ),
    ),
    _reads_like("a remark for any answer", Label.GENERIC),
    _reads_like("another subject", Label.OFF_TOPIC),
    Scored("hardly a follow-up", Label.OFF_TOPIC, (_at_most("p_genuine", *_HARDLY), _at_most(_FOLLOW_UP, 0.5))),
    Scored(
        "hardly a follow-up, though it reads like one",
        Label.OFF_TOPIC,
        (_at_most("p_genuine", *_HARDLY), _at_most(_FOLLOW_UP, 0.8)),
    ),
)
"""After the readable rules: what the learned score of a label says, and how unlikely a follow-up is.

The two are learned from different turns: scores from all, `p_genuine` foremost from sampled ones. A turn that reads
like a follow-up by the one needs a lower value of the other to fall.
"""
