"""Phrases that tell what a remark is for: generic, self-contained, reacting, asking, pointing back.

Same languages and same care for linear time as in `cues`.
"""

from __future__ import annotations

# ruff: noqa: E501  (one alternative a line reads better than a wrapped one)
from filters.text.cues import phrases

GENERIC = phrases(
    r"""
    (?:can|could|would) you (?:please )?(?:tell me more|explain (?:more|further|that|this|it)|elaborate|clarify|expand)
    tell me more
    (?:give|show) me (?:an|some|another|more) examples?
    (?:can|could) you (?:please )?(?:give|provide|show)(?: me)? (?:an|some|another|more) (?:examples?|details?|information)
    what do you think
    that's (?:very |really |so )?(?:interesting|helpful|great|useful|good to know)
    (?:thanks|thank you) for (?:the|your) (?:explanation|help|information|info|answer|explaining)
    i (?:see|understand|get it)
    makes sense
    what else
    anything else
    how does (?:that|this|it) work
    what does (?:that|this) mean
    why is (?:that|this)
    go on
    keep going
    (?:cuéntame|dime|puedes (?:decirme|explicar(?:me)?|contarme)) (?:algo )?más
    qué (?:opinas|piensas)
    (?:puedes|podrías) (?:dar(?:me)?|poner(?:me)?) (?:un|más|algún) ejemplos?
    (?:kannst du|können sie) (?:mir )?(?:das |dazu )?(?:mehr|näher|genauer|ein beispiel|bitte mehr)
    was (?:denkst|meinst|hältst) du
    das ist (?:sehr |echt )?(?:interessant|hilfreich)
    (?:peux-tu|pouvez-vous|tu peux) (?:m'en dire plus|(?:me )?donner (?:un|plus|des)|expliquer (?:davantage|plus|ça))
    (?:qu'en penses-tu|qu'en pensez-vous|dis-m'en plus)
    c'est (?:très |vraiment )?(?:intéressant|utile)
    (?:pode|poderia) (?:me )?(?:dizer|falar|explicar|contar|dar) (?:mais|um exemplo)
    o que você acha
    (?:puoi|potresti) (?:dirmi|spiegar(?:mi|e)|far(?:mi|e)|darmi) (?:di più|meglio|un esempio)
    (?:cosa|che) ne pensi
    (?:расскажи(?:те)?|объясни(?:те)?) (?:поподробнее|подробнее|больше)
    (?:можешь|можете|приведи(?:те)?) (?:привести )?пример
    что (?:ты|вы) думае(?:шь|те)
    это (?:очень )?(?:интересно|полезно)
    (?:能|可以)(?:再)?(?:详细|多)(?:说|讲|解释)
    (?:能|可以)(?:给我)?举(?:个|一个)例
    你(?:怎么看|觉得呢|有什么看法)
    (?:もっと|もう少し)(?:詳しく|教えて)
    (?:例|具体例)を(?:教えて|挙げて|ください)
    どう思いますか
    (?:और|थोड़ा और|विस्तार से) (?:बताइए|बताएं|बताओ|समझाइए)
    आप क्या सोचते
    (?:هل يمكنك|ممكن) (?:أن )?(?:تخبرني|توضح|تشرح|تعطيني) (?:المزيد|أكثر|مثال)
    ما رأيك
    """
)
"""Remarks that fit after almost any answer."""

TEXTBOOK = phrases(
    r"""
    what is the (?:difference between|best way|most|main|purpose|meaning|definition|name|importance|role|process|capital|average|formula)
    what are (?:the|some) (?:main|best|different|most|benefits|advantages|key|common|types|ways|steps|causes|effects)
    what (?:is|are) (?:a|an|the) [^\n?]{3,60}\?
    how (?:do|does|can|to|would|did) (?:i|you|we|one|the|a|an|it|they|people|someone)? ?
    how to
    (?:please )?(?:write|create|generate|compose|design|develop|define|describe|translate|list|name|calculate|find|solve|identify) (?:a|an|the|me|some|\d+|all)
    (?:can|could) you (?:please )?(?:write|create|generate|help me|recommend|suggest|describe|translate)
    i (?:am|'m) (?:a|an|looking for|working on|trying to|planning)
    i (?:need|want|would like) (?:help|to|a|an|you)
    given (?:a|an|the|code)
    """,
    start=True,
)
"""Openings of self-contained requests, English only: what small models fall back to when they lose the thread."""

REACTION = phrases(
    r"""
    you (?:said|say|mention|mentioned|wrote|suggested|suggest|recommended|listed|gave|told|put|used|call|called|forgot|missed|skipped|meant|mean)
    your (?:answer|example|code|version|suggestion|list|point|first|second|third|last|draft|table|explanation|step|plan|estimate)
    (?:the|that|this) (?:first|second|third|fourth|last|1st|2nd|3rd|other|same) (?:one|option|step|point|part|line|version|paragraph|sentence|example)?
    (?:step|option|point|line|row|number|item|part|section) (?:\d+|one|two|three|four|a|b|c)
    (?:wait|hang on|hold on|hmm|actually|ok|okay|ah|oh|right|fair|cool|great|perfect|thanks|yes|yeah|no|nope)[,.!…—-]
    (?:so|and|but|or|then|also|what if|what about|how about|why not|why would|why does|why is|which (?:one|of)|is (?:that|it|this)|does (?:that|it|this)|do (?:those|they|these)|would (?:that|it|this)|can (?:that|it|this)|are (?:they|those|these)|isn't|doesn't|if i|and if|should i|i'd|i'll|i tried|i did)
    """,
    start=True,
)
"""How people begin when they react: connectives, pointing words, doubts. English only."""

