"""Every assistant turn is learnt, at exactly the tokens that the server would render, and shown so."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from adapters.chat_format import HUMAN_ASSISTANT_TEMPLATE, ChatFormat, default_chat_format
from adapters.errors import ChatFormatError
from adapters.tool_turns import FunctionTool
from server.text.messages import rendered
from server.text.request import ChatPrompt
from tests.tiny import EOS_ID, Family, tiny_tokenizer
from tests.training.rows import tiny_config
from training.conversation import Conversation
from training.errors import DataError
from training.examples import IGNORED_LABEL, encode_conversation, encode_rows
from training.model_format import LocalFormat
from training.preview import CLOSE, OPEN, preview_text, print_preview
from training.tool_rows import turns_of

TOKENIZER = tiny_tokenizer()
CHATML = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for message in messages %}{{ message['role'] + '> ' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function.name }}: {{ call.function.arguments | tojson }}</tool_call>{% endfor %}"
    "{{ eos_token + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant> ' }}{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}{% if loop.last or message['role'] == 'user' %}"
    "{{ message['role'] + '> ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant> ' }}{% endif %}"
)
TALK = Conversation(
    (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
    ),
    place="rows.jsonl, line 1",
)


def test_a_template_that_writes_eos_gives_one_example_with_every_answer_labelled() -> None:
    (example,) = encode_conversation(TALK, LocalFormat(TOKENIZER, ChatFormat(template=CHATML)))
    features = example.features()
    shown = preview_text(example, TOKENIZER).plain
    assert TOKENIZER.decode(features["input_ids"]) == (
        "user> Hi</s>\nassistant> Hello</s>\nuser> 2+2?</s>\nassistant> 4</s>"
    )
    assert shown == (f"user> Hi</s>\nassistant> {OPEN}Hello</s>{CLOSE}\nuser> 2+2?</s>\nassistant> {OPEN}4</s>{CLOSE}")


def test_where_a_template_writes_no_eos_the_label_says_it_all_the_same() -> None:
    (example,) = encode_conversation(TALK, LocalFormat(TOKENIZER, default_chat_format(TOKENIZER)))
    features = example.features()
    assert TOKENIZER.decode(features["input_ids"]) == "user> Hi\nassistant> Hello\nuser> 2+2?\nassistant> 4</s>"
    learnt = [label for label in features["labels"] if label != IGNORED_LABEL]
    assert TOKENIZER.decode(learnt) == "Hello</s>4</s>"
    break_ = features["labels"].index(EOS_ID)
    assert TOKENIZER.decode([features["input_ids"][break_]]) == "\n"
    assert f"{OPEN}Hello</s>{CLOSE}\nuser>" in preview_text(example, TOKENIZER).plain


def test_a_template_that_shows_earlier_turns_otherwise_gives_an_example_for_each_answer() -> None:
    encoded = encode_rows([TALK], LocalFormat(TOKENIZER, ChatFormat(template=FORGETFUL)), max_length=256)
    texts = [TOKENIZER.decode(example.features()["input_ids"]) for example in encoded.examples]
    assert texts == ["user> Hi\nassistant> Hello</s>", "user> Hi\nuser> 2+2?\nassistant> 4</s>"]
    assert encoded.num_separate == 1


def test_silent_answers_are_read_only() -> None:
    row = Conversation(TALK.messages, silent=frozenset({1}))
    (example,) = encode_conversation(row, LocalFormat(TOKENIZER, default_chat_format(TOKENIZER)))
    assert example.earlier == {}


def test_earlier_answers_survive_a_cut_that_takes_the_last() -> None:
    encoded = encode_rows([TALK], LocalFormat(TOKENIZER, default_chat_format(TOKENIZER)), max_length=28)
    (example,) = encoded.examples
    assert (example.length, example.answer_ids, example.is_lost) == (28, [], False)
    assert len(example.earlier) == len("Hello") + 1
    assert (encoded.num_cut, encoded.num_lost) == (1, 0)


ADD: dict[str, object] = {"type": "function", "function": {"name": "add"}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "zwei ä"}}}
WITH_TOOLS = Conversation(
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "I add.", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "4"},
    ),
    tools=(ADD,),
    place="rows.jsonl, line 1",
)


def test_calls_are_learnt_as_the_template_writes_them() -> None:
    row = Conversation(WITH_TOOLS.messages[1:3], tools=(ADD,))
    (example,) = encode_conversation(row, LocalFormat(TOKENIZER, ChatFormat(template=CHATML)))
    call = '<tool_call>add: {"a": 2, "b": "zwei ä"}</tool_call>'
    assert TOKENIZER.decode(example.answer_ids) == f"I add.{call}{call}</s>"
    assert str(TOKENIZER.decode(example.prompt_ids)).startswith('<tools>[{"type": "function"')


@pytest.mark.parametrize("template", [None, HUMAN_ASSISTANT_TEMPLATE])
def test_a_template_without_tools_is_given_them_as_text(template: str | None) -> None:
    chat_format = default_chat_format(TOKENIZER) if template is None else ChatFormat(template=template)
    (example,) = encode_conversation(WITH_TOOLS, LocalFormat(TOKENIZER, chat_format))
    shown = preview_text(example, TOKENIZER).plain
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": "zwei ä"}}\n</tool_call>'
    assert f"{OPEN}I add.\n{call}\n{call}</s>{CLOSE}" in shown
    assert '<tools>\n{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}' in shown
    assert "<tool_response>\n4\n</tool_response>\n<tool_response>\n5\n</tool_response>" in shown
    assert f"{OPEN}4</s>{CLOSE}" in shown


@pytest.mark.parametrize("template", [CHATML, HUMAN_ASSISTANT_TEMPLATE, TOKENIZER.chat_template])
@pytest.mark.parametrize("system_prompt", [None, "You add."])
def test_the_server_renders_tools_as_they_were_trained(template: str, system_prompt: str | None) -> None:
    chat_format = ChatFormat(template=template, system_prompt=system_prompt)
    trained = LocalFormat(TOKENIZER, chat_format)
    for messages in (WITH_TOOLS.messages, WITH_TOOLS.messages[1:]):
        for end in (2, len(messages) - 1):
            prompt = ChatPrompt(tuple(turns_of(messages[:end])), (FunctionTool("add"),))
            assert trained.prompt(messages[:end], [ADD]).text == rendered(prompt, chat_format, TOKENIZER)


def test_a_row_that_the_template_refuses_is_named() -> None:
    template = "{{ 'x' if messages | length == 1 else raise_exception('no ' + messages[0]['role']) }}"
    short = Conversation(TALK.messages[:2], place="rows.jsonl, line 2")
    with pytest.raises(DataError, match=r"^rows\.jsonl, line 1, messages: the chat template refuses them: no user"):
        encode_rows([short, TALK], LocalFormat(TOKENIZER, ChatFormat(template=template)), max_length=256)
    with pytest.raises(ChatFormatError, match="no user"):
        encode_rows([TALK], LocalFormat(TOKENIZER, ChatFormat(template=template)), max_length=256)


def test_the_preview_prints_rows_and_trains_nothing(tmp_path: Path, bases: dict[Family, Path]) -> None:
    rows = [{"messages": list(TALK.messages)}, {"messages": list(TALK.messages[:2])}]
    output = io.StringIO()
    config = tiny_config(bases["llama"], tmp_path, rows, eval_fraction=0.5)
    print_preview(config, Console(file=output), count=3)
    assert "data 1: 7 virtual and " in output.getvalue()
    assert "held-out 1: 7 virtual and " in output.getvalue()
    assert f"assistant> {OPEN}Hello</s>{CLOSE}" in output.getvalue()
    coloured = io.StringIO()
    print_preview(config, Console(file=coloured, force_terminal=True, color_system="standard"), count=1)
    assert f"\x1b[1;32m{OPEN}Hello</s>{CLOSE}\x1b[0m" in coloured.getvalue()
