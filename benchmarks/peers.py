"""How long the peers take for a text column, and what a call costs them, beside bare aiohttp and rowloop in one run.

    python benchmarks/peers.py [--folder FOLDER] [--rounds 3] [--cases latency ...] [--only NAME ...]

Not a part of `make bench`: each peer is installed into a virtual environment of its own, in FOLDER, where they are
found the next time, or in a temporary one. That takes minutes, some 2 GB of disk, and a package index.

The cases are those of pipeline.py that have one text column (`latency`, unless others are asked for), measured as
there. Peers run with their settings as they are, but for the number of requests at once; their telemetry is off. CPU is
that of all threads of the process. A peer that cannot be installed, or run, or that makes less than it was to make, is
given with the reason. Prints JSON.

    data_designer   NVIDIA NeMo DataDesigner: create(), with the profile of the columns that it makes at the end
    curator         Bespoke Curator: an LLM over a list of rows, with its cache of earlier answers off
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from contenders.measuring import Entry, Measured, NotMeasuredError, compare, last_words, pin
from fake_openai import FakeOpenAI
from pipeline import CASES

if TYPE_CHECKING:
    from collections.abc import Iterable

PEERS = {"data_designer": "data-designer", "curator": "bespokelabs-curator"}
COLUMN_CASES = [name for name, case in CASES.items() if case.shape == "column"]
# Both count tokens with a vocabulary that they would download. litellm, on which curator stands, has it with it.
VOCABULARY = "*/lib/python*/site-packages/litellm/litellm_core_utils/tokenizers"


def install(requirement: str, folder: Path) -> Path:
    """Make an environment with a package, if it is not there, and give its Python; raises NotMeasuredError."""
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        _run(sys.executable, "-m", "venv", folder)
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement)
        done.touch()
    return python


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - Python and pip
    if done.returncode:
        raise NotMeasuredError(f"cannot be installed: {last_words(done)}")
    return done.stdout.strip()


def install_all(names: Iterable[str], folder: Path) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    """Install peers; give their Pythons, their versions, and why some have none."""
    pythons, versions, failed = dict[str, Path](), dict[str, str](), dict[str, str]()
    for name in names:
        requirement = PEERS[name]
        try:
            python = install(requirement, folder / name)
            query = f"from importlib.metadata import version; print(version('{requirement}'))"
            versions[name] = _run(python, "-c", query)
        except NotMeasuredError as error:
            failed[name] = str(error)
        else:
            pythons[name] = python
    return pythons, versions, failed


def bench(name: str, pythons: dict[str, Path], rounds: int, core: int | None) -> Measured:
    """Measure a case: what it has of references and rowloop, and the peers with as many requests at once."""
    case = CASES[name]
    reference = next(iter(case.entries))
    ours = {name: entry for name, entry in case.entries.items() if name == reference or entry.contender == "rowloop"}
    peers = {name: Entry(name, ours["rowloop"].in_flight, python) for name, python in pythons.items()}
    with FakeOpenAI(cpu=core) as server:
        return compare(replace(case, entries=ours | peers), server, rounds)


def main() -> None:
    """Install, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the peers are installed, or are to be")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", choices=COLUMN_CASES, default=["latency"])
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        pythons, versions, failed = install_all(options.only, folder)
        for vocabulary in folder.glob(VOCABULARY):
            os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabulary)
        load = os.getloadavg()[0]
        core = pin()
        cases = {name: bench(name, pythons, options.rounds, core) for name in options.cases}
    for case in cases.values():
        case["contenders"] |= {name: {"not_measured": reason} for name, reason in failed.items()}
    result = {
        "benchmark": "peers",
        "rounds": options.rounds,
        "python": platform.python_version(),
        "versions": versions,
        "pinned": core is not None,
        "load_average_before": round(load, 2),
        "cases": cases,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
