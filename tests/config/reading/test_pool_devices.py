"""Pools whose memory is what devices have."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.pool_schema import PoolConfig, PoolDevice
from trio_gateway.config.schema import GatewayConfig

GIB = 2**30
TEN = 10 * GIB


def load(tmp_path: Path, pool: str, variant: str = "") -> GatewayConfig:
    (tmp_path / "gateway.lua").write_text(
        "server = {}\n"
        'models = { { name = "m", engine = presets.engines.llamacpp, variants = { { binary = "x", '
        f'context = 100, args = {{ "y" }}, memory = "3GiB" {variant} }} }} }} }}\n'
        f"pools = {{ primary = {pool} }}\n"
    )
    return ConfigLoader(tmp_path / "gateway.lua").load()


def devices(*names: str, engines: int = 1) -> PoolConfig:
    return PoolConfig("primary", engines, devices=tuple(map(PoolDevice, names)))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ('{ memory = "auto" }', PoolConfig("primary", memory_auto=True)),
        (
            '{ memory = "auto", reserve = "1GiB" }',
            PoolConfig("primary", memory_auto=True, reserve=GIB),
        ),
        (
            '{ memory = "auto", reserve = "10%" }',
            PoolConfig("primary", memory_auto=True, reserve=0.1),
        ),
        ('{ memory = "auto", reserve = 0 }', PoolConfig("primary", memory_auto=True, reserve=0.0)),
        ('{ devices = { "cuda:0", "cuda:1" } }', devices("cuda:0", "cuda:1", engines=2)),
        ('{ devices = { "CUDA1", "HIP:0", "Vulkan0" }, engines = 9 }',
         devices("cuda:1", "rocm:0", "vulkan:0", engines=9)),
        ('{ devices = { "metal" } }', devices("metal")),
        (
            '{ devices = { ["cuda:0"] = "20GiB", ["cuda:1"] = "10GiB" } }',
            PoolConfig(
                "primary", 2, devices=(PoolDevice("cuda:0", 20 * GIB), PoolDevice("cuda:1", TEN))
            ),
        ),
        (
            '{ memory = "30GiB", devices = { "cuda:0" } }',
            PoolConfig("primary", memory_bytes=30 * GIB, devices=(PoolDevice("cuda:0"),)),
        ),
    ],
)  # fmt: skip
def test_a_pool_goes_by_what_is_free_or_is_placed_on_devices(
    tmp_path: Path, pool: str, expected: PoolConfig
) -> None:
    assert load(tmp_path, pool).pools["primary"] == expected


@pytest.mark.parametrize(
    ("pool", "variant", "said"),
    [
        ('{ memory = "Auto" }', "", 'primary.memory: expected "auto" or a size such as "24GiB", '),
        ('{ memory = "12 gigs" }', "", "primary.memory: expected a size"),
        ('{ memory = "auto", reserve = 5 }', "", "primary.reserve: expected a share such as 0.05"),
        ('{ memory = "auto", reserve = -1 }', "", "primary.reserve: expected a share"),
        ('{ memory = "4GiB", reserve = 0.1 }', "", 'primary.reserve: is for memory = "auto"'),
        ('{ devices = "cuda:0" }', "", "primary.devices: expected an array of devices"),
        ('{ devices = { "gpu0" } }', "", "primary.devices[1]: expected a device such as"),
        ('{ devices = { "cuda:" } }', "", "primary.devices[1]: expected a device such as"),
        ('{ devices = { "cuda:0", "cuda0" } }', "", "primary.devices[2]: cuda:0 is there twice"),
        ('{ devices = { 1 } }', "", "primary.devices[1]: expected a device such as"),
        ('{ gpus = { "cuda:0" } }', "", 'primary.gpus: unknown key; use "devices"'),
        ("{}", ", devices = 2", 'it is to use 2 devices, and its pool "primary" names none'),
        ('{ devices = { "cuda:0" } }', ", devices = 2", 'its pool "primary" has 1'),
        ('{ devices = { ["cuda:0"] = "2GiB" } }', "", "needs 3.0 GiB (declared)"),
        (
            '{ devices = { "cuda:0" } }', ', env = { CUDA_VISIBLE_DEVICES = "1" }',
            "env.CUDA_VISIBLE_DEVICES: the gateway sets it, as pools.primary has devices",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said(tmp_path: Path, pool: str, variant: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, pool, variant)
    assert said in "\n".join(caught.value.mistakes)


def test_a_variant_may_be_divided_among_devices(tmp_path: Path) -> None:
    pool = '{ devices = { ["cuda:0"] = "2GiB", ["cuda:1"] = "2GiB" } }'
    config = load(tmp_path, pool, ", devices = 2")
    assert config.models[0].variants[0].devices == 2
