"""A variant as an application of Ray Serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.schema import VariantConfig
from trio_gateway.engine.clients.headers import AFFINITY
from trio_gateway.engine.clients.ray import LlamaCppOnCluster, OpenAIOnCluster, RayKind
from trio_gateway.engine.cluster.application import Application, application_of
from trio_gateway.engine.scheduling.events import VariantKey

ADDRESS = 'address = "http://head:8265"'
LLAMA = 'binary = "llama-server", args = { "-m", "/m.gguf", "-np", "2" }, context = 4096'
VLLM = 'binary = "vllm", args = { "serve", "org/m", "--port", "${PORT}" }, context = 4096'


def variant(tmp_path: Path, keys: str, model: str = ADDRESS) -> VariantConfig:
    path = tmp_path / "gateway.lua"
    engine = f'name = "m", engine = presets.engines.ray, {model}'
    path.write_text(
        f"server = {{}}\nmodels = {{ {{ {engine}, variants = {{ {{ {keys} }} }} }} }}\n"
    )
    return ConfigLoader(path).load().models[0].variants[0]


def application(found: VariantConfig) -> Application:
    return application_of("abcd", VariantKey("org/My model", "4096"), found)


def deployment(found: VariantConfig) -> dict[str, Any]:
    (only,) = application(found).told["deployments"]
    return dict(only)


def test_all_that_serve_is_told(tmp_path: Path) -> None:
    found = variant(
        tmp_path,
        f"""{LLAMA}, replicas = {{ min = 1, max = 3 }}, placement = "spread", env = {{ A = "b" }},
        resources = {{ gpu = 0.5, CPU = 4, memory = "20GiB", my_card = 1 }}""",
    )
    told = application(found).told
    assert told["name"].startswith("trio-gateway-abcd-org_My_model-4096-")
    assert told["route_prefix"] == f"/{told['name']}"
    assert told["args"]["env"] == {"A": "b"}
    assert told["args"]["command"][0] == "llama-server"
    assert told["args"]["command"][-4:] == ["--host", "127.0.0.1", "--port", "${PORT}"]
    (only,) = told["deployments"]
    assert only["max_ongoing_requests"] == 10
    assert only["max_replicas_per_node"] == 1
    assert only["request_router_config"]["request_router_kwargs"] == {"places": 2}
    assert only["autoscaling_config"]["target_ongoing_requests"] == 1.6
    scaling = only["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 3)
    assert only["ray_actor_options"] == {
        "num_cpus": 4.0, "num_gpus": 0.5, "memory": 20 * 2**30, "resources": {"my_card": 1.0}
    }  # fmt: skip


def test_a_number_of_replicas_is_fixed(tmp_path: Path) -> None:
    found = deployment(variant(tmp_path, f"{LLAMA}, replicas = 2"))
    assert found["num_replicas"] == 2
    assert "autoscaling_config" not in found
    router = found["request_router_config"]["request_router_class"]
    assert router == "trio_gateway.cluster.affinity_router:AffinityRouter"
    assert found["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.0}


def test_one_replica_needs_nobody_who_chooses(tmp_path: Path) -> None:
    assert "request_router_config" not in deployment(variant(tmp_path, LLAMA))


def test_the_name_is_another_if_anything_is(tmp_path: Path) -> None:
    names = {
        application(variant(tmp_path, keys)).name
        for keys in (LLAMA, f"{LLAMA}, replicas = 2", f"{LLAMA}, env = {{ A = '1' }}", VLLM)
    }
    assert len(names) == 4
    assert application(variant(tmp_path, LLAMA)).name in names


def test_a_variant_says_otherwise_than_its_model(tmp_path: Path) -> None:
    model = f'{ADDRESS}, resources = {{ GPU = 1 }}, headers = {{ ["X-Key"] = "seen-by-nobody" }}'
    found = variant(tmp_path, f'{LLAMA}, address = "https://other/ray"', model)
    cluster = found.options.cluster
    assert cluster is not None
    assert (cluster.address, cluster.resources) == ("https://other/ray", {"GPU": 1.0})
    assert "seen-by-nobody" not in repr(cluster)
    assert not found.has_process
    assert found.memory_bytes == 0


@pytest.mark.parametrize(("keys", "kind"), [(LLAMA, LlamaCppOnCluster), (VLLM, OpenAIOnCluster)])
async def test_how_it_is_spoken_to_goes_by_its_command(
    tmp_path: Path, keys: str, kind: type[object]
) -> None:
    found = variant(tmp_path, keys)
    client = RayKind().client("http://head:8000/app", found.options)
    assert isinstance(client, kind)
    assert client.prefix == "/app"
    assert (await client.check_health(1.0)).detail == "Ray Serve has not deployed it yet"
    assert client.routes_by_affinity
    assert client.with_own_headers([(AFFINITY, b"ab12")]) == [(b"x-session-id", b"ab12")]
    await client.aclose()


@pytest.mark.parametrize(
    ("keys", "model", "mistake"),
    [
        (LLAMA, "hidden = true", "variants[1].address: missing; expected where the cluster's"),
        (LLAMA, 'address = "ray://head:10001"', 'address: expected where the cluster'),
        (f"{LLAMA}, replicas = 0", ADDRESS, "replicas: expected a number of replicas"),
        (f"{LLAMA}, replicas = {{ min = 3, max = 2 }}", ADDRESS, "(2) is less than `min` (3)"),
        (f"{LLAMA}, resources = {{ GPU = 'all' }}", ADDRESS, "resources.GPU: expected an amount"),
        (f"{LLAMA}, resources = {{ 1 }}", ADDRESS, "expected names of resources as keys"),
        (f"{LLAMA}, placement = 'far'", ADDRESS, 'expected "pack" or "spread"'),
        (f"{LLAMA}, memory = '1GiB'", ADDRESS, "has no process here"),
        (f"{LLAMA}, urls = 'http://h'", ADDRESS, "only presets.engines.remote has it"),
        (f"{LLAMA}, env = {{ A = true }}", ADDRESS, "are not those of the cluster's nodes"),
        ('binary = "vllm", args = {}, context = 1', ADDRESS, 'write "${PORT}" where the port'),
        (f"{LLAMA}, headers = {{ Host = 'x' }}", ADDRESS, "this header is set by the gateway"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, keys: str, model: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        variant(tmp_path, keys, model)
    assert mistake in "\n".join(caught.value.mistakes)


def test_other_types_have_none_of_these_keys(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    engine = 'name = "m", engine = presets.engines.llamacpp, replicas = 2'
    path.write_text(
        f"server = {{}}\nmodels = {{ {{ {engine}, variants = {{ {{ {LLAMA} }} }} }} }}\n"
    )
    with pytest.raises(ConfigError, match=r"replicas: only presets\.engines\.ray has it"):
        ConfigLoader(path).load()
