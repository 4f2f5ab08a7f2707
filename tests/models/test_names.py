"""From what a client writes as `model` to a model, and to the context that it asks for."""

from __future__ import annotations

import pytest

from tests.support.schema_values import config, model, variant
from trio_gateway.config.schema import ModelConfig
from trio_gateway.models.names import ContextNotFound, ModelNames, ModelNotFound


def names_of(*models: ModelConfig) -> ModelNames:
    """Names of models whose engines have the contexts that they declare."""
    contexts = {model.name: [v.context for v in model.variants] for model in models}
    return ModelNames(config(*models), contexts.__getitem__)


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
    assert subject.find_wanted("qwen").at_least == 0
    assert subject.find_wanted("qwen:8192").at_least == 8192
    assert subject.find_wanted("qwen@3000").at_least == 3000


def test_more_tokens_than_the_largest_context_has_are_another_error() -> None:
    subject = names_of(model("qwen", variant(2048), variant(8192)))
    with pytest.raises(ContextNotFound, match="its largest has 8192"):
        subject.find_wanted("qwen@8193")
    with pytest.raises(ModelNotFound, match="expected a number of tokens"):
        subject.find_wanted("qwen@many")


def test_without_a_name_it_is_the_only_model() -> None:
    assert names_of(model("qwen")).find_wanted(None).model.name == "qwen"
    with pytest.raises(ModelNotFound, match="there are several models"):
        names_of(model("qwen"), model("llama")).find_wanted(None)
