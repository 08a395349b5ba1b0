"""Sources of models: endpoints, this process, Python functions.

| file        | what it contains                                                  |
|-------------|-------------------------------------------------------------------|
| local.py    | a language model in this process, served by llama.cpp             |
| function.py | plain Python functions as models                                  |
| openai/     | OpenAI, and every endpoint that speaks its API                    |
| anthropic/  | Anthropic, and every endpoint that speaks its Messages API        |
| wire/       | what the providers that speak HTTP share                          |

To add a provider, write it in one file and add one line to the table below. Other packages list theirs under the entry
points `rowloop.models`.
"""

from ...engine.models.provider import providers

providers.register("anthropic", f"{__name__}.anthropic.provider:provider")
providers.register("openai", f"{__name__}.openai.provider:provider")
_PRESETS = (
    *("azure", "deepseek", "gemini", "groq", "llamacpp", "lmstudio", "mistral", "ollama"),
    *("openrouter", "together", "vllm"),
)
for _name in _PRESETS:
    providers.register(_name, f"{__name__}.openai.presets:{_name}")
providers.register("local", f"{__name__}.local:provider")
providers.register("python", f"{__name__}.function:provider")
