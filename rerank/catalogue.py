"""What every signal is: where it comes from, what it costs, the values it takes, and where it misleads."""

from __future__ import annotations

from dataclasses import dataclass

TIERS = {
    "text": "words and characters of turn, answer and the user's messages; no model",
    "wording": "word lists and overlaps that filters measures (`selfplay rules features`); no model",
    "embedding": "cosines of unit vectors of a sentence encoder (shipped: MiniLM, all-minilm-l6-v2); each distinct "
    "turn, question, answer and sentence of an answer is encoded once",
    "state": "the hidden state of a small language model (shipped: SmolLM2-135M) after one middle layer, averaged over "
    "the turn, which it reads behind the conversation; one pass, none more where likelihoods are measured too",
    "likelihood": "token logprobs in nats under a small language model (shipped: SmolLM2-135M) that reads the turn "
    "behind four prefixes; the candidates of a site share each of them; 128 tokens at most",
    "cross": "a cross-encoder reads turn and answer together (none is shipped; --cross-encoder); one pass per distinct "
    "pair, nothing shared",
    "control": "measured on request, as a check on other signals; no weights use it",
    "judge": "a language model's own verdict by the rubric; it costs requests, and no weights use it",
}
"""The kinds of signals: what they are made of and what measuring takes."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One column that ranking reads, or that shows what it did not read.

    Attributes:
        range: The values it takes, with their unit.
        meaning: What is measured.
        source: Whose idea it is.
        cost: Beyond what its tier says.
        weakness: What it takes for grounded and is not, or the other way round.
    """

    name: str
    tier: str
    range: str
    meaning: str
    source: str
    cost: str
    weakness: str


_OURS = "ours"
_OVERLAP = "word overlap as in ROUGE (Lin 2004), here of rare terms that the question lacks"
_PCMI = "PCMI (Paranjape & Manning 2021, arXiv 2104.07831)"
_COUNT = "counting words"

_LISTS = "ours; lists of English words"
_ROUGE = "word overlap, precision and recall as in ROUGE (Lin 2004)"
_EDITS = "edit distance (Levenshtein 1966)"
_ZLIB = "zlib, as a check for loops"

WORDING = (
    ("names_new", "0 and up", "names that nobody said before", _OURS, "users bring in names of their own"),
    ("new_share", "0..1", "content words nobody said before", _OURS, "high for a reaction in the user's own words"),
    ("new", "0 and up", "the same, counted", _OURS, "grows with length"),
    ("specific", "0 and up", "content words that would not fit everywhere", _LISTS, "off-topic turns are so too"),
    ("first_person", "0..1", "words in the first person", _LISTS, "stories about oneself that ignore the answer"),
    ("pointing", "0 and up", "words that point back: that, the second one", _LISTS, "they may point at the question"),
    ("reaction", "0 and up", "sentences that begin as a reaction: but, so", _LISTS, "empty reactions begin alike"),
    ("doubt", "0 and up", "phrases of doubt and contradiction", _LISTS, "rare; agreement can be as grounded"),
    ("lower_start", "0 or 1", "starts in lower case, as typed by hand", _OURS, "a habit of some models as well"),
    ("word_length", "0 and up, letters", "mean word length", _COUNT, "subjects differ; scripts without spaces"),
    ("sentences", "0 and up", "how many there are", _COUNT, "grows with length"),
    ("compression", "0..1", "share of its size that is left when compressed", _ZLIB, "grows for short turns"),
    ("query_recall", "0..1", "the question's words in the turn", _ROUGE, "1 for a short question taken up"),
    ("query_similarity", "0..1", "edit similarity to a user's message", _EDITS, "a rephrased question is low"),
    ("query_new", "0 and up", "content words that the question lacks", _OURS, "grows with length"),
    ("answer_recall", "0..1", "the answer's words in the turn", _ROUGE, "near 0 after any long answer"),
    ("answer_cover", "0..1", "the turn's words in the answer", _ROUGE, "high for copies and for short turns"),
    ("answer_sentence", "0..1", "its words in one sentence of the answer", _ROUGE, "1 for a quoted sentence"),
    ("answer_only_share", "0..1", "content words of the answer alone", _OURS, "1 for a single word; 0 for paraphrase"),
)  # fmt: skip
"""The wording tier's, in short: name, range, meaning, source, weakness."""

