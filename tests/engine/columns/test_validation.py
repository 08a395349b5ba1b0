"""Validators from end to end: functions, SQL and a real server decide whether rows are valid."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rowloop as rl
from fake_validator import FakeValidator
from identifiers import by_repr
from rowloop.engine.columns.sql_condition import Condition, SqlError
from rowloop.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-do-not-tell-4711"
ALL = rl.ErrorBudget(rate=None)
AT_ONCE = rl.RetryPolicy(attempts=3, wait=lambda _: 0.0)
TEXTS = [f"{'bad' if i % 4 == 1 else 'good'} {i}" for i in range(20)]
VALID = [not text.startswith("bad") for text in TEXTS]
ROWS = rl.Seed(pd.DataFrame({"n": range(20), "text": TEXTS}))


@pytest.fixture(scope="module")
def process() -> Iterator[FakeValidator]:
    """Share one server process, since each takes a moment to start."""
    with FakeValidator() as server:
        yield server


@pytest.fixture
def server(process: FakeValidator) -> FakeValidator:
    """Return the module's server, reset."""
    process.reset()
    return process


def made(*columns: Any, rows: int = 20, **options: Any) -> rl.Result:
    """Preview over the rows, whatever the share of those that fail."""
    options = {"error_budget": ALL, "progress": False, "row_group_size": 8, **options}
    return rl.Recipe(columns=[ROWS, *columns]).preview(rows, **options)


def values(result: rl.Result, column: str = "ok") -> list[Any]:
    """Return a column's values."""
    return result.to_arrow().column(column).to_pylist()


def asking(url: str, **settings: Any) -> rl.Validate:
    """Ask about the text."""
    return rl.Validate("ok", url=url, needs=["text"], **settings)


# Python


def even(n: int) -> bool:
    """Say so."""
    return n % 2 == 0


async def even_awaited(n: int) -> bool:
    """Say so on the loop."""
    await asyncio.sleep(0)
    return n % 2 == 0


def odd_is_wrong(*, n: int) -> bool | str:
    """Say what is wrong."""
    return True if n % 2 == 0 else f"{n} is odd"


@pytest.mark.parametrize(
    "check",
    [even, even_awaited, odd_is_wrong, lambda n: np.bool_(n % 2 == 0), functools.partial(lambda m, n: n % m == 0, 2)],
)
def test_a_function_returns_true_false_or_the_reason(check):
    """For any kind of function; the column is true or false, and invalid rows stay."""
    result = made(rl.Validate("ok", check=check))
    assert values(result) == [n % 2 == 0 for n in range(20)]
    assert (str(result.to_arrow().schema.field("ok").type), result.status, len(result.failures)) == (
        "bool",
        "complete",
        0,
    )


@pytest.mark.parametrize("check", [odd_is_wrong, even, even_awaited])
def test_invalid_rows_are_dropped_with_drop_invalid(check):
    """They are failures with the reason, and are not retried."""
    result = made(rl.Validate("ok", check=check, drop_invalid=True))
    assert result.dataset["n"].tolist() == list(range(0, 20, 2))
    assert (result.status, result.dropped, set(values(result))) == ("partial", 10, {True})
    lines = result.failures.to_dict("records")
    assert {(line["column"], line["error"], line["attempts"]) for line in lines} == {("ok", "Invalid", 1)}
    assert {line["message"] for line in lines} == (
        {f"{n} is odd" for n in range(1, 20, 2)} if check is odd_is_wrong else {"the check returned False"}
    )
    assert {line["inputs"] for line in lines} == {f'{{"n":{n}}}' for n in range(1, 20, 2)}


def test_invalid_rows_do_not_count_towards_the_error_budget():
    """However many; rows whose check fails do count."""
    column = rl.Validate("ok", check=lambda n: n < 4, drop_invalid=True)
    result = made(column, error_budget=rl.ErrorBudget(window=10), row_group_size=1)
    assert (result.actual, bool(result.metadata["early_shutdown"])) == (4, False)
    failing = rl.Validate("ok", check=lambda n: n < 4 or 1 / 0 > 0, drop_invalid=True)
    assert made(failing, error_budget=rl.ErrorBudget(window=10), row_group_size=1).metadata["early_shutdown"]


