"""What counts as an answer, from end to end: a reply that is none becomes neither a value nor an entry of the cache."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

import rowloop as rl
from rowloop.engine.models import verdict
from rowloop.engine.models.provider import Reply
from rowloop.engine.models.verdict import FINISH_REASONS, Judge, outcome_of
from ways import by_address, by_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_openai import FakeOpenAI

    Way = Callable[..., rl.Model]

QUIET: Any = {"progress": False, "error_budget": rl.ErrorBudget(rate=None)}
NO_RETRY = rl.RetryPolicy(attempts=1, give_up_after=0, wait=lambda _: 0.0)
TOOL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture(autouse=True)
def _unwarned() -> Iterator[None]:
    """Begin as a process that has warned about nothing."""
    verdict.forget_warnings()
    yield
    verdict.forget_warnings()


@pytest.fixture(params=[by_address, by_client])
def way(request: pytest.FixtureRequest) -> Way:
    """Ask over HTTP, and through a client that the user brings."""
    made: Way = request.param
    return made


def completion(message: dict[str, Any], reason: str | None = "stop", **beside: Any) -> dict[str, Any]:
    """Write an OpenAI answer."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return {"id": "c1", "choices": [{"message": message, "finish_reason": reason}], "usage": usage, **beside}


def one(model: rl.Model, cache: Path | None = None, retry: rl.RetryPolicy = NO_RETRY, **fields: Any) -> rl.Result:
    """Run one cell, whose row is kept with a null if it fails."""
    text = rl.Text("answer", model="m", prompt="Say it", on_error="null", **fields)
    return rl.Recipe(models={"m": model}, columns=[text]).preview(1, cache=cache, retry=retry, **QUIET)


def failed(result: rl.Result) -> tuple[str, str]:
    """Return the error and the message of the only failure; the cell is null."""
    assert result.dataset["answer"].isna().all()
    (failure,) = result.failures.to_dict("records")
    return failure["error"], failure["message"]


def gateway(code: Any, **more: Any) -> dict[str, Any]:
    """Write a gateway's error."""
    return {"code": code, "message": "Upstream is busy", **more}


