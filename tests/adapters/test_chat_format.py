"""How messages become text and ids: the classic recipe, system prompts, and templates that fail."""

import pytest

from adapters.chat_format import HUMAN_ASSISTANT_TEMPLATE, ChatFormat, default_chat_format
from adapters.errors import ChatFormatError
from tests.tiny import CHAT_TEMPLATE, EOS_ID, tiny_tokenizer

RECIPE = ChatFormat(template=HUMAN_ASSISTANT_TEMPLATE, add_special_tokens=True)


def classic_prompt(instruction: str, extra: str) -> str:
    """The prompt of the classic instruction recipe, as its training scripts build it."""
    return "\n".join(["Human: " + instruction, extra]).strip() + "\n\nAssistant: "


@pytest.mark.parametrize(
    ("instruction", "extra"),
    [
        ("Name a colour.", ""),
        ("Translate into French.", "Good morning"),
        ("把下面的句子翻译成英文。", "今天天气很好。\n明天也是。"),
        ("  spaces around ", " and \n"),
        ("", ""),
    ],
)
def test_one_turn_is_the_classic_recipe(instruction: str, extra: str) -> None:
    messages = [{"role": "user", "content": f"{instruction}\n{extra}"}]
    assert RECIPE.render(messages, tiny_tokenizer()) == classic_prompt(instruction, extra)


def test_several_turns_end_each_answer_as_in_training() -> None:
    messages = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    text = RECIPE.render(messages, tiny_tokenizer())
    assert text == "Be brief.\n\nHuman: Hi\n\nAssistant: Hello!</s>\n\nHuman: Bye\n\nAssistant: "
    assert RECIPE.encode(messages, tiny_tokenizer()).count(EOS_ID) == 1


def test_an_unknown_role_is_refused_by_the_recipe() -> None:
    with pytest.raises(ChatFormatError, match="no role tool"):
        RECIPE.render([{"role": "tool", "content": "x"}], tiny_tokenizer())


def test_the_default_is_the_models_own_template_or_the_recipe() -> None:
    assert default_chat_format(tiny_tokenizer()) == ChatFormat(template=CHAT_TEMPLATE)
    assert default_chat_format(tiny_tokenizer(chat_template=None)) == RECIPE


def test_the_system_prompt_stands_first_unless_there_is_one() -> None:
    chat_format = ChatFormat(template=CHAT_TEMPLATE, system_prompt="S")
    user = {"role": "user", "content": "U"}
    assert chat_format.render([user], tiny_tokenizer()) == "system> S\nuser> U\nassistant> "
    own = {"role": "system", "content": "own"}
    assert chat_format.render([own, user], tiny_tokenizer()) == "system> own\nuser> U\nassistant> "
    assert chat_format.render([], tiny_tokenizer()) == "system> S\nassistant> "


def test_encode_gives_the_ids_of_the_text() -> None:
    tokenizer = tiny_tokenizer()
    ids = ChatFormat(template=CHAT_TEMPLATE).encode([{"role": "user", "content": "é下"}], tokenizer)
    assert tokenizer.decode(ids) == "user> é下\nassistant> "


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{% if %}",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include 'x' %}",
        "{{ undefined_function() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_is_one_error(template: str) -> None:
    with pytest.raises(ChatFormatError, match=r"^messages: the chat template refuses them: "):
        ChatFormat(template=template).render([{"role": "user", "content": "x"}], tiny_tokenizer())