@pytest.mark.parametrize("value", [None, 1, 0.0, ["x"], np.int64(1)])
def test_any_other_returned_value_is_a_failure(value):
    """The message names its type."""
    result = made(rl.Validate("ok", check=lambda n: value if n == 3 else True))
    (line,) = result.failures.to_dict("records")
    assert line["row"] == 3
    assert line["message"] == (
        f"the check returned a {type(value).__name__}; it must return True, False, or a text that says what is wrong"
    )


def test_a_failed_check_makes_no_row_invalid():
    """`on_error` applies."""
    result = made(rl.Validate("ok", check=lambda n: 1 / (n - 2) > 0, on_error="null"))
    assert values(result)[:4] == [False, False, None, True]
    assert result.failures["error"].tolist() == ["ZeroDivisionError"]


# SQL


def test_an_expression_decides_whether_a_row_is_valid():
    """Over numbers, texts and nested values; NULL is false."""
    columns = [
        rl.cell(lambda n: {"score": n} if n != 3 else None, name="grade"),
        rl.Validate("ok", sql="n BETWEEN 1 AND 5 AND length(text) > 5 AND grade.score < 5"),
    ]
    result = made(*columns)
    assert values(result) == [n in {2, 4} for n in range(20)]
    assert str(result.to_arrow().schema.field("ok").type) == "bool"


def test_an_expression_drops_rows_with_drop_invalid():
    """The expression is the reason."""
    result = made(rl.Validate("ok", sql="n > 2 OR NULL", drop_invalid=True))
    assert result.dataset["n"].tolist() == list(range(3, 20))
    assert set(result.failures["message"]) == {"n > 2 OR NULL is NULL"}
    assert set(result.failures["error"]) == {"Invalid"}


def test_a_row_for_which_an_expression_fails_is_the_only_failure():
    """Other rows of the same call have their values."""
    columns = [
        rl.cell(lambda n: "x" if n == 7 else str(n), name="number"),
        rl.Validate("ok", sql="number::INTEGER > 4"),
    ]
    result = made(*columns)
    assert values(result) == [n > 4 for n in range(20) if n != 7]
    (line,) = result.failures.to_dict("records")
    assert (line["error"], line["inputs"]) == ("SqlError", '{"number":"x"}')
    assert line["message"].startswith("Could not convert string 'x' to INT32")


def test_values_of_several_types_are_evaluated_one_by_one():
    """Values that no table can hold are failures."""
    select = Condition.parse("x > 1").selector()
    found = select([[1], [2.5], [None], ["a"], [2**70], ["\ud800"]])
    assert found[:3] == [False, True, None]
    assert [type(value) for value in found[3:]] == [SqlError] * 3


def test_an_expression_that_is_not_boolean_fails_with_its_type():
    """The message says what to do."""
    with pytest.raises(
        rl.EarlyShutdownError, match="the expression gives BIGINT, not BOOLEAN; compare it with something"
    ):
        made(rl.Validate("ok", sql="length(text)"), rows=3)


