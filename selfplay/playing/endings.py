"""When a user is done: what the candidates of a site say about the end of the dialogue.

A candidate says that the user is done if it is blank although the model ended it itself, if it holds the end marker
that a primed user was told of, or if it takes leave and does nothing else ("Thanks, that's all!"). The user is done
where more than half of the candidates say so: one blank among eight is a failed draw, five are a model with nothing
left to say.

What this cannot see: that a real user would have been content while the model talks on, which most do; that a blank
comes from a model lost at the user header and not from one that has heard enough; leave taken in words that are not
in the list, or in other languages than the eleven of the filters.
"""

from __future__ import annotations

# ruff: noqa: E501  (one alternative a line reads better than a wrapped one)
import re
from collections.abc import Iterable, Mapping
from typing import Any

from filters.text.cues import phrases

LEAVE = phrases(
    r"""
    (?:many )?thanks(?: so much| very much| a lot| a million| again)?(?: for (?:all )?(?:your|the) (?:help|time|advice|answer|answers|explanation|information|info))?
    thank you(?: so much| very much| again)?(?: for (?:all )?(?:your|the) (?:help|time|advice|answer|answers|explanation|information|info))?
    (?:good ?)?bye(?: bye)?
    that's (?:all|everything|it)(?: i (?:need|needed|wanted))?(?: for (?:now|today))?
    (?:i have )?no (?:more|further|other) questions
    nothing else
    i'm (?:all )?(?:set|good|done)(?: now| here)?
    that answers (?:my|all my) questions?
    have a (?:great|good|nice|lovely) (?:day|one|evening|weekend|night)
    (?:muchas |muchísimas )?gracias(?: por (?:tu|su|la) ayuda)?
    adiós|hasta luego|eso es todo
    (?:vielen |herzlichen )?dank(?:e)?(?: schön| sehr| dir| ihnen)?(?: für (?:die|deine|ihre) hilfe)?
    tschüss|auf wiedersehen|das (?:war's|war alles|wäre alles)
    merci(?: beaucoup| bien)?(?: pour (?:votre|ton) aide)?
    au revoir|c'est tout
    (?:muito )?obrigad[oa](?: pela ajuda)?
    tchau|isso é tudo
    grazie(?: mille| tante)?(?: per l'aiuto)?
    arrivederci|è tutto
    (?:谢谢|多谢|感谢)(?:你|您)?(?:的帮助)?
    再见
    (?:どうも)?ありがとう(?:ございます|ございました)?
    さようなら
    धन्यवाद
    शुक्रिया
    شكرا
    مع السلامة
    (?:большое )?спасибо(?: большое| за помощь)?
    до свидания|это всё
    """
)
"""Words that end a dialogue."""

FILLER = re.compile(
    r"(?<!\w)(?:ok|okay|yes|no|nope|oh|ah|great|perfect|good|cool|nice|awesome|wonderful|excellent|alright|all right"
    r"|got it|i see|understood|that helps|that helped|(?:that's|this is|it's) (?:very |really |so )?(?:helpful|great"
    r"|perfect|clear)|you've been (?:very |really |so )?helpful|take care|see you(?: later)?|and|then|so|very helpful"
    r"|i think|for now|today)(?!\w)"
)
"""What may stand around them."""

MOST_WORDS = 25


def takes_leave(turn: str) -> bool:
    """Whether a turn takes leave and says nothing else."""
    text = turn.strip().lower().replace("’", "'")
    if not text or "?" in text or len(text.split()) > MOST_WORDS:
        return False
    without, found = LEAVE.subn(" ", text)
    return bool(found) and not re.search(r"\w", FILLER.sub(" ", without))


def says_done(turn: str, finish_reason: str, marker: str | None = None) -> bool:
    """Whether one candidate says that the user is done.

    Args:
        marker: What a primed user was told to end with.
    """
    if not turn.strip():
        return finish_reason == "stop"
    return (marker is not None and marker in turn) or takes_leave(turn)


def user_done(candidates: Iterable[Mapping[str, Any]], marker: str | None = None) -> bool:
    """Whether more than half of the candidates (`turn`, `finish_reason`) of a site say so."""
    said = [says_done(row["turn"] or "", row["finish_reason"], marker) for row in candidates]
    return 2 * sum(said) > len(said)
