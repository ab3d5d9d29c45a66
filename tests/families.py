"""What the prompts of each family must be, written out by hand from the models' published files.

The templates stand in `tests/templates/`, each with its source. Their tokenizers are toys: bytes, and the family's
control tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfplay.core import Message
from selfplay.prompting.tokenizer import Tokenizer
from tests.toy_tokenizer import toy_tokenizer

TEMPLATES = Path(__file__).parent / "templates"


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: object) -> Message:
    return {"role": "assistant", "content": content, **more}


DIALOGUES: dict[str, list[Message]] = {
    "two": [user("Hi"), assistant("Hello."), user("Why?"), assistant("Because.")],
    "system": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello.")],
    "thinking": [
        user("Hi"),
        assistant("<think>\nhm\n</think>\n\nHello."),
        user("Why?"),
        assistant("<think>\nso\n</think>\n\nBecause."),
    ],
    "assistant first": [assistant("Welcome.")],
}


@dataclass(frozen=True)
class Family:
    """One template with its control tokens, and what must come out of it.

    `prompts` maps the name of a dialogue to the exact prompt; a value that starts with `!` is what the error must say.
    `ends` are the tokens that end a user turn, `generation` those of the model's generation_config.
    """

    name: str
    tokens: str
    prompts: dict[str, str]
    ends: str
    bare: str
    assistant: str | None
    stop: tuple[str, ...] = ()
    bos: str | None = None
    eos: str = ""
    generation: str = ""
    plain: str = ""

    def tokenizer(self, folder: Path) -> Tokenizer:
        """The family's tokenizer, its files written as Hugging Face has them."""
        source = (TEMPLATES / f"{self.name}.jinja").read_text()
        config = {"bos_token": self.bos and {"content": self.bos}, "eos_token": self.eos}
        return toy_tokenizer(folder, source, self.tokens, self.plain, config, self.generation)


SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
CHATML_TWO = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>\n<|im_start|>user\n"
)
CHATML_SYSTEM = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n"
)
CHATML_FIRST = "<|im_start|>assistant\nWelcome.<|im_end|>\n<|im_start|>user\n"
CHATML = {
    "bare": "<|im_start|>user\n",
    "assistant": "<|im_start|>assistant\n",
    "eos": "<|im_end|>",
}
HARMONY = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2026-03-01\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.\n"
    "Calls to these tools must go to the commentary channel: 'functions'.<|end|>"
)
FINAL = "<|start|>assistant<|channel|>final<|message|>"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
)
GEMMA_TWO = (
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
    "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\nBecause.<end_of_turn>\n<start_of_turn>user\n"
)
GEMMA = {
    "tokens": "<pad> <eos> <bos> <start_of_turn> <end_of_turn>",
    "ends": "<eos> <end_of_turn>",
    "generation": "<eos> <end_of_turn>",
    "bos": "<bos>",
    "eos": "<eos>",
    "bare": "<bos><start_of_turn>user\n",
    "assistant": "<start_of_turn>model\n",
}
INST = "<unk> <s> </s> [INST] [/INST]"
DEEPSEEK = {
    "tokens": (
        "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> "
        "<｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> "
        "<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> "
        "<｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
    ),
    "plain": "<think> </think>",
    "bos": "<｜begin▁of▁sentence｜>",
    "eos": "<｜end▁of▁sentence｜>",
    "generation": "<｜end▁of▁sentence｜>",
    "bare": "<｜begin▁of▁sentence｜><｜User｜>",
    "assistant": "<｜Assistant｜>",
}
DEEPSEEK_TWO = (
    "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜>"
    "<｜User｜>Why?<｜Assistant｜>Because.<｜end▁of▁sentence｜><｜User｜>"
)
DEEPSEEK_SYSTEM = "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>Hello.<｜end▁of▁sentence｜><｜User｜>"
DEEPSEEK_FIRST = "<｜begin▁of▁sentence｜><｜Assistant｜>Welcome.<｜end▁of▁sentence｜><｜User｜>"
ALTERNATE = "!conversation roles must alternate"

