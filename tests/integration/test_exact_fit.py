"""Contexts and counts beside what the real engine itself says."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.harness import (
    GatewayProcess,
    chat_body,
    configuration,
    lua_array,
    lua_string,
    model,
    real_variant,
    running_gateway,
)

pytestmark = pytest.mark.untraced  # what they go through, quicker tests count

FACTS = [f"Fact {i}: the number {i} follows {i - 1}." for i in range(1, 200)]


def variant(context: int, file: Path, *args: str) -> str:
    """A real engine with arguments of its own."""
    words = ["--model", str(file), "--ctx-size", str(context), "--threads", "1", *args]
    return (
        f"{{ binary = presets.binaries.embedded, context = {context}, args = {lua_array(words)} }}"
    )


def facts_of(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    with gateway.client() as client:
        found: dict[str, Any] = client.get(f"/gateway/models/{name}").json()
        return found


def _decisions(response: httpx.Response) -> str:
    return f"X-Gateway-Variant: {response.headers.get('X-Gateway-Variant')}"


# What templates in use do with tools and calls; SmolLM2's own drops them.
TEMPLATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}
{%- if loop.first and tools %}{{ "# Tools" }}
{%- for t in tools %}{{ '\\n' + (t | tojson) }}{{ t.function.parameters.properties.q.default }}
{%- endfor %}{% endif %}
{%- if m.reasoning_content is defined and enable_thinking %}{{ '<think>' + m.reasoning_content }}
{{- '</think>' }}{% endif %}
{%- if m.content is string %}{{ m.content }}
{%- else %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endif %}
{%- for c in m.tool_calls or [] %}{{ '\\n[' ~ c.id ~ c.function.name }}
{%- for name, value in c.function.arguments | items %}{{ name ~ '=' }}
{%- if value is mapping or value is sequence and value is not string %}
{{- value | tojson(indent=1) }}
{%- else %}{{ value | string }}{{ value }}{% endif %}{% endfor %}]{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' + (flavour or '') }}{% endif %}
"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"look_up_{i}",
            "description": 'Looks <it> up, "at once".\nÜberall.',
            "parameters": {
                "type": "object",
                "properties": {
                    "q": {"type": "number", "default": 0.5, "minimum": 1e-7},
                    "kind": {"enum": ["a", None, 3, True], "default": None},
                },
                "required": ["q"],
            },
            "strict": True,
        },
    }
    for i in range(3)
]


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


USER = {"role": "user", "content": 'How warm is it in Zürich and "Rome"?'}
CALLED = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "Two calls will do.",
    "tool_calls": [
        call("c1", '{"a": 1.0, "b": 1e-7, "n": null, "l": [1, {"x": "y"}], "t": true}'),
        call("c2", '{"city": "Zürich \\u65e5", "big": 18446744073709551615}'),
    ],
}
RESULTS = [{"role": "tool", "tool_call_id": name, "content": "21 °C"} for name in ("c1", "c2")]
PARTS = {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]}
CHATS: dict[str, dict[str, Any]] = {
    "tools": {"messages": [USER], "tools": TOOLS},
    "calls": {"messages": [USER, CALLED, *RESULTS], "tools": TOOLS},
    "parts": {"messages": [{"role": "developer", "content": "Be brief."}, PARTS], "tools": TOOLS},
    "no thinking": {
        "messages": [USER, CALLED, *RESULTS, USER],
        "tools": TOOLS,
        "chat_template_kwargs": {"enable_thinking": False, "flavour": "x y z"},
    },
    "choice": {"messages": [USER], "tools": TOOLS, "tool_choice": "required"},
    "schema": {
        "messages": [USER, CALLED, *RESULTS],
        "response_format": {"type": "json_object", "schema": {"type": "object"}},
    },
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Any:
    template = tmp_path_factory.mktemp("template") / "t.jinja"
    template.write_text(TEMPLATE)
    own = ("--chat-template-file", str(template))
    counts_one = lua_array(["-c", "print([1])"])
    liar = (
        f"{{ binary = {lua_string(sys.executable)}, base_args = {counts_one}, extra_tokens = 1 }}"
    )
    config = configuration(
        model("plain", real_variant(512, file=tiny), real_variant(2048, file=tiny)),
        model("tooled", variant(1024, tiny, *own), variant(4096, tiny, *own)),
        model(
            "liar",
            real_variant(512, file=tiny),
            real_variant(1024, file=tiny),
            tokenization=liar,
        ),
        model("clamped", real_variant(512, file=tiny), clamp_answer="true", min_answer_tokens="8"),
        model("split", variant(2048, tiny, "--parallel", "2")),
        model("shared", variant(1024, tiny, "--parallel", "4", "--kv-unified")),
        kv_carryover="false",
    )
    with running_gateway(tmp_path_factory.mktemp("fit"), config) as running:
        yield running


def test_without_an_engine_the_models_own_vocabulary_counts_exactly(
    gateway: GatewayProcess,
) -> None:
    # By its bytes it would need the larger variant.
    response = gateway.chat("plain", " ".join(FACTS[:20]))
    assert response.headers["X-Gateway-Variant"] == "512"
    assert response.headers["X-Gateway-Counted"] == "vocabulary"
    used = response.json()["usage"]["prompt_tokens"]
    assert int(response.headers["X-Gateway-Need"]) == used + 8 + 16
    assert facts_of(gateway, "plain")["count_errors"]["vocabulary"]["exact_share"] == 1.0


def test_chats_with_tools_are_counted_by_the_file_alone_as_by_the_engine(
    gateway: GatewayProcess,
) -> None:
    asked = {name: {"model": "tooled", "max_tokens": 8, **chat} for name, chat in CHATS.items()}
    with gateway.client() as client:
        cold = {n: client.post("/gateway/explain", json=c).json() for n, c in asked.items()}
        assert {(c["counted_by"], c["is_exact"]) for c in cold.values()} == {("vocabulary", True)}
        counts = {
            name: client.post("/v1/chat/completions/input_tokens", json=chat).json()
            for name, chat in asked.items()
        }
    assert {name: c["counted"] for name, c in cold.items()} == {
        name: c["input_tokens"] for name, c in counts.items()
    }


def test_a_running_engine_counts_exactly_and_teaches_the_template(gateway: GatewayProcess) -> None:
    gateway.chat("plain", "Hi")
    response = gateway.chat("plain", " ".join(FACTS[20:44]))
    used = response.json()["usage"]["prompt_tokens"]
    assert int(response.headers["X-Gateway-Need"]) == used + 8 + 16
    facts = facts_of(gateway, "plain")
    assert facts["template_overhead_learned"] is True
    assert facts["template_overhead"]["base"] < 64
    assert all(e["least"] >= 0 for e in facts["count_errors"].values())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_that_was_counted_too_low_moves_up_unseen(
    gateway: GatewayProcess, streamed: bool
) -> None:
    gateway.chat("plain", "Hi")  # so that the liar's engine has to start anew
    body = chat_body("liar", " ".join(FACTS[:40]), stream=streamed)
    with gateway.client() as client:
        response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    # A stream that waited long has it in a comment, as its headers were sent before.
    assert "X-Gateway-Variant: 1024" in f"{_decisions(response)}{response.text}"
    assert "error" not in response.text
    if streamed:
        assert response.text.rstrip().endswith("data: [DONE]")


def test_what_no_variant_holds_is_refused_with_the_engines_own_number(
    gateway: GatewayProcess,
) -> None:
    status, code, message = gateway.error_of("liar", text=" ".join(FACTS))
    assert (status, code) == (400, "context_length_exceeded")
    assert "this model's maximum context length is 1024 tokens (liar); " in message
    assert "cut " in message


def test_an_answer_that_is_too_long_is_lowered_where_the_model_says_so(
    gateway: GatewayProcess,
) -> None:
    response = gateway.chat("clamped", " ".join(FACTS[:29]), max_tokens=9999)
    assert response.status_code == 200
    usage = response.json()["usage"]
    assert 400 < usage["prompt_tokens"] + usage["completion_tokens"] <= 512


def test_a_context_that_is_split_between_slots_is_served_at_its_real_size(
    gateway: GatewayProcess,
) -> None:
    assert gateway.chat("split", "Hi").status_code == 200
    gateway.wait_for_line(
        "declares a context of 2048 tokens, but one request gets 1024: -c is split between "
        "2 slots; use -np 1 .*, or raise -c to 4096; using 1024"
    )
    status, code, message = gateway.error_of("split", text=" ".join(FACTS[:90]))
    assert (status, code) == (400, "context_length_exceeded")
    assert "this model's maximum context length is 1024 tokens (split)" in message


def test_requests_that_share_one_cache_wait_for_each_other_instead_of_failing(
    gateway: GatewayProcess,
) -> None:
    # Four at once would be 4 x 300 tokens in a cache of 1,024: llama.cpp fails them all.
    assert gateway.chat("shared", "Hi").status_code == 200

    def ask(number: int) -> httpx.Response:
        body = chat_body("shared", f"{number} " + " ".join(FACTS[:18]), max_tokens=4)
        with gateway.client(timeout_s=100) as client:
            return client.post("/v1/chat/completions", json=body)

    with ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(ask, range(4))]
    assert [a.status_code for a in answers] == [200] * 4
    assert sum(a.json()["usage"]["prompt_tokens"] for a in answers) > 1024


def test_the_dry_run_and_the_request_agree(gateway: GatewayProcess, tmp_path: Path) -> None:
    body = chat_body("plain", " ".join(FACTS[:30]))
    with gateway.client() as client:
        told = client.post("/gateway/explain", json=body).json()
        response = client.post("/v1/chat/completions", json=body)
    assert response.headers["X-Gateway-Variant"] == told["variant"]
    assert told["is_exact"]
    assert told["counted"] == response.json()["usage"]["prompt_tokens"]
