"""Errors as a client gets them: OpenAI's shape, with a status, a code and what to do next."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from trio_gateway.engine.events import Refusal, Reject

SHUTDOWN_RETRY_S = 5.0


class ApiError(Exception):
    """An answer that is an error. `retry_after_s` becomes the header Retry-After."""

    def __init__(
        self,
        status: int,
        message: str,
        error_type: str = "invalid_request_error",
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.error_type = status, message, error_type
        self.code, self.param, self.retry_after_s = code, param, retry_after_s

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.error_type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encode(self) -> bytes:
        return msgspec.json.encode(self.body())

    def headers(self) -> list[tuple[str, str]]:
        if self.retry_after_s is None:
            return []
        return [("Retry-After", str(max(math.ceil(self.retry_after_s), 1)))]


def shutting_down() -> ApiError:
    return ApiError(
        503,
        "the gateway is stopping; try again when it runs again",
        "service_unavailable",
        code="shutting_down",
        retry_after_s=SHUTDOWN_RETRY_S,
    )


def engine_failed(model: str, reason: str) -> ApiError:
    """502: the engine crashed, did not start, or answered what is not HTTP."""
    return ApiError(502, f"{model}: {reason}", "engine_error", code="engine_failed")


def from_reject(model: str, reject: Reject) -> ApiError:
    """The scheduler's refusal of a ticket, for the client."""
    match reject.refusal:
        case Refusal.QUEUE_FULL:
            return ApiError(
                429, reject.message, "rate_limit_error",
                code="queue_full", retry_after_s=reject.retry_after_s,
            )  # fmt: skip
        case Refusal.QUEUE_TIMEOUT:
            return ApiError(504, f"{model}: {reject.message}", "timeout", code="queue_timeout")
        case Refusal.START_TIMEOUT:
            message = f"{model}: {reject.message}"
            return ApiError(504, message, "timeout", code="engine_startup_timeout")
        case Refusal.BACK_OFF:
            return ApiError(
                503, reject.message, "service_unavailable",
                code="engine_back_off", retry_after_s=reject.retry_after_s,
            )  # fmt: skip
        case Refusal.SHUTTING_DOWN:
            return shutting_down()
        case Refusal.TOO_LARGE:
            return ApiError(400, reject.message, code="context_length_exceeded")
        case Refusal.START_FAILED:
            return engine_failed(model, reject.message)
