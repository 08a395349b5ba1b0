"""Names that stand for things outside the engine: those of packages that are installed, as their metadata has them."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rowloop as rl
from packages import write_package
from rowloop.engine.core.registry import Registry
from rowloop.engine.models.provider import providers

if TYPE_CHECKING:
    from collections.abc import Callable

    Install = Callable[..., Path]

GUIDE = (Path(__file__).parents[3] / "docs/providers.md").read_text("utf-8")


def block(language: str) -> str:
    """Give the one block of docs/providers.md that is in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module where Python finds it, as pip would."""

    def install(module: str, source: str, entries: dict[str, dict[str, str]]) -> Path:
        write_package(tmp_path, module, source, entries)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, module, raising=False)
        assert rl.Recipe  # whoever is first to use a public name registers our own providers
        monkeypatch.setattr(providers, "_known", dict(vars(providers)["_known"]))
        importlib.invalidate_caches()
        return tmp_path

    return install


def recipe(spec: str) -> rl.Recipe:
    """Ask a model with each of two words."""
    columns = [rl.Category("word", values=["hello", "bye"]), rl.Text("said", model="m", prompt="{{ word }} you")]
    return rl.Recipe(models={"m": rl.Model(spec, max_tokens=9)}, columns=columns, seed=7)


def test_the_provider_of_the_documents_works_once_its_package_is_installed(install: Install):
    """Its module and its entry point are those of docs/providers.md; it answers, and its tokens are counted."""
    entries = tomllib.loads(block("toml"))["project"]["entry-points"]
    install("rowloop_shout", block("python"), entries)
    result = recipe("shout:louder").preview(4)
    assert result.status == "complete"
    assert set(result.dataset["said"]) <= {"HELLO YOU!!!", "BYE YOU!!!"}
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.cost) == (8, 8, None)
    assert recipe("shout:loud").preview(4).usage.cost == pytest.approx(8 * 1e-6 + 8 * 2e-6)
    with pytest.raises(rl.RecipeError, match=r"Model\('shout:softly'\): there is shout:loud, and shout:louder"):
        recipe("shout:softly").preview(1)


def test_an_unknown_provider_is_refused_with_the_nearest_of_all_that_there_are(install: Install):
    """Those of packages count as well as our own."""
    install("rowloop_shout", block("python"), {"rowloop.models": {"shout": "rowloop_shout:provider"}})
    with pytest.raises(rl.RecipeError, match=r"unknown model provider 'shuot'; did you mean 'shout'\?"):
        recipe("shuot:loud").preview(1)
    with pytest.raises(rl.RecipeError, match=r"unknown model provider 'antropic'; did you mean 'anthropic'\?"):
        recipe("antropic:claude").preview(1)


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        ("import there_is_no_such_module", "rowloop_broken:provider", "No module named 'there_is_no_such_module'"),
        ("other = 1", "rowloop_broken:provider", "has no attribute 'provider'"),
        ("raise RuntimeError('no licence')", "rowloop_broken:provider", "no licence"),
    ],
)
def test_a_provider_that_cannot_be_loaded_is_reported_with_its_package(install: Install, source, target, problem):
    """What it raised is in the message, and is the cause."""
    install("rowloop_broken", source, {"rowloop.models": {"broken": target}})
    message = rf"'broken' of the package rowloop-broken cannot be loaded \(rowloop_broken:provider\): .*{problem}"
    with pytest.raises(rl.RecipeError, match=message) as caught:
        recipe("broken:x").preview(1)
    assert caught.value.__cause__ is not None


def test_our_own_names_go_before_those_of_packages(install: Install):
    """Nobody takes over `python` by being installed."""
    install("rowloop_shout", block("python"), {"rowloop.models": {"python": "rowloop_shout:provider"}})
    assert type(providers.get("python")).__name__ == "CallableProvider"


def test_a_name_is_loaded_once(install: Install):
    """The second time, no package is searched."""
    install("rowloop_once", "made = []\nthing = object()", {"rowloop.things": {"one": "rowloop_once:thing"}})
    things: Registry[object] = Registry("thing", entry_points="rowloop.things")
    first = things.get("one")
    (Path(sys.path[0]) / "rowloop_once-1.0.dist-info" / "entry_points.txt").unlink()
    assert things.get("one") is first


def test_packages_are_searched_once(install: Install, monkeypatch: pytest.MonkeyPatch):
    """For all names that they have; a search reads the metadata of everything that is installed."""
    entries = dict.fromkeys(("one", "two", "three"), "rowloop_some:thing")
    install("rowloop_some", "thing = object()", {"rowloop.things": entries})
    searched: list[str] = []
    search = importlib.metadata.entry_points

    def counted(*, group: str) -> importlib.metadata.EntryPoints:
        searched.append(group)
        return search(group=group)

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    things: Registry[object] = Registry("thing", "rowloop.things")
    things.register("ours", object())
    assert things.get("ours") is not None
    assert searched == []
    assert things.names() == ["ours", "one", "three", "two"]
    assert things.get("one") is things.get("two") is things.get("three")
    assert searched == ["rowloop.things"]


def test_a_package_that_is_installed_later_is_found(install: Install):
    """As in a notebook: a name that was not found is searched for again."""
    things: Registry[object] = Registry("thing", "rowloop.things")
    with pytest.raises(rl.RecipeError, match=r"^unknown thing 'late'; none is defined$"):
        things.get("late")
    install("rowloop_late", "thing = 5", {"rowloop.things": {"late": "rowloop_late:thing"}})
    assert things.get("late") == 5


def test_a_thing_that_does_not_pass_the_check_is_refused_with_its_package(install: Install):
    """Each time it is named; our own are not checked."""

    def check(name: str, thing: object) -> None:
        if not isinstance(thing, str):
            raise TypeError(f"{name} is {thing!r}")

    install("rowloop_number", "thing = 5", {"rowloop.things": {"five": "rowloop_number:thing"}})
    things: Registry[object] = Registry("thing", "rowloop.things", check)
    for _ in range(2):
        with pytest.raises(rl.RecipeError, match=r"the thing 'five' of the package rowloop-number .*: five is 5$"):
            things.get("five")
    things.register("six", 6)
    assert things.get("six") == 6