FAMILIES = [
    Family(
        "smollm2",
        tokens="<|endoftext|> <|im_start|> <|im_end|>",
        bos="<|im_start|>",
        generation="<|im_end|>",
        ends="<|im_end|>",
        prompts={"two": SMOL + CHATML_TWO, "system": CHATML_SYSTEM, "assistant first": SMOL + CHATML_FIRST},
        **CHATML,
    ),
    Family(
        "qwen2_5",
        tokens="<|endoftext|> <|im_start|> <|im_end|>",
        generation="<|im_end|> <|endoftext|>",
        ends="<|im_end|> <|endoftext|>",
        prompts={"two": QWEN + CHATML_TWO, "system": CHATML_SYSTEM, "assistant first": QWEN + CHATML_FIRST},
        **CHATML,
    ),
    Family(
        "qwen3",
        tokens="<|endoftext|> <|im_start|> <|im_end|>",
        plain="<think> </think> <tool_response> </tool_response>",
        generation="<|im_end|> <|endoftext|>",
        ends="<|im_end|> <|endoftext|>",
        prompts={"two": CHATML_TWO, "system": CHATML_SYSTEM, "thinking": CHATML_TWO, "assistant first": CHATML_FIRST},
        **CHATML,
    ),
    Family(
        "qwen3_5",
        tokens="<|endoftext|> <|im_start|> <|im_end|>",
        plain="<think> </think>",
        generation="<|im_end|> <|endoftext|>",
        ends="<|im_end|> <|endoftext|>",
        prompts={"two": CHATML_TWO, "system": CHATML_SYSTEM, "thinking": CHATML_TWO, "assistant first": CHATML_FIRST},
        **CHATML,
    ),
    Family(
        "gpt_oss",
        tokens="<|startoftext|> <|endoftext|> <|return|> <|channel|> <|start|> <|end|> <|message|> <|call|>",
        bos="<|startoftext|>",
        eos="<|return|>",
        generation="<|return|> <|endoftext|> <|call|>",
        ends="<|end|> <|return|> <|endoftext|> <|call|>",
        prompts={
            "two": HARMONY
            + f"<|start|>user<|message|>Hi<|end|>{FINAL}Hello.<|end|>"
            + f"<|start|>user<|message|>Why?<|end|>{FINAL}Because.<|end|><|start|>user<|message|>",
            "system": HARMONY
            + "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|>"
            + f"<|start|>user<|message|>Hi<|end|>{FINAL}Hello.<|end|><|start|>user<|message|>",
            "assistant first": HARMONY + f"{FINAL}Welcome.<|end|><|start|>user<|message|>",
        },
        bare="<|start|>user<|message|>",
        assistant=FINAL,
    ),
    Family(
        "glm_4_5",
        tokens="<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
        plain="<think> </think> <tool_call> </tool_call> <tool_response> </tool_response>",
        eos="<|endoftext|>",
        generation="<|endoftext|> <|user|> <|observation|>",
        ends="<|endoftext|> <|user|> <|assistant|> <|observation|> <|system|>",
        prompts={
            "two": "[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\nHello."
            "<|user|>\nWhy?<|assistant|>\n<think></think>\nBecause.<|user|>\n",
            "system": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello.<|user|>\n",
            "thinking": "[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\nHello."
            "<|user|>\nWhy?<|assistant|>\n<think></think>\nBecause.<|user|>\n",
            "assistant first": "[gMASK]<sop><|assistant|>\n<think></think>\nWelcome.<|user|>\n",
        },
        bare="[gMASK]<sop><|user|>\n",
        assistant="<|assistant|>\n<think></think>\n",
    ),
    Family(
        "llama_3_1",
        tokens="<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eom_id|> <|eot_id|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        generation="<|end_of_text|> <|eom_id|> <|eot_id|>",
        ends="<|end_of_text|> <|eom_id|> <|eot_id|>",
        prompts={
            "two": LLAMA + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nBecause.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "system": LLAMA + "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
            "assistant first": LLAMA + "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nWelcome.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n",
        },
        bare="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    Family(
        "gemma_2",
        prompts={
            "two": GEMMA_TWO,
            "system": "!System role not supported; it takes the conversation without its system message: --system drop",
            "assistant first": ALTERNATE,
        },
        **GEMMA,
    ),
    Family(
        "gemma_3",
        prompts={
            "two": GEMMA_TWO,
            "system": "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello.<end_of_turn>\n<start_of_turn>user\n",
            "assistant first": ALTERNATE,
        },
        **GEMMA,
    ),
    Family(
        "mistral_v1",
        tokens="<unk> <s> </s>",
        bos="<s>",
        eos="</s>",
        generation="</s>",
        ends="</s>",
        stop=("[/INST]",),
        prompts={
            "two": "<s> [INST] Hi [/INST] Hello.</s> [INST] Why? [/INST] Because.</s> [INST] ",
            "system": "<s> [INST] Be brief.\n\nHi [/INST] Hello.</s> [INST] ",
            "assistant first": ALTERNATE,
        },
        bare="<s> [INST] ",
        assistant=None,
    ),
    Family(
        "mistral_v3",
        tokens=INST,
        bos="<s>",
        eos="</s>",
        generation="</s>",
        ends="[/INST] </s>",
        prompts={
            "two": "<s>[INST] Hi[/INST] Hello.</s>[INST] Why?[/INST] Because.</s>[INST] ",
            "system": "<s>[INST] Hi[/INST] Hello.</s>[INST] Be brief.\n\n",
            "assistant first": ALTERNATE,
        },
        bare="<s>[INST] ",
        assistant=None,
    ),
    Family(
        "mistral_v3_tekken",
        tokens=INST,
        bos="<s>",
        eos="</s>",
        generation="</s>",
        ends="[/INST] </s>",
        prompts={
            "two": "<s>[INST]Hi[/INST]Hello.</s>[INST]Why?[/INST]Because.</s>[INST]",
            "system": "<s>[INST]Hi[/INST]Hello.</s>[INST]Be brief.\n\n",
            "assistant first": ALTERNATE,
        },
        bare="<s>[INST]",
        assistant=None,
    ),
    Family(
        "mistral_v7",
        tokens=INST + " [SYSTEM_PROMPT] [/SYSTEM_PROMPT]",
        bos="<s>",
        eos="</s>",
        generation="</s>",
        ends="[/INST] </s>",
        prompts={
            "two": "<s>[INST] Hi[/INST] Hello.</s>[INST] Why?[/INST] Because.</s>[INST] ",
            "system": "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hi[/INST] Hello.</s>[INST] ",
            "assistant first": ALTERNATE,
        },
        bare="<s>[INST] ",
        assistant=None,
    ),
    Family(
        "mistral_v7_tekken",
        tokens=INST + " [SYSTEM_PROMPT] [/SYSTEM_PROMPT]",
        bos="<s>",
        eos="</s>",
        generation="</s>",
        ends="[/INST] </s>",
        prompts={
            "two": "<s>[SYSTEM_PROMPT]Today is 2026-03-01.[/SYSTEM_PROMPT]"
            "[INST]Hi[/INST]Hello.</s>[INST]Why?[/INST]Because.</s>[INST]",
            "system": "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello.</s>[INST]",
            "assistant first": ALTERNATE,
        },
        bare="<s>[INST]",
        assistant=None,
    ),
    Family(
        "phi_3_5",
        tokens="<s> <|endoftext|> <|assistant|> <|system|> <|end|> <|user|>",
        bos="<s>",
        eos="<|endoftext|>",
        generation="<|end|> <|assistant|> <|endoftext|>",
        ends="<|end|> <|assistant|> <|endoftext|>",
        prompts={
            "two": "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n"
            "<|user|>\nWhy?<|end|>\n<|assistant|>\nBecause.<|end|>\n<|user|>\n",
            "system": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\n",
            "assistant first": "<|assistant|>\nWelcome.<|end|>\n<|user|>\n",
        },
        bare="<|user|>\n",
        assistant="<|assistant|>\n",
    ),
    Family(
        "phi_4",
        tokens="<|endoftext|> <|im_start|> <|im_end|> <|im_sep|>",
        bos="<|endoftext|>",
        eos="<|im_end|>",
        generation="<|im_end|>",
        ends="<|im_end|>",
        prompts={
            "two": "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello.<|im_end|>"
            "<|im_start|>user<|im_sep|>Why?<|im_end|><|im_start|>assistant<|im_sep|>Because.<|im_end|>"
            "<|im_start|>user<|im_sep|>",
            "system": "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>Hello.<|im_end|><|im_start|>user<|im_sep|>",
        },
        bare="<|im_start|>user<|im_sep|>",
        assistant="<|im_start|>assistant<|im_sep|>",
    ),
    Family(
        "phi_4_mini",
        tokens="<|endoftext|> <|assistant|> <|end|> <|user|> <|system|>",
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        generation="<|end|> <|endoftext|>",
        ends="<|end|> <|endoftext|>",
        prompts={
            "two": "<|user|>Hi<|end|><|assistant|>Hello.<|end|><|user|>Why?<|end|><|assistant|>Because.<|end|><|user|>",
            "system": "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello.<|end|><|user|>",
            "assistant first": "<|assistant|>Welcome.<|end|><|user|>",
        },
        bare="<|user|>",
        assistant="<|assistant|>",
    ),
    Family(
        "deepseek_v3",
        ends="<｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁outputs▁begin｜>",
        prompts={"two": DEEPSEEK_TWO, "system": DEEPSEEK_SYSTEM, "assistant first": DEEPSEEK_FIRST},
        **DEEPSEEK,
    ),
    Family(
        "deepseek_r1",
        ends="<｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁outputs▁begin｜>",
        prompts={
            "two": DEEPSEEK_TWO,
            "system": DEEPSEEK_SYSTEM,
            "thinking": DEEPSEEK_TWO.replace("Hello.", "\n\nHello.").replace("Because.", "\n\nBecause."),
            "assistant first": DEEPSEEK_FIRST,
        },
        **DEEPSEEK,
    ),
]
