"""Findings about the programs of engines: those that fail, and builds with known faults. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trio_gateway.config.schema import GatewayConfig, ModelConfig, VariantConfig
from trio_gateway.engine.loadable import ProgramKey, Said, program_of
from trio_gateway.engine.process.missing_library import missing_library
from trio_gateway.examining.finding import Finding, error, note, warning
from trio_gateway.examining.models import model_file
from trio_gateway.examining.seen import Seen

# The oldest that were seen to save the context checkpoints without which an engine restores
# nothing of a sliding window, and goes back to no earlier token of a recurrent state.
CHECKPOINTS_FROM = 11434
XLLAMACPP_CHECKPOINTS_FROM = (2026, 10)

_BUILD = re.compile(r"^version: (\d+) \(", re.MULTILINE)
_XLLAMACPP = re.compile(r"^xllamacpp (\d+)\.(\d+)", re.MULTILINE)
_UNKNOWN_OPTION = re.compile(r"--version|unknown|invalid|unrecogni[sz]ed|usage", re.IGNORECASE)
_STATEFUL = ("ssm.", "attention.sliding_window", "shortconv.", "wkv.", "rwkv")


def on_programs(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    told: set[ProgramKey] = set()
    for model in config.models:
        for variant in model.variants:
            key = program_of(variant)
            if (said := seen.programs.get(key)) is None:
                continue
            if key not in told:
                told.add(key)
                yield from _on_program(model, variant, said)
                if key in seen.idle_gpus:
                    gpus = ", ".join(device.name for device in seen.reading.gpus)
                    yield warning(
                        f"{variant.binary} finds no GPU to use, though there is one ({gpus})",
                        "install a build for it (CUDA, ROCm, Vulkan or Metal)",
                    )
    yield from _on_old_builds(config, seen)


def _on_program(model: ModelConfig, variant: VariantConfig, said: Said) -> Iterator[Finding]:
    where = f'model "{model.name}": binary: {variant.binary}'
    if said.status is None:
        if said.text:
            yield error(f"{where} cannot be run: {said.text}", "install a build for this machine")
        else:
            yield warning(f"{where} did not answer to --version in time", "try it by hand")
    elif said.status < 0:
        yield error(
            f"{where} was ended by signal {-said.status} when asked for its --version",
            "it may be built for another processor: install a build for this machine",
        )
    elif said.status and missing_library(said.text) is None:  # which is told elsewhere
        last = next(filter(str.strip, reversed(said.text.splitlines())), "").strip()
        if not _UNKNOWN_OPTION.search(last):
            why = f": {last[:120]}" if last else ""
            yield error(
                f"{where} ends with status {said.status} when asked for its --version{why}",
                "try it by hand",
            )


def _on_old_builds(config: GatewayConfig, seen: Seen) -> Iterator[Finding]:
    """Engines whose restored caches spare them nothing, in silence."""
    if config.server.kv_carryover is None:
        return
    for model in config.models:
        for variant in model.variants if model.kv_carryover else ():
            said, path = seen.programs.get(program_of(variant)), model_file(variant)
            if said is None or path is None or path not in seen.files:
                continue
            header = seen.files[path].header
            if header is None or not any(key.startswith(_STATEFUL) for key in header.values):
                continue
            if (build := old_build(said.text)) is not None:
                yield note(
                    f'model "{model.name}": {variant.binary} is {build}, and builds of before '
                    f"October 2026 restore little of a {header.architecture}'s saved cache",
                    "take a newer one, or see with `trio-gateway doctor --start`",
                )
                break


def old_build(version: str) -> str | None:
    """In words, one that is known to save no context checkpoints; None: another, or not known."""
    if (found := _XLLAMACPP.search(version)) is not None:
        if (int(found[1]), int(found[2])) < XLLAMACPP_CHECKPOINTS_FROM:
            return found[0]
        return None
    build = _BUILD.search(version)
    return f"build {build[1]}" if build and 0 < int(build[1]) < CHECKPOINTS_FROM else None
