"""Texts of others reach a terminal without control characters: a server's errors, names, keys, values, paths."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from rich.console import Console

import rowloop as rl
from rowloop.adapters.cli.summary import table
from rowloop.engine.core.errors import printable

ATTACK = "\x1b]0;owned\x07\x1b[31mred\x9b2J\r"
"""Sets the title of a terminal, colours and clears it, and returns to the beginning of the line."""

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def endpoint():
    """Start an endpoint that refuses every request with an error full of escape sequences; return its address."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": {"message": f"no {ATTACK} here", "code": ATTACK}}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def recipe_of(endpoint: str) -> dict[str, object]:
    """Return a recipe whose model, columns and values have escape sequences."""
    model = {"spec": f"openai:{ATTACK}", "base_url": endpoint, "api_key_env": "ESCAPES_KEY"}
    columns = [
        {"name": f"topic {ATTACK}", "type": "category", "values": [f"law {ATTACK}"]},
        {"name": f"answer {ATTACK}", "type": "text", "model": f"writer {ATTACK}", "prompt": "Hi", "on_error": "null"},
    ]
    return {"models": {f"writer {ATTACK}": model}, "columns": columns}


def command(recipe: dict[str, object], folder, *arguments: str) -> str:
    """Run a command on a recipe, and return all that it prints."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    run = [sys.executable, "-m", "rowloop.adapters.cli", *arguments]
    done = subprocess.run(run, cwd=folder, capture_output=True, check=False, timeout=60, env=environment())
    return done.stdout.decode() + done.stderr.decode()


def environment() -> dict[str, str]:
    """Return this process's environment, with a key and the path of its imports."""
    return os.environ | {"ESCAPES_KEY": "any", "PYTHONIOENCODING": "utf-8"}


@pytest.mark.outside
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_command_line_prints_no_control_characters(endpoint, tmp_path, debug):
    """The rows, the report and the log of a run show names, values and the endpoint's text with escapes."""
    printed = command(recipe_of(endpoint), tmp_path, "run", "recipe.yaml", "-o", f"out {ATTACK}", "-n", "2", *debug)
    assert "\\x1b]0;owned\\x07" in printed
    assert "\ufffd" not in printed
    assert CONTROLS.findall(printed) == []


def test_a_table_has_names_and_values_with_the_escapes_that_logs_have():
    """Line breaks stay, tabs are spaces, and what turns the direction of letters is an escape too."""
    values = {"text": f"law {ATTACK}", "dict": {f"key {ATTACK}": "\u202eesrever"}, "lines": "one\n\ttwo", "n": [ATTACK]}
    row, shown = {f"{name} {ATTACK}": value for name, value in values.items()}, io.StringIO()
    Console(file=shown, width=200).print(table([row], 200))
    lines = shown.getvalue()
    for text in ("text", "dict", "lines", "law", "key"):
        assert f"{text} {printable(ATTACK)}" in lines
    assert "\\u202eesrever" in lines
    assert re.search(r"one.*\n.* {4}two", lines)
    assert CONTROLS.findall(lines) == []
    assert "\ufffd" not in lines


@pytest.mark.outside
def test_an_unknown_key_of_a_recipe_file_is_printed_with_escapes(tmp_path):
    """A key that a recipe does not have is quoted in the error, without its control characters."""
    printed = command({f"modles {ATTACK}": {}}, tmp_path, "preview", "recipe.yaml")
    assert "modles \\x1b]0;owned\\x07" in printed
    assert CONTROLS.findall(printed) == []


@pytest.mark.outside
def test_errors_and_logs_in_python_have_no_control_characters(endpoint, monkeypatch):
    """What an endpoint says is in the error of the run and in its log, escaped."""
    monkeypatch.setenv("ESCAPES_KEY", "any")
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("rowloop")
    logger.addHandler(handler)
    try:
        model = rl.Model(f"openai:{ATTACK}", base_url=endpoint, api_key_env="ESCAPES_KEY")
        text = rl.Text(f"a {ATTACK}", model=f"writer {ATTACK}", prompt="Hi")
        recipe = rl.Recipe(models={f"writer {ATTACK}": model}, columns=[text])
        with pytest.raises(rl.DatasetGenerationError) as caught:
            recipe.preview(2, progress=False)
    finally:
        logger.removeHandler(handler)
    assert "no \\x1b]0;owned\\x07" in str(caught.value)
    assert "model     writer \\x1b]0;owned" in log.getvalue()
    assert CONTROLS.findall(str(caught.value) + log.getvalue()) == []


def test_a_record_keeps_the_arguments_that_need_no_escapes():
    """Handlers that look at the arguments of a record find the objects that were logged."""
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger, handler = logging.getLogger("rowloop"), Keep()
    logger.addHandler(handler)
    try:
        logger.warning("%s and %d of %s", ATTACK, 3, ("a", "tuple"))
    finally:
        logger.removeHandler(handler)
    assert seen[0].args == (printable(ATTACK), 3, ("a", "tuple"))
