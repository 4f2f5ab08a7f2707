"""Engines' command lines: every spelling of an option, and the files of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.engine_args import (
    CONTEXT,
    MODEL,
    PARALLEL,
    SLOT_SAVE_PATH,
    UNIFIED_KV,
    files_of_model,
    has_option,
    option,
    swa_full,
)


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["-c", "4096"], "4096"),
        (["--ctx-size", "4096"], "4096"),
        (["--ctx-size=4096"], "4096"),
        (["-c=4096"], "4096"),
        (["--ctx_size", "4096"], "4096"),
        (["--ctx_size=4096"], "4096"),
        (["-m", "x.gguf", "-c", "4096", "-np", "2"], "4096"),
        (["-c", ""], ""),
        (["--ctx-size="], ""),
        (["--ctx-size=a=b"], "a=b"),
    ],
    ids=" ".join,
)
def test_an_option_is_read_in_each_of_its_spellings(args: list[str], value: str) -> None:
    assert option(args, CONTEXT) == value
    assert has_option(args, CONTEXT)


@pytest.mark.parametrize(
    "args",
    [[], ["-m", "x.gguf"], ["--ctx-size-draft", "64"], ["-cb"], ["-ctk", "q8_0"], ["4096"]],
    ids=" ".join,
)
def test_what_only_begins_like_an_option_is_another(args: list[str]) -> None:
    assert option(args, CONTEXT) is None
    assert not has_option(args, CONTEXT)


@pytest.mark.parametrize(
    "args",
    [
        ["-c", "1", "-c", "2"],
        ["-c", "1", "--ctx-size", "2"],
        ["--ctx-size", "1", "--ctx-size=2"],
        ["--ctx-size=1", "-c", "2"],
    ],
    ids=" ".join,
)
def test_of_several_the_last_one_counts(args: list[str]) -> None:
    assert option(args, CONTEXT) == "2"


def test_an_option_without_its_value_is_there_and_has_none() -> None:
    assert option(["-m", "x.gguf", "-c"], CONTEXT) is None
    assert has_option(["-m", "x.gguf", "-c"], CONTEXT)


def test_the_last_one_counts_only_if_it_has_a_value() -> None:
    assert option(["-c", "1", "--ctx-size"], CONTEXT) == "1"


def test_a_flag_is_there_or_not() -> None:
    assert has_option(["-c", "1", "-kvu"], UNIFIED_KV)
    assert has_option(["--kv-unified"], UNIFIED_KV)
    assert not has_option(["--kv-unifi"], UNIFIED_KV)


@pytest.mark.parametrize(
    ("names", "spellings"),
    [
        (MODEL, {"-m", "--model"}),
        (CONTEXT, {"-c", "--ctx-size"}),
        (PARALLEL, {"-np", "--parallel"}),
        (UNIFIED_KV, {"-kvu", "--kv-unified"}),
        (SLOT_SAVE_PATH, {"--slot-save-path"}),
    ],
)
def test_the_names_are_those_of_llama_server(names: tuple[str, ...], spellings: set[str]) -> None:
    assert set(names) == spellings


# -- files of a model ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.gguf", "x-00001-of-00002", "x-1-of-2.gguf", "x-00001.gguf"])
def test_a_model_in_one_file_is_that_file(name: str) -> None:
    path = Path("/models") / name
    assert files_of_model(path) == [path]


@pytest.mark.parametrize("named", [1, 2, 3])
def test_a_split_model_is_all_its_files_whichever_is_named(named: int) -> None:
    folder = Path("/models/a-00001-of-00009")
    assert files_of_model(folder / f"x-q4-0000{named}-of-00003.gguf") == [
        folder / "x-q4-00001-of-00003.gguf",
        folder / "x-q4-00002-of-00003.gguf",
        folder / "x-q4-00003-of-00003.gguf",
    ]


def test_a_split_into_one_is_one_file() -> None:
    path = Path("x-00001-of-00001.gguf")
    assert files_of_model(path) == [path]


def test_more_files_than_nine_are_counted_on() -> None:
    files = files_of_model(Path("x-00001-of-00012.gguf"))
    assert [files[0].name, files[-1].name] == ["x-00001-of-00012.gguf", "x-00012-of-00012.gguf"]
    assert len(files) == 12


# -- all of a sliding window's cache -------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (["-m", "x.gguf", "--swa-full"], {}),
        (["--swa_full"], {}),
        (["-c", "exec llama-server -m x.gguf --swa-full -c 4096"], {}),  # of a shell
        (["run", "-e", "LLAMA_ARG_SWA_FULL=1", "llama.cpp:server"], {}),  # of a container
        (["LLAMA_ARG_SWA_FULL=true", "llama-server"], {}),  # of `env`
        ([], {"LLAMA_ARG_SWA_FULL": "1"}),
        ([], {"LLAMA_ARG_SWA_FULL": "on"}),
        ([], {"LLAMA_ARG_SWA_FULL": "True"}),
    ],
)
def test_it_is_noticed_however_it_was_asked_for(args: list[str], env: dict[str, str]) -> None:
    assert swa_full(args, env) in ("--swa-full", "LLAMA_ARG_SWA_FULL")


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ([], {}),
        (["-m", "/models/swa-full.gguf", "--swa-fuller", "--no--swa-full-stop"], {}),
        ([], {"LLAMA_ARG_SWA_FULL": "0", "LLAMA_ARG_SWA": "1"}),
        (["LLAMA_ARG_SWA_FULL=off"], {"LLAMA_ARG_SWA_FULL": ""}),
    ],
)
def test_what_does_not_ask_for_it_is_not_taken_for_it(args: list[str], env: dict[str, str]) -> None:
    assert swa_full(args, env) is None