CATALOGUE: tuple[Signal, ...] = (
    Signal(
        "anchors", "text", "0 and up, log(1 + n)",
        "distinct rare words and numbers of the answer that the user's messages lack and the turn has",
        _OVERLAP, _COUNT,
        "blind to paraphrase; a copy has the most; off-topic turns share words by chance with a long answer",
    ),
    Signal(
        "anchor_share", "text", "0..1", "anchors among the turn's distinct content words",
        _OVERLAP, _COUNT, "1 for a single word taken from the answer",
    ),
    Signal(
        "numbers", "text", "0 or 1", "whether an anchor has a digit",
        _OURS, _COUNT, "numbers of a list (1., 2.) that both happen to have; most answers have none",
    ),
    Signal(
        "context_share", "text", "0..1", "content words that the user's messages have",
        _OURS, _COUNT, "high for a restated question and for one that goes on with its subject",
    ),
    Signal(
        "novelty", "text", "0..1", "content words that neither answer nor user's messages have",
        _OURS, _COUNT, "high for off-topic turns, and for a reaction in the user's own words",
    ),
    Signal(
        "answer_copy", "text", "0..1", "the turn's character 5-grams that stand in the answer",
        "n-gram containment (Broder 1997)", "one set of 5-grams per answer",
        "a quotation with a question behind it is high as well",
    ),
    Signal(
        "question_copy", "text", "0..1", "the same in the user's message that is most like the turn",
        "n-gram containment (Broder 1997)", "one set of 5-grams per message",
        "a rephrased question is low",
    ),
    Signal(
        "length", "text", "0 and up, log(1 + words)", "how long the turn is",
        _COUNT, _COUNT, "says nothing about what is said; long turns are often cut or run on",
    ),
    Signal(
        "question_mark", "text", "0 or 1", "whether there is one", _COUNT, _COUNT,
        "generic and off-topic turns ask as well; learned from English",
    ),
    Signal(
        "repetition", "text", "0..1", "1 - distinct words / words",
        "distinct-n (Li et al. 2016, arXiv 1510.03055)", _COUNT, "grows with length",
    ),
    Signal(
        "control_tokens", "text", "0 or 1", "whether the text holds a chat template's control token",
        _OURS, "one regular expression", "a user may talk about such tokens",
    ),
    Signal(
        "lines", "text", "0 and up, log(1 + line breaks)", "line breaks inside the turn",
        _COUNT, _COUNT, "pasted code has many and may be genuine",
    ),
    Signal(
        "ends", "text", "0 or 1", "whether it ends in closing punctuation",
        _OURS, "the last character", "people leave the full stop out",
    ),
    *(
        Signal(name, "wording", values, meaning, source, "part of filters' text tier", weakness)
        for name, values, meaning, source, weakness in WORDING
    ),
    Signal(
        "cos_query", "embedding", "-1..1", "cosine of turn and question", "Sentence-BERT (Reimers & Gurevych 2019)",
        "one encoding of the question", "high for a restatement; null where the assistant spoke first",
    ),
    Signal(
        "cos_answer", "embedding", "-1..1", "cosine of turn and answer", "Sentence-BERT (Reimers & Gurevych 2019)",
        "one encoding of the answer", "MiniLM reads 256 tokens, so only the head of a long answer; high for a copy",
    ),
    Signal(
        "cos_answer_best", "embedding", "-1..1", "cosine of turn and that sentence of the answer it is nearest to",
        "as passages in retrieval (Dai & Callan 2019), by sentence", "one encoding per sentence of the answer",
        "subject rather than reaction: on the subject but ungrounded is high as well; high for a copy",
    ),
    Signal(
        "cos_margin", "embedding", "-2..2", "cos_answer_best - cos_query", _OURS, "a subtraction",
        "noisy where question and answer are alike",
    ),
    Signal(
        "state_grade", "state", "log-odds, within what the probe's training turns had",
        "a linear probe's guess at the turn's grade, from the mean hidden state (column turn_state)",
        "linear probes (Alain & Bengio 2016, arXiv 1610.01644)",
        "one pass, none where the scorer wrote the turn itself and kept its states; a product of d numbers",
        "knows one layer of one scorer, learned from one set of judged turns; says nothing of why; "
        "not known where the engine shows no states",
    ),
    Signal(
        "answer_pmi", "likelihood", "nats per token, any",
        "how much likelier the answer makes the turn: log p(turn | context) - the same with the answer left empty",
        _PCMI, "two passes", "a copy of the answer has the highest of all; cheap words dilute it in long turns",
    ),
    Signal(
        "answer_pmi_sum", "likelihood", "nats, any", "answer_pmi, summed over the tokens",
        _PCMI, "none more", "grows with length",
    ),
    Signal(
        "answer_pmi_share", "likelihood", "0..1", "tokens that the answer makes likelier by more than 1 nat",
        _OURS, "none more", "coarse for short turns",
    ),
    Signal(
        "role_ratio", "likelihood", "nats per token, any",
        "who speaks: log p(turn | user header) - log p(turn | assistant header)", _OURS, "a third pass",
        "null where the template has no assistant header; a well-informed user sounds like an assistant",
    ),
    Signal(
        "copy_gain", "likelihood", "nats per token, any",
        "what the whole conversation gives: log p(turn | context) - log p(turn)", _PCMI, "a fourth pass, no prefix",
        "high for copies of anything said, and for whatever stays on the subject",
    ),
    Signal(
        "fluency", "likelihood", "nats per token, up to 0", "log p(turn) with no conversation before it",
        "perplexity as a quality filter (Wenzek et al. 2020, CCNet)", "that fourth pass",
        "prefers what is common; rare subjects and languages the scorer does not know are low",
    ),
    Signal(
        "mean_logprob", "likelihood", "nats per token, up to 0", "log p(turn | context)",
        "perplexity as a quality filter (Wenzek et al. 2020, CCNet)", "none more",
        "highest for copies and loops",
    ),
    Signal(
        "min_logprob", "likelihood", "nats, up to 0", "logprob of the unlikeliest token in that pass",
        _OURS, "none more", "one rare name is enough; falls with length",
    ),
    Signal(
        "cross_score", "cross", "the model's own output, any; before its sigmoid",
        "how well turn (as query) and answer (as passage) belong together, in the eyes of the model",
        "rerankers (Nogueira & Cho 2019, arXiv 1901.04085)", "the dearest per turn of those measured here",
        "trained for relevance, not for reaction: a copy is relevant; long answers are cut at the model's limit",
    ),
    Signal(
        "answer_pmi_swapped", "control", "nats per token, any",
        "log p(turn | context) - the same with another site's answer", _PCMI, "one pass",
        "depends on which other answer; tells a reaction to this answer from one to any",
    ),
    Signal(
        "judge_grade", "judge", "0, 1, 2 or 3", "the rubric's grade, given by a language model that reads the turn",
        "LLM as a judge (Zheng et al. 2023, arXiv 2306.05685)", "one request per turn",
        "as good as the judge; few steps, so ties",
    ),
    Signal(
        "judge_wins", "judge", "0..M-1 where M turns were compared",
        "how many of the site's other compared turns it beats, the mean of both orders asked; 1/2 where one is missing",
        "LLM as a judge (Zheng et al. 2023, arXiv 2306.05685)", "two requests per pair of turns",
        "as good as the judge; compares within one site only",
    ),
)  # fmt: skip
