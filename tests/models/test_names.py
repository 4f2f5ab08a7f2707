"""From what a client writes as `model` to a model, and to the context that it asks for."""

from __future__ import annotations

import pytest

from tests.support.schema_values import config, model, variant
from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.names import (
    LONGEST_NAME,
    ContextNotFound,
    ModelNames,
    ModelNotFound,
    Wanted,
)


def names_of(*models: ModelConfig) -> ModelNames:
    """Names of models whose engines have the contexts that they declare."""
    contexts = {model.name: [v.context for v in model.variants] for model in models}
    return ModelNames(config(*models), contexts.__getitem__)


def wanted(names: ModelNames, name: str | None) -> Wanted:
    return names.wanted(names.find_named(name))


def test_a_model_is_found_by_its_name_and_by_its_alias() -> None:
    made = model("qwen", aliases=("gpt-4o",))
    subject = names_of(made)
    assert subject.find_model("qwen") is subject.find_model("gpt-4o") is made


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    subject = names_of(model("qwen3-8b"), model("llama"), model("qwen-dark", hidden=True))
    with pytest.raises(ModelNotFound, match="qwen3-8b") as refused:
        subject.find_model("qwen3")
    assert "dark" not in str(refused.value)


def test_an_unknown_name_far_from_all_is_refused_with_what_there_is() -> None:
    with pytest.raises(ModelNotFound, match=r'"zzz"; did you mean: llama\?'):
        names_of(model("llama")).find_model("zzz")


def test_where_all_models_are_hidden_no_name_is_suggested() -> None:
    with pytest.raises(ModelNotFound, match=r'^there is no model "zzz"$'):
        names_of(model("secret", hidden=True)).find_model("zzz")


def test_a_name_may_ask_for_a_variant_or_for_tokens() -> None:
    subject = names_of(model("qwen", variant(2048), variant(8192)))
    assert wanted(subject, "qwen").at_least == 0
    assert wanted(subject, "qwen:8192").at_least == 8192
    assert wanted(subject, "qwen@3000").at_least == 3000


# Names that begin with each other, as those of Ollama's library do.
ALIKE = (
    model("qwen3", variant(2048, name="small"), variant(8192)),
    model("qwen3:8b", variant(4096), variant(16384)),
    model("llama3:latest", variant(4096)),
    model("llama3.2", variant(4096), aliases=("gpt-4o:latest",)),
    model("org/m@home", variant(4096)),
    model("tagged", variant(2048, name="latest"), variant(8192)),
)


@pytest.mark.parametrize(
    ("asked", "found", "at_least"),
    [
        ("qwen3", "qwen3", 0),
        ("qwen3@4096", "qwen3", 4096),
        ("qwen3:small", "qwen3", 2048),
        ("qwen3:small@4096", "qwen3", 4096),
        ("qwen3:latest", "qwen3", 0),
        ("qwen3:latest@4096", "qwen3", 4096),
        ("qwen3@4096:latest", "qwen3", 4096),
        ("qwen3:small:latest", "qwen3", 2048),
        ("qwen3:8b", "qwen3:8b", 0),
        ("qwen3:8b@4096", "qwen3:8b", 4096),
        ("qwen3:8b:16384", "qwen3:8b", 16384),
        ("qwen3:8b:16384@4096", "qwen3:8b", 16384),
        ("qwen3:8b:latest", "qwen3:8b", 0),
        ("qwen3:8b:latest@4096", "qwen3:8b", 4096),
        ("llama3", "llama3:latest", 0),
        ("llama3:latest", "llama3:latest", 0),
        ("llama3@1000", "llama3:latest", 1000),
        ("llama3:4096", "llama3:latest", 4096),
        ("llama3:latest:4096", "llama3:latest", 4096),
        ("gpt-4o", "llama3.2", 0),
        ("gpt-4o@1000", "llama3.2", 1000),
        ("org/m@home", "org/m@home", 0),
        ("org/m@home@1000", "org/m@home", 1000),
        ("tagged:latest", "tagged", 2048),
        ("tagged:latest@4096", "tagged", 4096),
        ("tagged:latest:latest", "tagged", 2048),
    ],
)
def test_of_several_models_the_one_with_the_longest_name_is_meant(
    asked: str, found: str, at_least: int
) -> None:
    subject = names_of(*ALIKE)
    assert wanted(subject, asked) == Wanted(named(found), at_least)
    assert subject.is_name(asked)


def named(name: str) -> ModelConfig:
    return next(made for made in ALIKE if made.name == name)


def test_latest_is_left_out_only_where_that_means_nothing_else() -> None:
    both = names_of(model("m"), model("m:latest"))
    assert wanted(both, "m").model.name == "m"
    assert wanted(both, "m:latest").model.name == "m:latest"
    assert wanted(both, "m:latest@9").model.name == "m:latest"
    subject = names_of(model("m", variant(2048, name="8b"), variant(8192)), model("m:8b:latest"))
    assert wanted(subject, "m:8b").model.name == "m"
    assert wanted(subject, "m:8b:latest").model.name == "m:8b:latest"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("qwen3:9b@4096", 'qwen3 has no variant "9b@4096"; it has: small, 8192'),
        ("qwen3:8b:small", 'qwen3:8b has no variant "small"; it has: 4096, 16384'),
        ("qwen3:8b@", "qwen3:8b@: expected a number of tokens"),
        ("qwen3:8b@1e3", "qwen3:8b@1e3: expected a number of tokens"),
        ("qwen3:", 'qwen3 has no variant ""'),
        ("qwen4:8b@4096", 'there is no model "qwen4:8b@4096"; did you mean'),
        ("@4096", 'there is no model "@4096"'),
        (":latest", 'there is no model ":latest"'),
        ("qwen3:" + ":" * 1_000_000, "qwen3 has no variant"),
        ("@" * 1_000_000, "there is no model"),
    ],
)
def test_the_error_is_about_the_longest_name(asked: str, words: str) -> None:
    subject = names_of(*ALIKE)
    with pytest.raises(ModelNotFound) as refused:
        wanted(subject, asked)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 2 * LONGEST_NAME + 100


def test_a_path_begins_with_the_name_and_not_with_more() -> None:
    subject = names_of(*ALIKE)
    assert subject.is_name("qwen3:8b@many")  # the error is about the number
    for path in ("qwen3:8b@4096/v1", "qwen3/v1", "qwen3:9b", "v1", "org", ""):
        assert not subject.is_name(path)


def test_more_tokens_than_the_largest_context_has_are_another_error() -> None:
    subject = names_of(model("qwen", variant(2048), variant(8192)))
    with pytest.raises(ContextNotFound, match="its largest has 8192"):
        wanted(subject, "qwen@8193")
    with pytest.raises(ModelNotFound, match="expected a number of tokens"):
        wanted(subject, "qwen@many")


def test_without_a_name_it_is_the_only_model() -> None:
    assert wanted(names_of(model("qwen")), None).model.name == "qwen"
    with pytest.raises(ModelNotFound, match="there are several models"):
        wanted(names_of(model("qwen"), model("llama")), None)
