"""Errors in OpenAI's shape, and what each refusal of a ticket becomes."""

from __future__ import annotations

import msgspec
import pytest

from trio_gateway.engine.scheduling.events import Refusal, Reject
from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.errors import (
    ApiError,
    ErrorEvents,
    engine_failed,
    from_reject,
    shutting_down,
)


def test_an_error_has_openais_shape() -> None:
    error = ApiError(404, 'no "x"', code="model_not_found", param="model")
    assert msgspec.json.decode(error.encode()) == {
        "error": {
            "message": 'no "x"',
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert str(error) == 'no "x"'


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (30.0, "30")]
)
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    assert ApiError(503, "x", retry_after_s=seconds).headers() == [("Retry-After", header)]


def test_an_error_that_no_waiting_cures_has_no_retry_after() -> None:
    assert ApiError(400, "x").headers() == []


@pytest.mark.parametrize(
    ("refusal", "status", "error_type", "code"),
    [
        (Refusal.QUEUE_FULL, 429, "rate_limit_error", "queue_full"),
        (Refusal.QUEUE_TIMEOUT, 504, "timeout", "queue_timeout"),
        (Refusal.START_FAILED, 502, "engine_error", "engine_failed"),
        (Refusal.START_TIMEOUT, 504, "timeout", "engine_startup_timeout"),
        (Refusal.BACK_OFF, 503, "service_unavailable", "engine_back_off"),
        (Refusal.SHUTTING_DOWN, 503, "service_unavailable", "shutting_down"),
        (Refusal.UNLOADED, 503, "service_unavailable", "model_unloaded"),
        (Refusal.MODEL_GONE, 404, "invalid_request_error", "model_not_found"),
        (Refusal.TOO_LARGE, 400, "invalid_request_error", "context_length_exceeded"),
    ],
    ids=lambda value: value.name if isinstance(value, Refusal) else str(value),
)
def test_a_refused_ticket_becomes(
    refusal: Refusal, status: int, error_type: str, code: str
) -> None:
    error = from_reject("qwen", Reject(1, refusal, "why it was so", 7.0))
    assert (error.status, error.error_type, error.code) == (status, error_type, code)


@pytest.mark.parametrize("refusal", [r for r in Refusal if r is not Refusal.SHUTTING_DOWN])
def test_a_refusal_says_why(refusal: Refusal) -> None:
    assert "why it was so" in from_reject("qwen", Reject(1, refusal, "why it was so")).message


def test_every_refusal_becomes_an_error() -> None:
    errors = [from_reject("qwen", Reject(1, refusal, "why")) for refusal in Refusal]
    assert all(400 <= error.status < 600 and error.code for error in errors)


@pytest.mark.parametrize("refusal", [Refusal.QUEUE_FULL, Refusal.BACK_OFF])
def test_the_time_to_come_again_is_passed_on(refusal: Refusal) -> None:
    assert from_reject("qwen", Reject(1, refusal, "why", 6.3)).headers() == [("Retry-After", "7")]


def test_a_shutdown_says_when_to_come_again() -> None:
    assert shutting_down().headers() == [("Retry-After", "5")]


def test_a_failed_engine_is_named_with_its_last_words() -> None:
    error = engine_failed("qwen", "exited with 1: out of memory", ["loading", "out of memory"])
    assert error.status == 502
    assert error.message.startswith("qwen: exited with 1: out of memory; see its last lines in ")
    assert error.body()["error"]["engine_output"] == ["loading", "out of memory"]


def test_a_stream_of_the_responses_api_ends_as_its_clients_expect() -> None:
    """Codex looks for the event and its code, OpenAI's own libraries for `error`."""
    events = ErrorEvents(Family.OPENAI, of_responses=True)
    failed = events.of(ApiError(502, "gone", "engine_error", code="engine_failed"))
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "engine_failed", "message": "gone"}
    assert failed["error"]["message"] == "gone"
    own = events.of_engine(400, b'{"error":{"code":400,"message":"bad"}}')
    assert own["response"]["error"] == {"code": "server_error", "message": "bad"}
    assert events.of_engine(500, b"<html>")["response"]["error"]["message"].startswith("the engine")


@pytest.mark.parametrize(
    ("family", "where"),
    [
        (Family.OPENAI, "error"),
        (Family.LLAMACPP, "error"),
        (Family.ANTHROPIC, "error"),
        (Family.OLLAMA, None),
    ],
)
@pytest.mark.parametrize(
    "refusal",
    [Refusal.START_FAILED, Refusal.START_TIMEOUT, Refusal.BACK_OFF, Refusal.QUEUE_TIMEOUT],
)
def test_an_engines_last_lines_are_in_a_field_of_their_own(
    refusal: Refusal, family: Family, where: str | None
) -> None:
    rejected = Reject(1, refusal, "it failed", 2.0, ("line 1", "line 2"))
    body = from_reject("qwen", rejected).body(family)
    place = body if where is None else body[where]
    assert place["engine_output"] == ["line 1", "line 2"]
    assert "line 1" not in str(place.get("message", body["error"]))
    assert "engine_output" not in str(
        from_reject("qwen", Reject(1, refusal, "it failed", 2.0)).body(family)
    )
