"""Errors as a client gets them: with a status, a code, what to do next, in its API's shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from trio_gateway.engine.errors import EngineUnloaded, ExchangeAborted
from trio_gateway.engine.scheduling.events import Refusal, Reject
from trio_gateway.rawjson import decode_or_none
from trio_gateway.server.api.endpoint import Family
from trio_gateway.server.api.size_refusal import size_refusal

SHUTDOWN_RETRY_S = 5.0

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

# llama.cpp's, where an error says no more than what its status does.
_LLAMACPP_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class ApiError(Exception):
    """An answer that is an error.

    Args:
        retry_after_s: becomes the header Retry-After.
        headers: further headers of the answer.
        closes_connection: what was read of the request does not tell where the next one begins.
        output: an engine's last lines, in a field of their own.
    """

    def __init__(
        self,
        status: int,
        message: str,
        error_type: str = "invalid_request_error",
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Sequence[tuple[str, str]] = (),
        closes_connection: bool = False,
        output: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.error_type = status, message, error_type
        self.code, self.param, self.retry_after_s = code, param, retry_after_s
        self.closes_connection = closes_connection
        self._headers, self._output = headers, output

    def body(self, family: Family = Family.OPENAI) -> dict[str, Any]:
        body = self._body(family)
        if self._output:
            place = body if family is Family.OLLAMA else body["error"]
            place["engine_output"] = [*self._output]
        return body

    def _body(self, family: Family) -> dict[str, Any]:
        match family:
            case Family.ANTHROPIC:
                return anthropic_error(self.status, self.message)
            case Family.OLLAMA:
                return {"error": self.message}
            case Family.LLAMACPP:
                error_type = _LLAMACPP_TYPES.get(self.status, self.error_type)
            case _:
                error_type = self.error_type
        return {
            "error": {
                "message": self.message,
                "type": error_type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encode(self, family: Family = Family.OPENAI) -> bytes:
        return msgspec.json.encode(self.body(family))

    def headers(self) -> list[tuple[str, str]]:
        if self.retry_after_s is None:
            return [*self._headers]
        return [*self._headers, ("Retry-After", str(max(math.ceil(self.retry_after_s), 1)))]


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


class ErrorEvents(NamedTuple):
    """Errors as the last event of a stream. `family`: in whose shape. `of_responses`: of OpenAI's
    Responses API, whose clients look for a `response.failed`."""

    family: Family
    of_responses: bool = False

    def of(self, error: ApiError) -> dict[str, Any]:
        return self._event(error.body(self.family))

    def of_engine(self, status: int, body: bytes) -> dict[str, Any]:
        """Of an engine's own error."""
        value = decode_or_none(engine_error(status, body, self.family))
        if not isinstance(value, dict) or "error" not in value:
            said = body[:500].decode("utf-8", "replace")
            message = f"the engine answered with status {status}: {said}"
            value = ApiError(status, message, "engine_error").body(self.family)
        return self._event(value)

    def _event(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.of_responses or body.get("type") == "error":
            return body
        error = body["error"] if isinstance(body["error"], dict) else {"message": body["error"]}
        code = error.get("code")
        failure = {
            "code": code if isinstance(code, str) else "server_error",
            "message": error.get("message"),
        }
        response = {"object": "response", "status": "failed", "error": failure, "output": []}
        # `error` as well: OpenAI's own libraries raise an exception of it.
        return {"type": "response.failed", "sequence_number": 0, "response": response, **body}


def engine_error(status: int, body: bytes, family: Family) -> bytes:
    """An engine's own error, in the shape of the API that was asked; as it is, if that fits."""
    if family is not Family.ANTHROPIC:
        return body
    said = size_refusal(body) if status == 400 else None
    if said is not None and said.prompt_tokens >= said.context > 0:
        tokens = max(said.prompt_tokens, said.context + 1)  # with one for an answer
        message = f"prompt is too long: {tokens} tokens > {said.context} maximum"
        return msgspec.json.encode(anthropic_error(status, message))
    match decode_or_none(body):
        case {"type": "error", "error": {"message": str()}}:
            return body
        case {"error": {"message": str(message)}}:
            return msgspec.json.encode(anthropic_error(status, message))
    text = body[:500].decode("utf-8", "replace")
    message = f"the engine answered with status {status}: {text}"
    return msgspec.json.encode(anthropic_error(status, message))


def shutting_down() -> ApiError:
    return ApiError(
        503,
        "the gateway is stopping; try again when it is back",
        "service_unavailable",
        code="shutting_down",
        retry_after_s=SHUTDOWN_RETRY_S,
    )


def aborted(error: ExchangeAborted) -> ApiError:
    """503: the gateway itself ended the request at its engine."""
    return unloaded(str(error)) if isinstance(error, EngineUnloaded) else shutting_down()


def unloaded(message: str) -> ApiError:
    """503: the model was unloaded by force."""
    message += "; ask again to have it loaded"
    return ApiError(503, message, "service_unavailable", code="model_unloaded", retry_after_s=1)


def model_not_found(message: str) -> ApiError:
    return ApiError(404, message, code="model_not_found", param="model")


def body_too_large(max_bytes: int) -> ApiError:
    message = f"the body is larger than {max_bytes} bytes (max_body_size)"
    return ApiError(413, message, code="body_too_large")


def body_timeout(limit_s: float) -> ApiError:
    """408."""
    return ApiError(
        408, f"the body did not arrive in time (body_timeout is {limit_s:g} s)", code="body_timeout"
    )


def bug(error: Exception) -> ApiError:
    """500: the message says no more than what kind of error it is; the log has all of it."""
    message = f"a bug in the gateway ({type(error).__name__}); its log has the details"
    return ApiError(500, message, "internal_error")


def engine_failed(model: str, reason: str, output: Sequence[str] = ()) -> ApiError:
    """502: the engine crashed, did not start, or gave an answer that is not HTTP."""
    message = f"{model}: {_with_hint(reason, output)}"
    return ApiError(502, message, "engine_error", code="engine_failed", output=output)


def _with_hint(reason: str, output: Sequence[str]) -> str:
    if not output:
        return reason
    return f"{reason}; see its last lines in engine_output or in the gateway's log"


def key_refused(message: str) -> ApiError:
    """502: the engine wants another key than the gateway's. The client's own has no part in it, so
    the engine's 401 or 403 would only mislead it."""
    return ApiError(502, message, "engine_error", code="engine_key_refused")


def from_reject(model: str, reject: Reject) -> ApiError:
    """The scheduler's refusal of a ticket, for the client."""
    output, message = reject.output, _with_hint(reject.message, reject.output)
    match reject.refusal:
        case Refusal.QUEUE_FULL:
            return ApiError(
                429, reject.message, "rate_limit_error",
                code="queue_full", retry_after_s=reject.retry_after_s,
            )  # fmt: skip
        case Refusal.QUEUE_TIMEOUT:
            message = f"{model}: {message}"
            return ApiError(
                504, message, "timeout", code="queue_timeout",
                retry_after_s=reject.retry_after_s, output=output,
            )  # fmt: skip
        case Refusal.START_TIMEOUT:
            message = f"{model}: {message}"
            return ApiError(504, message, "timeout", code="engine_startup_timeout", output=output)
        case Refusal.BACK_OFF:
            return ApiError(
                503, message, "service_unavailable", code="engine_back_off",
                retry_after_s=reject.retry_after_s, output=output,
            )  # fmt: skip
        case Refusal.UNAVAILABLE:
            return ApiError(
                503, f"{model}: {message}", "service_unavailable", code="engine_unavailable",
                retry_after_s=reject.retry_after_s, output=output,
            )  # fmt: skip
        case Refusal.SHUTTING_DOWN:
            return shutting_down()
        case Refusal.UNLOADED:
            return unloaded(reject.message)
        case Refusal.MODEL_GONE:
            return model_not_found(reject.message)
        case Refusal.TOO_LARGE:
            return ApiError(400, reject.message, code="context_length_exceeded")
        case Refusal.START_FAILED:
            return engine_failed(model, reject.message, output)
