"""Where models come from: endpoints, this process, Python functions.

To add a provider, write it in one file and add one line to the table below. Other packages list theirs under the entry
points `rowloop.models`.
"""

from ...engine.models.provider import providers

providers.register("anthropic", f"{__name__}.anthropic.provider:provider")
providers.register("openai", f"{__name__}.openai.provider:provider")
providers.register("local", f"{__name__}.local:provider")
providers.register("python", f"{__name__}.function:provider")
