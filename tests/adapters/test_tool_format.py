"""ToolFormat: what templates with and without a `tools` argument are given, and what comes out of a real one."""

import json
from typing import Any

import pytest

from adapters.chat_format import ChatFormat
from adapters.tool_format import ToolFormat, takes_tools
from adapters.tool_turns import FunctionTool, ToolCall, Turn
from server.text.tools.parser import ToolCallParser
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

WEATHER = FunctionTool(
    "get_weather", "The weather in a city", {"type": "object", "properties": {"city": {"type": "string"}}}
)
CLOCK = FunctionTool("clock")
CONVERSATION = [
    Turn("user", "How is it in Rome and Oslo?"),
    Turn(
        "assistant",
        "I will look.",
        tool_calls=(
            ToolCall("call_1", "get_weather", '{"city": "Rome"}'),
            ToolCall("call_2", "get_weather", '{"city": "Oslo"}'),
        ),
    ),
    Turn("tool", "sunny", tool_call_id="call_1"),
    Turn("tool", "snow", tool_call_id="call_2"),
    Turn("user", "Thanks."),
]
NATIVE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>"
    "<tool_call>{'name': ..., 'arguments': ...}</tool_call>\n{% endif %}"
    "{% for message in messages %}{{ message.role }}> {{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}"
    "\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "is_native"),
    [
        (CHAT_TEMPLATE, False),
        (NATIVE, True),
        ("{{ tools }} <tool_call> arguments <function=example>", False),
        ("{{ tools }} [TOOL_CALLS] arguments", False),
        ("{{ mytools }} <tool_call> arguments", False),
    ],
)
def test_which_templates_take_tools(template: str, *, is_native: bool) -> None:
    assert takes_tools(template) == is_native
    assert ToolFormat(template).is_native == is_native


def test_without_tools_messages_stay_what_they_are() -> None:
    turns = [Turn("system", "Be brief."), Turn("user", "Hi", name="Ann")]
    expected = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "Ann"}]
    for template in (CHAT_TEMPLATE, NATIVE):
        given = ToolFormat(template).prepare(turns, ())
        assert (given.messages, given.arguments) == (expected, {})


def test_tools_as_text_stand_behind_the_system_prompt() -> None:
    format_ = ToolFormat(CHAT_TEMPLATE)
    bare = format_.prepare([Turn("user", "Hi")], [WEATHER, CLOCK]).messages
    own = format_.prepare([Turn("system", "Be brief."), Turn("user", "Hi")], [WEATHER, CLOCK]).messages
    default = format_.prepare([Turn("user", "Hi")], [WEATHER, CLOCK], system_prompt="Be kind.").messages
    assert [message["role"] for message in bare] == ["system", "user"]
    text = bare[0]["content"]
    assert own[0]["content"] == f"Be brief.\n\n{text}"
    assert default[0]["content"] == f"Be kind.\n\n{text}"
    listed = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line)["function"]["name"] for line in listed] == ["get_weather", "clock"]
    assert json.loads(listed[1])["function"]["parameters"] == {"type": "object"}


def test_earlier_calls_as_text_are_what_the_parser_reads() -> None:
    messages = ToolFormat(CHAT_TEMPLATE).prepare(CONVERSATION, [WEATHER]).messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "user"]
    parser = ToolCallParser(["get_weather"], is_constrained=False)
    events = parser.decode(messages[2]["content"])
    assert [getattr(event, "fragment", None) for event in events if hasattr(event, "fragment")] == [
        '{"city": "Rome"}',
        '{"city": "Oslo"}',
    ]
    assert messages[3]["content"] == "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nsnow\n</tool_response>"


def test_a_call_without_content_has_no_empty_line() -> None:
    turn = Turn("assistant", "", tool_calls=(ToolCall("c", "clock", ""),))
    [message] = ToolFormat(CHAT_TEMPLATE).prepare([turn], ()).messages
    assert message["content"] == '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'


def test_a_template_with_tools_gets_them_as_it_wants_them() -> None:
    given = ToolFormat(NATIVE).prepare(CONVERSATION, [WEATHER])
    assert given.arguments["tools"][0]["function"]["name"] == "get_weather"
    calls: list[dict[str, Any]] = given.messages[1]["tool_calls"]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert given.messages[2] == {"role": "tool", "content": "sunny", "tool_call_id": "call_1", "name": "get_weather"}
    text = tiny_tokenizer().apply_chat_template(given.messages, chat_template=NATIVE, tokenize=False, **given.arguments)
    assert '<tool_call>{"city": "Rome"}</tool_call>' in str(text)
    assert '"description": "The weather in a city"' in str(text)


@pytest.mark.parametrize("arguments", ["{", "[1]", "", '"a"', "[" * 100_000])
def test_earlier_arguments_that_are_no_object_do_no_harm(arguments: str) -> None:
    turn = Turn("assistant", "", tool_calls=(ToolCall("c", "clock", arguments),))
    [message] = ToolFormat(NATIVE).prepare([turn], ()).messages
    assert message["tool_calls"][0]["function"]["arguments"] == (arguments or {})


def test_text_form_renders_with_a_plain_template() -> None:
    chat_format = ChatFormat(template=CHAT_TEMPLATE)
    messages = ToolFormat(CHAT_TEMPLATE).prepare(CONVERSATION, [WEATHER]).messages
    text = chat_format.render(messages, tiny_tokenizer())
    assert text.startswith("system> You may call functions")
    assert text.endswith("user> Thanks.\nassistant> ")
