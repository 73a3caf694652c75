"""A tiny base model that says what a script says, whatever it is asked, unless a constraint forbids the next token."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.tiny import EOS_ID, MAX_POSITIONS, tiny_tokenizer

PROMPT = "hello> "
"""All that the model is shown, before what `opening` adds."""

_WIDTH = 264  # more than there are tokens: each has a direction of its own


def save_scripted_base(path: Path, script: str, *, opening: str = "", special_tokens: Sequence[str] = ()) -> Path:
    """Write a GPT-2 whose greedy answers are `script` and an end. Its chat template writes PROMPT and `opening`.

    Embeddings of tokens are zero, and layers add nothing: what the head reads is the embedding of the position alone.
    """
    prompt = PROMPT + opening
    tokenizer = tiny_tokenizer(chat_template=f"{{{{ {prompt!r} }}}}{{# <think></think> #}}")
    tokenizer.add_special_tokens({"additional_special_tokens": list(special_tokens)})
    prompt_length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    ids = [*tokenizer(script, add_special_tokens=False)["input_ids"], EOS_ID]
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=_WIDTH,
            n_layer=1,
            n_head=4,
            n_positions=MAX_POSITIONS,
            eos_token_id=EOS_ID,
            bos_token_id=EOS_ID,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "wte" in name or "c_proj" in name:
                weights.zero_()
        model.lm_head.weight.copy_(torch.eye(len(tokenizer), _WIDTH))
        for position, token_id in enumerate(ids, start=prompt_length - 1):
            model.transformer.wpe.weight[position] = torch.nn.functional.one_hot(torch.tensor(token_id), _WIDTH)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