NO_ANSWERS = {
    "empty": (completion({"content": ""}), "empty"),
    "null": (completion({"content": None}), "empty"),
    "blank": (completion({"content": " \n\t"}), "empty"),
    "no parts": (completion({"content": []}), "empty"),
    "reasoning alone": (completion({"content": "", "reasoning_content": "hm"}), "empty"),
    "reasoning tag alone": (completion({"content": "<think>hm</think>"}), "empty"),
    "empty without a reason": (completion({"content": ""}, None), "empty"),
    "tools": (completion({"content": None, "tool_calls": [TOOL]}, "tool_calls"), "tool_calls"),
    "tools under stop": (completion({"content": None, "tool_calls": [TOOL]}), "tool_calls"),
    "function call": (completion({"content": None, "function_call": TOOL["function"]}, None), "tool_calls"),
    "malformed call": (completion({"content": "half"}, "MALFORMED_FUNCTION_CALL"), "tool_calls"),
    "refusal": (completion({"content": None, "refusal": "I will not."}), "refused"),
    "refusal beside text": (completion({"content": "No.", "refusal": "I will not."}), "refused"),
    "refusal as a part": (completion({"content": [{"type": "refusal", "refusal": "I will not."}]}), "refused"),
    "safety": (completion({"content": "half"}, "SAFETY"), "refused"),
    "recitation": (completion({"content": ""}, "FinishReason.RECITATION"), "refused"),
    "prohibited": (completion({}, "prohibited_content"), "refused"),
    "model_length": (completion({"content": "half"}, "model_length"), "length"),
    "max_tokens": (completion({"content": "half"}, "max_tokens"), "length"),
    "MAX_TOKENS": (completion({"content": "half"}, "MAX_TOKENS"), "length"),
    "abort": (completion({"content": "half"}, "abort"), "server"),
    "resource": (completion({"content": "half"}, "insufficient_system_resource"), "server"),
    "repetition": (completion({"content": "half half half"}, "repetition"), "server"),
    "other": (completion({"content": "half"}, "OTHER"), "server"),
    "sensitive": (completion({"content": "half"}, "sensitive"), "refused"),
    "load": (completion({"content": ""}, "load"), "server"),
    "error beside": (completion({"content": "half"}, error=gateway(429)), "rate_limited"),
    "error beside, in words": (completion({"content": "half"}, error="overloaded"), "server"),
    "error without choices": ({"choices": [], "error": gateway(502)}, "server"),
    "error object": ({"object": "error", "message": "too long", "code": 400}, "bad_request"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_a_failure_and_is_not_cached(server: FakeOpenAI, way: Way, tmp_path: Path, name: str):
    """Each has its own kind. A second run asks again, and its answer is the value."""
    body, kind = NO_ANSWERS[name]
    server.configure(reply="fixed:yes", fault_script=1, script=json.dumps(body))
    error, message = failed(one(way(server.url), tmp_path / "cache"))
    assert error == f"ModelError({kind})"
    if kind == "refused" and "refusal" in str(body):
        assert "I will not" in message
    server.configure(reply="fixed:yes", fault_script=0)
    before = server.counters().requests
    result = one(way(server.url), tmp_path / "cache")
    assert list(result.dataset["answer"]) == ["yes"]
    assert server.counters().requests == before + 1


@pytest.mark.parametrize("inside", [gateway(429), gateway("rate_limit_error", metadata={"raw": "slow"})])
def test_an_error_inside_choices_is_judged_like_an_error_body(server: FakeOpenAI, way: Way, inside: dict[str, Any]):
    """Also with content beside it."""
    body = completion({"content": "half an ans"}, "error")
    body["choices"][0]["error"] = inside
    server.configure(fault_script=1, script=json.dumps(body))
    error, message = failed(one(way(server.url)))
    assert (error, "Upstream is busy" in message) == ("ModelError(rate_limited)", True)


def test_a_native_finish_reason_counts_where_the_gateway_says_less(server: FakeOpenAI, way: Way):
    """A gateway reports `stop` for what the endpoint behind it calls MAX_TOKENS."""
    body = completion({"content": "half"})
    body["choices"][0]["native_finish_reason"] = "MAX_TOKENS"
    server.configure(fault_script=1, script=json.dumps(body))
    assert failed(one(way(server.url)))[0] == "ModelError(length)"


@pytest.mark.parametrize("error", [None, {}, "", 0, {"code": 0, "message": ""}, {"code": "200", "message": "success"}])
def test_an_error_that_is_none_does_not_cost_the_answer(server: FakeOpenAI, way: Way, error: Any):
    """Some gateways send the field with every answer."""
    server.configure(fault_script=1, script=json.dumps(completion({"content": "yes"}, "eos", error=error)))
    assert list(one(way(server.url)).dataset["answer"]) == ["yes"]


def test_the_choice_with_text_is_read(server: FakeOpenAI, way: Way):
    """A gateway that splits an answer into two choices puts the text into either."""
    body = completion({"content": None, "tool_calls": [TOOL]})
    body["choices"].append({"message": {"content": "yes"}, "finish_reason": "stop"})
    server.configure(fault_script=1, script=json.dumps(body))
    assert list(one(way(server.url)).dataset["answer"]) == ["yes"]


@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_an_empty_answer_is_tried_again_and_paid_for(server: FakeOpenAI, way: Way, engine: Any):
    """Both attempts are in the usage, and the second is the value."""
    script = json.dumps(completion({"content": ""}))
    server.configure(reply="fixed:yes", fault_script=1, fault_attempts=1, script=script)
    text = rl.Text("answer", model="m", prompt="Say it")
    retry = rl.RetryPolicy(attempts=3, wait=lambda _: 0.0)
    result = rl.Recipe(models={"m": way(server.url)}, columns=[text]).preview(1, retry=retry, engine=engine, **QUIET)
    assert list(result.dataset["answer"]) == ["yes"]
    assert result.usage.requests == 2
    assert result.usage.prompt_tokens == 7 + server.counters().prompt_tokens


def test_a_cache_of_an_older_version_gives_no_empty_value(server: FakeOpenAI, tmp_path: Path):
    """What a run with `allow_empty` has stored stands in for it: a column without it asks again."""
    server.configure(
        reply="fixed:yes", fault_script=1, fault_attempts=1, script=json.dumps(completion({"content": ""}))
    )
    empty = one(by_address(server.url), tmp_path / "cache", allow_empty=True)
    assert list(empty.dataset["answer"]) == [""]
    again = one(by_address(server.url), tmp_path / "cache", allow_empty=True)
    assert (list(again.dataset["answer"]), server.counters().requests) == ([""], 1)
    strict = one(by_address(server.url), tmp_path / "cache")
    assert (list(strict.dataset["answer"]), server.counters().requests) == (["yes"], 2)


def test_a_cut_answer_is_a_value_only_where_it_is_allowed(server: FakeOpenAI, way: Way):
    """Under any vendor's name."""
    server.configure(fault_script=1, script=json.dumps(completion({"content": "half"}, "model_length")))
    assert list(one(way(server.url), allow_truncated=True).dataset["answer"]) == ["half"]
    server.configure(script=json.dumps(completion({"content": ""}, "model_length")))
    assert failed(one(way(server.url), allow_truncated=True))[0] == "ModelError(length)"


def test_an_unknown_finish_reason_is_warned_about_once(server: FakeOpenAI, way: Way, caplog: pytest.LogCaptureFixture):
    """Per model and process; the answer is taken for complete."""
    server.configure(fault_script=1, script=json.dumps(completion({"content": "yes"}, "vibes")))
    with caplog.at_level(logging.WARNING, "rowloop"):
        for _ in range(3):
            assert list(one(way(server.url)).dataset["answer"]) == ["yes"]
    warned = [record.getMessage() for record in caplog.records if "vibes" in record.getMessage()]
    assert warned == [
        "openai:m ended an answer with the unknown finish reason 'vibes'; the answer is taken for complete"
    ]


ODD_USAGES = [
    None,
    "many",
    [],
    {"prompt_tokens": "seven", "completion_tokens": 3},
    {"prompt_tokens": -7, "completion_tokens": 3},
    {"prompt_tokens": 7, "completion_tokens": 3.5},
    {"prompt_tokens": 7, "completion_tokens": 10**18},
    {"prompt_tokens": 10**30, "completion_tokens": 3},
    {"prompt_tokens": True, "completion_tokens": 3},
    {"prompt_tokens": {"text": 7}, "completion_tokens": 3},
    {"prompt_tokens": 7},
]


@pytest.mark.parametrize("usage", ODD_USAGES, ids=str)
def test_a_usage_that_cannot_be_read_is_unknown(server: FakeOpenAI, way: Way, usage: Any):
    """The answer is the value, and its cost is not known: neither 0 nor half of it."""
    body = completion({"content": "yes"}) | {"usage": usage}
    server.configure(fault_script=1, script=json.dumps(body))
    result = one(way(server.url, price=rl.Price(1.0, 1.0)))
    assert list(result.dataset["answer"]) == ["yes"]
    assert (result.usage.requests, result.usage.prompt_tokens, result.usage.cost) == (1, 0, None)


@pytest.mark.parametrize("usage", [("7", "3"), (7.0, 3.0), (7, "3")])
def test_a_usage_in_another_form_is_read(server: FakeOpenAI, way: Way, usage: tuple[Any, Any]):
    """Where its meaning is certain."""
    body = completion({"content": "yes"}) | {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    server.configure(fault_script=1, script=json.dumps(body))
    result = one(way(server.url, price=rl.Price(1e6, 1e6)))
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.cost) == (7, 3, 10.0)


@pytest.mark.parametrize(
    ("message", "beside", "thoughts"),
    [
        ({"content": "yes"}, {"id": 17}, None),
        ({"content": "yes"}, {"id": {"a": 1}, "model": 5, "created": "now", "choices_count": [1]}, None),
        ({"content": "yes", "reasoning": {"text": "hm"}}, {}, "hm"),
        ({"content": "yes", "reasoning_content": [{"type": "text", "text": "h"}, "m"]}, {}, "hm"),
        ({"content": "yes", "reasoning": {"effort": 3}}, {}, None),
        ({"content": "yes", "refusal": False, "tool_calls": {}}, {}, None),
        ({"content": ["ye", {"type": "text", "text": "s"}, {"type": "image", "text": None}]}, {}, None),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "yes"},
                ]
            },
            {},
            "hm",
        ),
    ],
)
def test_fields_around_the_content_may_have_any_form(
    server: FakeOpenAI, way: Way, message: dict[str, Any], beside: dict[str, Any], thoughts: str | None
):
    """They cost no answer; reasoning is found where there is any."""
    server.configure(fault_script=1, script=json.dumps(completion(message, **beside)))
    frame = one(way(server.url), reasoning="thoughts").dataset
    assert (list(frame["answer"]), server.counters().requests) == (["yes"], 1)
    assert frame["thoughts"].isna().all() if thoughts is None else list(frame["thoughts"]) == [thoughts]


