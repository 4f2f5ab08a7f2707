"""The helper process that counts tokens, and the task that owns it. The helper is a real one."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import trio
import trio.testing

from tests.support.gguf_files import write_bpe
from tests.support.harness import wait_until_gone
from tests.support.patience import eventually
from trio_gateway.config.lua.presets import preset
from trio_gateway.engine.process.reaper import Reaper
from trio_gateway.models.counting import vocabulary as vocabulary_module
from trio_gateway.models.counting.template_use import TemplateUse
from trio_gateway.models.counting.vocabulary import Vocabulary, VocabularyCount

pytestmark = pytest.mark.processes

SMOLLM2 = Path(preset("models", "smollm2"))
CHAT = msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}], "model": "x"})
CHAT_TOKENS = 31  # as the engine counts it
ENDLESS = "{% for m in messages %}{{ m.content }}{% if m.content == 'hi' %}" + (
    "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4 + "{% endif %}{% endfor %}"
)


@pytest.fixture(autouse=True)
def _time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "QUESTION_S", 60.0)


@asynccontextmanager
async def running(reaper: Reaper | None = None) -> AsyncIterator[Vocabulary]:
    vocabulary = Vocabulary(reaper)
    async with trio.open_nursery() as nursery:
        await nursery.start(vocabulary.run)
        yield vocabulary
        nursery.cancel_scope.cancel()


def helpers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_helper(child)]


def is_helper(process: psutil.Process) -> bool:
    try:
        return "trio_gateway.models.counting.vocabulary_worker" in process.cmdline()
    except psutil.Error:  # gone, or a zombie
        return False


async def is_counted(vocabulary: Vocabulary) -> bool:
    return await vocabulary.count_chat(SMOLLM2, CHAT) == VocabularyCount(CHAT_TOKENS, exact=True)


async def ask_without_end(vocabulary: Vocabulary, folder: Path) -> VocabularyCount | None:
    """A question whose answer never comes."""
    return await vocabulary.count_chat(write_bpe(folder, template=ENDLESS), CHAT)


async def until_it_works() -> psutil.Process:
    """The helper, once it is busy: it has read a question, and computes."""

    def is_busy() -> bool:
        found = helpers()
        return bool(found) and found[0].cpu_times().user > 0.5

    assert await trio.to_thread.run_sync(eventually, is_busy, 20.0)
    return helpers()[0]


async def test_a_chat_a_prompt_and_a_rendered_chat() -> None:
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        prompts = ["one", "one two three"]
        assert await vocabulary.count_prompts(SMOLLM2, prompts) == VocabularyCount(3, exact=True)
        rendered = await vocabulary.render(SMOLLM2, CHAT)
        assert rendered is not None
        assert rendered.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
        assert len(helpers()) == 1
    assert not helpers()


async def test_what_is_not_known_for_certain_is_counted_but_not_rendered(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{# <think> #}"
    gguf = write_bpe(tmp_path, template=template)
    chat = msgspec.json.encode({"messages": [{"role": "assistant", "content": "hi"}]})
    async with running() as vocabulary:
        counted = await vocabulary.count_chat(gguf, chat)
        assert counted is not None
        assert not counted.exact
        assert counted.tokens > len("hi")
        assert await vocabulary.render(gguf, chat) is None


PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
TOOL_CHAT = msgspec.json.encode(
    {
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
)


async def test_the_template_of_an_option_takes_the_place_of_the_files(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(PLAIN + "-{{ who }}")
    async with running() as vocabulary:
        use = TemplateUse(file=str(file), kwargs={"who": "me"})
        assert await vocabulary.render(SMOLLM2, CHAT, use) == "hi-me"
        file.write_text(PLAIN + "!")  # read with each question
        assert await vocabulary.render(SMOLLM2, CHAT, use) == "hi!"
        assert await vocabulary.render(SMOLLM2, CHAT, TemplateUse(text=PLAIN)) == "hi"
        file.unlink()
        assert await vocabulary.render(SMOLLM2, CHAT, use) is None


CHATML = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


async def test_a_chat_with_tools_gets_the_files_template_for_them(tmp_path: Path) -> None:
    gguf = write_bpe(tmp_path, template=PLAIN + "!", tool_template=PLAIN + "+")
    async with running() as vocabulary:
        assert await vocabulary.render(gguf, CHAT) == "hi!"
        assert await vocabulary.render(gguf, TOOL_CHAT) == "hi+"
        assert await vocabulary.render(gguf, CHAT, TemplateUse(text="chatml")) == CHATML


async def test_a_file_without_a_template_gets_the_engines(tmp_path: Path) -> None:
    async with running() as vocabulary:
        assert await vocabulary.render(write_bpe(tmp_path), CHAT) == CHATML
        # llama.cpp may have one for these
        tekken = write_bpe(tmp_path, pre="tekken")
        assert await vocabulary.render(tekken, CHAT) is None
        assert "no chat template" in (vocabulary.why_not(tekken) or "")
        assert await vocabulary.count_prompts(tekken, ["a"]) is not None
        assert vocabulary.why_not(tekken) is None


async def test_a_body_on_several_lines_is_one_question() -> None:
    async with running() as vocabulary:
        spread = msgspec.json.format(CHAT, indent=2).replace(b"\n", b"\r\n")
        counted = await vocabulary.count_chat(SMOLLM2, spread)
        assert counted == VocabularyCount(CHAT_TOKENS, exact=True)


async def test_no_helper_runs_before_the_first_question() -> None:
    async with running():
        assert not helpers()


async def test_nothing_is_counted_before_run_and_after_it() -> None:
    vocabulary = Vocabulary()
    assert not await is_counted(vocabulary)
    async with running() as vocabulary:
        pass
    assert not await is_counted(vocabulary)
    assert await vocabulary.count_prompts(SMOLLM2, ["a"]) is None
    assert await vocabulary.render(SMOLLM2, CHAT) is None


async def test_questions_of_many_tasks_get_their_own_answers() -> None:
    async with running() as vocabulary:

        async def ask(words: int) -> None:
            prompt = "one" + " one" * words
            counted = await vocabulary.count_prompts(SMOLLM2, [prompt])
            assert counted == VocabularyCount(words + 1, exact=True)

        async with trio.open_nursery() as nursery:
            for words in range(50):
                nursery.start_soon(ask, words)


async def test_a_helper_that_dies_is_started_anew() -> None:
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        (first,) = helpers()
        first.kill()
        assert not wait_until_gone([first], 5)
        assert await is_counted(vocabulary)
        assert helpers() != [first]


async def test_a_helper_that_dies_in_the_middle_says_nothing_and_the_next_is_asked(
    tmp_path: Path,
) -> None:
    async with running() as vocabulary:
        answers = []

        async def ask() -> None:
            answers.append(await ask_without_end(vocabulary, tmp_path))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            (await until_it_works()).kill()
        assert answers == [None]
        assert await is_counted(vocabulary)


async def test_a_helper_that_stands_still_costs_its_question_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        (first,) = helpers()
        first.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(vocabulary_module, "QUESTION_S", 0.5)
        assert not await is_counted(vocabulary)
        monkeypatch.setattr(vocabulary_module, "QUESTION_S", 60.0)
        assert await is_counted(vocabulary)
        assert not wait_until_gone([first], 5)
    assert "no answer within" in caplog.text


async def test_a_template_without_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_module, "QUESTION_S", 2.0)
    async with running() as vocabulary:
        with trio.fail_after(30):
            assert await ask_without_end(vocabulary, tmp_path) is None
        assert not helpers()


async def test_a_template_that_wants_all_memory_is_refused(tmp_path: Path) -> None:
    greedy = "{{ messages[0].content }}{% if messages[0].content == 'hi' %}" + (
        "{% set x = 'x' * 99999999999 %}{% endif %}"
    )
    async with running() as vocabulary:
        assert await vocabulary.count_chat(write_bpe(tmp_path, template=greedy), CHAT) is None
        assert await is_counted(vocabulary)


async def test_a_question_that_is_cancelled_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(vocabulary.count_prompts, SMOLLM2, ["one two three four"])
                nursery.start_soon(vocabulary.count_prompts, SMOLLM2, ["one two three four"])
                await trio.testing.wait_all_tasks_blocked()  # one asked, one waits behind it
                nursery.cancel_scope.cancel()
            assert await vocabulary.count_prompts(SMOLLM2, ["a"]) == VocabularyCount(1, exact=True)
        assert len(helpers()) == 1


async def test_the_helper_ends_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "IDLE_S", 0.05)
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        (first,) = helpers()
        assert await trio.to_thread.run_sync(eventually, lambda: not helpers(), 10.0)
        assert not wait_until_gone([first], 5)
        assert await is_counted(vocabulary)


async def test_a_cancelled_run_ends_a_helper_that_works(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with running() as vocabulary, trio.open_nursery() as nursery:
            nursery.start_soon(ask_without_end, vocabulary, tmp_path)
            helper = await until_it_works()
            nursery.cancel_scope.cancel()
    assert not wait_until_gone([helper], 1)


async def test_questions_that_wait_when_run_ends_are_answered_with_nothing(tmp_path: Path) -> None:
    answers = []
    vocabulary = Vocabulary()

    async def ask() -> None:
        answers.append(await ask_without_end(vocabulary, tmp_path))

    with trio.fail_after(50):  # before their own time is over
        async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
            await nursery.start(vocabulary.run)
            outer.start_soon(ask)
            outer.start_soon(ask)
            await until_it_works()
            nursery.cancel_scope.cancel()
    assert answers == [None, None]


async def test_the_helper_inherits_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLUSTER_KEY", "TRIO_GATEWAY_KEY", "PLAIN"):
        monkeypatch.setenv(name, "x")
    vocabulary = Vocabulary(None, {"CLUSTER_KEY"})
    async with trio.open_nursery() as nursery:
        await nursery.start(vocabulary.run)
        assert await is_counted(vocabulary)
        (helper,) = helpers()
        inherited = helper.environ().keys() & {"CLUSTER_KEY", "TRIO_GATEWAY_KEY", "PLAIN"}
        nursery.cancel_scope.cancel()
    assert inherited <= {"PLAIN"}


async def test_the_helper_is_registered_with_the_reaper_while_it_runs() -> None:
    class Register(Reaper):
        groups: set[int] = set()  # noqa: RUF012 - one test, one register

        def register(self, group: int, name: str = "") -> None:
            self.groups.add(group)

        def unregister(self, group: int) -> None:
            self.groups.remove(group)

    reaper = Register()
    async with running(reaper) as vocabulary:
        assert await is_counted(vocabulary)
        (helper,) = helpers()
        assert reaper.groups == {helper.pid} == {os.getpgid(helper.pid)}
    assert not reaper.groups


async def test_each_reason_is_logged_once_a_file_and_nothing_of_a_prompt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00 and so on, but not as it should be")
    missing = tmp_path / "missing.gguf"
    strict = write_bpe(tmp_path, template="{{ raise_exception(messages[0].content) }}")
    async with running() as vocabulary:
        for _ in range(3):
            assert await vocabulary.count_prompts(broken, ["a secret"]) is None
            assert await vocabulary.count_prompts(missing, ["a secret"]) is None
            chat = msgspec.json.encode({"messages": [{"role": "user", "content": "a secret"}]})
            assert await vocabulary.count_chat(strict, chat) is None
            assert await vocabulary.count_chat(strict, b'{"messages": "a secret"}') is None
            assert await vocabulary.count_prompts(strict, ["a secret \ud800"]) is None
            assert await vocabulary.count_chat(strict, b'{"a secret') is None
    lines = [r.getMessage() for r in caplog.records if "cannot be counted" in r.getMessage()]
    assert len(lines) == len(set(lines)) == 4
    assert "secret" not in caplog.text


async def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    async with running() as vocabulary:
        path = write_bpe(tmp_path)
        assert await vocabulary.count_prompts(path, ["ab"]) == VocabularyCount(2, exact=True)
        write_bpe(tmp_path, merges=["a b"])
        assert await vocabulary.count_prompts(path, ["ab"]) == VocabularyCount(1, exact=True)
