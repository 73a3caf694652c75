"""Token ids of the classic recipe, the label mask, the cut, and right padding."""

import torch

from adapters.chat_format import ChatFormat, default_chat_format
from tests.tiny import EOS_ID, tiny_tokenizer
from tests.training.rows import CHINESE, ENGLISH
from training.conversation import Conversation, alpaca
from training.examples import IGNORED_LABEL, Collator, EncodedRows, encode_rows, length_groups
from training.model_format import LocalFormat

HUMAN = tiny_tokenizer(chat_template=None)


def _encode(rows: list[Conversation], *, max_length: int = 256, chat_format: ChatFormat | None = None) -> EncodedRows:
    return encode_rows(rows, LocalFormat(HUMAN, chat_format or default_chat_format(HUMAN)), max_length=max_length)


def test_human_assistant_ids_are_the_classic_recipes() -> None:
    for row in [*CHINESE, *ENGLISH, {"instruction": " a \n", "input": " ", "output": " b "}]:
        prompt = HUMAN("\n".join(["Human: " + row["instruction"], row["input"]]).strip() + "\n\nAssistant: ")
        answer = HUMAN(row["output"] + HUMAN.eos_token)
        (example,) = _encode([alpaca(row["instruction"], row["input"], row["output"])]).examples
        features = example.features()
        assert features["input_ids"] == prompt["input_ids"] + answer["input_ids"]
        assert features["labels"] == [IGNORED_LABEL] * len(prompt["input_ids"]) + answer["input_ids"]


def test_the_models_own_template_is_used_where_it_has_one() -> None:
    tokenizer = tiny_tokenizer()
    chat_format = default_chat_format(tokenizer).model_copy(update={"system_prompt": "Be brief."})
    (example,) = encode_rows([alpaca("i", "x", "o")], LocalFormat(tokenizer, chat_format), max_length=256).examples
    assert tokenizer.decode(example.prompt_ids) == "system> Be brief.\nuser> i\nx\nassistant> "
    assert tokenizer.decode(example.answer_ids) == "o</s>"


def test_answers_are_cut_at_max_length() -> None:
    rows = [
        alpaca("a", "", "short"),
        alpaca("a", "", "long " * 20),
        alpaca("prompt " * 20, "", "lost"),
        alpaca("a", "", ""),
    ]
    encoded = _encode(rows, max_length=60)
    assert [example.length for example in encoded.examples] == [27, 60, 60, 22]
    assert (encoded.num_cut, encoded.num_lost, encoded.num_empty) == (2, 1, 1)
    assert encoded.answered == [encoded.examples[number] for number in (0, 1, 3)]
    assert encoded.longest == 60
    assert encoded.examples[0].answer_ids[-1] == EOS_ID
    assert encoded.examples[1].answer == "long " * 20
    assert encoded.examples[2].answer_ids == []
    assert encoded.examples[3].answer_ids == [EOS_ID]


def test_batches_are_padded_on_the_right() -> None:
    features = [{"input_ids": [1, 2, 3], "labels": [IGNORED_LABEL, 2, 3]}, {"input_ids": [4], "labels": [4]}]
    batch = Collator(pad_id=9)(features)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED_LABEL, 2, 3], [4, IGNORED_LABEL, IGNORED_LABEL]]
    assert batch["input_ids"].dtype == torch.long


def test_groups_of_like_length_hold_every_row_once_with_less_padding() -> None:
    features = [{"input_ids": [length] * length, "labels": [length] * length} for length in (5, 1, 4, 2, 3)]
    groups = list(length_groups(Collator(pad_id=0)(features), rows_per_group=2))
    assert [group["input_ids"].tolist() for group in groups] == [
        [[1, 0], [2, 2]],
        [[3, 3, 3, 0], [4, 4, 4, 4]],
        [[5, 5, 5, 5, 5]],
    ]
    assert [group["attention_mask"].sum().item() for group in groups] == [3, 7, 5]
    assert groups[0]["labels"].tolist() == [[1, IGNORED_LABEL], [2, 2]]
