"""The two ways to ask an OpenAI-compatible endpoint, which have to do the same: by its address, or by a client."""

from __future__ import annotations

from typing import Any

import openai
from pydantic import SecretStr

import rowloop as rl


def by_address(url: str, **fields: Any) -> rl.Model:
    """Take the fast path."""
    return rl.Model("openai:m", base_url=url, api_key=SecretStr("sk-any-key"), **fields)


def by_client(url: str, **fields: Any) -> rl.Model:
    """Bring a client of the openai package."""

    def make() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=url, api_key="sk-any-key", http_client=openai.DefaultAioHttpClient())

    return rl.Model("openai:m", client=make, **fields)
