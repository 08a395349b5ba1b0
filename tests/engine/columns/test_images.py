"""Images against a real server: it receives what is in the cells, and nothing but images is ever sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl
from rowloop.engine.columns.images import image_parts
from rowloop.engine.core.errors import CellError
from ways import by_address

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(10)
ADDRESS = "https://example.com/cat.png"


def data_url(data: bytes, media_type: str) -> str:
    """Write bytes as an address."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def looking(model: rl.Model, photos: list[Any], **fields: Any) -> rl.Recipe:
    """Make a recipe that asks about a photo in each row."""
    return rl.Recipe(
        models={"m": model},
        columns=[
            rl.Seed(pd.DataFrame({"name": [f"n{i}" for i in range(len(photos))], "photo": photos})),
            rl.Text("seen", model="m", prompt="What does {{ name }} show?", images=["photo"], **fields),
        ],
    )


@pytest.mark.parametrize(
    ("photo", "sent"),
    [
        (ADDRESS, [ADDRESS]),
        ("http://localhost/a.gif", ["http://localhost/a.gif"]),
        (data_url(PNG, "image/png"), [data_url(PNG, "image/png")]),
        (PNG, [data_url(PNG, "image/png")]),
        (JPEG, [data_url(JPEG, "image/jpeg")]),
        (b"GIF89a" + bytes(9), [data_url(b"GIF89a" + bytes(9), "image/gif")]),
        (WEBP, [data_url(WEBP, "image/webp")]),
        ([PNG, JPEG], [data_url(PNG, "image/png"), data_url(JPEG, "image/jpeg")]),
        ([ADDRESS, ADDRESS], [ADDRESS, ADDRESS]),
    ],
    ids=["https", "http", "data", "png", "jpeg", "gif", "webp", "bytes", "addresses"],
)
def test_images_go_with_the_prompt(server: FakeOpenAI, way: Any, photo: Any, sent: list[str]):
    """Addresses as they are, bytes as data URLs of their media type, after the text."""
    server.configure(reply="echo")
    frame = looking(way(server.url), [photo]).preview(1, progress=False).dataset
    assert frame["seen"][0] == "\n".join(["What does n0 show?", *sent])
    (request,) = server.requests()
    (message,) = request.json()["messages"]
    text, *images = message["content"]
    assert text == {"type": "text", "text": "What does n0 show?"}
    assert images == [{"type": "image_url", "image_url": {"url": url}} for url in sent]


def test_an_empty_list_of_images_is_a_plain_prompt(server: FakeOpenAI, way: Any):
    """Every endpoint accepts it."""

    @rl.cell
    def photo(name: str) -> list[str]:
        return [] if name else [name]

    recipe = rl.Recipe(
        models={"m": way(server.url)},
        columns=[rl.Category("name", ["x"]), photo, rl.Text("a", model="m", prompt="Say {{ name }}", images=["photo"])],
    )
    recipe.preview(1, progress=False)
    (request,) = server.requests()
    assert request.json()["messages"] == [{"role": "user", "content": "Say x"}]


def test_structured_columns_see_too(server: FakeOpenAI, way: Any):
    """With a system prompt before, and the images in the user's message alone."""
    server.configure(reply='fixed:{"cats": 2}')
    grade = rl.Structured("s", model="m", prompt="Count", system="Brief.", images=["a", "b"], schema={"type": "object"})
    seed = rl.Seed(pd.DataFrame({"a": [PNG], "b": [ADDRESS]}))
    recipe = rl.Recipe(models={"m": way(server.url)}, columns=[seed, grade])
    assert recipe.preview(1, progress=False).dataset["s"][0] == {"cats": 2}
    (request,) = server.requests()
    system, user = request.json()["messages"]
    assert system == {"role": "system", "content": "Brief."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "image_url"]


