"""What a template writes of a value: data, keys before attributes, null as nothing, and any column by its name."""

from __future__ import annotations

import datetime as dt

import pytest

from rowloop.engine.columns.templates.template import Template
from rowloop.engine.core.errors import CellError


def rendered(source, **columns):
    """Render a template over named values."""
    template = Template(source, "prompt")
    return template.renderer()(*[columns[need] for need in template.needs])


def refusal(source, **columns):
    """Return why a template does not render."""
    with pytest.raises(CellError) as raised:
        rendered(source, **columns)
    return str(raised.value.__cause__)


@pytest.mark.parametrize("key", ["items", "keys", "values", "get", "update", "pop", "copy"])
@pytest.mark.parametrize(
    "source", ["{{{{ order.{} }}}}", "{{{{ order['{}'] }}}}", "{{{{ [order]|map(attribute='{}')|join }}}}"]
)
def test_a_key_takes_precedence_over_a_method(source, key):
    """However it is looked up."""
    assert rendered(source.format(key), order={key: "2 apples"}) == "2 apples"


def test_a_method_can_still_be_called():
    """Also where a key has its name."""
    source = "{% for k, v in order.items() %}{{ k }}={{ v }};{% endfor %}"
    assert rendered(source, order={"items": 1, "b": 2}) == "items=1;b=2;"
    assert rendered("{{ a.upper() }}{{ d.year }}", a="x", d=dt.date(2026, 1, 1)) == "X2026"


@pytest.mark.parametrize(
    "source", ["{{ a.items }}", "{{ a.keys ~ '' }}", "{% set f = a.values %}{{ f }}", "{{ [a.get]|join }}"]
)
def test_a_method_is_never_text(source):
    """It is an error of the template that names the path."""
    assert "is a method of a dict, not data" in refusal(source, a={})


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ a|map('upper') }}", "add | list or | join"),
        ("{% macro m() %}{% endmacro %}{{ m }}", "m is a function, not data"),
        ("{{ cycler('x') }}", "is a tool of templates"),
        ("{% for i in a %}{{ loop }}{% endfor %}", "not data"),
    ],
)
def test_only_data_is_written(source, problem):
    """Python's description of an object, with its address, reaches no prompt."""
    assert problem in refusal(source, a=["x"])


@pytest.mark.parametrize(
    "name", ["range", "dict", "loop", "namespace", "cycler", "lipsum", "joiner", "self", "row", "caller", "context"]
)
def test_a_column_may_have_any_name_of_jinjas(name):
    """Its value is written, alone and in an expression."""
    assert rendered(f"{{{{ {name} }}}}", **{name: "v"}) == "v"
    assert rendered(f"{{{{ {name}.x|upper }}}}", **{name: {"x": "v"}}) == "V"


def test_a_column_named_range_leaves_the_function():
    """A name that is called is the function."""
    source = "{{ range }}: {% for i in range(3) %}{{ i }}{% endfor %}"
    assert rendered(source, range="r") == "r: 012"


@pytest.mark.parametrize("name", ["my column", "a-b", "1st", "none", "true", "if", "Größe (cm)", "a.b", "self"])
def test_row_reaches_a_column_whose_name_is_no_variable(name):
    """Its name is a need like any other."""
    source = f"{{{{ row[{name!r}] }}}}/{{{{ row[{name!r}].x|d('-') }}}}"
    assert Template(source, "prompt").needs == (name,)
    assert rendered(source, **{name: "v"}) == "v/-"


def test_row_may_be_a_variable_or_a_column():
    """A loop variable hides it, and a column called row is read by its name or by row["row"]."""
    assert rendered("{% for row in table %}{{ row['x'] }}{% endfor %}", table=[{"x": 1}, {"x": 2}]) == "12"
    assert rendered("{{ row.x }}{{ row[0]|d('-') }}{{ row['row'].x }}", row={"x": 1}) == "1-1"


def test_null_is_empty_text():
    """In a prompt, in an expression, and through the filters of text."""
    assert rendered("<{{ a }}>", a=None) == "<>"
    assert rendered("<{{ a.b }}{{ a.b ~ '!' }}>", a={"b": None}) == "<!>"
    for name in ("upper", "string", "trim", "title", "replace('o', 'x')", "truncate(3)", "indent"):
        assert rendered(f"<{{{{ a|{name} }}}}>", a=None) == "<>"
    assert rendered("{{ a|join(',') }}", a=["x", None, "y"]) == "x,,y"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ a.itms }}", "a.itms is missing; did you mean 'items'?"),
        ("{{ a['itms'] }}", "a['itms'] is missing; did you mean 'items'?"),
        ("{{ a.sub.nam }}", "a.sub.nam is missing; did you mean 'name'?"),
        ("{{ a.no.x }}", "a.no.x is missing, because the value before it is null"),
        ("{{ a.lines[3] }}", "a.lines[3] is missing in this list"),
        ("{{ row['a'].itms }}", "row['a'].itms is missing; did you mean 'items'?"),
    ],
)
def test_a_missing_key_is_named_with_its_path_and_the_nearest(source, problem):
    """The failure of the cell has it."""
    value = {"items": 1, "sub": {"name": 1}, "no": None, "lines": [1]}
    assert refusal(source, a=value) == problem


def test_reading_on_is_what_jinja_does():
    """`is defined` and `default` handle a key that is missing."""
    assert rendered("{{ a.x|d('-') }}{{ 'y' if a.y is defined else 'n' }}{{ a.get('z', 0) }}", a={}) == "-n0"
