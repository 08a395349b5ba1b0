"""Templates: Jinja's text, at the cost of a string format where possible; values are text and never code."""

from __future__ import annotations

import hypothesis.strategies as st
import jinja2
import pytest
from hypothesis import given

from rowloop.engine.columns.templates.template import Template
from rowloop.engine.core.errors import CellError

PLAIN = jinja2.Environment(undefined=jinja2.StrictUndefined, finalize=lambda v: "" if v is None else v)  # noqa: S701
PLAIN.filters["upper"] = lambda value: "" if value is None else str(value).upper()  # null is empty text

TEXT = st.text(alphabet="ab %s{}\\'\"\n-#{{}}%(x)d\N{SNOWMAN}", max_size=8)
NAMES = st.sampled_from(["a", "b", "c", "_x", "ünder"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["{{ a }}", "{% raw %}", "%s", "%(a)s", "{a}", "\ud800", "</script>&"]),
)
PARTS = st.lists(
    st.one_of(
        TEXT,
        st.builds("{{{{ {} }}}}".format, NAMES),
        st.builds("{{{{{}}}}}".format, NAMES),
        st.builds("{{{{- {} -}}}}".format, NAMES),
        st.sampled_from(["{# note #}", "{% raw %}{{ a }}{% endraw %}", "{{ a|upper }}", "{% if b %}x{% endif %}"]),
    ),
    max_size=6,
)


@given(PARTS, st.dictionaries(NAMES, VALUES, min_size=5, max_size=5))
def test_rendering_is_jinjas(parts, values):
    """Both ways to render give the same text, and refuse the same templates."""
    source = "".join(parts)
    try:
        expected = PLAIN.from_string(source).render(values)
    except jinja2.TemplateSyntaxError:
        with pytest.raises(ValueError, match="prompt is not a template"):
            Template(source, "prompt")
        return
    template = Template(source, "prompt")
    assert set(template.needs) <= set(values)
    assert template.renderer()(*[values[need] for need in template.needs]) == expected


def test_needs_are_the_variables_in_the_order_of_their_first_use():
    """Each once; loop variables, names that are set, and Jinja's own functions are not needs."""
    source = "{{ b }}{{ a.x }}{% for i in c %}{{ i }}{{ loop.index }}{% endfor %}{% set d = a %}{{ d }}{{ range(2) }}"
    assert Template(source, "prompt").needs == ("b", "a", "c")


def test_a_template_without_variables_is_text():
    """A percent sign in it stays one."""
    template = Template("100 % {# sure #}", "prompt")
    assert template.needs == ()
    assert template.renderer()() == "100 % "


@pytest.mark.parametrize("source", ["{{ a }}", "{{ a }}!{{ a }}", "{{ a|upper }}"])
@pytest.mark.parametrize("value", ["{{ 7 * 7 }}", "{% for x in y %}", "{{ a.__class__ }}", "{{"])
def test_a_value_that_looks_like_a_template_stays_text(source, value):
    """It is never evaluated, not even once."""
    assert value.upper() in Template(source, "prompt").renderer()(value).upper()


@pytest.mark.parametrize(
    "source",
    [
        "{{ a.__class__.__mro__ }}",
        "{{ a['__class__'] }}",
        "{{ a|attr('__class__') }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ a.append(1) }}",
        "{{ a.clear() }}",
        "{{ lipsum.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% set x = a.extend([1]) %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(source):
    """Not through attributes, not through Jinja's own objects, and a column's value cannot be changed."""
    value = [1, 2]
    template = Template(source, "prompt")
    with pytest.raises(CellError, match="the template does not fit these values"):
        template.renderer()(*[value for _ in template.needs])
    assert value == [1, 2]


def test_an_undefined_part_of_a_value_is_an_error_of_the_cell():
    """A missing key is not silently empty."""
    render = Template("{{ a.x }}", "prompt").renderer()
    assert render({"x": 1}) == "1"
    with pytest.raises(CellError) as raised:
        render({"y": 1})
    assert isinstance(raised.value.__cause__, jinja2.UndefinedError)


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


@pytest.mark.parametrize("source", ["{{ a }}", "{{ a }}{{ a }}", "{{ a|string }}"])
@pytest.mark.parametrize("value", [Unspeakable(), 10**5000], ids=["raises", "too long"])
def test_a_value_that_cannot_be_written_is_an_error_of_the_cell(source, value):
    """Not of the engine, whichever way the template is rendered."""
    with pytest.raises(CellError):
        Template(source, "prompt").renderer()(value)


@pytest.mark.parametrize(
    ("source", "line"), [("{{ a", 1), ("{% if %}", 1), ("\n{{ a }", 2), ("{{ a b }}", 1), ("{{ a|no }}", 1)]
)
def test_an_invalid_template_is_refused_with_field_and_line(source, line):
    """When it is compiled."""
    with pytest.raises(ValueError, match=rf"prompt is not a template: .*\(line {line}\)"):
        Template(source, "prompt")


def test_a_long_value_is_rendered():
    """Ten megabytes of text."""
    assert len(Template("<{{ a }}>", "prompt").renderer()("x" * 10_000_000)) == 10_000_002
