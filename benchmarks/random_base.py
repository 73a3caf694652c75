"""`python -m benchmarks.random_base --shape NAME DIR`: a base model of a known shape with random weights.

It costs what the real one costs and says nothing sensible. Nothing is downloaded: the tokenizer is made here too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

from benchmarks.shapes import SHAPES
from client.terminal import WRONG_USAGE, end

END_TOKEN = "</s>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + '> ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant> ' }}{% endif %}"
)
_INDEX_FILE = "model.safetensors.index.json"
_SHARD_BYTES = 2 << 30
_WEIGHT_STD = 0.02


def write_random_base(
    config: PretrainedConfig, directory: Path, *, seed: int = 0, shard_bytes: int = _SHARD_BYTES
) -> None:
    """Write config, tokenizer and bfloat16 weights, as `--base` takes them, a shard at a time.

    Matrices are normal with a standard deviation of 0.02, norms are ones, biases zeros.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(config.vocab_size)
    tokenizer.save_pretrained(directory)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    config.dtype = torch.bfloat16
    config.architectures = [type(_skeleton(config)).__name__]
    config.save_pretrained(directory)
    generator = torch.Generator().manual_seed(seed)
    files: dict[str, str] = {}
    total = 0
    for number, shapes in enumerate(_shards(config, shard_bytes)):
        tensors = {name: _tensor(name, shape, generator) for name, shape in shapes.items()}
        file = f"model-{number + 1:05d}.safetensors"
        save_file(tensors, directory / file, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (directory / _INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _skeleton(config: PretrainedConfig) -> torch.nn.Module:
    """The model without any memory for its weights."""
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def _shards(config: PretrainedConfig, shard_bytes: int) -> Iterator[dict[str, torch.Size]]:
    """Names and shapes of the parameters, in runs of at least so many bytes; what is tied comes once."""
    shard: dict[str, torch.Size] = {}
    size = 0
    for name, parameter in _skeleton(config).named_parameters():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        shard[name] = parameter.shape
        size += parameter.numel() * torch.bfloat16.itemsize
        if size >= shard_bytes:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) > 1:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(std=_WEIGHT_STD, generator=generator)
    return (torch.ones if name.endswith(".weight") else torch.zeros)(shape, dtype=torch.bfloat16)


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Cuts text into bytes; the ids that are left stand for made-up words, so that every answer is text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = (f"Ġw{number:x}" for number in range(vocab_size - len(alphabet) - 1))  # Ġ is a space
    vocabulary = {text: number for number, text in enumerate((*alphabet, *words))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_TOKEN])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=END_TOKEN)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main(
    directory: Annotated[Path, typer.Argument(help="Where the model is written; must be new or empty.")],
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")],
) -> None:
    """Write a base model of a known shape with random weights, for `--base`."""
    problems = []
    if shape not in SHAPES:
        problems.append(f"--shape {shape}: must be one of {', '.join(SHAPES)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        problems.append(f"{directory}: is not an empty directory")
    if problems:
        end(WRONG_USAGE, *problems)
    write_random_base(SHAPES[shape](), directory)
    typer.echo(f"a random {shape} is in {directory}")


if __name__ == "__main__":
    typer.run(main)
