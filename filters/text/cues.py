"""Phrases that give away who speaks, in the languages the project promises.

English, Spanish, German, French, Portuguese, Italian, Chinese, Japanese, Hindi, Arabic and Russian. Every pattern is
an alternation of plain phrases without nested repetition, so that matching time is linear in the text.
"""

from __future__ import annotations

# ruff: noqa: E501  (one alternative a line reads better than a wrapped one)
import re


def phrases(*groups: str, start: bool = False) -> re.Pattern[str]:
    """Alternatives, one per line, for text in lower case (a third of the time that ignoring case takes).

    Latin and Cyrillic phrases match whole words, Hindi and Arabic ones beginnings of words, Chinese and Japanese ones
    anywhere; `start` ties them all to a line's or a sentence's start.
    """
    spaced: list[str] = []
    open_ended: list[str] = []
    unspaced: list[str] = []
    for line in "\n".join(groups).splitlines():
        phrase = line.strip().replace("'", "['’]?")
        if phrase:
            first = re.sub(r"^[(?:]*", "", phrase)
            east, south = re.match("[\u3000-\u9fff]", first), re.match("[\u0600-\u0fff]", first)
            (unspaced if east else open_ended if south else spaced).append(phrase)
    body = "(?:" + "|".join(spaced) + r")(?!\w)"
    if open_ended:
        body = "(?:" + body + "|" + "|".join(open_ended) + ")"
    if start:
        return re.compile(START + ("(?:" + body + "|" + "|".join(unspaced) + ")" if unspaced else body).lower())
    return re.compile("|".join([r"(?<!\w)" + body, *unspaced]).lower())


START = r"(?:^|(?<=[\n.!?。！？]))[\s\"'“*#>-]{0,6}"


CONTROL = re.compile(
    r"<\|[^<>|\n]{1,40}\|?>?"  # ChatML, Llama 3, Phi, harmony, GLM; cut ones too
    r"|[^\s<|>]{0,24}\|>"
    r"|<｜[^<>｜\n]{1,40}｜>"  # DeepSeek
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|gMASK|MASK|CALL_ID|PREFIX"
    r"|SUFFIX|MIDDLE|BOS|EOS|PAD|CLS|SEP|IMG|IMG_BREAK|IMG_END|BEGIN_AUDIO)\]|\[ARGS\](?=\s?\{)"
    r"|\[\|[A-Za-z_]{2,24}\|\]|\]~!b\[|\[e~\["  # EXAONE, MiniMax
    r"|<</?SYS>>|</?s>|<(?:start|end)_of_(?:turn|image|text|role|utterance)>|</?arg_(?:key|value)>"
    r"|<(?:bos|eos|pad|unk|sop|eop|mask|sep|cls|eo[adhm]|PAD|[BE]OS_TOKEN)>|<SPECIAL_\d{1,4}>"
    r"|</?(?:think|tool_call|tool_response|tools|answer|reasoning|reponame|file_sep|fim_[a-z]{3,6}|jupyter_[a-z]{3,12}"
    r"|function_call|repo_name|empty_output|gh_stars|issue_(?:start|comment|closed)|commit_(?:before|msg|after))>"
    r"|</?(?:seed|minimax):[a-z_]{2,24}>|</?longcat_[a-z_]{2,24}>|<role>[A-Z]{2,16}</role>"
    r"|<extra_id_\d{1,3}>|<0x[0-9A-Fa-f]{2}>|<reserved_?\d{0,4}>|<unused\d{1,3}>"
    r"|###[A-Z][A-Z_-]{2,24}###|</?meta>"  # What simulated users are told to end with: tau-bench's ###STOP###
    r"|[<\[](?:STOP|END|EOC|[A-Z]{2,12}_TASK_DONE|END[ _]OF[ _](?:TURN|CHAT|CONVERSATION|DIALOG(?:UE)?)"
    r"|END[ _](?:CHAT|CONVERSATION|DIALOG(?:UE)?)|(?:CHAT|CONVERSATION|DIALOG(?:UE)?)[ _](?:END|OVER|ENDED))[>\]]",
)
"""Control tokens of the known chat templates, whole or cut, and marks by which user simulators end."""

