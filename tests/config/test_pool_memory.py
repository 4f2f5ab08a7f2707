"""What a configuration says of variants in a pool whose memory is limited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.configurations import mistakes, smallest
from trio_gateway.config import memory_estimate, pool_memory
from trio_gateway.config.schema import VariantConfig
from trio_gateway.config.sizes import format_over, format_size
from trio_gateway.gguf.memory import MemoryEstimate

GIB = 2**30
POOL = 'pools = { primary = { memory = "24GiB" } } '


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[VariantConfig]:
    """Estimates a GiB for each 1,024 tokens of context. Its value: the variants it was asked."""
    asked: list[VariantConfig] = []

    def estimate(variants: Sequence[VariantConfig]) -> list[MemoryEstimate | None]:
        asked.extend(variants)
        return [
            MemoryEstimate(
                weights_bytes=GIB, kv_bytes=(v.context // 1024 - 1) * GIB, buffer_bytes=2**20
            )
            if v.name != "unknown"
            else None
            for v in variants
        ]

    monkeypatch.setattr(pool_memory, "estimate_variants", estimate)
    return asked


def test_a_variant_that_declares_nothing_gets_an_estimate(
    tmp_path: Path, estimates: list[VariantConfig]
) -> None:
    config = smallest(tmp_path, POOL)
    (variant,) = config.models[0].variants
    assert (variant.memory_bytes, variant.estimated_memory_bytes) == (None, 4 * GIB + 2**20)
    assert variant.expected_memory_bytes == 4 * GIB + 2**20
    assert config.notes == ()


def test_a_declared_memory_is_not_estimated(tmp_path: Path, estimates: list[VariantConfig]) -> None:
    (variant,) = smallest(tmp_path, POOL + "variant.memory = '24GiB'").models[0].variants
    assert (variant.memory_bytes, variant.estimated_memory_bytes) == (24 * GIB, None)
    assert variant.expected_memory_bytes == 24 * GIB
    assert estimates == []


def test_no_file_is_read_for_a_pool_without_memory(
    tmp_path: Path, estimates: list[VariantConfig]
) -> None:
    config = smallest(tmp_path, 'pools = { other = { memory = "24GiB" } }')
    assert config.models[0].variants[0].estimated_memory_bytes is None
    assert (estimates, config.notes) == ([], ())


def test_a_variant_that_can_never_start_is_a_mistake_at_its_place_in_the_file(
    tmp_path: Path, estimates: list[VariantConfig]
) -> None:
    changes = """
    model.variants = { merge_tables(variant, { context = 31 * 1024 }), variant }
    models[2] = merge_tables(model, { name = "n", variants = { variant } })
    models[2].variants[1] = merge_tables(variant, { memory = "25GiB" })
    """
    assert mistakes(tmp_path, POOL + changes) == [
        'models[1] "m".variants[1]: needs 31.1 GiB (estimated from its GGUF: 1.0 GiB of weights, '
        '30.0 GiB of KV cache, 1.0 MiB of buffers), but its pool "primary" has 24.0 GiB; give it '
        "a smaller context or cache type, declare its `memory`, or raise pools.primary.memory",
        'models[2] "n".variants[1]: needs 25.0 GiB (declared), but its pool "primary" has '
        "24.0 GiB; declare less if it needs less, or raise pools.primary.memory",
    ]


def test_a_variant_of_which_nothing_is_known_gets_a_note(
    tmp_path: Path, estimates: list[VariantConfig]
) -> None:
    config = smallest(tmp_path, POOL + "variant.name = 'unknown'")
    assert config.models[0].variants[0].expected_memory_bytes is None
    assert config.notes == (
        'models[1] "m".variants[1]: how much memory it needs is unknown; it will run '
        'alone in its pool "primary" until it has been measured. Declare its `memory`',
    )


@pytest.mark.processes
def test_a_missing_or_broken_model_file_is_no_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    broken = "merge_tables(variant, { args = { '-m', 'broken.gguf' } })"
    config = smallest(tmp_path, POOL + f"model.variants = {{ variant, {broken} }}")
    assert sum("how much memory" in note for note in config.notes) == 2
    assert caplog.records == []


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (1000, "1000 B"), (1536, "1.5 KiB"), (512 * 2**20, "512.0 MiB"),
        (GIB - 1, "1.0 GiB"), (int(30.1 * GIB), "30.1 GiB"), (2**40, "1.0 TiB"),
    ],
)  # fmt: skip
def test_a_size_reads_in_the_largest_unit_that_it_fills(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("limit", [1, 1023, 24 * GIB, 24 * 10**9, int(24.06 * GIB), 2**40 - 1])
def test_what_is_over_a_limit_never_reads_like_the_limit(limit: int) -> None:
    over, at = format_over(limit + 1, limit)
    assert over != at


def test_a_size_and_its_limit_are_rounded_away_from_each_other() -> None:
    assert format_over(24 * GIB + 1, 24 * GIB) == ("24.1 GiB", "24.0 GiB")
    assert format_over(int(24.08 * GIB), int(24.06 * GIB)) == ("24.1 GiB", "24.0 GiB")


def test_the_estimate_is_the_sum_of_its_parts() -> None:
    parts = MemoryEstimate(weights_bytes=1, kv_bytes=2, buffer_bytes=4)
    assert parts.total_bytes == 7
    assert memory_estimate.estimate_variants([]) == []
