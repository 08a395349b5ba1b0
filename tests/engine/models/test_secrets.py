"""Secrets: whichever field of a model holds a key, the endpoint gets it, and nothing that is written or shown does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import hypothesis.strategies as st
import pyarrow.parquet as pq
import pytest
from hypothesis import given

import rowloop as rl
from canned import canned
from rowloop.engine.models.secrets import public, public_address, secrets_in, secrets_in_address
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


KEY = "sk-do-not+tell/0123456789"
QUOTED = "sk-do-not%2Btell%2F0123456789"

Place: TypeAlias = "Callable[[str], rl.Model]"


def at(url: str, **fields: Any) -> rl.Model:
    """Make a model of an endpoint; fields may have the types that pydantic converts."""
    return rl.Model("openai:m", base_url=url, **fields)


PLACES: dict[str, tuple[Place, str]] = {
    "parameter api-key": (lambda url: at(f"{url}?api-version=7&api-key={QUOTED}"), QUOTED),
    "parameter key": (lambda url: at(f"{url}?key={QUOTED}"), QUOTED),
    "parameter of any name": (lambda url: at(f"{url}?for={QUOTED}"), QUOTED),
    "headers": (lambda url: at(url, headers={"X-Api-Key": KEY}), KEY),
    "bearer": (lambda url: at(url, headers={"Authorization": f"Bearer {KEY}"}), f"Bearer {KEY}"),
    "headers_env": (lambda url: at(url, headers_env={"api-key": "SECRET_HEADER"}), KEY),
    "extra": (lambda url: at(url, extra={"top_p": 0.5, "api_key": KEY}), ""),
    "extra of any name": (lambda url: at(url, extra={"top_p": 0.5, "for": KEY}), ""),
    "extra, nested": (lambda url: at(url, extra={"provider": {"order": ["a"], "options": [{"token": KEY}]}}), ""),
    "headers in extra": (lambda url: at(url, extra={"extra_headers": {"X-Anything": KEY}}), ""),
    "bearer in extra": (lambda url: at(url, extra={"x": {"headers": {"Authorization": f"Bearer {KEY}"}}}), ""),
}


def written_in(directory: Path) -> str:
    """Return the contents of a directory's files, also those of tables."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    tables = [str(pq.read_table(path, partitioning=None).to_pylist()) for path in files if path.suffix == ".parquet"]
    return "\n".join([*(path.read_bytes().decode("utf-8", "replace") for path in files), *tables])