def claude(reason: str | None, *content: dict[str, Any], **beside: Any) -> dict[str, Any]:
    """Write an answer of the Messages API."""
    usage = {"input_tokens": 7, "output_tokens": 3}
    return {"id": "msg_1", "content": list(content), "stop_reason": reason, "usage": usage, **beside}


SAID = {"type": "text", "text": "half"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (claude("end_turn"), "empty"),
        (claude("end_turn", {"type": "text", "text": " "}), "empty"),
        (claude("end_turn", {"type": "thinking", "thinking": "hm"}), "empty"),
        (claude("tool_use", SAID, {"type": "tool_use", "id": "t", "name": "f", "input": {}}), "tool_calls"),
        (claude("end_turn", {"type": "tool_use", "id": "t", "name": "f", "input": {}}), "tool_calls"),
        (claude("pause_turn", SAID), "tool_calls"),
        (claude("refusal", SAID), "refused"),
        (claude("max_tokens", SAID), "length"),
        (claude("model_context_window_exceeded", SAID), "length"),
        (claude("end_turn", SAID, error={"type": "overloaded_error", "message": "Overloaded"}), "server"),
    ],
)
def test_the_messages_api_is_judged_alike(server: FakeOpenAI, tmp_path: Path, body: dict[str, Any], kind: str):
    """And nothing of it is cached."""
    model = rl.Model("anthropic:m", base_url=server.url, api_key=SecretStr("any"))
    server.configure(reply="fixed:yes", fault_script=1, script=json.dumps(body))
    assert failed(one(model, tmp_path / "cache"))[0] == f"ModelError({kind})"
    server.configure(fault_script=0)
    assert list(one(model, tmp_path / "cache").dataset["answer"]) == ["yes"]


