"""Engines' command lines: every spelling of an option, and the files of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.engine_args import EngineArgs, swa_full
from trio_gateway.config.server_options import (
    ALIAS,
    BY_SPELLING,
    CONTEXT,
    KV_OFFLOAD,
    MODEL,
    PARALLEL,
    SLOT_SAVE_PATH,
    UNIFIED_KV,
    ServerOption,
)
from trio_gateway.gguf.shards import files_of_model


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
    assert EngineArgs(args).value(CONTEXT) == value
    assert EngineArgs(args).has(CONTEXT)


@pytest.mark.parametrize(
    "args",
    [[], ["-m", "x.gguf"], ["--ctx-size-draft", "64"], ["-cb"], ["-ctk", "q8_0"], ["4096"]],
    ids=" ".join,
)
def test_what_only_begins_like_an_option_is_another(args: list[str]) -> None:
    assert EngineArgs(args).value(CONTEXT) is None
    assert not EngineArgs(args).has(CONTEXT)


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
    assert EngineArgs(args).value(CONTEXT) == "2"


def test_an_option_without_its_value_is_there_and_has_none() -> None:
    assert EngineArgs(["-m", "x.gguf", "-c"]).value(CONTEXT) is None
    assert EngineArgs(["-m", "x.gguf", "-c"]).has(CONTEXT)


def test_the_last_one_counts_only_if_it_has_a_value() -> None:
    assert EngineArgs(["-c", "1", "--ctx-size"]).value(CONTEXT) == "1"


def test_a_flag_is_there_or_not() -> None:
    assert EngineArgs(["-c", "1", "-kvu"]).is_on(UNIFIED_KV)
    assert EngineArgs(["--kv-unified"]).is_on(UNIFIED_KV)
    assert not EngineArgs(["--kv-unifi"]).is_on(UNIFIED_KV)


@pytest.mark.parametrize(
    ("option", "spellings"),
    [
        (MODEL, {"-m", "--model"}),
        (CONTEXT, {"-c", "--ctx-size"}),
        (PARALLEL, {"-np", "--parallel"}),
        (UNIFIED_KV, {"-kvu", "--kv-unified"}),
        (SLOT_SAVE_PATH, {"--slot-save-path"}),
    ],
)
def test_the_names_are_those_of_llama_server(option: ServerOption, spellings: set[str]) -> None:
    assert set(option.spellings) == spellings


# -- as llama-server reads them ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "on"),
    [
        (["-kvu", "-no-kvu"], False),
        (["--no-kv-unified", "--kv_unified"], True),
        (["--no_kv_unified"], False),
        ([], None),
    ],
)
def test_a_switch_has_negations_and_the_last_one_counts(args: list[str], on: bool | None) -> None:
    assert EngineArgs(args).switch(UNIFIED_KV) is on


@pytest.mark.parametrize(
    "args", [["-a", "-c", "-m", "x"], ["--alias", "--ctx-size", "4096"], ["-p", "-c", "4096"]]
)
def test_what_stands_behind_an_option_is_its_value_whatever_it_looks_like(args: list[str]) -> None:
    assert EngineArgs(args).value(CONTEXT) is None


@pytest.mark.parametrize(
    ("given", "number"),
    [("8192", 8192), (" 8192", 8192), ("8192k", 8192), ("8k", 8), ("-1", -1), ("+2", 2),
     ("", None), ("k8", None), ("${CONTEXT}", None)],
)  # fmt: skip
def test_a_number_is_what_cpp_makes_of_it(given: str, number: int | None) -> None:
    assert EngineArgs(["-c", given]).number(CONTEXT) == number


@pytest.mark.parametrize(
    ("args", "value"), [(["-c4096"], 4096), (["-c 4096"], 4096), (["-m/x.gguf"], None)]
)
def test_the_engine_in_the_package_takes_a_value_without_a_blank(
    args: list[str], value: int | None
) -> None:
    assert EngineArgs(args).number(CONTEXT) == value
    assert EngineArgs(["-m/x.gguf"]).value(MODEL) == "/x.gguf"
    assert EngineArgs(["-m /x.gguf"]).value(MODEL) is None  # no file is called so


@pytest.mark.parametrize(
    ("args", "env", "value"),
    [
        ([], {"LLAMA_ARG_CTX_SIZE": "4096"}, "4096"),
        (["-c", "512"], {"LLAMA_ARG_CTX_SIZE": "4096"}, "512"),
        (["run", "-e", "LLAMA_ARG_CTX_SIZE=8192"], {"LLAMA_ARG_CTX_SIZE": "4096"}, "8192"),
        (["LLAMA_ARG_CTX_SIZE=8192", "llama-server", "-c", "1"], {}, "1"),
        ([], {"LLAMA_ARG_CTX_SIZE": ""}, None),
    ],
)
def test_an_argument_wins_over_a_variable(
    args: list[str], env: dict[str, str], value: str | None
) -> None:
    assert EngineArgs(args, env).value(CONTEXT) == value


@pytest.mark.parametrize(
    ("env", "on"),
    [
        ({"LLAMA_ARG_KV_OFFLOAD": "1"}, True),
        ({"LLAMA_ARG_KV_OFFLOAD": "off"}, False),
        ({"LLAMA_ARG_NO_KV_OFFLOAD": "0"}, False),  # whatever its value
        ({"LLAMA_ARG_NO_KV_OFFLOAD": "", "LLAMA_ARG_KV_OFFLOAD": "1"}, False),
        ({}, None),
    ],
)
def test_a_switch_has_a_variable_and_one_that_says_no(env: dict[str, str], on: bool | None) -> None:
    assert EngineArgs([], env).switch(KV_OFFLOAD) is on
    assert EngineArgs(["--kv-offload"], env).is_on(KV_OFFLOAD)


@pytest.mark.parametrize(
    ("args", "env", "batch"),
    [
        ([], {}, 512),
        (["-ub", "2048"], {}, 2048),
        (["-ub", "4096"], {}, 2048),  # no more than --batch-size
        (["--batch_size", "256"], {}, 256),
        ([], {"LLAMA_ARG_UBATCH": "8192", "LLAMA_ARG_BATCH": "8192"}, 8192),
    ],
)
def test_what_is_computed_at_once(args: list[str], env: dict[str, str], batch: int) -> None:
    assert EngineArgs(args, env).physical_batch == batch


@pytest.mark.parametrize(
    ("args", "env", "embedding"),
    [
        (["--embeddings"], {}, True),
        (["--reranking"], {}, True),
        ([], {"LLAMA_ARG_RERANKING": "1"}, True),
        ([], {"LLAMA_ARG_EMBEDDINGS": "0"}, False),
        ([], {}, False),
    ],
)
def test_whether_it_serves_embeddings(
    args: list[str], env: dict[str, str], embedding: bool
) -> None:
    assert EngineArgs(args, env).is_embedding is embedding


@pytest.mark.parametrize(
    ("args", "env", "has"),
    [
        (["-m", "x"], {}, False),
        (["-m", "x", "-mm", "p"], {}, True),
        (["-m", "x"], {"LLAMA_ARG_MMPROJ": "p"}, True),
        (["-m", "x", "--mmproj_url", "u"], {}, True),
        (["-hf", "a/b"], {}, None),
        (["-hf", "a/b", "--no-mmproj"], {}, False),
        (["serve.sh"], {}, None),
    ],
)
def test_whether_it_has_a_projector(args: list[str], env: dict[str, str], has: bool | None) -> None:
    assert EngineArgs(args, env).has_projector is has


def test_no_spelling_means_two_options() -> None:
    known = [
        s for option, _ in BY_SPELLING.values() for s in (*option.spellings, *option.negations)
    ]
    assert sorted(BY_SPELLING) == sorted(set(known))
    assert BY_SPELLING["--alias"] == (ALIAS, True)


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
    assert swa_full(EngineArgs(args, env)) in ("--swa-full", "LLAMA_ARG_SWA_FULL")


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
    assert swa_full(EngineArgs(args, env)) is None
