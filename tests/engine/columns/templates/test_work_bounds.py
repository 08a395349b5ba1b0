"""A template's work is bounded: none can hold up the loop that all cells share."""

from __future__ import annotations

import time

import pytest

from rowloop.engine.columns.templates.template import Template
from rowloop.engine.core.errors import CellError

BOMBS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ ('a' * 10**6) * 10**6 }}",
    "{{ [0] * 10**9 }}",
    "{{ 9**(9**9) }}",
    "{{ 10**(10**6) }}",
    "{{ 'a'|center(10**9) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'|indent(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '%*d'|format(1000000000, 1) }}",
    "{{ '{:1000000000d}'.format(1) }}",
    "{{ range(99999)|map('center', 99999)|join }}",
    "{{ [1]|slice(10**9)|list }}",
    "{{ [1]|batch(10**9, 0)|list }}",
    "{{ [1]|tojson(10**9) }}",
    "{{ ('a' * 10**5)|replace('a', 'a' * 10**5) }}",
    "{{ ('a' * 10**5).replace('a', 'a' * 10**5) }}",
    "{{ ('a' * 10**5).replace('a', 'a' * 10**5, 10**9) }}",
    "{{ ('a' * 10**5).join(['', ''] * 10**5) }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set s = 'a' * 10**6 %}{% for i in range(99999) %}{% set x = s|upper %}{% endfor %}",
    "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{{ lipsum(10**6) }}",
    "{{ range(10**9)|list }}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_a_bomb_ends_as_a_failure_of_its_cell(source):
    """Within a moment of processor time, whether it grows, loops or recurses."""
    render = Template(source, "prompt").renderer()
    began = time.process_time()
    with pytest.raises(CellError):
        render()
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "nested too deeply"),
        ("{{ 1" + "+1" * 20_000 + " }}", "nested too deeply"),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, "nested too deeply"),
        ("{{ 1 }}" * 10_001, "too long for a template"),
        ("x" * 1_000_001, "too long for a template"),
    ],
)
def test_a_source_beyond_reason_is_refused(source, problem):
    """When it is compiled, by name."""
    with pytest.raises(ValueError, match=f"prompt is .*{problem}"):
        Template(source, "prompt")


def test_ordinary_work_is_within_the_bounds():
    """Loops over long values, long texts, and numbers of any use."""
    turns = [{"role": "user", "text": "word " * 50}] * 1000
    line = "{{ loop.index }}/{{ loop.length }} {{ turn.role|upper }}: {{ turn.text|trim }}"
    source = f"{{% for turn in turns %}}{line}\n{{% endfor %}}"
    assert Template(source, "prompt").renderer()(turns).count("\n") == 1000
    assert Template("{{ a|trim }}{{ '-' * 80 }}{{ 2**64 * 3 }}", "prompt").renderer()("x" * 5_000_000)
    assert Template("{{ a|replace('x', 'yy')|length }}", "prompt").renderer()("x" * 100_000) == "200000"
