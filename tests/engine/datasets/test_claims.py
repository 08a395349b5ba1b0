"""Claims: who may work in a directory, by pure rules, between processes, and when a process stops for long."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

import rowloop as rl
from rowloop.engine.datasets import claim_files, processes
from rowloop.engine.datasets.claim_files import STALE, ClaimFile, Held, Seen, Watch, take
from rowloop.engine.datasets.directory import make_directory
from rowloop.engine.datasets.processes import Process, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fake_openai import FakeOpenAI

ELSEWHERE = Process("another", "boot", 1, "2")


def seen(number: int = 1, beats: int = 0, *, free: bool = False) -> Seen:
    """Give a look at a claim of another machine."""
    claim = ClaimFile("t", ELSEWHERE, "now", beats=beats, free=free)
    return Seen(number, msgspec.json.encode(claim), claim)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a directory that can be claimed."""
    make_directory(tmp_path)
    return tmp_path


def no_wait(_: float) -> None:
    """Fail: nothing is to be waited for."""
    pytest.fail("waited")


def claimed_elsewhere(place: Path, **changes: Any) -> Path:
    """Have a process of another machine claim the directory; return its file."""
    file = place / ".rowloop/claims/000001.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(ClaimFile("t", ELSEWHERE, "now"), **changes)))
    return file


# The rules


def test_a_free_or_dead_claim_is_free_at_once():
    """So is a directory without one."""
    assert Watch().look(None, 0.0, gone=False) == "free"
    assert Watch().look(seen(free=True), 0.0, gone=False) == "free"
    assert Watch().look(seen(), 0.0, gone=True) == "free"


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=60))
def test_a_claim_is_stale_only_after_ten_seconds_without_a_change(looks: list[tuple[float, int]]):
    """Any change makes it live, at once and for good; the clock of the claim's machine does not matter."""
    watch, now, first = Watch(), 1000.0, looks[0][1]
    for step, beats in looks:
        now += step
        verdict = watch.look(seen(beats=beats), now, gone=False)
        if beats != first:
            assert verdict == "live"
        else:
            assert verdict == ("stale" if now - (1000.0 + looks[0][0]) >= STALE else "unknown")


def test_a_claim_that_cannot_be_read_is_waited_for():
    """A kill left it empty, say."""
    watch, broken = Watch(), Seen(1, b"", None)
    assert watch.look(broken, 0.0, gone=False) == "unknown"
    assert watch.look(broken, STALE, gone=False) == "stale"


# Taking a directory


def test_a_claim_of_another_machine_is_taken_over_after_ten_seconds(place: Path):
    """A sentence says what is waited for; who takes over is not sure that the other has ended."""
    claimed_elsewhere(place)
    now, said = [0.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    held = take(place, said.append, clock=lambda: now[0], sleep=sleep)
    assert (held.number, held.sure) == (2, False)
    assert STALE <= now[0] < STALE + 1
    (sentence,) = said
    assert "is claimed by process 1 on another, since now; waiting up to 10 s for a sign of it" in sentence
    assert [file.name for file in (place / ".rowloop/claims").iterdir()] == ["000002.json"]


def test_a_claim_that_shows_a_heartbeat_is_live(place: Path):
    """The error names the process."""
    claimed_elsewhere(place)
    with pytest.raises(rl.ResumeError, match=r"is in use by another run \(process 1 on another, since now\)"):
        take(place, lambda _: None, clock=time.monotonic, sleep=lambda _: claimed_elsewhere(place, beats=1))


def test_a_claim_of_a_dead_process_is_taken_over_at_once(place: Path):
    """Of this machine and boot; a later process of the same number is another one."""
    here = this_process()
    claimed_elsewhere(place, process=msgspec.structs.replace(here, started="1"))
    held = take(place, pytest.fail, sleep=no_wait)
    assert (held.number, held.sure) == (2, True)
    with pytest.raises(rl.ResumeError, match=rf"process {os.getpid()} on this machine"):
        take(place, pytest.fail, sleep=no_wait)
    held.release()
    assert take(place, pytest.fail, sleep=no_wait).number == 3


def test_a_process_of_another_container_is_not_taken_for_a_dead_one(monkeypatch: pytest.MonkeyPatch):
    """It has the same boot, and perhaps the same host name, but its numbers mean other processes."""
    other = msgspec.structs.replace(this_process(), pid=2**22 - 1)
    assert other.is_gone
    monkeypatch.setattr(processes, "_boot", lambda: "the same boot, another namespace")
    assert not other.is_gone


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_take_a_directory_at_once_one_has_it(place: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool):
    """Also on a file system without hard links."""
    if not links:
        monkeypatch.setattr(claim_files.os, "link", lambda *_: (_ for _ in ()).throw(OSError("not supported")))
    start, won, refused = threading.Barrier(8), list[Held](), list[Exception]()

    def race() -> None:
        start.wait()
        try:
            won.append(take(place, lambda _: None))
        except rl.ResumeError as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(won), len(refused)) == (1, 7)
    assert all("is in use by another run" in str(error) for error in refused)


def test_a_claim_that_was_taken_over_says_so_at_the_next_heartbeat(place: Path):
    """Also where the one that took over has been followed by another."""
    held = take(place, pytest.fail)
    held.beat()
    for number in (2, 3):
        assert Held(place, number, sure=False).make()
        with pytest.raises(rl.DatasetGenerationError, match="another run has taken over"):
            held.beat()
        with pytest.raises(rl.DatasetGenerationError, match="another run has taken over"):
            held.check()
    held.release()
    assert [file.name for file in (place / ".rowloop/claims").iterdir()] == ["000003.json"]


