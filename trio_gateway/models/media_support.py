"""MediaSupport: which media a model's engines cannot take, as far as options and files say it."""

from __future__ import annotations

from collections.abc import Sequence

from trio_gateway.config.schema import ModelConfig
from trio_gateway.config.server_options import PROJECTOR
from trio_gateway.gguf.header import GgufHeader
from trio_gateway.models.medium import Medium, Refusals
from trio_gateway.models.model_files import ModelFiles


class MediaSupport:
    """What is not known is for the engine to judge."""

    def __init__(self) -> None:
        self._refusals: dict[str, Refusals] = {}  # by a model's name

    def refusals(self, model: ModelConfig) -> Refusals:
        """What is known of it by now."""
        if (known := self._refusals.get(model.name)) is None:
            known = self._refusals[model.name] = _by_options(model)
        return known

    def forget(self) -> None:
        """The configuration is another; its projectors are still to be read."""
        self._refusals.clear()

    async def read_files(self, models: Sequence[ModelConfig]) -> None:
        """Look into their projectors, once: an engine has what was there when it began."""
        named = [model for model in models if _projector_of(model) is not None]
        for model, facts in zip(named, await ModelFiles().facts_of(named), strict=True):
            if facts.projector is not None:
                self._refusals[model.name] = _by_projector(model, facts.projector)


def _by_options(model: ModelConfig) -> Refusals:
    """A llama-server without a projector can look at nothing, and hear nothing."""
    text_only = model.engine.has_server_options and all(
        variant.engine_args.has_projector is False for variant in model.variants
    )
    return dict.fromkeys(Medium, f"{model.name} has no projector (--mmproj)") if text_only else {}


def _projector_of(model: ModelConfig) -> str | None:
    """The path of its only one, if all its variants have that."""
    if not model.engine.has_server_options:
        return None
    paths = {variant.engine_args.value(PROJECTOR) for variant in model.variants}
    return paths.pop() if len(paths) == 1 else None


def _by_projector(model: ModelConfig, header: GgufHeader) -> Refusals:
    """Older files do not say that they see, as they all did."""
    hears, sees = bool(header.number("has_audio_encoder")), header.number("has_vision_encoder")
    found: dict[Medium, str] = {}
    if not hears:
        found[Medium.AUDIO] = f"the projector of {model.name} has no audio encoder"
    if sees == 0 or (sees is None and hears):
        blind = f"the projector of {model.name} has no vision encoder"
        found |= {Medium.IMAGE: blind, Medium.VIDEO: blind}
    return found
