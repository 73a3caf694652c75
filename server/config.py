"""Settings of `hotprompt serve`: flags, then HOTPROMPT_ environment variables, then defaults. Starts nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from adapters.base_model import DeviceName, DtypeName
from adapters.embedded_base import EMBEDDED_BASE_NAME
from adapters.files import DEFAULT_MAX_WEIGHTS_BYTES, MAX_WEIGHTS_BYTES
from adapters.home import default_store

ENV_PREFIX = "HOTPROMPT_"

MAX_REQUESTS_PER_MINUTE = 1_000_000
MAX_TOKENS_PER_MINUTE = 1_000_000_000
MAX_ORIGINS = 100
MAX_ROOTS = 100
MAX_SOURCES = 100

_SIZE_PATTERN = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", re.IGNORECASE)
_ORIGIN_PATTERN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")
_OTLP_PATTERN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_COMPONENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._=+@-]{1,255}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]"
_SOURCE_PATTERN = re.compile(
    rf"hf://({_NAME}{{0,95}}(/{_NAME}{{0,95}})?)?/?|(s3|gs|az)://{_NAME}{{1,254}}(/{_COMPONENT})*/?"
)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class SettingsError(Exception):
    """Wrong settings: one line for each problem, naming the flag and its limit."""


def parse_size(text: object) -> object:
    """Bytes of a size such as `512MiB`, `2GiB`, `1.5GB` or a plain number of bytes; anything else is given back."""
    if not isinstance(text, str):
        return text
    match = _SIZE_PATTERN.fullmatch(text.strip())
    if match is None:
        raise PydanticCustomError("size", "must be a size such as 512MiB, 2GiB or a number of bytes")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.upper()])


def _split_keys(text: object) -> object:
    if not isinstance(text, str):
        return text
    keys = tuple(key.strip() for key in text.split(","))
    if not all(keys):
        raise PydanticCustomError("keys", "must be keys separated by single commas, none of them empty")
    return keys


def _split_origins(text: object) -> object:
    return tuple(origin.strip() for origin in text.split(",")) if isinstance(text, str) else text


def _split_roots(text: object) -> object:
    return tuple(Path(root.strip()) for root in text.split(",")) if isinstance(text, str) else text


def _split_sources(text: object) -> object:
    return tuple(source.strip() for source in text.split(",")) if isinstance(text, str) else text


def _check_source(source: str) -> str:
    if _SOURCE_PATTERN.fullmatch(source) is None:
        raise PydanticCustomError(
            "source", "must be prefixes such as hf://, hf://org, s3://bucket, gs://bucket/path or az://container/path"
        )
    return source


def _check_root(root: Path) -> Path:
    root = root.expanduser()
    if not root.is_absolute() or not root.is_dir():
        raise PydanticCustomError("root", "must be directories that exist, by their absolute paths")
    return root


def _check_origin(origin: str) -> str:
    if _ORIGIN_PATTERN.fullmatch(origin) is None:
        raise PydanticCustomError(
            "origin", "must be origins such as https://chat.example or http://localhost:3000, without a path; not *"
        )
    return origin.lower()


def _check_otlp(endpoint: str) -> str:
    if _OTLP_PATTERN.fullmatch(endpoint) is None:
        raise PydanticCustomError(
            "otlp", "must be an address such as http://127.0.0.1:4318, without user, password and query"
        )
    return endpoint


def _expand(path: Path) -> Path:
    return path.expanduser()


Origin = Annotated[str, Field(max_length=255), AfterValidator(_check_origin)]
AdapterSourcePrefix = Annotated[str, Field(max_length=4096), AfterValidator(_check_source)]
AdapterRoot = Annotated[Path, AfterValidator(_check_root)]


Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_keys)]


class Settings(BaseSettings):
    """Everything that `hotprompt serve` can be told. Each field is a flag; keys come by environment only."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    base: str = Field(
        default=EMBEDDED_BASE_NAME,
        min_length=1,
        max_length=4096,
        description=f"Base model: {EMBEDDED_BASE_NAME} (embedded), a model directory, or a hub id (owner/name).",
    )
    store: Annotated[Path, AfterValidator(_expand)] = Field(
        default_factory=default_store,
        description="Directory of the adapter store. Default: store in HOTPROMPT_HOME.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    device: DeviceName = Field(
        default="auto", description="Where the base model runs; auto is CUDA where there is one."
    )
    dtype: DtypeName = Field(
        default="auto",
        description="Number type of the weights; auto is bfloat16 where the device computes in it, else float32.",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=16,
        le=1 << 24,
        description="Most tokens of one request: virtual tokens, prompt and answer. "
        "Default: the model's context, at most 4096.",
    )
    kv_cache_memory: Annotated[int | None, BeforeValidator(parse_size)] = Field(
        default=None,
        ge=1 << 20,
        le=1 << 44,
        description="Memory of the KV cache, as 512MiB or 2GiB. "
        "Default: on the CPU 1GiB, or a quarter of the free memory if that is less; on CUDA half of the free memory.",
    )
    adapter_memory: Annotated[int, BeforeValidator(parse_size)] = Field(
        default=1 << 30,
        ge=0,
        le=1 << 44,
        description="Memory of adapters' embeddings, as 512MiB or 2GiB; beyond it, those used last are kept.",
    )
    max_adapter_size: Annotated[int, BeforeValidator(parse_size)] = Field(
        default=DEFAULT_MAX_WEIGHTS_BYTES,
        ge=1 << 20,
        le=MAX_WEIGHTS_BYTES,
        description="Largest adapter_model.safetensors that is taken, as 512MiB or 2GiB; in memory, weights in 16 bits "
        "take twice that.",
    )
    max_num_seqs: int = Field(default=64, ge=1, le=4096, description="Most requests computed in one batch.")
    max_num_waiting: int = Field(
        default=1024,
        ge=1,
        le=1 << 20,
        description="Most requests that wait for a place in the batch; beyond them, a request is answered with 503.",
    )
    max_num_batched_tokens: int = Field(
        default=512,
        ge=1,
        le=1 << 20,
        description="Most tokens computed in one step; longer prompts are cut into chunks.",
    )
    on_probe_mismatch: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="What becomes of an adapter that does not answer its probes as it did where it was made: refused, "
        "or served and marked as a mismatch (keep).",
    )
    quantization: Literal["none", "int8"] = Field(
        default="none",
        description="Weights as they are (none), or 8-bit integers: faster, and nearly as good. "
        "int8 is for llama, mistral, qwen2 and qwen3 on a CPU with AVX-512 (BF16, VNNI).",
    )
    shutdown_grace_seconds: float = Field(
        default=30, ge=0, le=3600, description="Seconds that running requests get to finish after SIGTERM or Ctrl-C."
    )
    api_keys: Keys = Field(default=(), description="Keys for chat, comma-separated. Without any, chat is open.")
    admin_keys: Keys = Field(
        default=(),
        description="Keys for changing adapters, comma-separated; they chat too. Without any key at all, all is open.",
    )

    key_file: Annotated[Path | None, AfterValidator(lambda path: path and path.expanduser())] = Field(
        default=None,
        description="YAML file of keys for chat, each with a name, its models and its limits (docs/api.md).",
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REQUESTS_PER_MINUTE,
        description="Most requests a minute of each key for chat, unless the key file says otherwise. "
        "Default: no limit.",
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=MAX_TOKENS_PER_MINUTE,
        description="Most tokens a minute of each key for chat, prompts and answers together, unless the key file says "
        "otherwise. Default: no limit.",
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split_origins)] = Field(
        default=(),
        max_length=MAX_ORIGINS,
        description="Origins whose web pages may call this server, comma-separated, as https://chat.example. "
        "Default: none.",
    )

    adapter_roots: Annotated[tuple[AdapterRoot, ...], NoDecode, BeforeValidator(_split_roots)] = Field(
        default=(),
        max_length=MAX_ROOTS,
        description="Directories below which POST /v1/adapters and /v1/load_lora_adapter may read adapters, "
        "comma-separated. Default: none.",
    )
    adapter_sources: Annotated[tuple[AdapterSourcePrefix, ...], NoDecode, BeforeValidator(_split_sources)] = Field(
        default=(),
        max_length=MAX_SOURCES,
        description="Prefixes below which POST /v1/adapters may fetch adapters, comma-separated: hf:// or hf://org, "
        "s3://bucket/path, gs://bucket/path, az://container/path. Default: none.",
    )

    log_format: Literal["text", "json"] = Field(
        default="text", description="Lines on stderr for people (text), or an object of JSON each (json)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged; from info on there is a line for each request."
    )
    log_prompts: bool = Field(
        default=False, description="Whether the log has what the model sees of each request, up to 32,768 characters."
    )
    otlp_endpoint: Annotated[str, AfterValidator(_check_otlp)] | None = Field(
        default=None,
        max_length=2048,
        description="OpenTelemetry collector that traces are sent to over HTTP, as http://127.0.0.1:4318. "
        "Default: none; it needs the extra otel.",
    )

    @model_validator(mode="after")
    def _batch_holds_every_sequence(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise PydanticCustomError(
                "batch",
                "--max-num-batched-tokens ({tokens}) must be at least --max-num-seqs ({seqs}): "
                "every running request computes a token in each step",
                {"tokens": self.max_num_batched_tokens, "seqs": self.max_num_seqs},
            )
        return self


def flag_of(field: str) -> str:
    """The command-line flag of a field."""
    return "--" + field.replace("_", "-")


def load_settings(**flags: Any) -> Settings:
    """Settings from flags (None: not given), the environment and defaults.

    Raises SettingsError with a line for each problem.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(problem, given) for problem in error.errors())) from None


def _line(problem: ErrorDetails, given: Mapping[str, Any]) -> str:
    if not problem["loc"]:
        return problem["msg"]
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"{flag_of(field)}: there is no such setting"
    source = flag_of(field) if field in given else f"{ENV_PREFIX}{field.upper()} ({flag_of(field)})"
    message = problem["msg"].removeprefix("Input ")
    if field in ("api_keys", "admin_keys"):
        return f"{ENV_PREFIX}{field.upper()}: {message}"
    return f"{source} {str(problem['input'])[:80]}: {message}"
