"""Tokens counted with the vocabulary of a GGUF file: as the engine counts them, or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.gguf_files import NORMAL, USER_DEFINED, write_bpe, write_spm
from tests.support.harness import free_port
from tests.support.patience import eventually
from trio_gateway.config.lua.presets import preset
from trio_gateway.models.counting.gguf_vocabulary import PRE_TOKENIZERS, GgufVocabulary
from trio_gateway.models.counting.refusal import CannotCount

ENGINE_S = 60.0
SNIPPETS = [
    "the", " The", "hello", "it's", "I'LL", "'s", "don't", "x = 1234567", "12", "3.14",
    " ", "  ", "\n", "\r\n", "\t\t", "\n\n\n", "\xa0", "\u3000", "\u2028", "\x00", "\x04",
    "\x85", "你好世界", "привет", "ΑΒΓ", "한국어", "नमस्ते", "٣٤", "²Ⅷ", "é", "e\u0301",
    "ß", "👍🏽", "👨\u200d👩\u200d👧", "\U0001fae8", "{}[]();", "!?...", "->", "_id",
    "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<|endoftext|>", "Ġ",
    "def f(x):\n    return x\n", '{"type": "object"}',
]  # fmt: skip


@pytest.fixture(scope="module")
def smollm2() -> GgufVocabulary:
    return GgufVocabulary(Path(preset("models", "smollm2")))


@pytest.fixture(scope="module")
def engine() -> Iterator[httpx.Client]:
    """The embedded engine, with SmolLM2."""
    port = free_port()
    command = [sys.executable, "-m", "trio_gateway.engine.clients.embedded_server"]
    model = ["-m", preset("models", "smollm2"), "-c", "256", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *model], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert eventually(lambda: is_healthy(client), ENGINE_S)
            yield client
    finally:
        process.terminate()
        process.wait()


def is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.processes
def test_a_text_has_as_many_tokens_as_the_engine_says(
    smollm2: GgufVocabulary, engine: httpx.Client
) -> None:
    chance = random.Random(1)
    texts = ["", *SNIPPETS]
    texts += ["".join(chance.choices(SNIPPETS, k=chance.randrange(2, 40))) for _ in range(150)]
    for text in texts:
        answer = engine.post("/tokenize", json={"content": text, "add_special": True})
        assert smollm2.count(text) == len(answer.json()["tokens"]), ascii(text)


def test_a_long_text_is_counted_at_once(smollm2: GgufVocabulary) -> None:
    # 400,000 characters, and a word of 100,000
    assert smollm2.count("one two" + " one two" * 50_000) == 100_002
    assert smollm2.count("x" * 100_000) < 50_000


# -- pre-tokenizers -----------------------------------------------------------------------------

NUMBER = ["1 2", "12 3", "123 4"]


@pytest.mark.parametrize(
    ("pre", "merges", "text", "count"),
    [
        ("gpt-2", NUMBER, "1234", 1),
        ("llama-bpe", NUMBER, "1234", 2),  # three digits at most
        ("lfm2", NUMBER, "1234", 2),
        ("glm4", NUMBER, "1234", 2),
        ("deepseek-v3", NUMBER, "1234", 2),
        ("qwen2", NUMBER, "1234", 4),
        ("smollm", NUMBER, "1234", 4),
        ("gpt-2", ["( a"], "(a", 2),
        ("deepseek-v3", ["( a"], "(a", 1),
        ("deepseek-v3", ["( Ã", "(Ã ©"], "(é", 3),  # of ASCII only
        ("laguna", ["Ċ Ċ"], "\n\n", 1),
        ("qwen2", ["( a"], "(a", 1),  # a word may begin with a sign
        ("gpt-2", ["' s", "s x"], "'sx", 2),  # a contraction
        ("gpt-2", ["' S"], "'S", 2),
        ("qwen2", ["' S", "S x"], "'Sx", 2),  # in capitals, too
        ("gpt-2", [") Ċ"], ")\n", 2),
        ("qwen2", [") Ċ"], ")\n", 1),  # a line's end belongs to the signs before it
        ("qwen2", ["o W"], "oW", 1),
        ("tekken", ["o W"], "oW", 2),  # a capital begins a word
        ("gpt-4o", ["o W"], "oW", 2),
        ("qwen2", ["a Ì", "aÌ ģ"], "a\u0301", 3),
        ("qwen35", ["a Ì", "aÌ ģ"], "a\u0301", 1),  # a mark belongs to its letter
        ("gpt-2", ["Ġ Ġ", "Ġ a"], "   a", 2),  # the last blank belongs to the word
    ],
)
def test_where_words_are_cut_is_the_pre_tokenizers_choice(
    tmp_path: Path, pre: str, merges: list[str], text: str, count: int
) -> None:
    path = write_bpe(tmp_path, pre=pre, merges=merges, specials=["<s>"], bos=False)
    assert GgufVocabulary(path).count(text) == count


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_counts_every_byte_of_a_vocabulary_without_merges(
    tmp_path: Path, pre: str
) -> None:
    path = write_bpe(tmp_path, pre=pre, specials=["<s>"], bos=False)
    text = "".join(SNIPPETS)
    assert GgufVocabulary(path).count(text) == len(text.encode())


def test_a_word_that_is_a_token_is_not_merged_from_its_parts_where_the_type_says_so(
    tmp_path: Path,
) -> None:
    merges = ["a b", "b c"]
    for pre, count in [("llama-bpe", 1), ("dbrx", 2)]:
        path = write_bpe(
            tmp_path, pre=pre, merges=merges, specials=["<s>"], extra=[("abc", NORMAL)], bos=False
        )
        assert GgufVocabulary(path).count("abc") == count


def test_of_a_pair_that_is_there_twice_the_first_rank_counts(tmp_path: Path) -> None:
    path = write_bpe(tmp_path, merges=["a b", "b c", "c d", "a b"])
    assert GgufVocabulary(path).count("abcd") == 2


def test_a_byte_without_a_token_counts_nothing_and_keeps_its_neighbours_apart(
    tmp_path: Path,
) -> None:
    vocabulary = GgufVocabulary(write_bpe(tmp_path, merges=["a b"], without="c"))
    assert vocabulary.count("ab") == 1
    assert vocabulary.count("acb") == 2


# -- special tokens -----------------------------------------------------------------------------


def test_bos_and_eos_are_added_as_the_file_says_or_its_type(tmp_path: Path) -> None:
    for pre, bos, eos, count in [
        ("gpt-2", None, None, 1), ("llama-bpe", None, None, 2), ("llama-bpe", False, None, 1),
        ("gpt-2", True, True, 3),
    ]:  # fmt: skip
        path = write_bpe(tmp_path, pre=pre, specials=["<s>"], bos=bos, eos=eos)
        assert GgufVocabulary(path).count("a") == count


def test_special_tokens_in_a_text_are_tokens(tmp_path: Path) -> None:
    path = write_bpe(tmp_path, specials=["<s>"], extra=[("<tool>", USER_DEFINED)])
    assert GgufVocabulary(path).count("a<s><tool>b<s") == 6


def test_the_longest_special_token_comes_first_not_the_leftmost(tmp_path: Path) -> None:
    path = write_bpe(tmp_path, specials=["xab", "abcd"])
    assert GgufVocabulary(path).count("xabcd") == 2  # x, abcd


def test_two_special_tokens_that_could_take_the_same_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotCount, match="comes first"):
        GgufVocabulary(write_bpe(tmp_path, specials=["xab", "abx"]))


# -- SentencePiece ------------------------------------------------------------------------------


def test_pieces_are_joined_in_the_order_of_their_scores(tmp_path: Path) -> None:
    scores = {"a": -9.0, "b": -9.0, "c": -9.0, "ab": -2.0, "bc": -1.0, "abc": -3.0}
    vocabulary = GgufVocabulary(write_spm(tmp_path, scores))
    assert vocabulary.count("ab") == 2  # with BOS
    assert vocabulary.count("abcc") == 3  # bc, then abc
    del scores["abc"]
    assert GgufVocabulary(write_spm(tmp_path, scores)).count("abc") == 3  # a, bc


def test_of_equal_scores_the_leftmost_is_joined(tmp_path: Path) -> None:
    scores = {"a": -9.0, "aa": -1.0, "ab": -1.0}
    assert GgufVocabulary(write_spm(tmp_path, scores)).count("aaab") == 3  # BOS, aa, ab


def test_a_character_without_a_token_counts_as_its_bytes(tmp_path: Path) -> None:
    vocabulary = GgufVocabulary(write_spm(tmp_path, {"a": -1.0}))
    assert vocabulary.count("a€") == 1 + 1 + 3


def test_a_blank_goes_in_front_of_a_text_and_of_what_follows_a_special_token(
    tmp_path: Path,
) -> None:
    scores = {"▁": -5.0, "a": -5.0, "▁a": -1.0}
    assert GgufVocabulary(write_spm(tmp_path, scores, add_blank=True)).count("a<s>a") == 4
    assert GgufVocabulary(write_spm(tmp_path, scores)).count(" a<s> a") == 4


def test_words_counted_one_by_one_are_what_the_whole_text_is(tmp_path: Path) -> None:
    scores = {"▁": -5.0, "a": -5.0, "b": -5.0, "▁▁": -4.0, "▁a": -3.0, "ab": -2.0, "▁ab": -1.0}
    by_words = GgufVocabulary(write_spm(tmp_path, scores))
    # One token with a blank in the middle, never to be found: the text is counted as a whole.
    as_whole = GgufVocabulary(write_spm(tmp_path, {**scores, "c▁c": -9.0}))
    chance = random.Random(1)
    for _ in range(300):
        text = "".join(chance.choices("aab  ", k=chance.randrange(30)))
        assert by_words.count(text) == as_whole.count(text), text


# -- what is refused ----------------------------------------------------------------------------


def test_letters_that_are_newer_than_the_engines_tables_are_refused(
    smollm2: GgufVocabulary,
) -> None:
    with pytest.raises(CannotCount, match="characters"):
        smollm2.count("a\U00016d40b")  # a letter since Unicode 16


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pre": "a-new-one"}, "'a-new-one' is not supported"),
        ({"name": "Phi-3 mini"}, "its own rules"),
        ({"extra": [("<|im_end|>", NORMAL)]}, "special token"),
        ({"extra": [("a", NORMAL)]}, "vocabulary is not valid"),  # twice
        ({"merges": ["ab"]}, "merges are broken"),
    ],
)
def test_a_vocabulary_that_is_not_known_for_certain_is_refused(
    tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(CannotCount, match=why):
        GgufVocabulary(write_bpe(tmp_path, **changes))  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = write_bpe(tmp_path, merges=["a b"], specials=["<s>"])
    whole = path.read_bytes()
    for content, why in (
        (b"GGUX" + whole[4:], "the file is not a GGUF file"),
        (whole[:-9], "the file ends within its header"),
    ):
        path.write_bytes(content)
        with pytest.raises(CannotCount, match=why):
            GgufVocabulary(path)
    with pytest.raises(CannotCount, match="cannot be read: No such file"):
        GgufVocabulary(tmp_path / "none.gguf")
