"""Chat templates that want all time or memory, or a way out. The helper that meets them is real."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import trio

from tests.support.gguf_files import write_bpe
from trio_gateway.config.lua.presets import preset
from trio_gateway.models.counting import patience
from trio_gateway.models.counting import vocabulary as vocabulary_module
from trio_gateway.models.counting.vocabulary import Vocabulary

pytestmark = [pytest.mark.processes, pytest.mark.untraced]

SMOLLM2 = Path(preset("models", "smollm2"))
CHAT = msgspec.json.encode({"messages": [{"role": "user", "content": "hi"}], "model": "x"})
# Of the helper: SmolLM2's vocabulary, and what a template may take; gigabytes without limits.
MOST_BYTES = 700 << 20


@pytest.fixture(autouse=True)
def _time_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "QUESTION_S", 60.0)


def _soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless one takes all of its time, in each test that has one."""
    code = (
        "from trio_gateway.models.counting import allowance; allowance._RENDER_S = 0.4\n"
        "from trio_gateway.models.counting import vocabulary_worker; vocabulary_worker.main()"
    )
    monkeypatch.setattr(
        vocabulary_module, "_COMMAND", (*vocabulary_module._COMMAND[:2], "-c", code)
    )


@asynccontextmanager
async def running() -> AsyncIterator[Vocabulary]:
    vocabulary = Vocabulary()
    async with trio.open_nursery() as nursery:
        await nursery.start(vocabulary.run)
        yield vocabulary
        nursery.cancel_scope.cancel()


def helpers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            if "vocabulary_worker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # gone, or a zombie
            continue
    return found


@contextmanager
def most_memory() -> Iterator[list[int]]:
    """The most that the helper was seen to hold."""
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            for helper in helpers():
                try:
                    most[0] = max(most[0], helper.memory_info().rss)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def only_for_the_chat(work: str) -> str:
    """A template that behaves while it is tried out."""
    return (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if messages[-1].content == 'hi' %}" + work + "{% endif %}"
    )


def written(folder: Path, work: str) -> Path:
    folder.mkdir()
    return write_bpe(folder, template=only_for_the_chat(work))


async def is_counted(vocabulary: Vocabulary) -> bool:
    counted = await vocabulary.count_chat(SMOLLM2, CHAT)
    return counted is not None and counted.exact


GREEDY = [
    "{{ 'a' * 10**10 }}",
    "{% set x = [0] * 10**10 %}",
    "{{ 'a'.center(10**10) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ 'a\nb'|indent(10**10) }}",
    "{{ [[1]]|tojson(indent=10**10) }}",
    "{{ lipsum(10**7) }}",
    "{{ range(10)|batch(10**10, 'x')|list }}",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'a' * 10**6 }}{% endfor %}",
    "{% set n = namespace(x=[]) %}{% for i in range(99999) %}"
    "{% set n.x = n.x + ['a' * 10**6 ~ i] %}{% endfor %}",
    "{{ 'a'|replace('a', 'b' * 10**5)|replace('b', 'c' * 10**5) }}",
    "{{ range(10**9)|list }}",
]


async def test_a_template_that_wants_all_memory_gets_little_of_it(tmp_path: Path) -> None:
    with most_memory() as most:
        async with running() as vocabulary:
            for number, work in enumerate(GREEDY):
                path = written(tmp_path / f"{number}", work)
                assert await vocabulary.count_chat(path, CHAT) is None, work
                assert await is_counted(vocabulary), work
                assert most[0] < MOST_BYTES, work


