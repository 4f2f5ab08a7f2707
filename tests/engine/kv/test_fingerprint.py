"""What must be the same for a saved KV cache to be of any use, and what need not."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.schema_values import variant
from trio_gateway.engine.clients.facts import EngineFacts
from trio_gateway.engine.kv.fingerprint import HEADER_BYTES, Fingerprint, fingerprint_of
from trio_gateway.finding.engines import EMBEDDED_COMMAND

FACTS = EngineFacts(slots=1, context=4096, build="b11434-abc")
A_SECOND_NS = 10**9


class Setup:
    """A model's file and an engine's program, both real files, and a variant that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gguf = self.write("model.gguf", b"GGUF" + bytes(HEADER_BYTES))
        self.binary = self.write("llama-server", b"a program")

    def write(self, name: str, data: bytes) -> Path:
        """The same name and data give the same file, its time of change included."""
        path = self.folder / name
        path.write_bytes(data)
        os.utime(path, ns=(A_SECOND_NS, A_SECOND_NS))
        return path

    def of(self, *args: str, facts: EngineFacts = FACTS, **fields: Any) -> Fingerprint:
        """That of an engine with these arguments; its model is `model.gguf`, if they name none."""
        named = ("-m", str(self.gguf)) if not {"-m", "--model"} & {*args} else ()
        fields = {"binary": str(self.binary), "workdir": self.folder, **fields}
        found = fingerprint_of(variant(args=(*named, *args), **fields), facts)
        assert found is not None
        return found


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """The parts that are named, whichever of the two was there first."""
    names = one.differs_in(other.encode())
    assert sorted(other.differs_in(one.encode())) == sorted(names)
    assert (one.encode() == other.encode()) is (not names)
    return names


# -- what makes no difference ----------------------------------------------------------------


def test_two_engines_of_one_variant_have_the_same_fingerprint(setup: Setup) -> None:
    assert differences(setup.of("-ctk", "q8_0"), setup.of("-ctk", "q8_0")) == []


@pytest.mark.parametrize(
    "args",
    [
        ("-c", "8192"),
        ("--ctx-size=16384",),
        ("--port", "8081", "--host", "::1"),
        ("-t", "4", "-tb", "2"),
        ("-np", "4", "-kvu"),
        ("-ngl", "99", "-b", "512"),
        ("--slot-save-path", "/tmp/slots"),
        ("--temp", "0.2", "--verbose"),
    ],
    ids=" ".join,
)
def test_context_ports_threads_and_slots_make_no_difference(
    setup: Setup, args: tuple[str, ...]
) -> None:
    alike = ("-ctk", "q8_0", "--rope-scale", "2", "--lora", "a.gguf")
    assert differences(setup.of(*alike), setup.of(*alike, *args)) == []
    assert differences(setup.of(*alike), setup.of(*args, *alike)) == []


@pytest.mark.parametrize("flag", ["-fa", "--swa-full", "--flash-attn"])
@pytest.mark.parametrize("args", [("-t", "4"), ("-c", "8192"), ("-np", "2")], ids=" ".join)
def test_what_stands_behind_an_option_without_a_value_is_none_of_its(
    setup: Setup, flag: str, args: tuple[str, ...]
) -> None:
    assert differences(setup.of(flag), setup.of(flag, *args)) == []


def test_environment_variables_of_no_concern_make_no_difference(setup: Setup) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "1", "LLAMA_ARG_THREADS": "4", "LLAMA_ARG_CTX_SIZE": "8192"}
    assert differences(setup.of(), setup.of(env=env)) == []


def test_the_name_of_the_variant_and_its_limits_make_no_difference(setup: Setup) -> None:
    other = setup.of(name="large", context=16384, memory_bytes=1, parallel=3)
    assert differences(setup.of(), other) == []


def test_a_model_is_the_same_by_a_relative_path_by_a_link_and_by_what_the_engine_says(
    setup: Setup,
) -> None:
    (setup.folder / "link.gguf").symlink_to(setup.gguf)
    plain = setup.of()
    assert differences(plain, setup.of("-m", "model.gguf")) == []
    assert differences(plain, setup.of("--model", "link.gguf")) == []
    said = EngineFacts(build=FACTS.build, model_path=str(setup.gguf))
    from_facts = fingerprint_of(variant(binary=str(setup.binary), args=("-hf", "a/b")), said)
    assert from_facts is not None
    assert differences(plain, from_facts) == []


# -- the model's file ------------------------------------------------------------------------