@pytest.mark.outside
@pytest.mark.parametrize("place", PLACES)
def test_no_artefact_has_a_key_even_where_the_endpoint_echoes_it(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    """Neither files, failures, traces, limits, report, display, logs nor reprs."""
    monkeypatch.setenv("SECRET_HEADER", KEY)
    make, sent = PLACES[place]
    body = f'{{"error": {{"message": "no {KEY} and no {sent}"}}}}'.encode()
    head = f"HTTP/1.1 400 No\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    seen: list[bytes] = []
    with Runtime() as runtime, canned(runtime, head.encode() + body, seen) as url, caplog.at_level(logging.DEBUG):
        model = make(url)
        text = rl.Text("t", model="m", prompt="{{ u }}", on_error="null")
        recipe = rl.Recipe(models={"m": model}, columns=[rl.Uniform("u"), text])
        budget = rl.ErrorBudget(rate=None)
        result = recipe.build(tmp_path / "out", 3, trace=True, error_budget=budget, runtime=runtime, progress=True)
        result.export_trace(tmp_path / "trace.json")
    assert sent.encode() in seen[-1]
    shown = [model, recipe, recipe.models, recipe.to_dict(), recipe.to_yaml(), result, result.metadata, result.usage]
    shown += [result.summary(), result.report, result.task_traces, result.limits, result.failures.to_dict("records")]
    output = capfd.readouterr()
    told = "\n".join([*(f"{thing!r} {thing}" for thing in shown), written_in(tmp_path), caplog.text, *output])
    assert "[key]" in told
    for part in (KEY, QUOTED, "do-not", "0123456789"):
        assert part not in told
    assert "top_p" in told or "top_p" not in repr(model.extra)


def test_what_is_no_key_stays():
    """The version in an address, and fields of extra that only sound like one."""
    extra = {
        "prompt_cache_key": "a",
        "max_tokens": 5,
        "stop_token_ids": [1],
        "logit_bias": {"5": 1},
        "key": 7,
        "user": "u",
    }
    model = at("https://h.org/v1?api-version=2024-10-01-preview-of-a-long-name&tier=batch", extra=extra)
    assert model.secrets == []
    assert rl.Recipe(models={"m": model}).to_dict()["models"]["m"] == {
        "spec": "openai:m",
        "base_url": model.base_url,
        "extra": extra,
    }
    assert model.lane == f"openai:m at {model.base_url}"


def test_a_file_names_the_variables_and_no_key():
    """What is written can be read, once the variables are set."""
    model = at("https://me:pass@h.org/v1?key=abc", headers={"X-Api-Key": KEY})  # gitleaks:allow
    text = rl.Recipe(models={"m": model}, columns=[rl.Uniform("u")]).to_yaml()
    assert "headers_env:\n      X-Api-Key: X_API_KEY\n" in text
    back = rl.Recipe.from_yaml(text).models["m"]
    assert (back.base_url, back.headers_env) == ("https://h.org/v1", {"X-Api-Key": "X_API_KEY"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_url", "https://h.org/v1?key=abcdef"),
        ("base_url", "https://me:password@h.org/v1"),
        ("extra", {"api_key": "abcdef"}),
        ("extra", {"headers": {"X-Auth": "abcdef"}}),
        ("headers", {"X-Auth": "abcdef"}),
    ],
)
def test_a_file_with_a_key_is_refused_by_the_field(field: str, value: Any):
    """Without showing the key."""
    with pytest.raises(rl.RecipeError, match=rf"^models\.m\.{field}: a file must not contain a key") as caught:
        rl.Recipe.from_dict({"models": {"m": {"spec": "openai:m", field: value}}})
    assert "abcdef" not in str(caught.value)


def test_a_key_decides_nothing_and_an_ordinary_field_of_extra_does():
    """The fingerprint is the same with another key."""
    column = rl.Text("t", model="m", prompt="p")
    made = []
    for key, top_p in (("one-key", 0.5), ("two-keys", 0.5), ("one-key", 0.6)):
        model = at(f"http://h/v1?key={key}", headers={"X": key}, extra={"api_key": key, "top_p": top_p})
        made.append(rl.Recipe(models={"m": model}, columns=[column]))
    assert made[0].fingerprint == made[1].fingerprint != made[2].fingerprint


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"a b": "x"}, "no name of a header"),
        ({"X": "a\nb"}, "no header can carry"),
        ({"X": "ü"}, "no header can carry"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str], problem: str):
    """Before any request, by their name."""
    recipe = rl.Recipe(
        models={"m": at("http://127.0.0.1:9/v1", headers=headers)}, columns=[rl.Text("t", model="m", prompt="p")]
    )
    with pytest.raises(rl.RecipeError, match=problem):
        recipe.preview(1, progress=False)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch):
    """With the header that needs it."""
    monkeypatch.delenv("NOT_SET", raising=False)
    model = at("http://127.0.0.1:9/v1", headers_env={"X-Key": "NOT_SET"})
    with pytest.raises(rl.RecipeError, match=r"headers_env\.X-Key: NOT_SET is not set"):
        rl.Recipe(models={"m": model}, columns=[rl.Text("t", model="m", prompt="p")]).preview(1, progress=False)


@given(st.text(max_size=40), st.text(st.characters(codec="utf-8"), min_size=4, max_size=30))
def test_any_address_can_be_shown(before: str, key: str):
    """And what is shown of it has no key."""
    from urllib.parse import quote  # noqa: PLC0415 - only here

    public_address(before)
    shown = public_address(f"https://h.org/v1?api-key={quote(key, safe='')}")
    assert shown == "https://h.org/v1"
    assert key in secrets_in_address(f"https://h.org/v1?api-key={quote(key, safe='')}")


@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
    )
)
def test_what_is_public_has_no_secret(value: Any):
    """Leaving secrets out twice is leaving them out once."""
    assert list(secrets_in(public(value))) == []
    assert public(public(value)) == public(value)
