"""What is taken for a model of what lies on a disk, and what is said of the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import pytest

from tests.support.model_files import write_model
from trio_gateway.finding.candidates import gather
from trio_gateway.finding.left import Why
from trio_gateway.finding.models import Kind, Model, models_of
from trio_gateway.finding.places import Layout, Place, given_place, usual_places


def look(*folders: Path) -> tuple[dict[str, Model], dict[str, Why]]:
    """The models by their names; and why the files with these names were left."""
    gathered = gather([*map(given_place, folders)])
    models, left = models_of(gathered.candidates)
    all_left = (*gathered.left, *left)
    return {m.name: m for m in models}, {os.path.basename(e.path): e.why for e in all_left}


def test_a_header_says_what_a_model_is_and_can(tmp_path: Path) -> None:
    write_model(
        tmp_path / "Qwen3-8B-Q4_K_M.gguf", "qwen3", context=40960,
        template="{% if tools %}<think>{% endif %}", extra={"general.file_type": 15},
    )  # fmt: skip
    write_model(tmp_path / "nomic.gguf", "nomic-bert", extra={".pooling_type": 1})
    write_model(tmp_path / "bge.gguf", "bert", extra={".pooling_type": 4})
    write_model(
        tmp_path / "bge-reranker-old.gguf", "bert", extra={".attention.causal": False}
    )  # fmt: skip
    models, left = look(tmp_path)
    assert left == {}
    assert {name: model.kind for name, model in models.items()} == {
        "bge": Kind.RERANK,
        "bge-reranker-old": Kind.RERANK,
        "nomic": Kind.EMBEDDING,
        "qwen3-8b": Kind.CHAT,
    }
    qwen = models["qwen3-8b"]
    assert (qwen.trained, qwen.quantization, qwen.has_tools, qwen.thinks) == (
        40960, "Q4_K_M", True, True,
    )  # fmt: skip


def test_what_is_no_model_is_left_with_the_reason(tmp_path: Path) -> None:
    write_model(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-200])
    (tmp_path / "sooner.gguf").write_bytes(whole[: whole.index(b"token_embd") + 4])
    (tmp_path / "soonest.gguf").write_bytes(whole[:40])
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("<html>404</html>" * 9)
    (tmp_path / "loading.gguf").write_bytes(whole)
    (tmp_path / "loading.gguf.part").touch()
    (tmp_path / "begun.gguf.incomplete").touch()
    (tmp_path / "dead.gguf").symlink_to("nowhere")
    (tmp_path / "link.gguf").symlink_to("whole.gguf")
    os.link(tmp_path / "whole.gguf", tmp_path / "zweit.gguf")
    (tmp_path / "round").symlink_to(".")
    write_model(tmp_path / "big.gguf", endian=gguf.GGUFEndian.BIG)
    write_model(tmp_path / "vocab.gguf", weights=0)
    write_model(tmp_path / "lora.gguf", extra={"general.type": "adapter"})
    write_model(tmp_path / "flux1-dev.gguf", "flux", context=None)
    write_model(tmp_path / "speech.gguf", "unheard-of", context=None)
    write_model(tmp_path / "half-00001-of-00002.gguf")
    write_model(tmp_path / "tail-00002-of-00002.gguf")
    write_model(tmp_path / "renamed.gguf", extra={"split.count": 3})
    write_model(tmp_path / "layers.gguf", extra={"general.alignment": 32, ".x": 1})
    models, left = look(tmp_path)
    assert [*models] == ["layers", "link"]  # the first of the same file is named
    assert left == {
        "cut.gguf": Why.BROKEN, "sooner.gguf": Why.BROKEN, "soonest.gguf": Why.BROKEN,
        "empty.gguf": Why.BROKEN, "text.gguf": Why.BROKEN,
        "big.gguf": Why.BROKEN, "loading.gguf": Why.UNFINISHED,
        "begun.gguf.incomplete": Why.UNFINISHED, "dead.gguf": Why.UNREADABLE,
        "whole.gguf": Why.DUPLICATE, "zweit.gguf": Why.DUPLICATE, "vocab.gguf": Why.VOCABULARY,
        "lora.gguf": Why.ADAPTER, "flux1-dev.gguf": Why.UNKNOWN, "speech.gguf": Why.UNKNOWN,
        "half-00001-of-00002.gguf": Why.INCOMPLETE, "tail-00002-of-00002.gguf": Why.INCOMPLETE,
        "renamed.gguf": Why.INCOMPLETE,
    }  # fmt: skip


def test_a_model_in_several_files_is_one_if_all_are_whole(tmp_path: Path) -> None:
    for n in (1, 2):
        write_model(tmp_path / f"M-Q8_0-{n:05}-of-00002.gguf", extra={"split.count": 2})
    models, left = look(tmp_path)
    assert left == {}
    assert [Path(file).name for file in models["m"].files] == [
        "M-Q8_0-00001-of-00002.gguf", "M-Q8_0-00002-of-00002.gguf",
    ]  # fmt: skip
    assert models["m"].size_bytes == sum(f.stat().st_size for f in tmp_path.iterdir())
    second = tmp_path / "M-Q8_0-00002-of-00002.gguf"
    second.write_bytes(second.read_bytes()[:-100])
    assert look(tmp_path) == ({}, {second.name: Why.BROKEN})


def projector(path: Path, width: int | None = None) -> Path:
    extra = {} if width is None else {".vision.projection_dim": width}
    return write_model(path, "clip", context=None, extra={"general.type": "mmproj", **extra})


def test_a_projector_belongs_to_the_model_that_it_fits(tmp_path: Path) -> None:
    write_model(tmp_path / "one/gemma-3-4b-it-Q4_K_M.gguf", "gemma3")
    projector(tmp_path / "one/mmproj-F16.gguf", 64)
    projector(tmp_path / "one/mmproj-F32.gguf", 64)
    write_model(tmp_path / "flat/Qwen2.5-VL-7B-Q8_0.gguf", "qwen2vl")
    write_model(tmp_path / "flat/llava-1.6-Q8_0.gguf")
    projector(tmp_path / "flat/mmproj-Qwen2.5-VL-7B-f16.gguf", 64)
    projector(tmp_path / "flat/mmproj-model-f16.gguf", 64)
    write_model(tmp_path / "other/a-model.gguf", width=64)
    projector(tmp_path / "other/mmproj.gguf", 128)
    projector(tmp_path / "alone/mmproj-alone.gguf")
    for repo in ("ggml-org_Pixtral-12B-GGUF", "me_Smol-VL-GGUF"):  # llama.cpp's cache
        write_model(tmp_path / f"cache/{repo}_{repo.split('_')[1][:-5]}-Q4_K_M.gguf")
        projector(tmp_path / f"cache/{repo}_mmproj-model-f16.gguf", 64)
    write_model(tmp_path / "deep/UD-Q4_K_XL/Llama-4-00001-of-00001.gguf")
    projector(tmp_path / "deep/mmproj-BF16.gguf", 64)
    models, left = look(tmp_path)
    assert {n: Path(m.projector).name for n, m in models.items() if m.projector} == {
        "gemma-3-4b-it": "mmproj-F16.gguf", "qwen2.5-vl-7b": "mmproj-Qwen2.5-VL-7B-f16.gguf",
        "llama-4": "mmproj-BF16.gguf",
        "pixtral-12b": "ggml-org_Pixtral-12B-GGUF_mmproj-model-f16.gguf",
        "smol-vl": "me_Smol-VL-GGUF_mmproj-model-f16.gguf",
    }  # fmt: skip
    assert left == {
        "mmproj-F32.gguf": Why.SPARE, "mmproj-model-f16.gguf": Why.PROJECTOR,
        "mmproj.gguf": Why.PROJECTOR, "mmproj-alone.gguf": Why.PROJECTOR,
    }  # fmt: skip


def test_a_draft_model_is_not_offered_and_told_to_its_model(tmp_path: Path) -> None:
    write_model(tmp_path / "Big-32B-Q4_0.gguf", vocabulary=20)
    write_model(tmp_path / "Big-DRAFT-0.5B.gguf", vocabulary=20)
    write_model(tmp_path / "else-draft.gguf", vocabulary=21)
    models, left = look(tmp_path)
    assert [*models] == ["big-32b"]
    assert models["big-32b"].draft == str(tmp_path / "Big-DRAFT-0.5B.gguf")
    assert left == {"Big-DRAFT-0.5B.gguf": Why.DRAFT, "else-draft.gguf": Why.DRAFT}


def test_names_are_typable_and_unique_and_a_new_file_takes_none_of_them(tmp_path: Path) -> None:
    files = [
        "b/Qwen3 8B.Q4_0.gguf", "a/Qwen3 8B-Q8_0.gguf", "a/Qwen3 8B-Q8_0 .gguf",
        "It's \"Ü\"/model.gguf", "漢字/漢字.gguf", "x/UPPER.GGUF", "c/Qwen3 8B.Q4_0.gguf",
    ]  # fmt: skip
    for age, file in enumerate(files):
        os.utime(write_model(tmp_path / file), (age, age))
    models, _ = look(tmp_path)
    by_file = {os.path.relpath(m.path, tmp_path): name for name, m in models.items()}
    assert [by_file[file] for file in files] == [
        "qwen3-8b", "qwen3-8b-q8_0", "a-qwen3-8b", "it-s-u", "model", "upper", "qwen3-8b-q4_0",
    ]  # fmt: skip


def test_a_cache_of_hugging_face_is_read_through_its_links(tmp_path: Path) -> None:
    repo = tmp_path / "models--unsloth--Tiny-GGUF"
    blobs = repo / "blobs"
    for revision in ("old", "new"):
        write_model(blobs / revision, context=4096)
        folder = repo / "snapshots" / revision / "Q8_0"
        folder.mkdir(parents=True)
        (folder / "Tiny-Q8_0.gguf").symlink_to(f"../../../blobs/{revision}")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("new")
    models, left = look(tmp_path)
    assert models["tiny"].path == str(repo / "snapshots/new/Q8_0/Tiny-Q8_0.gguf")
    assert [*left.values()] == [Why.OLDER]


def ollama_model(top: Path, name: str, **layers: str | Path) -> None:
    manifest = top / "manifests/registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    said = []
    for kind, digest in layers.items():
        if isinstance(digest, Path):
            digest.rename(top / "blobs" / f"sha256-{digest.name}")
            digest = digest.name
        said.append(
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"}
        )
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": said}))


def test_ollamas_manifests_name_its_files(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    model = write_model(tmp_path / ("a" * 64))
    eye = projector(tmp_path / ("b" * 64))
    ollama_model(tmp_path, "library/qwen3/8b", model=model, projector=eye, license="c" * 64)
    ollama_model(tmp_path, "library/qwen3/latest", model="a" * 64)
    ollama_model(tmp_path, "me/gone/latest", model="d" * 64)
    ollama_model(tmp_path, "library/cloud/latest")
    (tmp_path / "manifests/registry.ollama.ai/broken").write_text("{")
    (tmp_path / "manifests/evil").write_text('{"layers": [{"digest": "sha256:../../etc/passwd"}]}')
    assert given_place(tmp_path).layout is Layout.OLLAMA
    models, left = look(tmp_path)
    assert [*models] == ["qwen3:8b"]
    assert models["qwen3:8b"].projector == str(tmp_path / "blobs" / f"sha256-{'b' * 64}")
    assert left == {
        "qwen3": Why.DUPLICATE, "gone": Why.INCOMPLETE, "cloud": Why.ELSEWHERE,
        "broken": Why.BROKEN, ":evil": Why.ELSEWHERE,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "platform", "folders"),
    [
        ({}, "linux", [".cache/huggingface/hub", ".cache/llama.cpp", ".lmstudio/models",
                       ".ollama/models", ".local/share/Jan/data/llamacpp/models"]),
        ({"HF_HOME": "/h", "LLAMA_CACHE": "/l", "OLLAMA_MODELS": "/o"}, "linux",
         ["/h/hub", "/l", "/o"]),
        ({"HF_HOME": "/h", "HF_HUB_CACHE": "~/c", "XDG_CACHE_HOME": "/x"}, "linux",
         ["c", "/x/llama.cpp", "/x/lm-studio/models"]),
        ({}, "darwin", ["Library/Caches/llama.cpp",
                        "Library/Application Support/Jan/data/llamacpp/models"]),
    ],
)  # fmt: skip
def test_each_program_says_where_its_models_are(
    environ: dict[str, str], platform: str, folders: list[str]
) -> None:
    places = usual_places(environ, Path("/home/me"), platform)
    assert {Path("/home/me", folder) for folder in folders} <= {place.folder for place in places}
    assert len({place.folder for place in places}) == len(places)


def test_lm_studio_may_keep_them_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lms").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/lms\n")
    (tmp_path / "lms/settings.json").write_text(json.dumps({"downloadsFolder": "/big/disk"}))
    assert Place(Path("/big/disk"), "LM Studio") in usual_places({}, tmp_path, "linux")


def test_a_folder_that_cannot_be_read_takes_nothing_from_the_others(tmp_path: Path) -> None:
    write_model(tmp_path / "good/m.gguf")
    (tmp_path / "file").touch()
    models, left = look(tmp_path / "gone", tmp_path / "good", tmp_path / "good/m.gguf")
    assert [*models] == ["m"]
    assert left == {"gone": Why.UNREADABLE}