def test_another_path_is_another_model(setup: Setup) -> None:
    copy = setup.write("copy.gguf", setup.gguf.read_bytes())
    assert differences(setup.of(), setup.of("-m", str(copy))) == ["model file"]


def test_another_size_is_another_model(setup: Setup) -> None:
    before = setup.of()
    setup.write(setup.gguf.name, setup.gguf.read_bytes() + b"x")
    assert differences(before, setup.of()) == ["model file"]


def test_another_time_of_change_is_another_model(setup: Setup) -> None:
    before = setup.of()
    os.utime(setup.gguf, ns=(A_SECOND_NS, A_SECOND_NS + 1))
    assert differences(before, setup.of()) == ["model file"]


@pytest.mark.parametrize("position", [0, 4, HEADER_BYTES - 1])
def test_another_header_is_another_model(setup: Setup, position: int) -> None:
    before = setup.of()
    data = bytearray(setup.gguf.read_bytes())
    data[position] ^= 1
    setup.write(setup.gguf.name, bytes(data))
    assert differences(before, setup.of()) == ["model file"]


def split_model(setup: Setup) -> Path:
    setup.write("split-00002-of-00002.gguf", b"GGUF, the second part")
    return setup.write("split-00001-of-00002.gguf", b"GGUF, the first part")


def test_another_second_part_is_another_model(setup: Setup) -> None:
    first = split_model(setup)
    before = setup.of("-m", str(first))
    setup.write("split-00002-of-00002.gguf", b"GGUF, another second part")
    assert differences(before, setup.of("-m", str(first))) == ["model file"]


def test_another_second_part_is_another_model_also_where_the_parts_are_links(setup: Setup) -> None:
    """In a Hugging Face cache each part is a link to a file that is named by its hash."""
    snapshot = setup.folder / "snapshot"
    snapshot.mkdir()
    for number, blob in (1, "aaaa"), (2, "bbbb"):
        target = setup.write(blob, b"GGUF, part %d" % number)
        (snapshot / f"x-0000{number}-of-00002.gguf").symlink_to(target)
    first = str(snapshot / "x-00001-of-00002.gguf")
    before = setup.of("-m", first)
    setup.write("bbbb", b"GGUF, another part 2")
    assert differences(before, setup.of("-m", first)) == ["model file"]


@pytest.mark.parametrize(
    "args", [("-m", "gone.gguf"), ("-m", "."), ()], ids=["gone", "a folder", ""]
)
def test_a_model_whose_file_cannot_be_read_has_no_fingerprint(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    assert fingerprint_of(variant(args=args, workdir=tmp_path), EngineFacts()) is None


def test_a_split_model_with_a_part_missing_has_no_fingerprint(setup: Setup) -> None:
    first = split_model(setup)
    (setup.folder / "split-00002-of-00002.gguf").unlink()
    assert fingerprint_of(variant(args=("-m", str(first))), FACTS) is None


# -- arguments and variables -----------------------------------------------------------------

CHANGES = [
    ("cache types", (), ("-ctk", "q8_0")),
    ("cache types", ("-ctk", "q8_0"), ("-ctk", "q4_0")),
    ("cache types", ("-ctv", "q8_0"), ("-ctk", "q8_0")),
    ("cache types", (), ("--cache-type-k=q8_0",)),
    ("cache types", ("--cache-type-v", "f16"), ("--cache-type-v", "bf16")),
    ("cache types", (), ("-fa",)),
    ("cache types", ("-fa", "on"), ("-fa", "off")),
    ("cache types", (), ("--swa-full",)),
    ("rope arguments", (), ("--rope-scaling", "yarn")),
    ("rope arguments", ("--rope-freq-base", "10000"), ("--rope-freq-base", "20000")),
    ("rope arguments", ("--rope-scale", "2"), ("--rope-scale", "4")),
    ("rope arguments", ("--yarn-ext-factor", "-1.0"), ("--yarn-ext-factor", "-2.0")),
    ("LoRA arguments", (), ("--lora", "a.gguf")),
    ("LoRA arguments", ("--lora", "a.gguf"), ("--lora", "b.gguf")),
    ("LoRA arguments", ("--lora", "a.gguf"), ("--lora-scaled", "a.gguf", "0.5")),
    ("LoRA arguments", ("--lora-scaled", "a.gguf", "0.5"), ("--lora-scaled", "a.gguf", "0.7")),
    ("LoRA arguments", (), ("--control-vector", "v.gguf")),
    ("LoRA arguments", (), ("--override-kv", "a=int:5")),
    ("projector", (), ("--mmproj", "p.gguf")),
    ("projector", ("-mm", "p.gguf"), ("-mm", "q.gguf")),
]


@pytest.mark.parametrize(
    ("part", "before", "after"), CHANGES, ids=lambda v: " ".join(v) if isinstance(v, tuple) else v
)
def test_another_of_these_arguments_is_another_cache(
    setup: Setup, part: str, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert differences(setup.of(*before), setup.of(*after)) == [part]
    rest = ("-c", "4096", "--port", "1")
    assert differences(setup.of(*before, *rest), setup.of(*after, *rest)) == [part]


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_ARG_CACHE_TYPE_K",
        "LLAMA_ARG_FLASH_ATTN",
        "LLAMA_ARG_ROPE_SCALING_TYPE",
        "LLAMA_ARG_YARN_EXT_FACTOR",
    ],
)
def test_another_variable_that_stands_for_such_an_argument_is_another_cache(
    setup: Setup, name: str
) -> None:
    assert differences(setup.of(), setup.of(env={name: "a"})) == ["variables"]
    assert differences(setup.of(env={name: "b"}), setup.of(env={name: "a"})) == ["variables"]


