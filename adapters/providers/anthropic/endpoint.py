"""ANTHROPIC: the address and the variables of Anthropic's API, and the headers that every request to it has."""

from __future__ import annotations

from typing import Final

from ...http.endpoint import Api

ANTHROPIC: Final = Api("https://api.anthropic.com", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "/messages")

HEADERS: Final = {"anthropic-version": "2023-06-01"}
"""The version that all endpoints support, and the last one in which a request may have a temperature."""
