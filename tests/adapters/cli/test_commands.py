"""The command line, as processes of its own, against a server over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import yaml

from emulator import Terminal
from fake_openai import FakeOpenAI
from rowloop import Recipe
from rowloop.adapters.cli.commands import main

if TYPE_CHECKING:
    from pathlib import Path

ROWLOOP = ["-m", "rowloop.adapters.cli"]
RECIPE = """
seed: 3
models:
  writer: "openai:fake"
columns:
  - {name: topic, type: category, values: [math, law]}
  - {name: question, type: text, model: writer, prompt: "Ask about {{ topic }}, number {{ price }}."}
  - {name: answer, type: text, model: writer, prompt: "Answer: {{ question }}"}
  - name: grade
    type: structured
    model: writer
    prompt: "Grade: {{ answer }}"
    schema: {type: object, properties: {score: {type: integer}}, required: [score], additionalProperties: false}
  - {name: line, type: expression, template: "{{ topic }}: {{ grade.score }}"}
  - {name: price, type: uniform, low: 1, high: 9, decimals: 3}
"""


@pytest.fixture(scope="module")
def endpoint():
    """Run one server for all tests that only need answers."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    """Give a folder that holds recipe.yaml."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def rowloop(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` and wait for it."""
    return subprocess.run(
        [sys.executable, *ROWLOOP, *map(str, arguments)],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(**changes: str) -> dict[str, str]:
    """Give this process's environment with a key, and without what would point elsewhere."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "COLUMNS", "LINES"))}
    return usual | {"OPENAI_API_KEY": "any", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | changes


@pytest.fixture
def here(folder, monkeypatch, capsys):
    """Carry commands out in this process, which takes a tenth of the time, and give (status, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    def carry_out(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return carry_out


def test_run_makes_the_dataset_and_tells_about_it(folder, endpoint):
    """A recipe becomes a dataset on the disk; a sample, counts, tokens, rate and the path are printed."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out/qa", "-n", 30, "--base-url", endpoint.url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = pq.read_table(folder / "out/qa/data").to_pandas()
    assert list(rows.columns) == ["topic", "question", "answer", "grade", "line", "price"]
    assert len(rows) == 30
    lines = done.stdout.splitlines()
    assert any(rows["answer"][0].split(" ")[0] in line for line in lines)
    assert "the first 8 of 30 rows" in lines
    told = {line[:10].strip(): line[10:] for line in lines[lines.index("the first 8 of 30 rows") + 1 :] if line}
    assert next(iter(told)) == "complete"
    assert re.fullmatch(r"30 of 30 rows in [\d.]+s, [\d.]+ rows/(s|min)", told["complete"])
    assert re.fullmatch(r"[\d,]+ read, [\d,]+ written \([\d,]+/s\) in 90 requests", told["tokens"])
    assert re.fullmatch(r"\w+: 90 answers to 90 requests, p50 [\d.]+ s, p95 [\d.]+ s", told["model"])
    assert re.match(r"(question|answer|grade), row \d+: [\d.]+ s; ", told["slowest"])
    assert lines[-1] == "output    out/qa"


def test_what_it_cost_is_told_where_a_price_is_known(here, folder, endpoint):
    """The recipe's price is that of its own model: one that is put in its place has none."""
    priced = f'{{spec: "openai:fake", base_url: "{endpoint.url}", price: {{prompt: 1, completion: 2}}}}'
    (folder / "priced.yaml").write_text(RECIPE.replace('"openai:fake"', priced), encoding="utf-8")
    status, out, _ = here("preview", "priced.yaml", "-n", 2)
    (read, written), (cost,) = (
        re.findall(r"tokens +([\d,]+) read, ([\d,]+) written", out)[0],
        re.findall(r"cost +\$(.*)", out),
    )
    assert status == 0
    assert float(cost) == pytest.approx((int(read) + 2 * int(written)) / 1e6, abs=0.00006)
    status, out, _ = here("preview", "priced.yaml", "-n", 2, "--model", "writer=openai:other")
    assert status == 0
    assert "$" not in out


def test_run_makes_24_rows_where_none_are_asked_for(folder, endpoint):
    """Without -n a run makes 24 rows; with --quiet it prints nothing."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "--base-url", endpoint.url, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((folder / "out/metadata.json").read_text())["actual_num_records"] == 24


def test_preview_prints_rows_and_writes_nothing(folder, endpoint):
    """A preview prints as many rows as asked for and leaves no file behind."""
    done = rowloop(folder, "preview", "recipe.yaml", "-n", 3, "--base-url", endpoint.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall("^answer ", done.stdout, re.MULTILINE)) == 3
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]


def test_model_and_base_url_replace_the_recipes_model(folder, here, endpoint, monkeypatch):
    """The same recipe runs on another model at another endpoint, with the environment's address or the option's."""
    other = yaml.safe_load(RECIPE) | {"models": {"writer": "local:gemma-3-270m"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(other))
    preview = ["preview", "recipe.yaml", "-n", 2, "--model", "writer=openai:other"]
    endpoint.reset()
    assert here(*preview, "--base-url", endpoint.url)[0] == 0
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    assert here(*preview)[0] == 0
    assert endpoint.counters().requests_by_model == {"other": 12}


def test_seed_replaces_the_recipes(folder, here, endpoint):
    """The same seed draws the same values in every run, another seed others."""

    def prices(name: str, *options: object) -> list[str]:
        where = ["--base-url", endpoint.url, "--quiet"]
        assert here("run", "recipe.yaml", "-o", name, "-n", 20, *where, *options)[0] == 0
        return list(pq.read_table(folder / name / "data").to_pandas()["price"])

    recipes, third, fourth = prices("recipe"), prices("three", "--seed", 3), prices("four", "--seed", 4)
    assert recipes == third
    assert recipes != fourth


def test_schema_is_a_json_schema(folder):
    """The schema command prints JSON that names the parts of a recipe, also into a pipe that is closed early."""
    done = rowloop(folder, "schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["properties"]) >= {"models", "columns", "seed"}
    shell = f"{sys.executable} -m rowloop.adapters.cli schema | head -1"
    piped = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607
    assert (piped.stdout, piped.stderr) == ("{\n", "")


def changed(old: str, new: str) -> str:
    """Give the recipe with a mistake in it."""
    assert old in RECIPE
    return RECIPE.replace(old, new)


MISTAKES = {
    "an unknown column in a template": (changed("{{ topic }},", "{{ topc }},"), [], "'topc'; did you mean 'topic'?"),
    "a circle": (changed("Ask about {{ topic }}", "Ask about {{ answer }}"), [], "question -> answer -> question"),
    "an unknown model": (changed('writer, prompt: "Ans', 'writr, prompt: "Ans'), [], "did you mean 'writer'?"),
    "an unknown field": (changed("values:", "valuess:"), [], "valuess: unknown field; did you mean 'values'"),
    "an unknown type": (changed("type: category", "type: categry"), [], "did you mean 'category'?"),
    "a broken file": ("columns: [", [], "not YAML"),
    "an empty file": ("", [], "not a mapping"),
    "no rows": (RECIPE, ["-n", 0], "--rows: "),
    "rows that are no number": (RECIPE, ["-n", "many"], "Invalid value for -n"),
    "an unknown option": (RECIPE, ["--rowz", 3], "Did you mean --rows?"),
    "a share above one": (RECIPE, ["--min-completion", 2], "--min-completion: "),
    "a row group of nothing": (RECIPE, ["--row-group-size", 0], "--row-group-size: "),
    "a file in the way": (RECIPE, ["-o", "recipe.yaml"], "--output: cannot write to 'recipe.yaml'"),
    "a directory below a file": (RECIPE, ["-o", "recipe.yaml/out"], "--output: cannot write to"),
    "a directory that cannot be made": (RECIPE, ["-o", "/proc/rowloop"], "--output: cannot write to"),
    "a directory of something else": (RECIPE, ["-o", "."], "holds something else (recipe.yaml)"),
    "another's directory, insisting": (RECIPE, ["-o", ".", "--overwrite"], "holds something else (recipe.yaml)"),
    "a model without its name": (RECIPE, ["--model", "writer"], "--model: write ALIAS=PROVIDER:NAME"),
    "a model the recipe has not": (RECIPE, ["--model", "writr=openai:x"], "did you mean 'writer'?"),
    "an unknown provider": (RECIPE, ["--model", "writer=opnai:x"], "did you mean 'openai'?"),
    "an address that is none": (RECIPE, ["--base-url", "nonsense"], "http"),
    "an address for no model": (changed("openai:fake", "local:gemma-3-270m"), [], "--base-url: the recipe has no"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line_before_anything_is_paid_for(folder, endpoint, monkeypatch, capsys, mistake):
    """What is wrong and what to do, on stderr, in one line; status 2; not one request; nothing written."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    text, options, hint = MISTAKES[mistake]
    (folder / "recipe.yaml").write_text(text)
    endpoint.reset()
    usual = {"-o": "out", "--base-url": endpoint.url}
    given = [part for name, value in usual.items() if name not in options for part in (name, value)]
    status = main(["run", "recipe.yaml", *given, *map(str, options)])
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.startswith("rowloop: ")
    assert printed.err.count("\n") == 1
    assert hint in printed.err
    assert endpoint.counters().requests == 0
    assert (folder / "recipe.yaml").read_text() == text


def test_a_missing_key_names_the_variable(folder):
    """Without a key for OpenAI's own endpoint the error says which variable to set, status 2."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", OPENAI_API_KEY="")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_names_the_package_and_the_alternative(folder, here, monkeypatch):
    """Where the model of this process is not installed, the error says what to install and what to use instead."""
    (folder / "recipe.yaml").write_text(changed("openai:fake", "local:gemma-3-270m"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "llama" in name else find(name, *more))
    status, out, err = here("run", "recipe.yaml", "-o", "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'rowloop[local]'" in err
    assert "--model writer=openai:NAME --base-url URL" in err
    assert not (folder / "out").exists()


def test_a_missing_file_and_a_missing_option_are_told(here):
    """A recipe that is not there and a run without -o are usage errors; so is a command that does not exist."""
    for arguments, hint in (
        (["run", "none.yaml", "-o", "out"], "none.yaml"),
        (["run", "recipe.yaml"], "--output"),
        (["rum"], 'Did you mean "run"?'),
    ):
        status, _, err = here(*arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert hint in err


def test_an_unreachable_endpoint_fails_the_run(folder):
    """Nobody listens: status 1, one line that names the address, and no traceback."""
    with FakeOpenAI() as server:
        url = server.url
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "--base-url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert url in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_existing_dataset_is_replaced_only_when_asked(here, endpoint):
    """A second run into the same directory is refused and says --overwrite, which then works."""
    run = ["run", "recipe.yaml", "-o", "out", "-n", 2, "--base-url", endpoint.url, "--quiet"]
    assert here(*run) == (0, "", "")
    status, _, err = here(*run)
    assert status == 2
    assert "--overwrite" in err
    assert here(*run, "--overwrite") == (0, "", "")


def test_dropped_rows_are_in_the_report(folder, here):
    """A run that lost rows succeeds, says so, and names the file; with --min-completion it fails."""
    with FakeOpenAI(fault_400=0.05) as server:
        run = ["run", "recipe.yaml", "-n", 40, "--base-url", server.url]
        done = rowloop(folder, *run, "-o", "out")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"^partial   \d+ of 40 rows", done.stdout, re.MULTILINE)
        assert re.search(r"^failures  \d+ rows dropped, .* see out/failures.parquet$", done.stdout, re.MULTILINE)
        status, out, err = here(*run, "-o", "strict", "--min-completion", 1)
        assert (status, out.count("partial"), err.count("\n")) == (1, 1, 1)
        assert "fewer than --min-completion asks for; strict has them" in err
        quiet = rowloop(folder, *run, "-o", "quiet", "--quiet")
        assert (quiet.returncode, quiet.stdout) == (0, "")
        assert quiet.stderr.startswith("rowloop: WARNING: partial: ")
        assert quiet.stderr.count("partial") == 1


def test_debug_shows_the_traceback(folder, endpoint):
    """With --debug an error comes with its traceback, and with the same status."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "-n", 0, "--base-url", endpoint.url, "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("rowloop: --rows")


def test_ctrl_c_on_a_terminal_leaves_one_line(folder):
    """Ctrl-C ends the run with status 130: the display goes, one line stays, the server sees its clients leave."""
    with FakeOpenAI(latency=30) as server:
        command = [*ROWLOOP, "run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--base-url", server.url]
        with Terminal(command, env=environment()) as window:
            window.wait_until(lambda text: "question" in text and "running" in text)
            server.wait_for(in_flight=1)
            window.child.kill(signal.SIGINT)
            assert window.wait_until_end() == 130
            assert window.visible.splitlines() == [
                "rowloop: interrupted; no row was finished; the same command with --resume goes on"
            ]
        assert server.wait_for(client_disconnects=1).in_flight == 0


def test_ctrl_c_says_what_was_written(folder):
    """After Ctrl-C the rows that were finished are on the disk, and the one line says how many and where."""
    with FakeOpenAI(fault_hang=0.1) as server:
        where = ["-o", "out", "--base-url", server.url, "-n", "20", "--row-group-size", "1"]
        command = [*ROWLOOP, "run", "recipe.yaml", *where]
        with Terminal(command, columns=160, cwd=folder, env=environment()) as window:
            window.wait_until(lambda text: "running" in text and any((folder / "out").glob("data/part-*")))
            window.child.kill(signal.SIGINT)
            assert window.wait_until_end() == 130
        (line,) = window.visible.splitlines()
    rows = pq.read_table(folder / "out/data").num_rows
    assert 0 < rows < 20
    assert line.startswith(f"rowloop: interrupted; {rows} of 20 rows were finished and are in out/data; ")
    assert json.loads((folder / "out/metadata.json").read_text())["status"] == "cancelled"


def test_ctrl_c_before_the_run_tells_of_no_other_runs_rows(folder, here, monkeypatch):
    """What an earlier run has left in the directory is not said to be this one's."""
    (folder / "out").mkdir()
    earlier = {"status": "cancelled", "finished_at": "2020-01-01T00:00:00+00:00", "actual_num_records": 7}
    (folder / "out/metadata.json").write_text(json.dumps(earlier))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "build", interrupt)
    status, _, err = here("run", "recipe.yaml", "-o", "out", "--overwrite")
    assert (status, err) == (130, "rowloop: interrupted; nothing was written\n")


def test_a_run_on_a_terminal_ends_with_the_report_alone(folder):
    """The progress display is there while the run goes on, and gone when the report is printed."""
    with FakeOpenAI(latency=0.3) as server:
        command = [*ROWLOOP, "run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--base-url", server.url]
        with Terminal(command, columns=160, lines=60, env=environment()) as window:
            window.wait_until(lambda text: "question" in text and "running" in text and "%" in text)
            assert window.wait_until_end() == 0
            assert "left" not in window.visible
            assert "running" not in window.visible
            assert "complete  24 of 24 rows" in window.visible