@pytest.mark.parametrize(
    ("sql", "needs"),
    [
        ("score BETWEEN 1 AND 5 AND length(answer) > 10", ("score", "answer")),
        ('"two words".x.y = 1 AND score > score', ("two words", "score")),
        ("len(list_filter(tags, lambda x: x > least)) > 0", ("tags", "least")),
        ("[x + 1 for x in tags if x > y] = []", ("tags", "y")),
        ("doc -> '$.a' = 'b'", ("doc",)),
        ("random() < 0.5", ()),
        ("a > 1 -- and b > 1", ("a",)),
    ],
)
def test_the_columns_an_expression_needs_are_found_in_it(sql, needs):
    """By DuckDB's own parser; a lambda's parameter is not a column."""
    assert rl.Validate("ok", sql=sql).node({}).needs == needs


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("score BETWEN 1 AND 5", "sql is not an expression: syntax error at character 7, near 'BETWEN 1 AND 5'"),
        ("score >", "sql is not an expression: it ends where something is missing, or has a bracket too many"),
        ("lenth(answer) > 1", r'sql is not an expression: .* name lenth does not exist! Did you mean "length"\?'),
        (" ", "sql is empty; it is one expression over the columns of a row"),
        ("a > 1, b > 1", "more than one"),
        ("true), (false", "sql has more than an expression"),
        ("true); DROP TABLE x; SELECT (true", "sql has more than an expression"),
        ("true) UNION SELECT (true", "sql has more than an expression"),
        ("a > (SELECT max(a) FROM read_csv('x'))", "sql has a subquery at character 5"),
        ("a > avg(a)", r"sql has avg\(\) at character 5, which is not a function of one row"),
        ("row_number() OVER () > 1", "sql has a window function at character 1"),
        (
            "read_text('/etc/hostname') <> ''",
            r"sql has read_text\(\) at character 1, which is not a function of one row",
        ),
        ("* > 1", "sql is not an expression|sql has a star"),
        ("a > ?", "sql has a parameter"),
        ("a > A", "sql needs the columns 'a' and 'A', which are the same to SQL"),
        ("1 + 1", "sql gives INTEGER, not BOOLEAN; compare it with something"),
    ],
)
def test_bad_sql_is_refused_when_the_column_is_made(sql, says):
    """The message has the place."""
    with pytest.raises(rl.RecipeError, match=rf"^Validate\('ok'\): .*({says})"):
        rl.Validate("ok", sql=sql)


@pytest.mark.parametrize(
    "sql", ["(SELECT count(*) FROM read_text('/etc/hostname')) > 0", "(SELECT count(*) FROM '/etc/hostname.csv') > 0"]
)
def test_an_expression_reaches_no_file_even_unchecked(sql):
    """The connection has no external access, and its configuration is locked."""
    (found,) = Condition(sql, ()).selector()([[]])
    assert isinstance(found, SqlError)
    assert "disabled" in str(found)


