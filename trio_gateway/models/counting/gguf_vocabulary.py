"""Counts tokens with the vocabulary of a GGUF file, to the token as llama.cpp does, or refuses.

A text is cut at special tokens first. Each piece between is cut into words by the vocabulary's
pre-tokenizer (a regular expression), and each word's bytes are merged, the pairs of the lowest rank
first. The package `tokenizers` does the last two; the cutting is done here, because llama.cpp looks
for the longest special token first and `tokenizers` for the leftmost.

Which pre-tokenizers are exact is not a matter of trust: `python -m benchmarks.counters` compares
each with the engine, on a vocabulary made to show where words are cut.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from trio_gateway.gguf.metadata import BadGguf, Metadata, read_metadata
from trio_gateway.models.counting.refusal import CannotCount
from trio_gateway.models.counting.spm_tokens import SpmTokens

# Types of tokens in a GGUF file; those that are found in a text before anything else is.
_CONTROL = 3
_SPECIAL_TYPES = frozenset({2, _CONTROL, 4})  # unknown, control, user-defined

# Tokens that llama.cpp takes for special ones whatever their type is, some of them in some builds.
_LOOK_SPECIAL = frozenset({
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[PAD]", "<PAD>", "<eos>", "</s>", "<end_of_turn>",
    "<end_of_utterance>", "<turn|>", "[e~[", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>",
    "<|end_of_text|>", "<|endoftext|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>",
    "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cfim\u2581begin\uff5c>",
    "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>", "<PRE>", "<SUF>", "<MID>",
    "<REPO>", "\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "<fim-prefix>", "<fim-middle>",
    "<fim-suffix>", "<fim-pad>", "<fim-repo>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>",
    "<fim_pad>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|fim_repo|>", "<|prefix|>", "<|middle|>", "<|suffix|>", "<|code_prefix|>",
    "<|code_middle|>", "<|code_suffix|>", "<reponame>", "<|repo_name|>", "<|file_sep|>",
})  # fmt: skip
# Some vocabularies have thousands of them, but few beginnings: these are looked for first.
_PREFIX = 4  # characters
# Models with rules of their own for the blanks around special tokens, or for special tokens.
_OWN_RULES = re.compile(r"phi-?3|modern-bert", re.IGNORECASE)
_OWN_MARKERS = ("<|tool_response>", "<|plamo:eos|>")

# Letters, digits and marks of Unicode 16 and 17. `tokenizers` knows them, llama.cpp (Unicode 15)
# does not, so words are cut elsewhere; blocks as a whole, each new in those versions or nearly so.
_NEWER_LETTERS = re.compile(
    "[\u0897\u088f\u1acf-\u1aff\u1c89\u1c8a\ua7cb-\ua7cf\ua7da-\ua7dc\ua7f1"
    "\U000105c0-\U000105ff\U00010940-\U0001095f\U00010d40-\U00010d8f\U00010ec2-\U00010ecf"
    "\U00010efa-\U00010efc\U00011380-\U000113ff\U000116d0-\U000116ff\U00011b60-\U00011b7f"
    "\U00011bc0-\U00011bff\U00011db0-\U00011def\U00011f5a\U00013460-\U000143ff"
    "\U00016100-\U0001613f\U00016d40-\U00016d7f\U00016ea0-\U00016edf\U00016ff2-\U00016fff"
    "\U000187f8-\U000187ff\U00018cff-\U00018dff\U0001ccf0-\U0001ccf9\U0001e5d0-\U0001e5ff"
    "\U0001e6c0-\U0001e6ff\U0002a6e0-\U0002a6ff\U0002b73a-\U0002b73f\U0002b81e\U0002b81f"
    "\U0002cea2-\U0002ceaf\U0002ebe1-\U0002ebef\U0002ee5e-\U0002f7ff\U000323b0-\U0003347f]"
)

# -- pre-tokenizers -----------------------------------------------------------------------------

_BLANKS = r"\s+(?!\S)|\s+"  # the last blank belongs to the word behind it
_GPT2 = "|".join(["'(?:[stmd]|[rv]e|ll)", r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", _BLANKS])


_CONTRACTION = "'(?:[sStTmMdD]|[rRvV][eE]|[lL][lL])"


def _modern(digits: str, marks: str = "") -> str:
    """The pattern of Llama 3 and its kin: a word may begin with any one sign, lines end words."""
    return "|".join(
        [
            _CONTRACTION,
            rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}{marks}]+",
            digits,
            rf" ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*",
            r"\s*[\r\n]+",
            _BLANKS,
        ]
    )


def _by_case(digits: str, ending: str = "") -> str:
    """The pattern of Tekken and GPT-4o: a capital begins a word. Letters that are not of ASCII
    count as both cases, as llama.cpp has it."""
    upper, lower = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
    return "|".join(
        [
            rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{ending}",
            rf"[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{ending}",
            digits,
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            _BLANKS,
        ]
    )


_HAN_AND_KANA = "\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff"
# The pattern of DeepSeek V3: signs may begin a word of ASCII letters, and are words otherwise.
_SIGNS_FIRST = "|".join(
    [
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
        r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r" ?[\p{P}\p{S}]+[\r\n]*",
        r"\s*[\r\n]+",
        _BLANKS,
    ]
)


class _PreTokenizer(NamedTuple):
    """`patterns` cut one after the other, each what the one before has left in one piece."""

    patterns: tuple[str, ...]
    whole_words_first: bool = False  # a word that is a token is not merged from its parts
    adds_bos: bool = False  # unless the file says otherwise
    has_bos: bool = True  # without the file's saying so


_DIGITS_ALONE = _PreTokenizer((r"\p{N}", _GPT2))
_PLAIN = _PreTokenizer((_GPT2,))
_LLAMA3 = _PreTokenizer((_modern(r"\p{N}{1,3}"),), whole_words_first=True, adds_bos=True)
_LLAMA3_MERGED = _PreTokenizer((_modern(r"\p{N}{1,3}"),))
_GLM = _PreTokenizer((_modern(r"\p{N}{1,3}"),), whole_words_first=True, has_bos=False)
_CHATGLM = _PreTokenizer((_modern(r"\p{N}{1,3}"),), has_bos=False)
_DEEPSEEK3 = _PreTokenizer((r"\p{N}{1,3}", f"[{_HAN_AND_KANA}]+", _SIGNS_FIRST))
_LAGUNA = _PreTokenizer((r"[^\n]+|\n+", _modern(r"\p{N}")))
_QWEN2 = _PreTokenizer((_modern(r"\p{N}"),))
_QWEN35 = _PreTokenizer((_modern(r"\p{N}", r"\p{M}"),))
_GPT4O = _PreTokenizer((_by_case(r"\p{N}{1,3}", f"(?:{_CONTRACTION})?"),))
_TEKKEN = _PreTokenizer((_by_case(r"\p{N}"),), whole_words_first=True, adds_bos=True)

PRE_TOKENIZERS = {
    "smollm": _DIGITS_ALONE, "starcoder": _DIGITS_ALONE, "refact": _DIGITS_ALONE,
    "command-r": _DIGITS_ALONE, "codeshell": _DIGITS_ALONE, "exaone": _DIGITS_ALONE,
    "minerva-7b": _DIGITS_ALONE, "mellum2": _DIGITS_ALONE,
    "gpt-2": _PLAIN, "phi-2": _PLAIN, "mpt": _PLAIN, "olmo": _PLAIN, "trillion": _PLAIN,
    "granite-docling": _PLAIN, "gigachat": _PLAIN, "exaone4": _PLAIN, "a.x-4.0": _PLAIN,
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "falcon3": _LLAMA3,
    "falcon-h1": _LLAMA3, "pixtral": _LLAMA3, "midm-2.0": _LLAMA3, "lfm2": _LLAMA3,
    "dbrx": _LLAMA3_MERGED, "smaug-bpe": _LLAMA3_MERGED,
    "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2, "stablelm2": _QWEN2,
    "kormo": _QWEN2, "megrez": _QWEN2, "hunyuan": _QWEN2, "solar-open": _QWEN2, "grok-2": _QWEN2,
    "glm4": _GLM, "glm5": _GLM, "chatglm-bpe": _CHATGLM, "deepseek-v3": _DEEPSEEK3,
    "hunyuan-dense": _DEEPSEEK3, "joyai-llm": _DEEPSEEK3, "hy_v4": _DEEPSEEK3, "laguna": _LAGUNA,
    "kanana2": _GPT4O, "minimax-m2": _GPT4O,
    "qwen35": _QWEN35, "gpt-4o": _GPT4O, "llama4": _GPT4O, "tekken": _TEKKEN,
}  # fmt: skip


class PieceCounter(Protocol):
    """Counts the tokens of a text that has no special token in it."""

    def count(self, text: str, *, follows_special: bool) -> int: ...


class GgufVocabulary:
    """The vocabulary of one file, and the metadata that a chat template needs.

    Raises:
        CannotCount: the file is broken, or its vocabulary is one that is not counted to the token.
    """

    def __init__(self, path: Path) -> None:
        metadata = _read(path)
        tokens = metadata.texts("tokenizer.ggml.tokens")
        types = [int(kind) for kind in metadata.numbers("tokenizer.ggml.token_type")]
        if not tokens or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
            raise CannotCount("the file's vocabulary is not valid")
        tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
        _refuse_own_rules(metadata, tokens, types)
        self.metadata = metadata
        specials = _special_tokens(tokens, types)
        self._specials = [(token[:_PREFIX], token) for token in specials]
        self._prefixes = {prefix for prefix, _ in self._specials}
        match metadata.text("tokenizer.ggml.model"):
            case "gpt2":
                pre = _pre_tokenizer(metadata)
                self._pieces: PieceCounter = _BpeTokens(metadata, tokens, pre)
                adds_bos, bos, eos = pre.adds_bos, 11 if pre.has_bos else -1, 11
            case "llama":
                self._pieces = SpmTokens(metadata, tokens)
                adds_bos, bos, eos = True, 1, 2
            case other:
                raise CannotCount(f"{other!r} vocabularies are not supported")
        self.adds_bos = metadata.flag("tokenizer.ggml.add_bos_token", adds_bos)
        self.adds_eos = metadata.flag("tokenizer.ggml.add_eos_token", False)
        self.bos = _text_of(tokens, metadata.number("tokenizer.ggml.bos_token_id", bos))
        self.eos = _text_of(tokens, metadata.number("tokenizer.ggml.eos_token_id", eos))

    def count(self, text: str) -> int:
        """Tokens of a prompt, special tokens in it and BOS and EOS around it as llama.cpp has them.

        Raises:
            CannotCount: the text has something that engines do not agree about.
        """
        if not text.isascii() and _NEWER_LETTERS.search(text):
            raise CannotCount("it has characters that engines do not know yet")
        total, follows_special = self.adds_bos + self.adds_eos, True
        for piece in self._split(text):
            if piece is None:
                total += 1
            else:
                total += self._pieces.count(piece, follows_special=follows_special)
            follows_special = piece is None
        return total

    def _split(self, text: str) -> list[str | None]:
        """The text between special tokens, None for each of those."""
        pieces: list[str | None] = [text] if text else []
        found = {prefix for prefix in self._prefixes if prefix in text}
        for prefix, special in self._specials:
            if prefix not in found or special not in text:
                continue
            split: list[str | None] = []
            for piece in pieces:
                if piece is None or special not in piece:
                    split.append(piece)
                    continue
                for index, part in enumerate(piece.split(special)):
                    if index:
                        split.append(None)
                    if part:
                        split.append(part)
            pieces = split
        return pieces


def _read(path: Path) -> Metadata:
    try:
        return read_metadata(path, lambda key: key.startswith(("tokenizer.", "general.")))
    except BadGguf as error:
        raise CannotCount(f"the file {error}") from None


class _BpeTokens:
    """Byte pairs, as GPT-2 has them: a character of the vocabulary stands for each byte."""

    def __init__(self, metadata: Metadata, tokens: list[str], pre: _PreTokenizer) -> None:
        ids = {token: index for index, token in enumerate(tokens)}
        self._tokens = len(tokens)
        # A byte without a token is left out of the count, but keeps its neighbours apart.
        missing = [c for c in pre_tokenizers.ByteLevel.alphabet() if c not in ids]
        self._has_all_bytes = not missing
        ids |= {char: self._tokens + index for index, char in enumerate(missing)}
        merges = _merges(metadata)
        if not all(a in ids and b in ids and a + b in ids for a, b in merges):
            raise CannotCount("the vocabulary merges pairs into tokens that it does not have")
        self._tokenizer = Tokenizer(
            models.BPE(vocab=ids, merges=merges, ignore_merges=pre.whole_words_first)
        )
        cuts = [pre_tokenizers.Split(Regex(p), "isolated") for p in pre.patterns]
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def count(self, text: str, *, follows_special: bool) -> int:
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        if self._has_all_bytes:
            return len(encoding)
        return sum(token < self._tokens for token in encoding.ids)


def _merges(metadata: Metadata) -> list[tuple[str, str]]:
    """The pairs in the order of their ranks; if a pair occurs twice, the first one wins."""
    pairs: dict[tuple[str, str], None] = {}
    for merge in metadata.texts("tokenizer.ggml.merges"):
        cut = merge.find(" ", 1)
        if cut < 0:
            raise CannotCount("the vocabulary's merges are broken")
        pairs[merge[:cut], merge[cut + 1 :]] = None
    return list(pairs)


def _pre_tokenizer(metadata: Metadata) -> _PreTokenizer:
    name = metadata.text("tokenizer.ggml.pre") or "default"
    if name not in PRE_TOKENIZERS:
        raise CannotCount(f"the pre-tokenizer {name!r} is not supported")
    return PRE_TOKENIZERS[name]


def _special_tokens(tokens: Sequence[str], types: Sequence[int]) -> list[str]:
    """In the order in which llama.cpp looks for them: the longest, in bytes, first."""
    found = [t for t, kind in zip(tokens, types, strict=True) if kind in _SPECIAL_TYPES]
    by_size: dict[int, list[str]] = defaultdict(list)
    for token in found:
        by_size[len(token.encode())].append(token)
    if any(_overlap(group) for group in by_size.values()):
        raise CannotCount("which of two special tokens comes first is not defined")
    return [token for size in sorted(by_size, reverse=True) for token in by_size[size]]


def _overlap(tokens: Sequence[str]) -> bool:
    """Whether one of the tokens ends as another begins: llama.cpp's order among them is chance."""
    beginnings: dict[str, set[str]] = defaultdict(set)
    for token in tokens:
        for end in range(1, len(token)):
            beginnings[token[:end]].add(token)
    return any(
        beginnings.get(token[start:], set()) - {token}
        for token in tokens
        for start in range(1, len(token))
    )


def _refuse_own_rules(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> None:
    if _OWN_RULES.search(metadata.text("general.name") or ""):
        raise CannotCount("this family of models has its own rules for special tokens")
    for token, kind in zip(tokens, types, strict=True):
        if token in _OWN_MARKERS or (token in _LOOK_SPECIAL and kind not in _SPECIAL_TYPES):
            raise CannotCount(f"engines do not agree whether {token!r} is a special token")


def _text_of(tokens: Sequence[str], index: int) -> str:
    return tokens[index] if 0 <= index < len(tokens) else ""
