"""Presets: providers that fill in the address and the key's variable of a known endpoint, and nothing else.

    groq:NAME       GROQ_API_KEY, and GROQ_BASE_URL for another address
    ollama:NAME     http://localhost:11434/v1, or OLLAMA_BASE_URL; a server on this machine needs no key

docs/endpoints.md lists them with their sources. Everything else is the OpenAI provider's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...http.endpoint import Api
from .endpoint import OPENAI
from .provider import OpenAIProvider

if TYPE_CHECKING:
    from ....engine.models.provider import Provider


def _api(name: str, url: str, key_variable: str | None = None) -> Api:
    variables = (f"{name.upper()}_BASE_URL", key_variable or f"{name.upper()}_API_KEY")
    return Api(url, *variables, OPENAI.path, root="/v1" if url.startswith("http://localhost") else "")


PRESETS: Final = {
    "azure": Api("", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", OPENAI.path, root="/openai/v1"),
    "deepseek": _api("deepseek", "https://api.deepseek.com/v1"),
    "gemini": _api("gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
    "groq": _api("groq", "https://api.groq.com/openai/v1"),
    "llamacpp": _api("llamacpp", "http://localhost:8080/v1", "LLAMA_API_KEY"),
    "lmstudio": _api("lmstudio", "http://localhost:1234/v1", "LM_API_TOKEN"),
    "mistral": _api("mistral", "https://api.mistral.ai/v1"),
    "ollama": _api("ollama", "http://localhost:11434/v1"),
    "openrouter": _api("openrouter", "https://openrouter.ai/api/v1"),
    "together": _api("together", "https://api.together.ai/v1"),
    "vllm": _api("vllm", "http://localhost:8000/v1"),
}
"""The API of each preset. `root` is the path of an address that is given without one."""

azure: Provider = OpenAIProvider(PRESETS["azure"])
deepseek: Provider = OpenAIProvider(PRESETS["deepseek"])
gemini: Provider = OpenAIProvider(PRESETS["gemini"])
groq: Provider = OpenAIProvider(PRESETS["groq"])
llamacpp: Provider = OpenAIProvider(PRESETS["llamacpp"])
lmstudio: Provider = OpenAIProvider(PRESETS["lmstudio"])
mistral: Provider = OpenAIProvider(PRESETS["mistral"])
ollama: Provider = OpenAIProvider(PRESETS["ollama"])
openrouter: Provider = OpenAIProvider(PRESETS["openrouter"])
together: Provider = OpenAIProvider(PRESETS["together"])
vllm: Provider = OpenAIProvider(PRESETS["vllm"])
