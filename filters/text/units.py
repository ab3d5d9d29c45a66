"""What a comparable unit is, and which of them say nothing about a subject.

A unit is a stemmed word, or, in scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese), a pair of
neighbouring characters. The stem is the first six letters, a plural -s dropped: crude on purpose, for it has to serve
languages we know nothing about. `tokens.py` finds them.
"""

from __future__ import annotations

# ruff: noqa: E501  (word lists)
import re
import unicodedata

# Function words and acknowledgements say nothing about a subject. Small lists: the most frequent ones carry the mass.
_BY_LANGUAGE = {
    "en": "the of and to in is it that for on with as at by from be are was were this these those an or but if then so "
    "not no do does did done can could would should will shall may might must have has had i me my mine you your yours "
    "he she they we us our their them his her its what which who whom whose when where why how there here than too "
    "very just also only about into over out up down off again any some all each both more most other such own same "
    "am been being get got let im ive id ill dont doesnt didnt isnt arent cant couldnt wouldnt wont thats whats youre "
    "youve s t re ve ll d m a",
    "es": "el la los las un una unos unas de del y o u en con por para que qué es son ser era está están como cómo más "
    "pero si sí no se su sus mi mis me te lo le les al a ya muy este esta esto ese esa eso cuál cuando cuándo dónde "
    "hay tengo tiene puedo puede yo tú usted entonces porque",
    "de": "der die das den dem des ein eine einen einem einer und oder aber in im mit von zu zum zur für auf an am ist "
    "sind war waren sein wird werden nicht kein keine ich du er sie es wir ihr mich mir dir sich mein meine dein ihre "
    "wie was wer wo wann warum wenn dann auch nur noch schon so als bei aus nach man kann könnte soll muss habe hat "
    "haben doch denn da dass",
    "fr": "le la les un une des de du et ou mais en dans avec pour par sur que qui quoi est sont être était ce cet "
    "cette ces il elle on nous vous ils elles je tu me te se mon ma mes ton ta tes son sa ses leur ne pas plus très si "
    "comment quand où pourquoi quel quelle au aux à y dois peut peux donc alors c j l d qu n s m t",
    "pt": "o a os as um uma uns umas de do da dos das e ou em no na nos nas com por para que é são ser era está estão "
    "como mais mas se sim não seu sua meu minha me te lhe ao à já muito este esta isto esse essa isso qual quando onde "
    "tem tenho posso pode eu você então porque",
    "it": "il lo la i gli le un una uno di del della dei delle e o ma in nel nella con per da dal che chi è sono essere "
    "era questo questa quello quella come più se sì non si mi ti ci vi suo sua mio mia al alla ai quando dove perché "
    "quale ho ha posso può io tu lei allora",
    "ru": "и в во на с со не что это как а но или по к у из за от до для о об же бы ли он она они мы вы я ты мне меня "
    "мой так то если есть был была быть где когда почему какой какая можно нужно",
    "hi": "के का की है हैं में से को और या पर यह वह ये वो क्या कैसे कब कहाँ क्यों मैं आप हम तुम मेरा मेरे मेरी नहीं तो भी ही था थी थे हो एक "
    "लिए अगर",
    "ar": "في من على إلى عن أن إن ما لا هو هي هذا هذه ذلك و أو ثم كيف متى أين لماذا هل أنا أنت نحن كان كانت مع لم لن قد "
    "إذا كل",
}
_COURTESY = (
    "ok okay k yes yeah yep yup no nope sure thanks thank thx ty cheers please hello hi hey bye goodbye great good nice "
    "cool perfect awesome alright right fine wow lol haha hmm oh ah well welcome sorry much lot really "
    "gracias vale hola bueno bien genial claro perfecto danke bitte gut super hallo ja nein genau merci oui non bonjour "
    "bien parfait accord d'accord obrigado obrigada sim olá ótimo certo grazie ciao va bene perfetto certo prego "
    "спасибо да нет хорошо ладно привет понятно धन्यवाद हाँ ठीक नमस्ते शुक्रिया अच्छा شكرا نعم حسنا مرحبا تمام"
)
_GENERIC = (
    "tell more explain example examples think interesting helpful understand understood detail details mean means "
    "elaborate clarify clarification further help information info know learn something anything everything thing "
    "things make makes sense say said question questions answer answers want need like give show use used way point "
    "try see look go going work works continue next step topic part short simple simpler summary summarize else "
    "explica explicar ejemplo ejemplos detalles interesante entiendo cuéntame información "
    "erklären erklär beispiel beispiele mehr interessant verstehe verstanden genauer erzähl "
    "expliquer explique exemple exemples détails intéressant comprends savoir davantage "
    "explicar exemplo exemplos detalhes interessante entendi saiba mais "
    "spiega spiegare esempio esempi dettagli interessante capito capisco dirmi "
    "расскажи подробнее пример примеры интересно понял объясни समझाइए उदाहरण बताइए और जानकारी दिलचस्प "
    "اشرح مثال أمثلة المزيد تفاصيل مثير فهمت"
)

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")


def normal(text: str) -> str:
    """NFKC, with ß as ss, since in capitals it is SS."""
    if text.isascii():
        return text
    return (text if unicodedata.is_normalized("NFKC", text) else unicodedata.normalize("NFKC", text)).replace("ß", "ss")


def plain(text: str) -> str:
    """NFKC without invisible characters, so that they hide no cue. Case is kept."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", normal(text))


LANGUAGES: dict[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in _BY_LANGUAGE.items()}
"""Function words, unstemmed, by ISO 639-1 code."""

EMPTY_WORDS = frozenset(word for words in (*_BY_LANGUAGE.values(), _COURTESY) for word in words.split())
"""Function words and courtesy: their units have no content."""

GENERIC_WORDS = frozenset(_GENERIC.split())
"""Words whose units fit into a remark about anything."""
