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
    "{{ '{:>{}}'.format('a', 10**9) }}",
    "{{ '{:>{w}}'.format_map({'w': 10**9, '': 1}) }}",
    "{{ '{:>{0[0]}}'.format([10**9]) }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ ('%.99999f' * 200) % ((1.5,) * 200) }}",
    "{{ ('%(x)s' * 1000) % {'x': 'x' * 10**6} }}",
    "{{ ('{0}' * 1000).format('x' * 10**6) }}",
    r"{{ ('\t' * 10**5).expandtabs(10**5) }}",
    "{{ ('a' * 10**5).translate({97: 'x' * 10**4}) }}",
    "{{ ''.join(['x' * 10**6] * 1000) }}",
    "{{ ['x' * 10**6] * 1000 }}",
    "{{ ['x' * 10**6, 'y']|join('z' * 10**8) }}",
    "{{ (['x' * 10**6] * 9) ~ (['x' * 10**6] * 9) }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 30 + "{{ a == b }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 30 + "{{ a|tojson }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 30 + "{{ a|string|length }}",
    "{{ ([[1] * 1000] * 3000)|sum(start=[]) }}",
    "{{ {'a': [1] * 10**6}|pprint }}",
    "{{ {'a': [1] * 10**6}|tojson(2) }}",
    "{{ (' ' * 10**6 ~ 'x')|wordwrap(10) }}",
    "{{ ('a' * 10**6)|replace('', 'x' * 20) }}",
    "{{ 'x' * 10**6" + " ~ 'x'" * 20 + " }}{{ 1" + " ~ ('x' * 10**6)" * 20 + " }}",
    "{{ range(99999)|map('string')|map('center', 10**4)|list }}",
    "{{ (range(99999)|list * 3)|sort }}",
    "{{ ('<b>x</b>' * 10**5)" + "|striptags" * 20 + "|urlize }}",
]


@pytest.mark.parametrize("source", BOMBS)
def test_a_bomb_ends_as_a_failure_of_its_cell(source):
    """Within a moment of processor time, whether it grows, loops or recurses; a busy machine may slow one of three."""
    render = Template(source, "prompt").renderer()
    took: list[float] = []
    while not took or (min(took) >= 0.25 and len(took) < 3):
        began = time.process_time()
        with pytest.raises(CellError):
            render()
        took.append(time.process_time() - began)
    assert min(took) < 0.25


@pytest.mark.parametrize("times", [17, 10_000])
def test_a_long_value_named_many_times_is_a_bomb(times):
    """Though the template has no loop."""
    render = Template("{{ a }}" * times, "prompt").renderer()
    with pytest.raises(CellError, match="prompt"):
        render("x" * 1_000_000)


@pytest.mark.serial
def test_a_render_has_a_time_limit():
    """Where each step is slow: a search that the count takes for a fast one."""
    source = "{% set a = 'a' * 10**6 %}{% for i in range(40000) %}{{ 'ab' in a }}{% endfor %}"
    began = time.monotonic()
    with pytest.raises(CellError, match=r"^columns\.x\.prompt$") as raised:
        Template(source, "prompt").renderer(column="x")()
    assert "takes more than 2 s" in str(raised.value.__cause__)
    assert time.monotonic() - began < 2.5


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
    sorted_words = Template("{{ a|sort|join(' ') }}", "prompt").renderer()
    assert sorted_words([str(i) for i in range(50_000)]).startswith("0 1 10 100 1000")
    assert Template("{{ a|striptags|wordcount }}", "prompt").renderer()("<b>x</b> " * 100_000) == "100000"
    assert Template("{{ [['a'], ['b', 'c']]|sum(start=[]) }}", "prompt").renderer()() == "['a', 'b', 'c']"
    assert Template("{{ 'Total {:,}'.format(a) }}", "prompt").renderer()(12_345_678) == "Total 12,345,678"
    assert Template("{{ '%s of %*d' % (a, 4, 5) }}", "prompt").renderer()(7) == "7 of    5"