def test_sql_without_duckdb_names_the_package_to_install(monkeypatch):
    """It is an extra that recipes without SQL do not need."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(rl.RecipeError, match=r'sql needs the package duckdb: pip install "rowloop\[sql\]"'):
        rl.Validate("ok", sql="without_duckdb > 1")
    assert values(made(rl.Validate("ok", check=even), rows=2)) == [True, False]


def test_no_row_waits_for_others_of_its_row_group():
    """A ready row is evaluated although its neighbour is not ready, which here waits for it."""
    others = asyncio.Event()

    async def slow(n: int) -> int:
        if n == 0:
            await others.wait()
        return n

    async def after(ok: bool) -> bool:  # noqa: FBT001 - a need
        others.set()
        return ok

    assert values(made(slow, rl.Validate("ok", sql="slow >= 0"), after, rows=4), "after") == [True] * 4


# Over HTTP


def test_a_server_gets_the_needed_columns_of_each_row(server):
    """One request per row, a JSON object; invalid rows stay as with the other validators."""
    result = made(asking(f"{server.url}/validate?strict=1"))
    assert (values(result), result.status) == (VALID, "complete")
    seen = server.seen()["requests"]
    assert sorted(row["text"] for _, row, _ in seen) == sorted(TEXTS)
    assert {(path, tuple(row), key) for path, row, key in seen} == {("/validate?strict=1", ("text",), None)}


def test_rows_that_a_server_calls_invalid_are_dropped_with_its_reason(server):
    """With drop_invalid; no row is sent twice."""
    result = made(asking(f"{server.url}/validate", drop_invalid=True))
    assert set(values(result)) == {True}
    assert set(result.failures["message"]) == {f"{text} will not do" for text in TEXTS if "bad" in text}
    assert set(result.failures["error"]) == {"Invalid"}
    assert len(server.seen()["requests"]) == 20


def test_transient_failures_are_tried_again(server):
    """500, 429, cut bodies and closed connections; in the end every row has its verdict."""
    result = made(asking(f"{server.url}/flaky"), retry=AT_ONCE)
    assert (values(result), len(result.failures), result.metadata["retries"]) == (VALID, 0, 20)
    assert len(server.seen()["requests"]) == 40
    kinds = {"ModelError(server)", "ModelError(rate_limited)", "ModelError(truncated)", "ModelError(connection)"}
    assert set(result.report.retries) == kinds


def test_each_attempt_has_a_time_limit_of_its_own(server):
    """The limit ends the attempt."""
    result = made(asking(f"{server.url}/slow", timeout=0.6), retry=AT_ONCE)
    assert (values(result), set(result.report.retries)) == (VALID, {"ModelError(timeout)"})


def test_no_more_requests_are_in_flight_than_max_parallel(server):
    """Counted at the server."""
    made(asking(f"{server.url}/validate", max_parallel=3))
    assert 1 <= server.seen()["most"] <= 3


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("/html", "ModelError(unreadable)", "answered with something that is no verdict"),
        (
            "/wrong",
            "ModelError(invalid_output)",
            r'gave no verdict: Expected `bool`, got `str` .*; it answers {"valid": true}',
        ),
        ("/500", "ModelError(server)", "answered 500 Internal Server Error"),
        ("/422", "ModelError(bad_request)", "answered 422"),
    ],
)
def test_an_answer_without_a_verdict_is_a_failure_of_the_validator(server, path, error, says):
    """Not an invalid row; `on_error` applies."""
    result = made(asking(f"{server.url}{path}", on_error="null"), rows=2, retry=AT_ONCE)
    assert values(result) == [None, None]
    assert set(result.failures["error"]) == {error}
    assert result.failures["message"].str.contains(says).all()
    assert set(result.failures["attempts"]) == {3 if error in {"ModelError(unreadable)", "ModelError(server)"} else 1}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/401", "answered 401 Unauthorized: .*; check the key that api_key_env names"),
        ("/403", "answered 403 Forbidden: .*; check the key"),
        ("/404", "answered 404 Not Found: .*; check the url"),
        ("/301", "answered 301 Moved Permanently: .*; check the url"),
    ],
)
def test_an_error_that_every_row_would_have_ends_the_run(server, path, says):
    """With advice, after one request or as many as were in flight."""
    with pytest.raises(rl.DatasetGenerationError, match=says):
        made(asking(f"{server.url}{path}?token={KEY}", max_parallel=1))
    assert len(server.seen()["requests"]) == 1


def test_an_ambiguous_error_in_mid_run_is_about_its_row(server):
    """Once a verdict has come, a 403 is no reason to end the run."""
    result = made(asking(f"{server.url}/firewall", max_parallel=1, on_error="null"), rows=6)
    assert result.status == "complete"
    assert list(result.failures["error"]) == ["ModelError(refused)"] * len(result.failures)
    assert 0 < len(result.failures) < 6


@pytest.mark.outside
def test_a_server_that_cannot_be_reached_is_named():
    """As a failed connection, after all attempts."""
    with FakeValidator() as gone:
        url = gone.url
    with pytest.raises(rl.EarlyShutdownError, match=rf"the validator at {url}/validate could not be reached"):
        made(asking(f"{url}/validate"), rows=1, retry=AT_ONCE)


def test_the_key_goes_to_the_server_and_nowhere_else(server, tmp_path: Path, monkeypatch, caplog):
    """Not into failures, files, logs or reprs, although the server echoes it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VALIDATOR_KEY", KEY)
    told = []
    for path in ("validate", "422", "401"):
        recipe = rl.Recipe(columns=[ROWS, asking(f"{server.url}/{path}", api_key_env="VALIDATOR_KEY", on_error="null")])
        try:
            told += [repr(recipe.build(tmp_path / path, rows=4, trace=True, progress=False)), recipe.to_yaml()]
        except rl.RowloopError as error:
            told += [
                repr(error),
                str(error),
                repr(error.__cause__),
                repr(getattr(error.__cause__, "__context__", None)),
            ]
    assert {key for _, _, key in server.seen()["requests"]} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in caplog.text
    assert KEY not in "".join(told)


