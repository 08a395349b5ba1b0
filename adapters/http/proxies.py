"""Proxy: the proxy that the environment names for an address, checked before anything is sent.

    HTTP_PROXY, HTTPS_PROXY    by the scheme of the address; ALL_PROXY for both. Lower case counts before upper case
    NO_PROXY                   hosts and networks that are reached without it; this machine always is
    http://, https://          a bare host:port is one of http
    socks5://, socks5h://, socks4://, socks4a://    with the package aiohttp-socks (`rowloop[socks]`)

Where the environment names none, the system's own settings count on macOS and Windows.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import ipaddress
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ...engine.core.errors import RecipeError
from .addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind: TypeAlias = Literal["http", "https", "socks4", "socks5"]

_KINDS: dict[str, tuple[Kind, bool, int]] = {  # whether the proxy looks up names, and the usual port
    "http": ("http", True, 80),
    "https": ("https", True, 443),
    "socks": ("socks5", True, 1080),
    "socks5": ("socks5", True, 1080),  # as httpx and the openai package read it
    "socks5h": ("socks5", True, 1080),
    "socks4": ("socks4", False, 1080),
    "socks4a": ("socks4", True, 1080),
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: `source` is the variable that names it. It is hashable, and its repr hides user and password."""

    kind: Kind
    host: str
    port: int
    source: str
    resolves: bool = True
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def socks(self) -> bool:
        """Whether it speaks SOCKS."""
        return self.kind.startswith("socks")

    @property
    def shown(self) -> str:
        """The address without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}"

    @property
    def authorization(self) -> dict[str, str]:
        """The header that carries user and password to a proxy of HTTP."""
        if not self.user and not self.password:
            return {}
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {pair}"}


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy for an address, None for a direct connection.

    Raises RecipeError with the variable's name for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    found = proxies.get(scheme)
    if not found or _is_direct(host, parts.port):
        return None
    return _checked(_read(found, _source(scheme)), host)


def _is_direct(host: str, port: int | None) -> bool:
    """Return whether NO_PROXY names a host, alone or with its port, or the network of an address: 10.0.0.0/8."""
    if proxy_bypass(host) or (port is not None and ":" not in host and proxy_bypass(f"{host}:{port}")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(
        address in network for network in _networks(os.environ.get("no_proxy") or os.environ.get("NO_PROXY", ""))
    )


def _networks(named: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for part in named.split(","):
        if "/" in part:
            with contextlib.suppress(ValueError):  # a path, for another program
                yield ipaddress.ip_network(part.strip(), strict=False)


def _source(scheme: str) -> str:
    """Return the name of the variable from which `getproxies` has a proxy."""
    for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
        if os.environ.get(name):
            return name
    return "the system's proxy settings"


def _read(found: str, source: str) -> Proxy:
    parts = _split(found.strip())
    if parts is None:
        raise RecipeError(source, "this is no address of a proxy; it looks like http://proxy.example:3128")
    if parts.scheme not in _KINDS:
        problem = f"the proxy's address begins with {parts.scheme}://; it can be one of {', '.join(_KINDS)}"
        raise RecipeError(source, problem)
    kind, resolves, port = _KINDS[parts.scheme]
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Proxy(kind, parts.hostname or "", parts.port or port, source, resolves, user, password)


def _split(found: str) -> SplitResult | None:
    """Split the address of a proxy, which may lack the scheme; None if it is no address."""
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are not closed
        return None
    return parts if usable else None


def _checked(proxy: Proxy, host: str) -> Proxy:
    """Refuse a proxy of SOCKS without the package that speaks it."""
    if proxy.socks and importlib.util.find_spec("aiohttp_socks") is None:
        problem = (
            f"names a SOCKS proxy ({proxy.shown}), which needs a package that is not installed;"
            f" pip install 'rowloop[socks]', or set NO_PROXY={host} to connect without the proxy"
        )
        raise RecipeError(proxy.source, problem)
    return proxy
