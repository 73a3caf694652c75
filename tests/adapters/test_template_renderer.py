"""Templates that came with an adapter: the same text as here, stopped when hostile, and nobody held by them."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.chat_format import HUMAN_ASSISTANT_TEMPLATE, ChatFormat, RenderOptions
from adapters.errors import ChatFormatError, ChatTemplateBusy, ChatTemplateOverrun
from adapters.rendering import Rendering, render_here
from adapters.template_renderer import MAX_PROCESSES, RENDER_SECONDS, TemplateRenderer
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

HOSTILE = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long string": "{{ 'a' * 10**9 }}",
    "a padded string": "{{ 'a'.rjust(10**10) }}",
    "a formatted string": "{{ '%1000000000d' % 1 }}",
    "a filter": "{{ 'x' | center(10**10) }}",
    "bytes": "{{ (1).to_bytes(10**9) }}",
    "a macro that calls itself": "{% macro m(n) %}{% if n %}{{ m(n-1) ~ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "lists": "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = [n.x] * 2 %}{% endfor %}{{ n.x }}",
    "indentation": "{{ messages | tojson(indent=10**9) }}",
}
REFUSED = {
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "endless recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "deep parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "too long a text": "{{ 'a' * (17 * 1024 * 1024) }}",
    "a way out": "{{ cycler.__init__.__globals__ }}",
    "its own words": "{{ raise_exception('no') }}",
}
LOOP = HOSTILE["nested loops"]


@pytest.fixture
def renderer() -> Iterator[TemplateRenderer]:
    made = TemplateRenderer(trusted={HUMAN_ASSISTANT_TEMPLATE})
    yield made
    made.close()


def _rendering(template: str, content: str = "hello") -> Rendering:
    return Rendering(
        template=template,
        messages=[{"role": "user", "content": content}],
        tools=(),
        variables={"eos_token": "</s>"},
        add_generation_prompt=True,
        continue_final_message=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(),
        RenderOptions(tools=({"type": "function", "function": {"name": "f", "parameters": {"a": [1, 2.5, None]}}},)),
        RenderOptions(variables={"tone": "é下\ud800"}),
        RenderOptions(add_generation_prompt=False, continue_final_message=True),
    ],
)
def test_the_text_is_that_of_this_process(renderer: TemplateRenderer, options: RenderOptions) -> None:
    chat_format = ChatFormat(
        template=CHAT_TEMPLATE + "{{ tone }}{{ tools | tojson }}{{ eos_token }}", system_prompt="S"
    )
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "x": None},
    ]
    here = chat_format.render(messages, tiny_tokenizer(), options)
    assert chat_format.render(messages, tiny_tokenizer(), options, renderer=renderer) == here


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_template_is_stopped(renderer: TemplateRenderer, template: str) -> None:
    renderer(_rendering(CHAT_TEMPLATE))  # a process has started
    start = time.monotonic()
    with pytest.raises(ChatTemplateOverrun):
        renderer(_rendering(template))
    assert time.monotonic() - start < 2 * RENDER_SECONDS
    assert renderer(_rendering(CHAT_TEMPLATE)) == "user> hello\nassistant> "


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED.keys())
def test_a_template_that_fails_is_refused_by_its_own_words(renderer: TemplateRenderer, template: str) -> None:
    with pytest.raises(ChatFormatError, match=r"^messages: the chat template ") as error:
        renderer(_rendering(template))
    assert not isinstance(error.value, ChatTemplateOverrun)


def test_a_template_that_was_stopped_is_left_alone_for_a_while(renderer: TemplateRenderer) -> None:
    template = "{% if messages[0].content == 'go' %}" + LOOP + "{% endif %}fine"
    assert renderer(_rendering(template)) == "fine"
    with pytest.raises(ChatTemplateOverrun):
        renderer(_rendering(template, "go"))
    start = time.monotonic()
    with pytest.raises(ChatTemplateOverrun, match="a moment ago"):
        renderer(_rendering(template))
    assert time.monotonic() - start < 0.1
    assert renderer(_rendering(template + " too")) == "fine too"


def test_others_do_not_wait_for_long_and_trusted_ones_not_at_all(renderer: TemplateRenderer) -> None:
    errors: list[ChatFormatError] = []

    def render(template: str) -> None:
        try:
            renderer(_rendering(template))
        except ChatFormatError as error:
            errors.append(error)

    threads = [threading.Thread(target=render, args=(LOOP + str(index),)) for index in range(MAX_PROCESSES * 4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    assert renderer(_rendering(HUMAN_ASSISTANT_TEMPLATE)) == render_here(_rendering(HUMAN_ASSISTANT_TEMPLATE))
    assert time.monotonic() - start < 1
    for thread in threads:
        thread.join()
    assert len(errors) == len(threads)
    assert {type(error) for error in errors} <= {ChatTemplateBusy, ChatTemplateOverrun}


def test_the_words_of_a_template_are_found_in_linear_time() -> None:
    start = time.monotonic()
    for template in ("{%" * 32_000, "{" * 65_000, "{% a %}" * 9_000, "}}" * 32_000):
        assert ChatFormat(template=template).names <= {"a"}
    assert time.monotonic() - start < 2
    assert ChatFormat(template="x {{ one }} y {% if two.three %} z {{").names == {"one", "if", "two", "three"}