def test_one_client_serves_all_columns_and_runs_and_is_closed_with_the_runtime(server):
    """On its own loop."""
    with Runtime("validators") as runtime:
        for _ in range(2):
            made(asking(f"{server.url}/validate", max_parallel=1), runtime=runtime)
            assert [name for name in runtime.thread.resources.names() if "session" in name] == [
                "'session of http validators'"
            ]
        assert server.seen()["connections"] <= 3  # two of them are the test's own
    assert runtime.is_closed


def test_a_resumed_run_requests_no_verdict_again(server, tmp_path: Path):
    """Verdicts are free, but took time."""
    recipe = rl.Recipe(columns=[ROWS, asking(f"{server.url}/validate")], seed=1)
    recipe.build(tmp_path / "out", rows=10, progress=False)
    result = recipe.build(tmp_path / "out", rows=20, resume="always", progress=False)
    assert (values(result), len(server.seen()["requests"])) == (VALID, 20)


def test_a_run_that_is_cancelled_waits_for_no_verdict(server, tmp_path: Path):
    """Requests in flight are cancelled; verdicts that had arrived are kept."""
    columns = [ROWS, rl.Validate("small", sql="n < 10"), asking(f"{server.url}/slow", max_parallel=8)]
    run = rl.Recipe(columns=columns).start(tmp_path / "out", rows=20, progress=False)
    while len(server.seen()["requests"]) < 8:
        pass
    run.cancel()
    result = run.result(timeout=5)
    assert (result.status, result.actual) == ("cancelled", 0)


def test_both_engines_have_the_same_verdicts(server):
    """With validators of all kinds."""
    columns = [
        rl.Validate("small", sql="n < 10"),
        rl.Validate("not_four", check=lambda n: n != 4, drop_invalid=True),
        asking(f"{server.url}/validate"),
    ]
    one, other = made(*columns, engine="sequential"), made(*columns)
    assert one.dataset.equals(other.dataset)
    assert (one.actual, one.status, one.metadata["engine"]) == (19, other.status, "sequential")


def test_values_go_out_as_json(server):
    """Dates as text, numpy's and pandas's values as plain ones; a value that JSON cannot hold is a failure."""
    data = pd.DataFrame({"day": [pd.Timestamp("2026-01-02")], "n": np.array([3]), "x": [float("nan")]})

    def more(n: int) -> Any:
        return {"date": dt.date(2026, 1, 2), "number": np.float64(n), "array": np.array([n])}

    columns = [rl.Seed(data), rl.Validate("ok", url=f"{server.url}/validate", needs=["day", "n", "x"])]
    assert values(rl.Recipe(columns=columns).preview(1, progress=False)) == [True]
    ((_, row, _),) = server.seen()["requests"]
    assert row == {"day": "2026-01-02T00:00:00", "n": 3, "x": None}
    odd = [rl.cell(lambda n: pa.scalar(n), name="odd"), rl.Validate("ok", url=f"{server.url}/validate", needs=["odd"])]  # noqa: PLW0108 - its parameter is read
    with pytest.raises(rl.EarlyShutdownError, match="cannot be sent"):
        made(*odd, rows=1)
    server.reset()
    made(more, rl.Validate("ok", url=f"{server.url}/validate", needs=["more"]), rows=1)
    assert server.seen()["requests"][0][1] == {"more": {"date": "2026-01-02", "number": 0.0, "array": [0]}}


