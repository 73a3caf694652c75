"""Reads what PEFT's prompt-learning methods save into embedding rows or KV rows. Knows no store and no peft."""

from adapters.errors import AdapterInvalid
from adapters.injections import KVRows, SoftPrompt
from adapters.manifest import MANIFEST_FILE
from adapters.peft_config import KVRowsConfig, MultitaskConfig, SoftPromptConfig
from adapters.tensor_file import (
    WEIGHTS_FILE,
    TensorHeader,
    check_tensor_file,
    check_tensor_names,
    check_tensor_shape,
)
from adapters.tensors import finite, load_tensors

ROWS = "prompt_embeddings"
"""PEFT's name of the rows of every prompt-learning method."""
_COLUMNS, _FACTORS = "prefix_task_cols", "prefix_task_rows"


def read_soft_prompt(digest: str, config: SoftPromptConfig, content: bytes) -> SoftPrompt:
    """The saved rows, `[num_virtual_tokens, width]`. Raises AdapterInvalid."""
    headers = check_tensor_file(content, max_tensors=1)
    check_tensor_names(headers, {ROWS})
    _check_rows(headers, config)
    return SoftPrompt(digest, load_tensors(content)[ROWS])


def read_multitask_prompt(digest: str, config: MultitaskConfig, content: bytes, *, task: int) -> SoftPrompt:
    """The rows of one task: the shared ones times that task's low-rank factor, value by value.

    `rows * (columns[task] @ factors[task])`, columns `[tasks, num_virtual_tokens, ranks]`, factors `[tasks, ranks,
    width]` (PEFT's MultitaskPromptEmbedding.forward). Raises AdapterInvalid.
    """
    if task >= config.num_tasks:
        raise AdapterInvalid(MANIFEST_FILE, f"'task' is {task}, adapter_config.json says num_tasks {config.num_tasks}")
    headers = check_tensor_file(content, max_tensors=3)
    check_tensor_names(headers, {ROWS, _COLUMNS, _FACTORS})
    width = _check_rows(headers, config)
    tasks, ranks, rows = config.num_tasks, config.num_ranks, config.num_virtual_tokens
    check_tensor_shape(headers, _COLUMNS, (tasks, rows, ranks), "num_tasks, num_virtual_tokens, num_ranks")
    check_tensor_shape(headers, _FACTORS, (tasks, ranks, width), "num_tasks, num_ranks, token_dim")
    tensors = load_tensors(content)
    return SoftPrompt(digest, finite(ROWS, tensors[ROWS] * (tensors[_COLUMNS][task] @ tensors[_FACTORS][task])))


def read_kv_rows(digest: str, config: KVRowsConfig, content: bytes) -> KVRows:
    """Keys and values of every layer, from rows of `num_layers * 2 * token_dim` values, keys first in each layer.

    PEFT saves a prefix with `prefix_projection` already projected (PeftModel.get_prompt). Raises AdapterInvalid.
    """
    headers = check_tensor_file(content, max_tensors=1)
    check_tensor_names(headers, {ROWS})
    row = config.num_layers * 2 * config.token_dim
    why = "num_virtual_tokens, num_layers * 2 * token_dim"
    check_tensor_shape(headers, ROWS, (config.num_virtual_tokens, row), why)
    heads, head_dim = config.num_attention_heads, config.token_dim // config.num_attention_heads
    # [tokens, layers, 2, heads, head_dim] -> [2, layers, tokens, heads, head_dim]
    rows = load_tensors(content)[ROWS].view(config.num_virtual_tokens, config.num_layers, 2, heads, head_dim)
    keys, values = rows.permute(2, 1, 0, 3, 4).contiguous()
    return KVRows(digest, keys, values)


def _check_rows(headers: dict[str, TensorHeader], config: SoftPromptConfig) -> int:
    """The width of the rows, whose number and width must be the config's."""
    shape = headers[ROWS].shape
    if len(shape) != 2:
        raise AdapterInvalid(WEIGHTS_FILE, f"shape of '{ROWS}' is not [num_virtual_tokens, hidden_size]")
    rows, width = shape
    if rows != config.num_virtual_tokens:
        raise AdapterInvalid(
            WEIGHTS_FILE, f"has {rows} rows, adapter_config.json says num_virtual_tokens {config.num_virtual_tokens}"
        )
    if config.token_dim is not None and width != config.token_dim:
        raise AdapterInvalid(
            WEIGHTS_FILE, f"rows are {width} wide, adapter_config.json says token_dim {config.token_dim}"
        )
    return width
