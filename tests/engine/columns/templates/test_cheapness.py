"""A template is rendered on the loop only if its work is linear in the row's values."""

from __future__ import annotations

import pytest

from rowloop.engine.columns.templates.template import Template

CHEAP = [
    "",
    "text",
    "{{ a }} and {{ b }}",
    "{{ a.b['c'][0] }} {{ row['a column'] }}",
    "{{ text[:500]|trim|upper }}",
    "{% if a is defined and b > 3 %}{{ a }}{% elif 'x' in a %}x{% else %}{{ c|default(d) }}{% endif %}",
    "{% if a in ['x', 'y'] %}{{ a }}{% endif %}",
    "{{ a * 2 + b / 3 }}{{ -a }}{{ a ~ ': ' ~ b }}",
    "{{ tags|join(', ') }} {{ people|join(', ', attribute='name') }}",
    "{{ '%.2f'|format(price) }}{{ a|length }}{{ a|replace('x', 'y') }}{{ a|truncate(50) }}",
    "{{ options|random }}",
    " ".join(f"{{{{ order.field_{i}|default('') }}}}" for i in range(300)),
    "{{ a }}" * 16,
    "{{ a" + "|trim" * 32 + " }}",
]
FILTERS = [
    *("batch(3)", "dictsort", "forceescape", "groupby('x')", "list", "map('upper')", "min", "pprint", "select"),
    *("slice(3)", "sort", "striptags", "sum", "title", "tojson", "unique", "urlencode", "urlize", "wordcount"),
    *("wordwrap", "xmlattr"),
]
COSTLY = [
    *(f"{{{{ a|{name} }}}}" for name in FILTERS),
    "{% for turn in turns %}{{ turn }}{% endfor %}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ a }}",
    "{% call m() %}{% endcall %}",
    "{{ range(10) }}",
    "{{ a.upper() }}",
    "{{ lipsum(1) }}",
    "{{ [a, b] }}",
    "{{ {'a': a} }}",
    "{% set x = a %}{{ x }}",
    "{% filter sort %}{{ a }}{% endfilter %}",
    "{{ a|format(b) }}",
    "{{ a|replace('x', b) }}",
    "{{ a|join(b) }}",
    "{{ a|join(*b) }}",
    "{{ a }}" * 17,
    "{{ order.a }}" * 17,
    "{{ a" + "|trim" * 33 + " }}",
    "{{ a|replace('x', '" + "y" * 201 + "') }}",
    *(
        f"{{{{ a|{name} }}}}"
        for name in ("sort", "groupby('x')", "unique", "map('upper')", "select", "tojson", "pprint")
    ),
]


@pytest.mark.parametrize("source", CHEAP)
def test_what_is_linear_in_the_values_is_cheap(source):
    """Prompts as most people write them."""
    assert not Template(source, "prompt").costly


@pytest.mark.parametrize("source", COSTLY)
def test_what_can_be_more_than_linear_is_costly(source):
    """It loops, calls, makes lists, sorts or parses; or makes much of one value."""
    if "{% call" in source:
        source = "{% macro m() %}{% endmacro %}" + source
    assert Template(source, "prompt").costly