# What is written


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, r"Validate\('ok'\): takes one of check \(a function\), sql and url, and has none"),
        ({"sql": "true", "check": even}, r"takes one of .*, and has check and sql"),
        ({"sql": "true", "url": "http://h/"}, r"takes one of .*, and has sql and url"),
        ({"check": "even"}, r"Validate\('ok'\)\.check: Input should be callable"),
        ({"check": lambda *n: True}, r"check: \*n does not name a column; list every parameter"),  # noqa: ARG005 - the point
        ({"check": even, "needs": ["n"]}, "needs does not apply to check, only to url"),
        ({"sql": "true", "timeout": 3}, "timeout does not apply to sql, only to url"),
        ({"sql": "true", "max_parallel": 3}, "max_parallel does not apply to sql, only to check and url"),
        ({"url": "http://h/v"}, "needs is missing: list the columns to send to the url"),
        ({"url": "h/v", "needs": ["n"]}, "url is not the address of a validator: 'h/v'; write https://HOST/PATH"),
        ({"url": f"http://me:{KEY}@h/v", "needs": ["n"]}, "url must not contain a user name and password"),
        ({"url": "http://h:x/v", "needs": ["n"]}, "url is not the address of a validator"),
        (
            {"url": "http://h/v", "needs": ["n"], "timeout": 0},
            r"Validate\('ok'\)\.timeout: must be a number of seconds",
        ),
        ({"url": "http://h/v", "needs": ["n"], "max_parallel": 0}, r"max_parallel: Input should be greater"),
        (
            {"check": even, "drop_invalid": True, "on_error": "null"},
            'drop_invalid drops rows, and on_error="null" does not',
        ),
        ({"check": even, "drop_invalids": True}, r"drop_invalids: unknown field; did you mean 'drop_invalid'\?"),
    ],
)
def test_mistakes_are_refused_with_their_path(fields, says):
    """When the column is made; no key is in the message."""
    with pytest.raises(rl.RecipeError, match=says) as raised:
        rl.Validate("ok", **fields)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    "fields", [{"check": lambda m: m > 1}, {"sql": "m > 1"}, {"url": "http://h/v", "needs": ["m"]}], ids=by_repr
)
def test_an_unknown_column_is_refused_with_the_nearest_name(fields):
    """As for any column."""
    with pytest.raises(rl.RecipeError, match=r"columns\.ok: needs the unknown column 'm'; "):
        rl.Recipe(columns=[ROWS, rl.Validate("ok", **fields)])
    with pytest.raises(rl.RecipeError, match=r"needs the unknown column 'txt'; did you mean 'text'\?"):
        rl.Recipe(columns=[ROWS, rl.Validate("ok", sql="length(txt) > 1")])


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("ftp://h/v", {}, r"columns\.ok\.url: unknown scheme of a validator's url 'ftp'; .*http"),
        (
            "http://h/v",
            {"api_key_env": "NO_SUCH_KEY"},
            r"columns\.ok\.api_key_env: the environment variable NO_SUCH_KEY is not set; it is to hold the key",
        ),
    ],
)
def test_an_adapter_that_cannot_ask_is_an_error_before_any_work(url, settings, says):
    """Raised by the adapter when the run begins."""
    called = []
    with pytest.raises(rl.RecipeError, match=says):
        made(rl.cell(called.append, name="paid", needs=["n"]), asking(url, **settings))
    assert called == []


def test_it_goes_to_yaml_and_back(server):
    """As the type `validate`; a function is not written, and is not in the schema."""
    columns = [
        ROWS,
        rl.Validate("short", sql="length(text) < 9", on_error="null"),
        asking(f"{server.url}/validate", drop_invalid=True, timeout=5),
        rl.Validate("even", check=even),
    ]
    plain = rl.Recipe(columns=columns).to_dict()["columns"][1:]
    assert plain == [
        {"name": "short", "type": "validate", "sql": "length(text) < 9", "on_error": "null"},
        {"name": "ok", "type": "validate", "url": f"{server.url}/validate", "needs": ["text"], "drop_invalid": True,
         "timeout": 5.0},
        {"name": "even", "type": "validate"},
    ]  # fmt: skip
    data = {"seed": 1, "columns": [{"name": "text", "type": "category", "values": ["a", "bad"]}, *plain[:2]]}
    read = rl.Recipe.from_yaml(rl.Recipe.from_dict(data).to_yaml())
    assert read.to_dict() == rl.Recipe.from_dict(data).to_dict()
    assert set(read.preview(6, progress=False, error_budget=ALL).dataset["text"]) <= {"a"}
    assert "check" not in rl.Recipe.json_schema()["$defs"]["Validate"]["properties"]


