"""Texts and chats to count, made up: the same ones on every run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

SEED = 20
COUNT = 200

_ENGLISH = [
    "the", "a", "model", "counts", "every", "word", "of", "long", "prompts", "and", "we",
    "don't", "know", "why", "it's", "slow",
]  # fmt: skip
_RUSSIAN = [
    "модель", "считает", "слова", "длинного", "запроса", "и", "никто", "не", "знает", "почему",
    "это", "медленно",
]  # fmt: skip
_CHINESE = "模型计算每个词的长度但是没有人知道为什么这么慢在这里我们测量它。、"
_EMOJI = ["😀", "👍🏽", "👨\u200d👩\u200d👧", "🇩🇪", "🚀", "❤️", "🫠", "☂", "✈️", "🧑🏿\u200d🚀"]
_CODE = [
    "def count(text: str) -> int:\n    return len(text.split())\n",
    "for (int i = 0; i < 1024; ++i) {\n\tsum += a[i] * 0x1F;\n}\n",
    "SELECT id, name FROM t WHERE x >= 3.14 AND y != 'it''s';\n",
    'if err != nil {\r\n\treturn fmt.Errorf("%w: %d", err, 42)\r\n}\r\n',
    '<div class="a-b_c">&nbsp;&#x27;</div>\n\n\n',
]
_BLANKS = [
    " ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b",
    "\x0b",
]  # fmt: skip
_JOINED = [
    "helloWorld", "iPhone", "XMLHttpRequest", "'S", "'ll", "क्षि", "กำ", "e\u0301", "Straße", "ёЖ",
    "!\n/", "12", "1234", "ÀÉ", "²", "$", " ", "\n",
]  # fmt: skip
_LOOKALIKES = [
    "<|im_start|>", "<|im_end|>", "<|im_", "start|>", "<|endoftext|>", "<s>", "</s>", "<bos>",
    "[INST]", "<file_sep>", "<repo_name>", "<start_of_turn>", "<|", "|>", "Ġ", "▁", "<0x0A>",
]  # fmt: skip


def make_texts() -> list[str]:
    """COUNT texts: kinds and lengths in turns, from nothing to some 40,000 characters."""
    chance = random.Random(SEED)
    kinds: list[Callable[[random.Random, int], str]] = [
        _words(_ENGLISH), _words(_RUSSIAN), _words(_EMOJI), _chinese, _code, _schema, _blanks,
        _lookalikes, _any_unicode, _numbers, _joined,
    ]  # fmt: skip
    sizes = [0, 1, 2, 3, 5, 10, 30, 100, 300, 1000]
    return [
        kinds[i % len(kinds)](chance, sizes[(i // len(kinds)) % len(sizes)]) for i in range(COUNT)
    ]


def make_chats(texts: list[str]) -> list[dict[str, Any]]:
    """A chat for each text: alone, in parts, after a system message, in a long talk, half said."""
    chance = random.Random(SEED)
    return [_chat(chance, index, text) for index, text in enumerate(texts)]


def _chat(chance: random.Random, index: int, text: str) -> dict[str, Any]:
    user: dict[str, Any] = {"role": "user", "content": text}
    match index % 5:
        case 0:
            messages = [user]
        case 1:
            cut = len(text) // 2
            parts = [{"type": "text", "text": t} for t in (text[:cut], text[cut:])]
            messages = [{"role": "user", "content": parts}]
        case 2:
            rules = " ".join(chance.choices(_ENGLISH, k=30))
            messages = [{"role": "system", "content": rules}, user]
        case 3:
            talk = {"role": "assistant", "content": None}, user
            messages = [user, *talk * chance.randrange(1, 6)]
        case _:
            messages = [user, {"role": "assistant", "content": text[:50]}]
    return {"messages": messages}


def _words(words: list[str]) -> Callable[[random.Random, int], str]:
    def make(chance: random.Random, size: int) -> str:
        return "".join(
            chance.choice(words).capitalize() + chance.choice([" ", " ", " ", ", ", ". ", "\n"])
            if chance.random() < 0.2
            else chance.choice(words) + " "
            for _ in range(size)
        )

    return make


def _chinese(chance: random.Random, size: int) -> str:
    return "".join(chance.choices(_CHINESE, k=size))


def _code(chance: random.Random, size: int) -> str:
    return "".join(chance.choices(_CODE, k=(size + 4) // 5))


def _schema(chance: random.Random, size: int) -> str:
    fields = {
        f"{chance.choice(_ENGLISH)}_{i}": {"type": "string", "enum": chance.sample(_ENGLISH, 3)}
        for i in range((size + 9) // 10)
    }
    indent = chance.choice([None, 2, 4])
    return json.dumps({"type": "object", "properties": fields}, indent=indent)


def _blanks(chance: random.Random, size: int) -> str:
    return "".join(
        chance.choice(_BLANKS) if chance.random() < 0.7 else chance.choice(_ENGLISH)
        for _ in range(size)
    )


def _lookalikes(chance: random.Random, size: int) -> str:
    return "".join(chance.choices([*_LOOKALIKES, *_ENGLISH[:4]], k=size))


def _joined(chance: random.Random, size: int) -> str:
    return "".join(chance.choices(_JOINED, k=size))


def _numbers(chance: random.Random, size: int) -> str:
    return " ".join(
        chance.choice(["{}", "{},{}", "-{}.{}", "({})", "x{}=", "'{}'s"]).format(
            chance.randrange(10 ** chance.randrange(1, 9)), chance.randrange(1000)
        )
        for _ in range(size)
    )


def _any_unicode(chance: random.Random, size: int) -> str:
    """Any characters, those that no version of Unicode has among them; no halves of one."""
    ranges = [range(0x250), range(0x2600), range(0xD800), range(0xE000, 0x110000)]
    return "".join(chr(chance.choice(chance.choice(ranges))) for _ in range(size))