ROLE_MARKER = re.compile(
    r"^[\s*#>\[(]{0,4}(?:user|assistant|system|human|ai|bot|chatbot|model|tool|customer|agent|usuario|asistente|"
    r"benutzer|assistent|utilisateur|usuário|utente|пользователь|ассистент|用户|助手|ユーザー|アシスタント|"
    r"उपयोगकर्ता|सहायक|المستخدم|المساعد)[\s*\])]{0,4}(?:[:：]|\n)"
    r"|#{2,4} ?(?:instruction|response|input|output|user|assistant|human)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""A role's name in front of a line, as in a transcript."""

ASSISTANT = phrases(
    r"""
    as an ai(?: language)? model
    as an ai\b
    i'm (?:just )?an ai
    i am an ai
    i'm sorry,? but i can't
    how (?:can|may) i (?:help|assist)(?: you)?
    what can i (?:help|do for) you
    let me know if you(?:'d| would) (?:like|prefer)
    let me know if you (?:have|want|run into|get stuck)
    let me know if you need (?:any |more |some )?(?:help|assistance|clarification|guidance|examples?)
    let me know if there(?:'s| is) anything(?: else)? (?:that )?(?:you|i can|we can)
    let me know if there are any questions
    feel free to (?:ask|reach|share|let)
    i hope (?:this|that) helps
    hope (?:this|that) helps
    happy to help
    glad (?:to help|i could help|that helped|you)
    (?:i'd be|i'm|i am) (?:happy|glad|here) to (?:help|assist)
    would you like me to
    do you want me to
    shall i (?:also )?(?:go|write|draft|show|explain|add|walk)
    if you (?:have|need) any (?:more|other|further) (?:questions?|help|assistance)
    if you'd like,? i can
    i can help you
    i can (?:also )?(?:write|draft|show|explain|walk|provide) (?:you|it|a)
    anything else (?:that )?(?:i|we) can (?:help|assist|clarify|explain|do for you)
    anything else you(?:'d| would) like
    thank you for (?:your (?:question|feedback|message)|reaching)
    thanks for reaching
    you're (?:very |most )?welcome
    please (?:provide|share) (?:me with )?(?:the|your|more)
    """,
    r"""
    como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)
    (?:en|a) qué (?:más )?(?:te |le )?puedo ayudar(?:te|le)?
    (?:en|con) qué (?:más )?puedo ayudar(?:te|le)
    espero que (?:esto|te|le) (?:te |le )?(?:ayude|sirva)
    si (?:necesitas|tienes|quieres)[^.\n]{0,30}(?:avísame|dime|puedo|házmelo)
    no dudes en
    estoy aquí para ayudar
    ¿?quieres que (?:te )?(?:lo |la )?
    con (?:mucho )?gusto te
    als (?:ki|sprachmodell|künstliche intelligenz)
    (?:wie|womit|wobei) kann ich (?:dir|ihnen|euch)
    ich (?:helfe|unterstütze) (?:dir|ihnen) gern
    gerne helfe ich
    (?:sag|sagen sie|lass|lassen sie) (?:mir |es mich )?(?:bescheid|wissen)
    soll ich (?:dir|ihnen|noch|auch)
    ich hoffe,? das hilft
    möchtest du,? dass ich
    wenn du (?:möchtest|magst|willst),? (?:kann|schreibe|zeige|erkläre) ich
    en tant qu'(?:ia|intelligence|assistant|modèle)
    comment (?:puis-je|je peux) (?:vous|t')? ?aider
    n'hésite[sz]? pas à
    j'espère que (?:cela|ça)
    (?:voulez-vous|veux-tu|souhaitez-vous|souhaites-tu) que je
    je (?:suis là|serais ravi|peux) (?:pour )?(?:de )?(?:vous|t') ?aider
    si (?:vous voulez|tu veux),? je peux
    """,
    r"""
    como (?:uma )?(?:ia|inteligência artificial|modelo de linguagem)
    (?:em|no) que (?:mais )?posso (?:te |lhe )?ajudar
    espero (?:que isso|ter) ajud(?:e|ado)
    (?:quer|gostaria) que eu
    fique à vontade
    se (?:quiser|precisar),? (?:posso|é só|me avise)
    come (?:ia|intelligenza artificiale|modello linguistico)
    (?:come|in cosa|in che modo) posso (?:aiutarti|aiutarla|esserti)
    spero (?:che (?:questo|ti)|di esserti)
    (?:vuoi|vuole|desideri) che (?:io |ti |le )?
    se (?:vuoi|preferisci|ti serve),? posso
    non esitare a
    как (?:ии|языковая модель|искусственный интеллект)
    чем (?:я )?(?:ещё |еще )?могу (?:вам |тебе )?помочь
    (?:хотите|хочешь),? (?:чтобы )?я
    надеюсь,? это (?:поможет|помогло)
    если (?:у вас|хотите|нужно)[^.\n]{0,30}(?:обращайтесь|могу|дайте знать)
    """,
    r"""
    作为(?:一个|一名)?(?:AI|人工智能|语言模型)
    我(?:可以|能)(?:为您|帮您|帮你|为你)
    (?:请问)?(?:有什么|还有什么)(?:我)?(?:可以|能)(?:帮|为)
    希望(?:这|对您|对你|能帮)
    需要我(?:帮|为|再|继续)
    (?:要|想)不要我
    如果(?:您|你)(?:需要|还有|有任何|愿意)
    (?:何か|他に)?お手伝い(?:できる|しましょう|いたし)
    ご不明な点
    お気軽に
    お役に立て
    AI(?:アシスタント)?として
    (?:作成|説明|ご案内|お作り)(?:し|いたし)ましょうか
    मैं (?:आपकी|आपके)[^।\n]{0,20}(?:मदद|सहायता)
    एक एआई
    क्या आप चाहेंगे कि मैं
    अगर आप चाहें तो मैं
    كيف (?:يمكنني|أستطيع) مساعدت
    هل (?:تريد|ترغب)(?:ين)? (?:أن|مني)
    كنموذج لغوي
    بصفتي (?:نموذج|ذكاء)
    يسعدني (?:أن|مساعدت)
    إذا كنت (?:بحاجة|تحتاج|ترغب|تريد)
    """,
)
"""Offers, disclaimers and courtesies that come from the assistant's seat."""

OPENING = phrases(
    r"""
    sure[,!.]? (?:here|i|let|thing)
    (?:sure|certainly|absolutely|of course)[!,:]
    (?:great|good|excellent) question
    here(?:'s| is| are) (?:a|an|the|some|your|my|how|what|one|two|three|\d+)
    certainly
    to (?:answer|solve|calculate|summari[sz]e) (?:your|this|the|it)
    the (?:correct )?answer is
    yes, (?:you can|it is|that is|this is|there (?:is|are))
    no problem[,!]
    you can (?:use|try|also|do|find)
    you should
    in (?:summary|conclusion|short),
    claro(?: que sí)?[,!.] (?:aquí|te)
    por supuesto[,!.]
    aquí (?:tienes|está|tiene)
    natürlich[,!.]
    selbstverständlich
    hier (?:ist|sind) (?:ein|eine|der|die|das|dein|ihr)
    bien sûr[ ,!.]
    voici (?:un|une|le|la|les|votre|ton|quelques)
    claro[,!.]
    aqui (?:está|estão|vai|tem)
    certamente[,!.]
    ecco (?:un|una|il|la|i|le|come)
    certo[,!.] ecco
    конечно[,!.]
    вот (?:пример|вариант|ваш|как|несколько)
    当然[，,！!]
    好的，(?:这是|以下|我来|下面)
    以下是
    もちろんです
    はい、(?:こちら|以下)
    こちらが
    ज़रूर[,!।]
    (?:यहाँ|यहां|ये) (?:है|हैं|रहा|रहे)
    بالتأكيد
    بالطبع
    إليك
    """,
    start=True,
)
"""How an assistant opens an answer."""

ADVICE = phrases(
    r"""
    i'd (?:recommend|suggest|advise|start|keep|go)
    i would (?:recommend|suggest|advise|be happy)
    i (?:recommend|suggest|advise)
    i've (?:now |also |just )?(?:updated|added|set|created|sent|moved|saved|changed|booked|reserved|attached|drafted|revised|checked|scheduled|committed|put|tried|fixed)
    i have (?:now |also |just )?(?:updated|added|set|created|sent|moved|saved|changed|booked|reserved|attached|drafted|revised)
    i'll (?:create|send|walk|draft|add|assign|set|update|prepare|check|explain)
    your (?:next step|room|order|booking|request|appointment|ticket|refund)
    (?:you can|you could|you should|you'll|you may|you might|make sure|be sure|remember|note that|keep in mind|try to|avoid|check|open|click|use|start)
    (?:in order )?to (?:avoid|rule out|make|fix|solve|find|get|check|grade|remember|keep|do) (?:this|that|it|the|sure)
    (?:next|then|finally|first|secondly|additionally|furthermore|moreover|therefore|thus|hence|in addition|for example|for instance|alternatively|otherwise|as a result),
    (?:the (?:root cause|fix|idea|reason|key|rule|solution|result) is|that's because|this is because|this means|it means|since the|here's (?:the|how)|interestingly|of course)
    let's (?:find|look|start|solve|see|break|consider|take|walk)
    if you (?:find|want|need|have|prefer|are|see|notice)
    deberías|puedes|te recomiendo|recuerda|asegúrate|ten en cuenta|además,|por ejemplo,
    du solltest|sie sollten|ich empfehle|denk daran|achte(?:n sie)? darauf|außerdem|zum beispiel|beachte
    vous devriez|tu devrais|vous pouvez|tu peux|je (?:vous|te) (?:conseille|recommande)|assure[sz]?[- ](?:toi|vous)|par exemple,|ainsi,
    você deve|você pode|recomendo|lembre-se|certifique-se|além disso|por exemplo,
    dovresti|puoi|ti consiglio|ricorda(?:ti)?|assicurati|inoltre,|ad esempio
    вам (?:следует|нужно|стоит)|вы можете|рекомендую|советую|обратите внимание|кроме того|например,
    您可以
    你可以
    建议(?:您|你)
    请(?:注意|确保|先)
    例如
    おすすめします
    してください
    ご確認ください
    例えば
    आप [^।\n]{0,30}(?:सकते हैं|चाहिए)
    सुनिश्चित करें
    يمكنك
    أنصحك
    تأكد من
    """
)
"""Advice, instructions and reports of work done: the assistant's trade, though users speak so at times."""

PLANNING = phrases(
    r"""
    the user(?:'s)? (?:is|wants|want|asks|asked|might|may|could|would|will|should|needs|has|just|seems|now|then|probably|said|message|next|turn|reply|question|request|intent)
    (?:as|like|acting as|pretend(?:ing)? to be|speak(?:ing)? as|play(?:ing)?|role of) (?:the|a) (?:user|human|customer)
    (?:user|human|customer)(?:'s)? (?:turn|persona|intent|perspective)
    the (?:user|human|customer)(?:'s)? (?:reply|response|message|follow-?up)
    (?:possible|potential|suggested|likely|next|candidate|good|natural) (?:follow-?up|reply|replies|user|next|question for)s?
    follow-?up (?:question|message|prompt)s?:
    (?:we|i) (?:need|have|want|ought) to (?:respond|reply|write|produce|generate|craft|simulate|come up|output|ask|act|continue|stay|figure)
    (?:we|i)(?: should|'ll| will| could| must)(?: now| probably)? (?:respond|reply|write|produce|generate|craft|simulate|ask (?:about|a|for|something)|act|continue|stay|push|keep it)
    let(?:'s| us|me| me) (?:think|craft|produce|respond|write a (?:user|reply|follow)|simulate|plan|come up)
    next (?:user )?(?:turn|message|utterance)
    (?:stay|staying) in (?:character|role|persona)
    option (?:1|a|one)[:)]
    (?:the )?assistant (?:has|just|answered|replied|gave|explained|asked|offered|said|is asking|wants)
    the (?:conversation|dialogue) (?:is|so far|should|could|continues|ends)
    plan:
    persona
    role-?play(?:ing)? (?:as|the)
    (?:user|customer|student|guest|candidate|caller|speaker|human) (?:should|would|might|could|will|replies|responds|asks|wants|seems|is (?:upset|frustrated|following|happy|likely))
    (?:he|she|they)(?:'d| would| should| might| could) (?:probably|likely|now|then|naturally|want to) ?
    (?:target |keep )?length:
    (?:simulate|simulating|play|playing|i'm playing|imitate) (?:the|a|an) [a-z]+
    (?:reply|response|message|question) options?
    keep (?:it|the tone|the message|the reply) (?:short|casual|brief|natural|grateful|polite|under|in character)
    (?:write|make|phrase|put) it (?:in|as|like|short|casual|polite|natural)
    what (?:the user|a user|would (?:the|a) (?:user|customer|person))
    (?:thought|thinking|reasoning|analysis|goal|strategy)(?: process)?:
    """,
    r"""
    el usuario (?:quiere|pide|pregunta|podría|debería|está|ha|necesita|va)
    como (?:el )?usuario
    (?:debo|deberíamos|debería|tengo que|hay que) (?:responder|preguntar|escribir|actuar)
    posibles? (?:preguntas?|respuestas?|seguimiento)
    der (?:nutzer|benutzer|user|anwender) (?:will|möchte|fragt|könnte|sollte|hat|ist|braucht|wird)
    als (?:nutzer|benutzer|user)
    (?:ich|wir) (?:sollte|sollten|muss|müssen) (?:jetzt |nun )?(?:als|antworten|fragen|schreiben|reagieren)
    mögliche (?:rückfrage|nachfrage|antwort|anschlussfrage)n?
    l'utilisat(?:eur|rice) (?:veut|demande|pourrait|devrait|a|est|souhaite|va)
    en tant qu'utilisat(?:eur|rice)
    (?:je dois|il faut|on doit|je devrais) (?:répondre|écrire|poser une|réagir|jouer l)
    (?:question|relance|réponse)s? possibles?
    o usuário (?:quer|pede|pergunta|poderia|deveria|está|precisa|vai)
    como (?:o )?usuário
    (?:devo|deveria|preciso) (?:responder|perguntar|escrever|agir)
    possíve(?:l|is) (?:pergunta|resposta)s?
    l'utente (?:vuole|chiede|potrebbe|dovrebbe|ha|è|sta)
    come (?:l')?utente
    (?:devo|dovrei|bisogna) (?:rispondere|chiedere|scrivere|agire)
    possibil[ei] (?:domand|rispost)[aei]
    пользователь (?:хочет|спрашивает|просит|может|должен|мог бы|скорее|теперь)
    (?:нужно|надо|мне следует|я должен) (?:ответить|спросить|написать|отреагировать)
    возможн(?:ый|ые|ая) (?:вопрос|ответ|реплик)(?:ы|а|и)?
    от лица пользователя
    """,
    r"""
    用户(?:想|要|在|可能|会|应该|希望|问|需要|的(?:下一|意图|回复))
    (?:我|我们)(?:需要|应该|要)(?:以用户|扮演|回复|模拟|写一)
    可能的(?:追问|后续|回复|问题)
    ユーザー(?:は|が|の(?:次|意図|発言))
    ユーザーとして
    (?:次の|考えられる)(?:質問|返信|発言)
    उपयोगकर्ता (?:चाहता|पूछ|को|ने|शायद|अब|का)
    (?:मुझे|हमें) (?:अब )?(?:उपयोगकर्ता|जवाब)
    संभावित (?:प्रश्न|सवाल|जवाब)
    المستخدم (?:يريد|يسأل|يطلب|قد|ربما|سوف|يحتاج)
    بصفتي المستخدم
    (?:يجب أن|علي أن|ينبغي) (?:أرد|أسأل|أكتب|نرد)
    """,
)
STEERING = phrases(
    r"""
    (?:ask|asks|asking) (?:for|about|which|what|whether|why|how|if|him|her|them)
    (?:respond|reply|react|answer) (?:to|with|as|by|politely|briefly)
    (?:mention|acknowledge|admit|complain|confirm|express|thank|request|provide|include|add|have|let) (?:the|a|an|that|them|some|concern|frustration|gratitude|surprise|one)
    next[:,] (?:probe|ask|confirm|have|push|mention|request)
    (?:then|maybe|perhaps) (?:ask|complain|mention|request|push|thank|confirm)
    a (?:revision|follow-?up|clarifying|clarification|natural|short|casual) (?:request|question|message|reply)
    """,
    start=True,
)
"""Orders to oneself at the start of a sentence, as in a plan for a message."""
"""Talk about the turn from outside: plans, reasoning, stage notes."""

STAGE_NOTE = re.compile(r"^\s*[\[(*<][^\])*>\n]{3,80}[\])*>]\s*(?:$|\n|[A-Z\"“])")
"""A turn that opens with a note in brackets or asterisks, as in a script."""
