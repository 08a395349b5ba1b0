"""One suite over every vendor's endpoint: text, structured answers, one bad row, a bad key and an empty account.

Each vendor's refusals and errors are those of the fake's dialect; docs/endpoints.md lists their sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic
import pytest

import rowloop as rl
from fake_openai.dialects import VENDORS
from rowloop.adapters.providers.wire.dialect import forget
from ways import by_address, by_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fake_openai import FakeOpenAI

    Way = Callable[..., rl.Model]

QUIET: Any = {"progress": False, "error_budget": rl.ErrorBudget(rate=None)}
SOON = rl.RetryPolicy(wait=lambda _: 0.0)
ROWS = 12
BAD = 7


class Note(pydantic.BaseModel):
    """A plain schema, which every vendor with schemas takes."""

    title: str
    stars: int


class Coded(pydantic.BaseModel):
    """A schema that no vendor takes: it has a pattern."""

    code: str = pydantic.Field(pattern="^[A-Z]{3}$")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Begin as a process that knows no endpoint."""
    forget()
    yield
    forget()


@pytest.fixture(params=[by_address, by_client])
def way(request: pytest.FixtureRequest) -> Way:
    """Ask over HTTP, and through a client that the user brings."""
    made: Way = request.param
    return made


@pytest.fixture(params=sorted(VENDORS))
def vendor(request: pytest.FixtureRequest, server: FakeOpenAI) -> str:
    """Let the server speak as one vendor's endpoint."""
    name: str = request.param
    server.configure(dialect=name)
    return name


def those_with(case: str) -> list[str]:
    """Return the vendors that have an error of their own for a case."""
    return [name for name, vendor in sorted(VENDORS.items()) if getattr(vendor, case) is not None]


def made(model: rl.Model, *columns: Any, rows: int = ROWS, bad: str = "") -> rl.Result:
    """Preview a table whose row number BAD has the word `bad` in its topic."""
    topics = [f"topic {i} {bad}" if i == BAD and bad else f"topic {i}" for i in range(rows)]
    recipe = rl.Recipe(models={"m": model}, columns=[rl.Seed({"topic": topics}), *columns])
    return recipe.preview(rows, retry=SOON, **QUIET)


def text(**fields: Any) -> rl.Text:
    """Ask for text about the topic."""
    return rl.Text("answer", model="m", prompt="About {{ topic }}", **fields)


@pytest.mark.usefixtures("vendor")
def test_text_with_every_setting_is_answered(server: FakeOpenAI, way: Way):
    """A refused temperature, limit, stop or system prompt costs no row; what the endpoint does not do is done here."""
    server.configure(reply="echo:Said ENDS ")
    column = text(system="Be brief.", temperature=0.5, max_tokens=50, stop=["ENDS"])
    result = made(way(server.url), column)
    assert result.status == "complete"
    assert list(result.dataset["answer"]) == ["Said"] * ROWS


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("parallel", [1, ROWS])
@pytest.mark.parametrize("schema", [Note, Coded])
def test_structured_answers_come_from_every_endpoint(server: FakeOpenAI, way: Way, schema: Any, parallel: int):
    """In whichever form it takes; the form is found once, and no row is lost on the way."""
    value = {"title": "T", "stars": 3} if schema is Note else {"code": "ABC"}
    server.configure(reply=f"fixed:{schema.model_validate(value).model_dump_json()}")
    column = rl.Structured("answer", model="m", prompt="Grade {{ topic }}", system="Be brief.", schema=schema)
    result = made(way(server.url, max_parallel=parallel), column)
    assert result.status == "complete"
    assert list(result.dataset["answer"]) == [value] * ROWS
    counters = server.counters()
    assert counters.by_status[200] == ROWS
    assert counters.requests <= ROWS + 3 * parallel + 8


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("vendor", those_with("flagged"), indirect=True)
def test_a_row_that_the_filter_refuses_is_lost_alone(server: FakeOpenAI, way: Way):
    """The others are answered, and the failure has the endpoint's words."""
    result = made(way(server.url), text(), bad="FLAGGED")
    assert list(result.failures["row"]) == [BAD]
    assert list(result.failures["error"]) == ["ModelError(refused)"]
    assert len(result.dataset) == ROWS - 1


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.usefixtures("vendor")
def test_a_forbidden_or_missing_row_in_mid_run_is_lost_alone(server: FakeOpenAI, way: Way, status: int):
    """A firewall in front of the endpoint is no reason to end the run."""
    server.configure(**{f"fault_{status}": 0.2}, seed=3)
    result = made(way(server.url, max_parallel=1), text(), rows=30)
    refused = server.counters().by_status[status]
    assert 0 < refused == len(result.failures) == 30 - len(result.dataset)
    assert result.failures["message"].str.contains(f"answered {status} ").all()


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("vendor", those_with("enormous"), indirect=True)
def test_a_request_that_can_never_fit_fails_alone(server: FakeOpenAI, way: Way):
    """Requested is more than the limit: waiting does not help, and the others need not wait."""
    result = made(way(server.url), text(), bad="ENORMOUS")
    assert list(result.failures["row"]) == [BAD]
    assert list(result.failures["error"]) == ["ModelError(too_large)"]
    assert "Requested" in result.failures["message"][0]


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("vendor", those_with("penniless"), indirect=True)
def test_an_empty_account_ends_the_run(server: FakeOpenAI, way: Way):
    """Whatever status the vendor gives it: every other request would be refused as well."""
    with pytest.raises(rl.DatasetGenerationError) as caught:
        made(way(server.url, max_parallel=1), text(), bad="PENNILESS")
    assert isinstance(caught.value.__cause__, rl.ModelError)
    assert (caught.value.__cause__.kind, caught.value.__cause__.fatal) == ("quota", True)
    assert server.counters().requests == BAD + 1


