"""What the patterns find in turns, many turns at once.

A pattern costs polars something for every column, however short: measured (polars 2.1), about what two thousand turns
cost, perhaps because the matcher's states are found anew. So the columns are long here, longer than the batches in
which everything else is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from filters.text import cues, remarks
from filters.text.patterns import counted, spell

_CODE_LINE = (
    r"(?m)^[^\S\n]*(?:[{}\[\]();]+\s*,?|<[/!]?\w[^>\n]*>.*|\"[\w -]{1,60}\"[^\S\n]*:.*|"
    r"(?:def|class|import|from|return|for|while|if|else|elif|try|except|print|const|let|var|function|public|private|"
    r"#include|SELECT|INSERT|UPDATE|CREATE)(?-u:\b).*[:;({)}=].*|[\w.\[\]\"']+[^\S\n]*[-+*/]?=[^=\n].*|"
    r"\w[\w.]*\(.*\)[^\S\n]*[;:]?|```.*|\$[^\S\n].+)[^\S\n]*$"
)
_CODE_SIGN = r"[{}\[\]();:=<>$\"`]"
_LIST_ITEM = r"(?m)^[^\S\n]*(?:[-*•·–]|\(?\d{1,3}[.)]|[a-zA-Z][.)])[^\S\n]+\S"
_LINE = r"[^\n]*\S[^\n]*"
_QUOTED = r'"[^"\n]{1,400}"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|「[^」\n]{1,400}」'
_SENTENCES = r"[^.!?。।؟\n]*[^\s.!?。।؟][^.!?。।؟\n]*"
_MAY_BE_CONTROL = r"<[|｜</a-zA-Z0]|\|>|\[[/|A-Zge]|\]~|###"
"""How all that `cues.CONTROL` matches begins or ends."""
_LOWERED = {
    "assistant": cues.ASSISTANT,
    "advice": cues.ADVICE,
    "planning": cues.PLANNING,
    "steering": cues.STEERING,
    "generic": remarks.GENERIC,
    "reaction": remarks.REACTION,
    "pointing": remarks.POINTING,
    "first_person": remarks.FIRST_PERSON,
    "second_person": remarks.SECOND_PERSON,
    "role_marker": cues.ROLE_MARKER,
    "doubt": remarks.DOUBT,
}
_OPENING = {"question_word": remarks.QUESTION_WORD, "opening": cues.OPENING, "textbook": remarks.TEXTBOOK}

Column = NDArray[np.float64]


def find(turns: list[str]) -> dict[str, Column]:
    """How often each pattern is met in each of the n turns; columns of shape (n,).

    Those for openings are met once at most; `code` and `line_chars` count characters, `quoted` is a share of them.
    """
    import polars as pl

    lowered = [spell(text.lower()) for text in turns]
    frame = pl.DataFrame(
        {"text": turns, "lowered": lowered, "opening": [text[:600].lstrip() for text in lowered]},
        schema=dict.fromkeys(("text", "lowered", "opening"), pl.String),
    )
    text, low, opening = pl.col("text"), pl.col("lowered"), pl.col("opening")
    expressions = {
        "stage_note": text.str.contains(cues.STAGE_NOTE.pattern),
        "lines": text.str.count_matches(_LINE),
        "line_chars": text.str.len_chars() - text.str.count_matches("\n", literal=True),
        "list_items": text.str.count_matches(_LIST_ITEM),
        "may_be_control": text.str.contains(_MAY_BE_CONTROL),
        "sentences": text.str.count_matches(_SENTENCES),
        "asks_last": text.str.contains(r"[?؟][\s\"'”’)*_]*$"),
        "quoted": text.str.extract_all(_QUOTED).list.join("").str.len_chars() / text.str.len_chars().clip(1),
        "asks_other": low.str.contains(counted(remarks.ASKS_OTHER, opening=True)),
        **{name: low.str.count_matches(counted(pattern)) for name, pattern in _LOWERED.items()},
        **{name: opening.str.contains(counted(pattern, opening=True)) for name, pattern in _OPENING.items()},
    }
    found = frame.select(expression.cast(pl.Float64).alias(name) for name, expression in expressions.items())
    code = np.zeros(len(turns))
    likely = frame["text"].str.contains(_CODE_SIGN).to_numpy()
    code[likely] = frame["text"].filter(likely).str.extract_all(_CODE_LINE).list.join("").str.len_chars().to_numpy()
    return {"code": code, **{name: found[name].to_numpy() for name in expressions}}