POINTING = phrases(
    r"""
    you (?:said|say|mention|mentioned|wrote|suggested|suggest|recommended|listed|gave|told|used|called|forgot|missed|skipped)
    (?:that|this|those|these|it|them|the one|instead|same|other|still|already|either)
    (?:dijiste|mencionas|mencionaste|eso|esto|esa|ese)
    (?:du (?:sagst|schreibst|meinst|hast)|das|dieser?|diesen)
    (?:tu (?:dis|as dit)|vous (?:dites|avez dit)|ça|cela|celui|celle)
    (?:você (?:disse|falou|mencionou)|isso|esse|essa)
    (?:hai (?:detto|scritto)|questo|quello|quella)
    (?:ты (?:сказал|написал)|вы (?:сказали|написали)|это|этот|тот)
    这(?:个|样|些)?
    那(?:个|么|样|些)?
    你(?:说|提到|刚才)
    それ
    その
    これ
    (?:यह|वह|वो|आपने)
    (?:هذا|هذه|ذلك|تلك|قلت|ذكرت)
    """
)
"""Words that point back at what was said."""

QUESTION_WORD = phrases(
    r"""
    (?:what|why|how|when|where|which|who|whose|is|are|does|do|did|can|could|should|would|will|was|were|isn't|doesn't)
    (?:qué|cómo|cuándo|dónde|por qué|cuál|quién|puedo|puedes)
    (?:was|wie|wann|wo|warum|welche[rsnm]?|wer|kann|soll|ist|sind|wieso)
    (?:que|comment|quand|où|pourquoi|quel(?:le)?s?|qui|est-ce|combien|peux|faut-il)
    (?:como|quando|onde|por que|qual|quem|posso|o que)
    (?:come|quando|dove|perché|quale|chi|cosa|posso)
    (?:что|как|когда|где|почему|какой|какая|кто|можно|сколько)
    """,
    start=True,
)
"""A sentence that opens like a question, question mark or not."""

FIRST_PERSON = phrases(
    r"""
    (?:i|i'm|i've|i'd|i'll|me|my|mine|we|our|us)
    (?:yo|mi|mis|me|nos)
    (?:ich|mir|mich|mein(?:e[rnms]?)?|wir|uns)
    (?:je|j'|moi|mon|ma|mes|nous)
    (?:eu|meu|minha|nós)
    (?:io|mio|mia|noi)
    (?:я|мне|меня|мой|моя|мы|нас)
    我
    (?:私|僕|俺)
    (?:मैं|मुझे|मेरे|मेरा|मेरी)
    """
)
"""The speaker speaks of themselves."""

SECOND_PERSON = phrases(
    r"""
    (?:you|your|yours|you're|you've|you'll)
    (?:tú|te|tu|tus|usted)
    (?:du|dir|dich|dein(?:e[rnms]?)?|ihnen)
    (?:tu|toi|ton|ta|tes|vous|votre|vos)
    (?:você|seu|sua)
    (?:ti|tuo|tua|lei)
    (?:ты|тебе|тебя|вы|вам|вас|ваш)
    (?:你|您)
    あなた
    (?:आप|आपके|आपका|आपकी|तुम)
    """
)
"""The other one is addressed."""

DOUBT = phrases(
    r"""
    (?:are|r) you sure
    (?:but|wait|hmm|actually|however|though)
    i thought
    (?:isn't|wasn't|doesn't|don't|didn't|won't|wouldn't|aren't) (?:that|this|it|the|you|there|they)
    that(?:'s| is)(?: not|n't) (?:right|what|true|correct|how)
    (?:pero|creía que|seguro que|no era)
    (?:aber|moment|ich dachte|bist du sicher|sicher, dass)
    (?:mais|attends|je croyais|je pensais|es-tu sûr|vous êtes sûr)
    (?:mas|espera|achei que|pensei que|tem certeza)
    (?:ma|aspetta|pensavo|credevo|sei sicuro)
    (?:но|подожди|я думал|я думала|вы уверены|ты уверен)
    (?:लेकिन|मगर|पर क्या)
    """,
    r"""
    但是?
    不过
    可是
    确定吗
    でも
    しかし
    本当に
    (?:لكن|هل أنت متأكد)
    """,
)
"""Doubt and contradiction."""

ASKS_OTHER = phrases(
    r"""
    (?:can|could|would|will|do|did|are|have|may|should) (?:you|i ask you)
    (?:puedes|podrías|puede|me puedes|me podrías)
    (?:kannst|könntest|können|könnten) (?:du|sie)
    (?:peux-tu|pouvez-vous|pourrais-tu|pourriez-vous|tu peux|vous pouvez)
    (?:você pode|pode|poderia)
    (?:puoi|potresti|può|potrebbe)
    (?:можешь|можете|не могли бы)
    """,
    r"""
    (?:你|您)?(?:能|可以)
    (?:क्या आप)
    (?:هل يمكنك)
    """,
    start=True,
)
"""Questions and requests to the other."""
