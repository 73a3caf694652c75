"""hotprompt.json: what hotprompt records about an adapter beside PEFT's own files. Knows no tensors and no store."""

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.chat_format import ChatFormat
from adapters.errors import AdapterInvalid
from adapters.probes import Probes

AdapterKind = Literal[
    "prompt_tuning", "p_tuning", "multitask_prompt_tuning", "cpt", "prefix_tuning", "cartridge", "lora", "ia3"
]

MANIFEST_FILE = "hotprompt.json"

_NUMBERS_ON_LINES = re.compile(r"\[\n[\s\d,]+\]")
"""A list of ids as json indents it; a string never holds a bare line break."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseIdentity(_Record):
    """Which base model an adapter belongs to. Equal fingerprints mean the same weights and the same tokenizer."""

    name: str = Field(max_length=256)
    model_type: str = Field(max_length=64)
    hidden_size: int = Field(ge=1)
    fingerprint: str = Field(max_length=64)
    tokenizer_fingerprint: str = Field(max_length=64)


class ScoreFacts(_Record):
    """One measure of held-out answers before and after training, and the 95 % interval of the difference."""

    name: str = Field(max_length=64)
    before: float
    after: float
    difference_low: float
    difference_high: float


class EvaluationFacts(_Record):
    """What held-out data said before and after training; losses are nats per answer token, matches a share of rows."""

    rows: int = Field(ge=1)
    loss_before: float
    loss_after: float
    exact_match_before: float = Field(ge=0, le=1)
    exact_match_after: float = Field(ge=0, le=1)
    scores: tuple[ScoreFacts, ...] = Field(default=(), max_length=32)


class TrainingFacts(_Record):
    """How the adapter came to be, as measured by the trainer."""

    method: str = Field(max_length=64)
    data: str = Field(max_length=256)
    data_digest: str = Field(max_length=64)
    rows: int = Field(ge=1)
    steps: int = Field(ge=0)
    interrupted: bool = False
    tokens: int = Field(ge=0)
    tokens_per_second: float = Field(ge=0)
    seconds: float = Field(ge=0)
    trainable_parameters: int = Field(ge=0)
    final_loss: float | None = None
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=128)
    evaluation: EvaluationFacts | None = None


class AdapterManifest(_Record):
    """One published adapter.

    `digest` is the content digest (see `adapters.files`); `base` and `chat_format` are None for an adapter that was
    made elsewhere and says nothing of them: it is then held to the shape of the base alone, and the base's own chat
    format is used. `hidden_size` is the width of a soft prompt's rows, None for what has no such rows; `task` is which
    one a multitask prompt is composed for.
    """

    format_version: Literal[1] = 1
    name: str = Field(max_length=63)
    digest: str = Field(max_length=64)
    kind: AdapterKind
    num_virtual_tokens: int = Field(ge=0)
    hidden_size: int | None = Field(default=None, ge=1)
    task: int = Field(default=0, ge=0)
    base: BaseIdentity | None = None
    chat_format: ChatFormat | None = None
    training: TrainingFacts | None = None
    probes: Probes | None = None

    @property
    def chat_format_fingerprint(self) -> str | None:
        """Of the adapter's own chat format, as `Probes` have it."""
        return None if self.chat_format is None else self.chat_format.fingerprint

    def to_json(self) -> bytes:
        """The file's bytes, stable for equal content."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        return (_NUMBERS_ON_LINES.sub(_on_one_line, text) + "\n").encode()


class ManifestDraft(_Record):
    """A manifest as a maker hands it in: its own facts. Name, digest and tensor facts are worked out, not believed."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    task: int = Field(default=0, ge=0)
    base: BaseIdentity | None = None
    chat_format: ChatFormat | None = None
    training: TrainingFacts | None = None
    probes: Probes | None = None

    def canonical_json(self) -> bytes:
        """Bytes that enter the content digest: what decides the adapter's behaviour and its recorded history.

        Values equal to their default are left out, so that a field added later changes no digest published before.
        """
        facts = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()


def parse_manifest_draft(content: bytes) -> ManifestDraft:
    """Read the maker's part of hotprompt.json. Raises AdapterInvalid naming the field."""
    raw = _json(content)
    try:
        return ManifestDraft.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise AdapterInvalid(MANIFEST_FILE, f"'{field}': {first['msg']}") from None


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise AdapterInvalid(MANIFEST_FILE, "not valid JSON") from None
