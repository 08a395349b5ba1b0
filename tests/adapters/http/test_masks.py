"""Masks: keys are cut out of other parties' texts in whatever form, and ordinary words stay."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import rowloop as rl
from rowloop.adapters.http.endpoint import Endpoint
from rowloop.adapters.http.errors import Failures
from rowloop.adapters.http.masks import Mask, is_word
from rowloop.adapters.providers.openai.endpoint import OPENAI

KEY = "sk-proj-aB3dEf7+hJk/LmN9pQ2s"
PLACEHOLDERS = [
    *("e", "x", "k", "key", "none", "None", "null", "EMPTY", "any", "ollama", "lm-studio", "dummy", "fake", "secret"),
    *(
        "not-needed",
        "no-key-required",
        "sk-no-key-required",
        "your-api-key-here",
        "anything",
        "placeholder",
        "0",
        "123",
    ),
]
ORDINARY = [
    "model 'ollama/llama3' was not found; none of the empty slots is free, try ollama pull",
    "the key is not needed here; any text, x or null or e, will do: 123 tokens, anything",
    "Unexpected token 'e' at position 0",
    "dummy: the secret placeholder is your-api-key-here, EMPTY or lm-studio (no-key-required)",
]


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_a_placeholder_hides_no_ordinary_word(key: str):
    """Else every e of a message would be a key."""
    assert is_word(key)
    for text in ORDINARY:
        assert Mask([key]).cover(text) == text


@pytest.mark.parametrize("key", PLACEHOLDERS)
@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: {}.",
        "invalid api_key='{}'",
        'the password "{}" is wrong',
        "Authorization: Bearer {}",
    ],
)
def test_a_placeholder_that_is_presented_as_a_key_is_cut_out(key: str, text: str):
    """It may be a poor password of a server that is open to others."""
    assert Mask([key]).cover(text.format(key)) == text.format("[key]")


@pytest.mark.parametrize(
    "key",
    [KEY, "token-abc123", "sk-1", "hunter2", "0123456789abcdef", "qwhzkdjfnvbxmzpa", "correct-horse-battery-staple"],
)
def test_a_real_key_is_cut_out_wherever_it_stands(key: str):
    """Whole, in an address, in JSON and in a header."""
    assert not is_word(key)
    mask = Mask([key])
    for text in ("{}", "no {} and {}!", "http://x/?key={}&y=1", "x='{}'"):
        assert mask.cover(text.format(key, key)) == text.format("[key]", "[key]")
        assert mask.cover(text.format(quote(key, safe=""), key)) == text.format("[key]", "[key]")
    assert key not in mask.cover(json.dumps({"key": key}))


@pytest.mark.parametrize(
    ("echoed", "shown"),
    [
        ("sk-proj-aB3dEf7+hJk", "[key]"),
        ("...hJk/LmN9pQ2s", "[key]"),
        ("sk-p...pQ2s", "[key]"),
        ("sk-proj-aB…", "[key]"),
        ("sk-projxxxxxxxxQ2s", "[key]"),
        ("sk-pr••••", "[key]"),
        ("sk-pr****Q2s", "[key]"),
        ("wait... sk-proj- is how keys begin", "wait... sk-proj- is how keys begin"),
    ],
)
def test_a_key_is_cut_out_in_part(echoed: str, shown: str):
    """As endpoints abbreviate it, which leaves enough to find it by."""
    assert Mask([KEY]).cover(f"The key {echoed}") == f"The key {shown}"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_is_cut_out_in_base64(before: str, after: str):
    """With whatever stands before and behind it, as in `Basic` credentials."""
    encoded = base64.b64encode(f"{before}{KEY}{after}".encode()).decode()
    covered = Mask([KEY]).cover(encoded)
    assert "[key]" in covered
    secret = [KEY.encode()[at : at + 9] for at in range(8, len(KEY) - 8)]
    for rest in covered.split("[key]"):
        for at in range(4):
            usable = rest[at : at + (len(rest) - at) // 4 * 4].rstrip("=")
            decoded = base64.b64decode(usable[: len(usable) // 4 * 4])
            assert not [part for part in secret if part in decoded]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=8, max_size=80), st.data())
def test_eight_characters_of_a_key_are_never_shown(key: str, data: st.DataObject):
    """Unless they form words: then they are no secret."""
    start = data.draw(st.integers(0, len(key) - 8))
    end = data.draw(st.integers(start + 8, len(key)))
    part = key[start:end]
    covered = Mask([key]).cover(f"got {part} there")
    if not is_word(key) and any(character.isdigit() for character in part[:8]):
        assert part[:8] not in covered or part[:8] in "got [key] there"


def test_the_names_of_schemes_and_harmless_headers_are_no_keys():
    """`Bearer` is a word, and a version or a region explains an error."""
    headers = {"Authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01", "X-Region": "eu-west-1"}
    model = rl.Model(
        "openai:m", base_url="http://localhost:1/v1", headers={k: SecretStr(v) for k, v in headers.items()}
    )
    endpoint = Endpoint.of(model, OPENAI)
    error = Failures("m", endpoint.key, secrets=endpoint.secrets).status(
        400, {}, f"Bearer {KEY}: version 2023-06-01 is not in eu-west-1, Bearer authentication failed".encode()
    )
    assert str(error) == (
        "m answered 400 Bad Request: Bearer [key]: version 2023-06-01 is not in eu-west-1, Bearer authentication failed"
    )


def test_a_short_key_that_is_given_to_a_model_leaves_its_messages_alone():
    """From end to end of what is known of an endpoint."""
    model = rl.Model("openai:m", base_url="http://localhost:11434/v1", api_key=SecretStr("ollama"))
    endpoint = Endpoint.of(model, OPENAI)
    error = Failures("m", endpoint.key, secrets=endpoint.secrets).status(404, {}, b'{"error": "try ollama pull m"}')
    assert str(error).startswith("m answered 404 Not Found: try ollama pull m")


def test_long_texts_are_covered_in_no_time():
    """Some endpoints answer with megabytes, and without a space in them."""
    failures = Failures("m", KEY)
    began = time.process_time()
    for text in ("x" * 1_000_000, "*" * 1_000_000, "sk-" * 300_000, ("key: " * 200_000)):
        assert len(failures.clean(text)) <= 303
    assert time.process_time() - began < 1