@pytest.mark.usefixtures("vendor")
def test_a_wrong_key_ends_the_run_before_anything_is_paid_for(server: FakeOpenAI, way: Way):
    """With the advice to check it."""
    server.configure(api_key="another")
    with pytest.raises(rl.RowloopError, match="check the key"):
        made(way(server.url), text())
    assert 200 not in server.counters().by_status


@pytest.mark.usefixtures("vendor")
def test_a_rate_limit_delays_and_never_drops(server: FakeOpenAI, way: Way):
    """In every vendor's words for it."""
    server.configure(fault_429=0.5, fault_attempts=2, retry_after=None)
    assert made(way(server.url), text()).status == "complete"


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_texts_are_embedded_in_whichever_format_there_is(server: FakeOpenAI, way: Way, batch_size: int):
    """A refused format is left out, whatever the words, and found once."""
    column = rl.Embedding("answer", model="m", text="About {{ topic }}", batch_size=batch_size)
    result = made(way(server.url, max_parallel=2), column)
    assert result.status == "complete"
    assert {len(vector) for vector in result.dataset["answer"]} == {8}
    assert server.counters().by_status.get(400, 0) <= 2


def test_a_format_of_the_users_own_is_not_changed(server: FakeOpenAI, way: Way):
    """And a text that is refused in both formats gets the first complaint."""
    server.configure(dialect="lmstudio")
    own = rl.Embedding("answer", model="m", text="About {{ topic }}")
    with pytest.raises(rl.EarlyShutdownError, match="Invalid request body"):
        made(way(server.url, extra={"encoding_format": "base64"}), own)
    assert server.counters().by_status.keys() - {200} == {400}
    server.configure(dialect="", fault_400=1)
    with pytest.raises(rl.EarlyShutdownError, match="could not be understood"):
        made(way(server.url), own)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_text_that_may_not_be_embedded_is_lost_alone(server: FakeOpenAI, way: Way, batch_size: int):
    """Also one that shares its request with others."""
    server.configure(dialect="openrouter")
    column = rl.Embedding("answer", model="m", text="About {{ topic }}", batch_size=batch_size)
    result = made(way(server.url), column, bad="FLAGGED")
    assert list(result.failures["row"]) == [BAD]
    assert list(result.failures["error"]) == ["ModelError(refused)"]
    assert len(result.dataset) == ROWS - 1


def test_the_first_row_of_a_run_may_be_the_forbidden_one(server: FakeOpenAI, way: Way):
    """Nothing has been answered yet: the refusal waits for the requests beside it."""
    server.configure(fault_403=0.5, fault_attempts=1, seed=1, jitter=0.05)
    result = made(way(server.url, max_parallel=ROWS), text())
    assert 0 < len(result.failures) < ROWS
    assert len(result.dataset) == ROWS - len(result.failures)


def test_a_resume_does_not_end_at_the_same_row(server: FakeOpenAI, way: Way, tmp_path: Path):
    """A row that is forbidden is recorded, and not sent again."""
    server.configure(dialect="openrouter")
    topics = ["one", "two FLAGGED", "three"]
    recipe = rl.Recipe(models={"m": way(server.url, max_parallel=1)}, columns=[rl.Seed({"topic": topics}), text()])
    assert len(recipe.build(tmp_path / "out", rows=3, **QUIET).dataset) == 2
    before = server.counters().requests
    assert len(recipe.build(tmp_path / "out", rows=3, resume="always", **QUIET).failures) == 1
    assert server.counters().requests == before
