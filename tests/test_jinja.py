"""Promises: templates get what Hugging Face promises them, and a hostile one gets one line and nothing else."""

from __future__ import annotations

from datetime import datetime

import pytest

from selfplay.prompting.jinja import TemplateError, TemplateRenderer
from tests.families import user

HOSTILE = {
    "attributes of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__.keys() }}",
    "changing the messages": "{{ messages.append(1) }}",
    "a huge string": "{{ 'a' * 10000000000 }}",
    "a huge list": "{{ [1] * 10000000000 }}",
    "a huge number": "{{ 9 ** 99999999 }}",
    "a huge field": "{{ '%1999999999d' % 1 }}",
    "a huge field by filter": "{{ '%1999999999d' | format(1) }}",
    "a huge centre": "{{ 'a' | center(10000000000) }}",
    "a huge centre by method": "{{ 'a'.center(10000000000) }}",
    "a huge range": "{% for i in range(10000000000) %}{{ i }}{% endfor %}",
    "endless output": "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "another file": "{% include '/etc/passwd' %}",
    "an undefined value": "{{ nothing.at.all }}",
    "escape codes": "{{ raise_exception('\x1b[31mred\x07\n\nline\u202e') }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_template_ends_in_one_printable_line(source: str) -> None:
    renderer = TemplateRenderer(source, "evil/model")
    with pytest.raises(TemplateError) as caught:
        renderer.render([user("Hi")], {}, False)
    text = str(caught.value)
    assert text.startswith("evil/model: ")
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for x in y %}", "{% unknown %}"])
def test_template_that_is_no_jinja(source: str) -> None:
    with pytest.raises(TemplateError, match="not valid Jinja") as caught:
        TemplateRenderer(source, "m")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ 'é' | tojson(ensure_ascii=True) }}", '"\\u00e9"'),
        ("{% generation %}a{{ bos_token }}{% endgeneration %}", "a<s>"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ strftime_now('%d %b %Y') }}", "01 Mar 2026"),
        ("  {% if true %}\na\n  {% endif %}\n", "a\n"),
        ("{{ 'a' * 3 }}{{ 2 ** 5 }}{{ '%s-%05d' % ('x', 7) }}", "aaa32x-00007"),
        ("{{ tools is none }}{{ add_generation_prompt }}", "TrueFalse"),
        ("{{ messages[0].content }}{{ messages[0]['role'] }}", "Hiuser"),
    ],
)
def test_what_templates_expect(source: str, expected: str) -> None:
    renderer = TemplateRenderer(source, "m", now=datetime(2026, 3, 1))
    assert renderer.render([user("Hi")], {"bos_token": "<s>"}, False) == expected


def test_now_is_the_same_for_all_prompts_of_a_run() -> None:
    renderer = TemplateRenderer("{{ strftime_now('%f') }}", "m")
    assert renderer.render([], {}, False) == renderer.render([], {}, False) == renderer.now.strftime("%f")