@pytest.mark.parametrize(
    "odd",
    [
        {"usage": {"input_tokens": "seven", "output_tokens": 3}},
        {"usage": {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": -1}},
        {"usage": {"input_tokens": 7}, "id": 5},
        {"usage": "none"},
    ],
)
def test_the_messages_api_is_read_leniently(server: FakeOpenAI, odd: dict[str, Any]):
    """Usage that cannot be read is unknown, and costs no answer."""
    script = json.dumps(claude("end_turn", {"type": "thinking", "thinking": {"text": "hm"}}, SAID) | odd)
    server.configure(fault_script=1, script=script)
    model = rl.Model("anthropic:m", base_url=server.url, api_key=SecretStr("any"), price=rl.Price(1.0, 1.0))
    result = one(model, reasoning="thoughts")
    assert (list(result.dataset["answer"]), list(result.dataset["thoughts"])) == (["half"], ["hm"])
    assert (result.usage.prompt_tokens, result.usage.cost) == (0, None)


@pytest.mark.parametrize("usage", [{"prompt_tokens": "seven"}, {"prompt_tokens": -3}, "none", None])
def test_embeddings_are_read_leniently(server: FakeOpenAI, way: Way, usage: Any):
    """The vector is the value whatever the usage is."""
    script = json.dumps({"data": [{"embedding": [1.0, 0.5], "index": 0}], "usage": usage})
    server.configure(fault_script=1, script=script)
    column = rl.Embedding("answer", model="m", text="it")
    result = rl.Recipe(models={"m": way(server.url)}, columns=[column]).preview(1, retry=NO_RETRY, **QUIET)
    assert [list(vector) for vector in result.dataset["answer"]] == [[1.0, 0.5]]


def test_a_function_that_returns_no_text_is_judged_alike():
    """As a model it is tried again; `allow_empty` accepts what it returned."""
    said = iter(["", " ", "yes"])
    retry = rl.RetryPolicy(attempts=3, wait=lambda _: 0.0)
    assert list(one(rl.Model(lambda _: next(said)), retry=retry).dataset["answer"]) == ["yes"]
    assert failed(one(rl.Model(lambda _: "")))[0] == "ModelError(empty)"
    assert list(one(rl.Model(lambda _: ""), allow_empty=True).dataset["answer"]) == [""]


def test_an_empty_structured_answer_is_tried_again_and_not_reasked(server: FakeOpenAI, way: Way):
    """The second request is the first one again: no two messages of the user in a row."""
    script = json.dumps(completion({"content": ""}))
    server.configure(reply='fixed:{"a": 1}', fault_script=1, fault_attempts=1, script=script, record=2)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    column = rl.Structured("answer", model="m", prompt="Say it", schema=schema)
    retry = rl.RetryPolicy(attempts=2, wait=lambda _: 0.0)
    result = rl.Recipe(models={"m": way(server.url)}, columns=[column]).preview(1, retry=retry, **QUIET)
    assert list(result.dataset["answer"]) == [{"a": 1}]
    assert [[message["role"] for message in sent.json()["messages"]] for sent in server.requests()] == [["user"]] * 2


@pytest.mark.parametrize(
    "reason", ["STOP", "FinishReason.STOP", "FINISH_REASON_STOP", "end-turn", " eos_token ", "", None]
)
def test_names_are_read_however_they_are_written(reason: str | None):
    """In any case, with the name of their type, with dashes."""
    assert outcome_of(reason) == "complete"
    assert Judge("m").accepts(Reply("yes", reason))


def test_the_documentation_lists_the_known_names_only():
    """Each finish reason in the table by vendor has the outcome of its column."""
    text = (Path(__file__).parents[3] / "docs/answers.md").read_text("utf-8").split("## Finish reasons by vendor")[1]
    rows = [line.split("|")[2:-2] for line in text.splitlines() if line.startswith("| ")][1:]
    outcomes = ("complete", "cut", "refused", "tools", "broken")
    found = {
        (name.lower(), outcome)
        for row in rows
        for outcome, cell in zip(outcomes, row, strict=True)
        for name in re.findall(r"`(\w+)`", cell.partition(";")[0])
    }
    assert len(found) > 30
    assert {(name, FINISH_REASONS.get(name)) for name, _ in found} == found
    unlisted = {
        "aborted",
        "canceled",
        "complete",
        "completed",
        "done",
        "end",
        "finish",
        "finished",
        "refused",
        None,
        "",
    }
    assert set(FINISH_REASONS) - {name for name, _ in found} - unlisted == {"max_output_tokens", "max_length"}


def test_every_row_of_the_documentation_names_its_source():
    """An address that a reader can look at."""
    text = (Path(__file__).parents[3] / "docs/answers.md").read_text("utf-8").split("## Finish reasons by vendor")[1]
    sources = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(sources) > 10
    assert [source for source in sources if not re.fullmatch(r"(\[[\w ]+\]\(https://\S+\)(, )?)+", source)] == []