@pytest.mark.parametrize(
    ("photo", "problem"),
    [
        ("cat.png", "holds 'cat.png', which is not an image URL; images are bytes, http(s) or data URLs"),
        ("/etc/passwd", "holds '/etc/passwd', which is not an image URL"),
        ("file:///etc/passwd", "holds 'file:///etc/passwd', which is not an image URL"),
        ("data:text/html,hm", "holds 'data:text/html,hm', which is not an image URL"),
        ("", "holds '', which is not an image URL"),
        ("x" * 10_000, f"holds '{'x' * 60}', which is not an image URL"),
        (Path("cat.png"), "holds 'cat.png', which is not an image URL"),
        (None, "holds null, not an image"),
        (5, "holds a value of type int, not an image"),
        ({"url": ADDRESS}, "holds a value of type dict, not an image"),
        ([ADDRESS, None], "holds null, not an image"),
        (b"", "holds no bytes, not a PNG, JPEG, GIF or WebP file"),
        (b"%PDF-1.7 and so on", "holds bytes that begin with b'%PDF-1.7', not a PNG, JPEG, GIF or WebP file"),
        (b"RIFF\x10\x00\x00\x00WAVE", "holds bytes that begin with b'RIFF"),
        (b"<svg></svg>", "not a PNG, JPEG, GIF or WebP file"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_that_is_not_an_image_is_an_error(photo: Any, problem: str):
    """The message is short and names the column; no file is ever read."""
    with pytest.raises(CellError) as caught:
        list(image_parts("photo", photo))
    assert str(caught.value).startswith("column 'photo' holds ")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_cell_without_an_image_fails_alone_and_sends_no_request(server: FakeOpenAI, way: Any):
    """The others are sent; the failures table has the number of bytes instead of the bytes."""
    bad = b"%PDF" + bytes(5000)
    result = looking(way(server.url), [PNG, bad, JPEG]).preview(3, progress=False)
    assert (result.actual, result.dropped, server.counters().requests) == (2, 1, 2)
    (failure,) = result.failures.to_dict("records")
    assert (failure["column"], failure["error"], failure["row"]) == ("seen", "CellError", 1)
    assert failure["inputs"] == '{"name":"n1","photo":"5,004 bytes"}'


def test_images_are_needs_like_any_other():
    """A name that no column has is refused, with the nearest right one."""
    text = rl.Text("seen", model="m", prompt="p", images=["foto"])
    with pytest.raises(rl.RecipeError, match=r"columns\.seen: needs the unknown column 'foto'; did you mean 'photo'"):
        rl.Recipe(models={"m": "openai:m"}, columns=[rl.Category("photo", [ADDRESS]), text])


@pytest.mark.parametrize("images", ["photo", [5], None, {"a": 1}])
def test_images_are_a_list_of_names(images: Any):
    """Neither a single name nor values."""
    with pytest.raises(rl.RecipeError, match=r"^Text\('seen'\)\.images"):
        rl.Text("seen", model="m", prompt="p", images=images)


def test_functions_that_take_messages_get_images_and_others_refuse_them():
    """No image is silently dropped."""

    def sees(messages: list[dict[str, Any]]) -> str:
        return str(messages[0]["content"][1]["image_url"]["url"])

    def blind(prompt: str) -> str:
        return prompt

    assert looking(rl.Model(sees), [ADDRESS]).preview(1, progress=False).dataset["seen"][0] == ADDRESS
    result = looking(rl.Model(blind), [ADDRESS], on_error="null").preview(1, progress=False)
    assert "blind() takes a prompt alone; call its parameter `messages`" in result.failures["message"][0]


def test_a_body_of_megabytes_is_sent_whole(server: FakeOpenAI):
    """Photos are large."""
    server.configure(reply="echo")
    photo = JPEG + bytes(3_000_000)
    seen = looking(by_address(server.url), [photo]).preview(1, progress=False).dataset["seen"][0]
    assert seen.endswith(data_url(photo, "image/jpeg"))