# -- the engine's build ----------------------------------------------------------------------


def test_another_build_of_the_engine_reads_no_cache_of_this_one(setup: Setup) -> None:
    other = EngineFacts(build="b11435-def")
    assert differences(setup.of(), setup.of(facts=other)) == ["engine build"]
    assert differences(setup.of(), setup.of(facts=EngineFacts())) == ["engine build"]


def test_another_program_is_another_build_whatever_it_says(setup: Setup) -> None:
    before = setup.of()
    setup.write(setup.binary.name, b"another program")
    assert differences(before, setup.of()) == ["engine build"]


def test_a_program_that_cannot_be_found_is_no_obstacle(setup: Setup) -> None:
    assert differences(setup.of(binary="docker-of-mine"), setup.of(binary="docker-of-mine")) == []


def test_the_embedded_engine_s_build_is_the_version_of_its_package(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = str(setup.write(EMBEDDED_COMMAND, b"#!python"))
    versions = iter(["2026.10", "2026.10", "2026.11"])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: next(versions))
    first, second, third = (setup.of(binary=binary) for _ in range(3))
    assert differences(first, second) == []
    assert differences(first, third) == ["engine build"]


def test_an_embedded_engine_of_another_environment_is_no_obstacle(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    binary = str(setup.write(EMBEDDED_COMMAND, b"#!python"))
    assert differences(setup.of(binary=binary), setup.of(binary=binary)) == []


# -- naming the difference -------------------------------------------------------------------


def test_all_parts_that_differ_are_named(setup: Setup) -> None:
    before = setup.of("-ctk", "q8_0")
    setup.write(setup.gguf.name, b"GGUF")
    after = setup.of("--lora", "a.gguf", facts=EngineFacts())
    expected = ["model file", "cache types", "LoRA arguments", "engine build"]
    assert differences(before, after) == expected


def test_a_part_that_only_the_other_has_is_named(setup: Setup) -> None:
    mine = setup.of()
    other = Fingerprint({**mine.parts, "moon phase": "full"})
    assert differences(mine, other) == ["moon phase"]


@pytest.mark.parametrize("encoded", ["", "{", "[]", "7", '{"model file": 7}'])
def test_what_is_no_fingerprint_differs_in_everything(setup: Setup, encoded: str) -> None:
    assert setup.of().differs_in(encoded) == ["everything"]


# -- the layout of the slots -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "shared", "other", "others_shared", "differ"),
    [
        (1, None, 4, 4096, False),  # -np 1, and four slots in one cache
        (None, None, 1, None, False),
        (1, None, 2, None, True),
        (4, 4096, 4, None, True),
        (2, None, 3, None, True),
        (2, None, 2, None, False),
    ],
)
def test_one_cache_and_several_are_different_and_the_number_of_slots_in_one_is_not(
    setup: Setup,
    slots: int | None,
    shared: int | None,
    other: int,
    others_shared: int | None,
    differ: bool,
) -> None:
    v = variant(args=("-m", str(setup.gguf)), workdir=setup.folder)
    one = fingerprint_of(v, EngineFacts(slots), shared)
    two = fingerprint_of(v, EngineFacts(other), others_shared)
    assert one is not None
    assert two is not None
    assert differences(one, two) == (["slot layout"] if differ else [])
