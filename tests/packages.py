"""Packages of others, written to a directory as pip would install them, and the programs that use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[1] / "src"


def write_package(folder: Path, module: str, source: str, entries: dict[str, dict[str, str]]) -> None:
    """Install a distribution of one module, with its entry points by group, into a directory."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(source, "utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    name = module.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(groups), "utf-8")
    (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n", "utf-8")


def run_with(folder: Path, program: str, *arguments: object) -> Any:
    """Run a program in a process that finds the packages of a directory; return the JSON that it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(SOURCES)])}
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