def test_a_check_counts_by_its_code_and_a_server_by_its_address():
    """Speed and key decide no verdict."""

    def fingerprint(*arguments: Any, **fields: Any) -> str:
        return rl.Recipe(columns=[ROWS, rl.Validate("ok", *arguments, **fields)]).fingerprint

    def odd(n: int) -> bool:
        return n % 2 == 1

    assert fingerprint(check=even) == fingerprint(check=even, max_parallel=3) != fingerprint(check=odd)
    one = fingerprint(url="http://h/1", needs=["n"])
    assert one == fingerprint(url="http://h/1", needs=["n"], timeout=3, api_key_env="K", max_parallel=3)
    assert one != fingerprint(url="http://h/2", needs=["n"])
    assert fingerprint(sql="n > 1") != fingerprint(sql="n > 2")


# Reasons


def is_even(n: int) -> Any:
    """Explain what is wrong."""
    return True if n % 2 == 0 else f"{n} is odd"


async def is_even_later(n: int) -> Any:
    """Return False alone."""
    return n % 2 == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"check": is_even}, "1 is odd"),
        ({"check": is_even_later}, "the check returned False"),
        ({"check": lambda n: n % 2 == 0 or "half \ud800"}, r"half \ud800"),
        ({"sql": "n % 2 = 0"}, "n % 2 = 0 is false"),
        ({"sql": "CASE WHEN n = 0 THEN true END"}, "CASE WHEN n = 0 THEN true END is NULL"),
    ],
)
def test_the_reason_stands_beside_the_verdict(tmp_path: Path, settings: Any, reason: str):
    """Null where the row is valid; in templates, in the table, and after a resume."""
    columns = [
        rl.Seed({"n": [0, 1]}),
        rl.Validate("ok", **settings),
        rl.Expression("line", "{% if not ok %}{{ ok_reason }}{% endif %}"),
    ]
    recipe = rl.Recipe(columns=columns)
    recipe.build(tmp_path, 1, row_group_size=1, progress=False)
    result = recipe.build(tmp_path, 2, row_group_size=1, progress=False, resume="always")
    assert result.to_arrow().column_names == ["n", "ok", "ok_reason", "line"]
    assert values(result) == [True, False]
    assert values(result, "ok_reason") == [None, reason]
    assert values(result, "line") == ["", reason]


def test_the_reason_of_a_remote_validator_stands_beside_the_verdict(server):
    """In its own words."""
    result = made(asking(f"{server.url}/validate"), rows=3)
    assert values(result) == [True, False, True]
    assert values(result, "ok_reason") == [None, "bad 1 will not do", None]


def test_a_validator_that_fails_gives_no_reason():
    """The row is neither valid nor invalid; rows that are dropped have their reason in the failures."""

    def fails(n: int) -> bool:
        raise KeyError(n)

    result = made(rl.Validate("ok", check=fails, on_error="null"), rows=2)
    assert (values(result), values(result, "ok_reason")) == ([None, None], [None, None])
    result = made(rl.Validate("ok", check=is_even, drop_invalid=True), rows=2)
    assert (values(result), values(result, "ok_reason")) == ([True], [None])
    assert result.failures["message"].tolist() == ["1 is odd"]


def test_reasons_are_kept_by_the_journal(tmp_path: Path):
    """With the verdicts, for row groups that are not written yet: no check is repeated."""
    checked: list[int] = []
    reached = threading.Event()
    hang = [3]

    def check(n: int) -> Any:
        checked.append(n)
        return is_even(n)

    async def late(n: int, ok: bool) -> int:  # noqa: FBT001 - a column
        if n in hang:
            reached.set()
            await asyncio.sleep(3600)
        return n * ok

    columns = [rl.Seed({"n": list(range(4))}), rl.Validate("ok", check=check, max_parallel=1), rl.cell(late)]
    run = rl.Recipe(columns=columns).start(tmp_path, progress=False)
    assert reached.wait(20)
    run.cancel()
    assert run.result(20).status == "cancelled"
    hang.clear()
    result = rl.Recipe(columns=columns).build(tmp_path, progress=False, resume="always")
    assert values(result, "ok_reason") == [None, "1 is odd", None, "3 is odd"]
    assert sorted(checked) == list(range(4))
