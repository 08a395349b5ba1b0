"""Messages: changes to the messages and the answer of a chat for what an endpoint does not do itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ....engine.models.provider import Message


def with_words(messages: list[Message], words: str) -> list[Message]:
    """Return the messages with these words at the end of the user's first one."""
    first = _first_of_user(messages)
    if first is None:
        return [*messages, {"role": "user", "content": words}]
    content = _joined(messages[first]["content"], words)
    return [*messages[:first], {**messages[first], "content": content}, *messages[first + 1 :]]


def without_system(messages: list[Message]) -> list[Message]:
    """Return the messages with the system's text at the beginning of the user's first one."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not system:
        return messages
    first = _first_of_user(rest)
    if first is None:
        rest, first = [*rest, {"role": "user", "content": ""}], len(rest)
    content = rest[first]["content"]
    for text in reversed(system):
        content = _joined(text, content) if content else text
    return [*rest[:first], {**rest[first], "content": content}, *rest[first + 1 :]]


def stopped(text: str, ended: str | None, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the text before the first of the stops, and why it ended."""
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return (text[: min(found)], "stop") if found else (text, ended)


def _first_of_user(messages: list[Message]) -> int | None:
    return next((i for i, message in enumerate(messages) if message["role"] == "user"), None)


def _joined(before: Any, after: Any) -> Any:
    """Return two contents as one: text as text, else both as parts."""
    if isinstance(before, str) and isinstance(after, str):
        return f"{before}\n\n{after}"
    return [*_parts(before), *_parts(after)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