@pytest.mark.parametrize("work", GREEDY[:1] + GREEDY[-6:-4])
async def test_so_does_one_where_the_kernel_keeps_no_limit(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS: the helper's own limits are taken away, and its memory is watched from here."""
    path = write_bpe(tmp_path, template=only_for_the_chat(work))
    code = (
        "import resource; resource.setrlimit = lambda *_: None\n"
        "from trio_gateway.models.counting import vocabulary_worker; vocabulary_worker.main()"
    )
    command = (*vocabulary_module._COMMAND[:2], "-c", code)
    monkeypatch.setattr(vocabulary_module, "_COMMAND", command)
    async with running() as vocabulary:
        with trio.fail_after(30):
            assert await vocabulary.count_chat(path, CHAT) is None
        assert await is_counted(vocabulary)


@pytest.mark.parametrize(
    "work",
    [
        "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4,
        "{% set n = namespace(x='a') %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% set n.x = (n.x ~ 'b')|reverse|upper|trim %}{% endfor %}{% endfor %}",
        "{{ (range(99999)|map('string')|join)|urlize }}" * 1000,
    ],
)
async def test_a_template_without_end_costs_seconds_and_not_the_helper(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _soon_given_up(monkeypatch)
    path = write_bpe(tmp_path, template=only_for_the_chat(work))
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        before = helpers()
        with trio.fail_after(40):
            assert await vocabulary.count_chat(path, CHAT) is None
        assert await is_counted(vocabulary)
        assert helpers() == before


TOO_DEEP = [
    "{{ 10**(10**10) }}",
    "{{ 2**100000 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(x) %}{{ caller() }}{% endmacro %}"
    "{% macro g() %}{% call f(1) %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "-" * 100_000 + "1 }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{# " + "x" * 2_000_000 + " #}",
]


async def test_a_template_that_goes_too_deep_is_refused_at_once(tmp_path: Path) -> None:
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        before = helpers()
        for number, work in enumerate(TOO_DEEP):
            path = written(tmp_path / f"{number}", work)
            with trio.fail_after(20):
                assert await vocabulary.count_chat(path, CHAT) is None, work
        assert await is_counted(vocabulary)
        assert helpers() == before


WAYS_OUT = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ [messages]|map(attribute='__class__')|list }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{{ ('{0.__class__}'['format'])('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ['']|map('format') | list }}",
    "{{ ['{0.__class__}'.format]|map('attr', '__call__')|list }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__closure__ }}{{ strftime_now.__globals__ }}",
    "{{ self.__init__ }}{{ self._TemplateReference__context }}",
    "{{ messages.append({'role': 'x'}) }}",
    "{{ messages[0].update({'content': 'class'}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
]


async def test_a_template_finds_no_way_out(tmp_path: Path) -> None:
    async with running() as vocabulary:
        for number, work in enumerate(WAYS_OUT):
            path = written(tmp_path / f"{number}", work)
            shown = await vocabulary.render(path, CHAT)
            for secret in ("class", "module", "function", "<built-in", "root:", "object at"):
                assert secret not in (shown or ""), work


async def test_a_file_that_takes_too_much_again_and_again_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _soon_given_up(monkeypatch)
    endless = only_for_the_chat("{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4)
    path = write_bpe(tmp_path, template=endless)
    async with running() as vocabulary:
        assert await is_counted(vocabulary)
        (helper,) = helpers()
        for _ in range(patience.STRIKES):
            assert await vocabulary.count_chat(path, CHAT) is None
        before = helper.cpu_times().user
        for _ in range(5):
            assert await vocabulary.count_chat(path, CHAT) is None
        assert helper.cpu_times().user - before < 1
        assert "left alone" in caplog.text
        assert await is_counted(vocabulary)


@pytest.mark.skipif(sys.platform != "linux", reason="its signal is the kernel's")
def test_one_without_its_gateway_ends_within_a_time_of_its_own(tmp_path: Path) -> None:
    """A product of numbers with millions of digits: one operation, in which no handler runs."""
    work = (
        "{% set n = namespace(x=10) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}"
    )
    path = write_bpe(tmp_path, template=only_for_the_chat(work))
    code = (
        "from trio_gateway.models.counting import vocabulary_worker as worker;"
        "worker._QUESTION_S = 1; worker.main()"
    )
    question = msgspec.json.encode({"gguf": str(path), "chat": msgspec.Raw(CHAT)}) + b"\n"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, input=question, capture_output=True, check=False, timeout=60)
    assert ended.returncode == -signal.SIGXCPU


async def test_a_long_prompt_gets_more_memory_and_time() -> None:
    text = "hello world this is some text. " * 100_000  # 3 MB
    chat = msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    async with running() as vocabulary:
        counted = await vocabulary.count_chat(SMOLLM2, chat)
        assert counted is not None
        assert counted.exact
        assert counted.tokens > 600_000
