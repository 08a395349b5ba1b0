"""Endpoint: the address of an API, and the key that opens it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit, urlunsplit

from ...engine.core.errors import RecipeError
from ...engine.models.secrets import searchable, secrets_in_address, secrets_in_headers
from ...engine.models.sharing import limit_key
from .addresses import is_loopback, shown
from .proxies import proxy_of

if TYPE_CHECKING:
    from ...engine.models.model import Model
    from .proxies import Proxy


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Api:
    """A kind of API: its maker's address, the variables for another address and for the key, and its main path.

    `url` is empty where each customer has an address of their own. `root` is the path of an address that is given
    without one, such as "/v1".
    """

    url: str
    url_variable: str
    key_variable: str
    path: str
    root: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, a key and headers. It is hashable, so that clients can be shared by it, and its repr hides keys."""

    url: str
    key: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Every key of the model that has this endpoint, for `Failures`."""
    proxy: Proxy | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Show the address without its query."""
        return f"Endpoint({self.shown!r})"

    @classmethod
    def of(cls, model: Model, api: Api) -> Endpoint:
        """Read address, key and proxy from the model and the environment; raises RecipeError with advice."""
        url, named = _address(model, api)
        headers = _headers(model)
        key = _key(model, url, named, api)
        proxy = proxy_of(url)
        found = [*model.secrets, *secrets_in_address(url), *secrets_in_headers(headers), key or ""]
        secrets = searchable([*found, "" if proxy is None else proxy.password])
        return cls(url, key, tuple(headers.items()), tuple(secrets), proxy)

    @property
    def host(self) -> str:
        """The host's name, in lower case."""
        return urlsplit(self.url).hostname or ""

    @property
    def secure(self) -> bool:
        """Whether requests are encrypted."""
        return self.url.startswith("https")

    @property
    def shown(self) -> str:
        """The address as messages show it, without the query, which may hold a key."""
        return shown(self.url)

    def limit_key(self, model: str) -> bytes:
        """Identify the limit of a model here: all requests with the same address, key and headers share it."""
        scheme, netloc, path, query, _ = urlsplit(self.url)
        headers = [part for header in self.headers for part in header]
        return limit_key(scheme, netloc.lower(), path.rstrip("/"), query, self.key or "", model, *headers)

    def at(self, path: str) -> str:
        """Return the address of `path` below this one; a query (`?api-version=...`) stays at the end."""
        scheme, netloc, base, query, _ = urlsplit(self.url)
        return urlunsplit((scheme, netloc, f"{base.rstrip('/')}/{path}", query, ""))


def is_sendable(key: str) -> bool:
    """Return whether a header can carry a key."""
    return key.isascii() and key.isprintable() and " " not in key


def _address(model: Model, api: Api) -> tuple[str, str]:
    """Return the address, and the name of its source for messages."""
    if model.base_url is not None:
        url, named = model.base_url, f"Model({model.spec!r}).base_url"
    elif os.environ.get(api.url_variable):
        url, named = os.environ[api.url_variable], api.url_variable
    elif api.url:
        return api.url, f"Model({model.spec!r})"
    else:
        problem = f"{api.url_variable} is not set; put the endpoint's address into it, or set base_url"
        raise RecipeError(f"Model({model.spec!r})", problem)
    url = url.strip()
    parts = _parts(url)
    if parts is None:
        raise RecipeError(named, "this is no http address; it looks like http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise RecipeError(named, "an address holds no user name or password; give the key through api_key_env")
    if parts.path.rstrip("/").endswith(api.path):
        raise RecipeError(named, f"the address ends where {api.path} would begin; leave that out")
    if api.root and not parts.path.strip("/"):
        url = urlunsplit((parts.scheme, parts.netloc, api.root, parts.query, ""))
    return url, named


def _parts(url: str) -> SplitResult | None:
    """Split an address, None if it is not one."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are not closed
        return None
    return parts if usable else None


def _headers(model: Model) -> dict[str, str]:
    """Return the headers that the user gave or named variables for; raises RecipeError that names the header."""
    headers = {}
    for name, value in model.headers.items():
        headers[name] = _sendable(name, value.get_secret_value(), f"Model({model.spec!r}).headers.{name}")
    for name, variable in model.headers_env.items():
        where = f"Model({model.spec!r}).headers_env.{name}"
        if not os.environ.get(variable):
            raise RecipeError(where, f"{variable} is not set; put the value of the header into that variable")
        headers[name] = _sendable(name, os.environ[variable], where)
    return headers


def _sendable(name: str, value: str, where: str) -> str:
    if not _HEADER.fullmatch(name):
        raise RecipeError(where, "this is no name of a header: it has characters that none can have")
    if not value.isascii() or not value.isprintable():
        raise RecipeError(where, "this value holds characters that no header can carry")
    return value.strip()


def _key(model: Model, url: str, named: str, api: Api) -> str | None:
    """Return the key, None for an address on this machine when no key is named."""
    if model.api_key is not None:
        key, source = model.api_key.get_secret_value(), f"Model({model.spec!r}).api_key"
    else:
        source = model.api_key_env or api.key_variable
        key = os.environ.get(source, "")
    key = key.strip()
    if key:
        if not is_sendable(key):
            raise RecipeError(source, "this is no key: it holds spaces or other characters that no header can carry")
        return key
    host = urlsplit(url).hostname or ""
    if (
        model.api_key is None
        and model.api_key_env is None
        and (is_loopback(host) or model.headers or model.headers_env)
    ):
        return None
    raise RecipeError(
        source if model.api_key is not None else named,
        f"{source} is not set; put the key for {host} into that environment variable"
        " (any text will do for an endpoint that asks for none)",
    )
