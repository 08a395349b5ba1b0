"""Dialects: how each vendor's endpoint differs from OpenAI's, in what it refuses and in the errors it writes.

docs/endpoints.md has the sources. A prompt that contains one of the words below gets the vendor's error for that case:

    FLAGGED      its filter refuses the prompt
    ENORMOUS     the request is more than its limit of tokens per minute allows
    PENNILESS    the account has nothing left
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from .answers import ChatRequest, EmbeddingRequest

Error: TypeAlias = tuple[int, Any]
"""A status and a body."""


def _openai(message: str, code: Any = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _google(status: int, message: str, reason: str, *details: Any) -> list[Any]:
    return [{"error": {"code": status, "message": message, "status": reason, "details": list(details)}}]


def _vllm(status: int, message: str, kind: str = "BadRequestError") -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def _llamacpp(status: int, message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "type": kind}}


def _router(status: int, message: str, **metadata: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": status, "metadata": metadata}, "user_id": "user_1"}


def _raw(status: int, message: str) -> dict[str, Any]:
    raw = msgspec.json.encode(_openai(message)).decode()
    return _router(status, "Provider returned error", raw=raw, provider_name="Azure")


def _too_many_tokens(limit: int, requested: int, end: str = "") -> str:
    return f"Request too large for `m` on tokens per minute (TPM): Limit {limit}, Requested {requested}{end}"


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """What one vendor's endpoint takes, and what it writes where it does not. None: there is no such case."""

    write: Callable[[int, str], Any] = lambda _, message: _openai(message)
    """The body of any other error."""
    forms: tuple[str, ...] = ("json_schema", "json_object")
    no_form: Error = (400, None)
    """For a response_format of another type."""
    no_schema: Error = (400, None)
    """For a schema with `pattern`."""
    unknown: tuple[str, ...] = ()
    no_field: tuple[int, Callable[[str], Any]] = (400, lambda _: None)
    no_system: Error | None = None
    no_base64: Error | None = None
    flagged: Error | None = None
    enormous: Error | None = None
    penniless: Error | None = None
    wrong_key: Error = (401, _openai("Incorrect API key provided.", "invalid_api_key"))
    no_model: Error = (404, _openai("The model `x` does not exist", "model_not_found"))

    def refusal(self, request: ChatRequest | EmbeddingRequest) -> Error | None:
        """Return the error of a request, None where it is taken."""
        text = request.last() if isinstance(request, ChatRequest) else request.prompt()
        for word, error in {"FLAGGED": self.flagged, "ENORMOUS": self.enormous, "PENNILESS": self.penniless}.items():
            if error is not None and word in text:
                return error
        if isinstance(request, ChatRequest):
            return self._refused_settings(request)
        return self.no_base64 if request.encoding_format == "base64" else None

    def _refused_settings(self, request: ChatRequest) -> Error | None:
        if self.no_system is not None and any(message.role == "system" for message in request.messages):
            return self.no_system
        if name := next((name for name in self.unknown if getattr(request, name) is not None), None):
            status, write = self.no_field
            return status, write(name)
        form = request.response_format
        if form is None or form.type == "text":
            return None
        if form.type not in self.forms:
            return self.no_form
        schema = form.json_schema.schema if form.json_schema else {}
        return self.no_schema if b'"pattern"' in msgspec.json.encode(schema) else None


