"""OPENAI: the address and the variables of OpenAI's API, and what its own endpoint needs that others do not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ...http.endpoint import Api
from ..wire.dialect import MAX_TOKENS, dialect_of

if TYPE_CHECKING:
    from ...http.endpoint import Endpoint
    from ..wire.dialect import Dialect

OPENAI: Final = Api("https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY", "/chat/completions")


def is_openai(endpoint: Endpoint) -> bool:
    """Return whether this is an endpoint of OpenAI's own, which alone needs its newest parameter names."""
    return endpoint.host == "api.openai.com" or endpoint.host.endswith(".openai.azure.com")


def headers_for(endpoint: Endpoint) -> dict[str, str]:
    """Return the organization and the project for OpenAI itself, from the variables of its own package."""
    if not is_openai(endpoint):
        return {}
    named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
    return {name: os.environ[variable] for name, variable in named.items() if os.environ.get(variable)}


def dialect_for(endpoint: Endpoint, model: str) -> Dialect:
    """Return the dialect of a model. OpenAI's newer models accept no `max_tokens`, other endpoints nothing else."""
    return dialect_of(endpoint, model, MAX_TOKENS[is_openai(endpoint)])