def test_what_a_killed_run_had_half_written_is_removed_by_the_next(place: Path):
    """Also where nothing is left to do; what another process is about to leave in control/ stays."""
    recipe = rl.Recipe(columns=[rl.Uniform("u")], seed=1)
    recipe.build(place, 3, progress=False)
    for name in (".progress.json.tmp", "claims/.000001.json.3d4c.tmp", "control/.1.json.5b6a.tmp"):
        file = place / ".rowloop" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("{")
    recipe.build(place, 3, progress=False, resume="always")
    assert [file.name for file in place.rglob(".*.tmp")] == [".1.json.5b6a.tmp"]


# Processes

RACER = """
import sys
import rowloop as rl

recipe = rl.Recipe(columns=[rl.Uniform("u")], seed=1)
for line in sys.stdin:
    try:
        run = recipe.start(line.strip(), 3, progress=False, observers=[])
    except rl.RowloopError as error:
        print(type(error).__name__, error, flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
        run.result()
        print("ended", flush=True)
"""


def races(folder: Path, count: int) -> None:
    """Have four processes start a run in the same new directory, that many times."""
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    with contextlib.ExitStack() as stack:
        for racer in racers:
            stack.enter_context(racer)
            stack.callback(racer.kill)
        for number in range(count):
            for racer in racers:
                print(folder / str(number), file=racer.stdin, flush=True)
            said = [str(racer.stdout and racer.stdout.readline()) for racer in racers]
            assert sorted(line.startswith("won") for line in said) == [False, False, False, True], said
            for racer, line in zip(racers, said, strict=True):
                if line.startswith("won"):
                    print(file=racer.stdin, flush=True)
                    assert racer.stdout is not None
                    assert racer.stdout.readline() == "ended\n"
                else:
                    assert "is in use by another run" in line or "has a dataset already" in line


@pytest.mark.outside
def test_of_four_processes_one_gets_the_directory(tmp_path: Path):
    """The others are refused clearly."""
    races(tmp_path, 5)


@pytest.mark.outside
@pytest.mark.stress
@pytest.mark.timeout(300)
def test_of_four_processes_one_gets_the_directory_each_time(tmp_path: Path):
    """Fifty times."""
    races(tmp_path, 50)


@contextlib.contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process in the end, however the test ends."""
    try:
        yield
    finally:
        process.kill()


SLEEPER = """
import sys
import rowloop as rl

model = rl.Model("openai:m", base_url=sys.argv[2], max_parallel=4)
recipe = rl.Recipe(models={"m": model}, columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")], seed=1)
try:
    recipe.build(sys.argv[1], 60, progress=False, row_group_size=4)
except rl.DatasetGenerationError as error:
    print(error)
    sys.exit(9)
"""


@pytest.mark.outside
@pytest.mark.timeout(90)
def test_a_run_that_was_stopped_for_long_ends_and_changes_nothing(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another run takes over once it is stale, and finishes; the first one wakes, and leaves everything as it is."""
    monkeypatch.setattr(claim_files, "STALE", 3.0)
    server.configure(latency=0.2, reply="echo")
    order = [sys.executable, "-c", SLEEPER, str(tmp_path / "out"), server.url]
    with subprocess.Popen(order, stdout=subprocess.PIPE, text=True) as sleeper, killed(sleeper):
        server.wait_for(answered=12, timeout=20)
        os.kill(sleeper.pid, signal.SIGSTOP)
        (claimed,) = (tmp_path / "out/.rowloop/claims").glob("*.json")
        os.utime(claimed, (0, 0))  # it has just shown a sign, and would be refused at once
        model = rl.Model("openai:m", base_url=server.url, max_parallel=4)
        columns = [rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")]
        recipe = rl.Recipe(models={"m": model}, columns=columns, seed=1)
        begun = time.monotonic()
        result = recipe.build(tmp_path / "out", 60, resume="always", progress=False)
        assert time.monotonic() - begun > 2
        assert (result.status, result.actual) == ("complete", 60)
        before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
        os.kill(sleeper.pid, signal.SIGCONT)
        said, _ = sleeper.communicate(timeout=30)
        assert (sleeper.returncode, "another run has taken over" in said) == (9, True)
        assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
        assert recipe.build(tmp_path / "out", 60, resume="always", progress=False).to_arrow() == result.to_arrow()


def test_a_backup_made_while_the_run_writes_changes_nothing(tmp_path: Path):
    """It opens and closes every file of the directory in the run's own process, which loses POSIX locks."""
    out = tmp_path / "out"
    refused = list[str]()
    other = (
        f"import rowloop as rl; rl.Recipe(columns=[rl.Uniform('u')], seed=1).build({str(out)!r}, 8, resume='always')"
    )

    def backup(part: Any) -> None:
        shutil.copytree(out, tmp_path / f"backup-{part.row_group}")
        if part.row_group == 1:
            second = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
            refused.append(second.stderr.splitlines()[-1])

    recipe = rl.Recipe(columns=[rl.Uniform("u")], seed=1)
    result = recipe.build(out, 8, row_group_size=2, progress=False, on_part=backup)
    assert result.actual == 8
    (error,) = refused
    assert "is in use by another run" in error
    copy = recipe.build(tmp_path / "backup-3", 8, resume="always", progress=False)
    assert copy.to_arrow() == result.to_arrow()