_OPENAI = Vendor(
    no_schema=(
        400,
        _openai("Invalid schema for response_format 'answer': In context=(), 'pattern' is not permitted."),
    ),
    unknown=("max_tokens", "temperature", "stop"),
    no_field=(400, lambda name: _openai(f"Unsupported parameter: '{name}' is not supported with this model.")),
    flagged=(
        400,
        _openai("Invalid prompt: it was flagged as potentially violating our usage policy.", "invalid_prompt"),
    ),
    enormous=(429, _openai(_too_many_tokens(30000, 41218), "rate_limit_exceeded", "tokens")),
    penniless=(429, _openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")),
)

VENDORS: dict[str, Vendor] = {
    "openai": _OPENAI,
    "azure": msgspec.structs.replace(
        _OPENAI,
        write=lambda status, message: {"error": {"code": str(status), "message": message}},
        flagged=(
            400,
            {
                "error": {
                    "message": "The response was filtered due to the prompt triggering content management policy.",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
        ),
        wrong_key=(401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}),
        no_model=(404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}}),
    ),
    "gemini": Vendor(
        write=lambda status, message: _google(status, message, "UNKNOWN"),
        no_schema=(
            400,
            _google(400, "The specified schema produces a constraint that has too many states.", "INVALID_ARGUMENT"),
        ),
        no_system=(400, _google(400, "Developer instruction is not enabled for models/m", "INVALID_ARGUMENT")),
        flagged=(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "m"}),
        penniless=(
            429,
            _google(
                429,
                "You exceeded your current quota, please check your plan and billing details.",
                "RESOURCE_EXHAUSTED",
                {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
                {"retryDelay": "37s"},
            ),
        ),
        wrong_key=(
            400,
            _google(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"),
        ),
        no_model=(404, _google(404, "models/x is not found for API version v1main", "NOT_FOUND")),
    ),
    "openrouter": Vendor(
        write=_router,
        forms=("json_schema",),
        no_form=(404, _router(404, "No endpoints found that can handle the requested parameters.")),
        no_schema=(400, _raw(400, "The compiled grammar is too large")),
        no_system=(400, _raw(400, "System role not supported")),
        flagged=(403, _router(403, "Your chosen model requires moderation", reasons=["violence"], flagged_input="...")),
        penniless=(402, _router(402, "Insufficient credits. Add more at openrouter.ai")),
        wrong_key=(401, _router(401, "User not found.")),
        no_model=(400, _router(400, "x is not a valid model ID")),
    ),
    "groq": Vendor(
        forms=("json_object",),
        no_form=(400, _openai("This model does not support response format `json_schema`. See supported models")),
        enormous=(413, _openai(_too_many_tokens(6000, 7210, ", please reduce"), "rate_limit_exceeded", "tokens")),
        no_model=(404, _openai("The model `x` does not exist or you do not have access to it.", "model_not_found")),
    ),
    "mistral": Vendor(
        write=lambda _, message: {"object": "error", "message": message, "type": "error", "param": None, "code": "1"},
        no_schema=(400, {"object": "error", "message": "Could not compile the grammar", "type": "error", "code": 3051}),
        unknown=("max_completion_tokens",),
        no_field=(
            422,
            lambda name: {
                "object": "error",
                "message": {
                    "detail": [
                        {
                            "type": "extra_forbidden",
                            "loc": ["body", name],
                            "msg": "Extra inputs are not permitted",
                            "input": 5,
                        }
                    ]
                },
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        ),
        penniless=(402, {"detail": "Payment required"}),
        wrong_key=(401, {"detail": "Unauthorized"}),
        no_model=(400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}),
    ),
    "deepseek": Vendor(
        forms=("json_object",),
        no_form=(400, _openai("This response_format type is unavailable now", "invalid_request_error")),
        flagged=(400, _openai("Content Exists Risk", "invalid_request_error")),
        penniless=(402, _openai("Insufficient Balance", "invalid_request_error", "unknown_error")),
        wrong_key=(401, _openai("Authentication Fails", "invalid_request_error", "authentication_error")),
        no_model=(400, _openai("Model Not Exist", "invalid_request_error")),
    ),
    "together": Vendor(
        no_schema=(422, _openai("Failed to compile: unsupported keyword")),
        penniless=(402, _openai("The account has reached its maximum allowed monthly spending limit")),
        wrong_key=(401, _openai("Invalid API key provided.", "invalid_api_key")),
    ),
    "vllm": Vendor(
        write=_vllm,
        no_schema=(500, _vllm(500, "Internal server error", "InternalServerError")),
        no_system=(400, _vllm(400, "System role not supported")),
        wrong_key=(401, {"error": "Unauthorized"}),
        no_model=(404, _vllm(404, "The model `x` does not exist.", "NotFoundError")),
    ),
    "llamacpp": Vendor(
        write=_llamacpp,
        no_schema=(400, _llamacpp(400, "Failed to initialize samplers: failed to parse grammar")),
        no_system=(500, _llamacpp(500, "Jinja Exception: System role not supported", "server_error")),
        wrong_key=(401, _llamacpp(401, "Invalid API Key", "authentication_error")),
    ),
    "ollama": Vendor(
        write=lambda _, message: _openai(message, kind="api_error"),
        no_schema=(500, _openai("failed to load model vocabulary required for format", kind="api_error")),
        no_model=(404, _openai('model "x" not found, try pulling it first', kind="not_found_error")),
    ),
    "lmstudio": Vendor(
        write=lambda _, message: {"error": message},
        forms=("json_schema",),
        no_base64=(400, {"error": "Invalid request body"}),
        no_form=(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),
        no_schema=(400, {"error": "Error in iterating prediction stream: ValueError: unexpected token"}),
        wrong_key=(401, {"error": "An LM Studio API token is required"}),
        no_model=(404, {"error": 'Model "x" not found'}),
    ),
}
