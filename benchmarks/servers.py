"""Which servers there are to measure: descriptions only. Starts none, and knows no command line."""

from dataclasses import dataclass
from typing import Literal

ServerKind = Literal["hotprompt", "vllm", "transformers"]
LoraModules = Literal["default", "all-linear"]
"""What random LoRA adapters change: the modules that PEFT chooses for the family, or every linear one but the head."""

VIRTUAL_TOKENS = 20
LONG_VIRTUAL_TOKENS = 100
LORA_RANK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server: its label in every table, the adapters that it has from the start, and flags of its own.

    `lora_modules` says what LoRA adapters change; without it a hotprompt server has soft prompts.
    `cache_room` limits hotprompt's KV cache: room for the virtual tokens of that many adapters beside 16 requests.
    """

    label: str
    kind: ServerKind
    adapters: int = 0
    virtual_tokens: int = VIRTUAL_TOKENS
    lora_modules: LoraModules | None = None
    cache_room: int | None = None
    flags: tuple[str, ...] = ()


HOTPROMPT = Server(label="hotprompt", kind="hotprompt")
HOTPROMPT_INT8 = Server(label="hotprompt int8", kind="hotprompt", flags=("--quantization", "int8"))
HOTPROMPT_1 = Server(label="hotprompt", kind="hotprompt", adapters=1)
HOTPROMPT_8 = Server(label="hotprompt", kind="hotprompt", adapters=8)
HOTPROMPT_64 = Server(label="hotprompt", kind="hotprompt", adapters=64)
HOTPROMPT_1000 = Server(label="hotprompt, KV for 100 adapters", kind="hotprompt", adapters=1_000, cache_room=100)
HOTPROMPT_10000 = Server(label="hotprompt, 10,000 adapters", kind="hotprompt", adapters=10_000)
HOTPROMPT_LONG = Server(label="hotprompt", kind="hotprompt", adapters=1, virtual_tokens=LONG_VIRTUAL_TOKENS)
VLLM = Server(label="vllm", kind="vllm")
HOTPROMPT_LORA = Server(label="hotprompt", kind="hotprompt", adapters=8, lora_modules="all-linear")
VLLM_LORA = Server(label="vllm --enable-lora", kind="vllm", adapters=8, lora_modules="default")
VLLM_LORA_ALL = Server(label="vllm --enable-lora", kind="vllm", adapters=8, lora_modules="all-linear")
TRANSFORMERS = Server(label="transformers", kind="transformers")
