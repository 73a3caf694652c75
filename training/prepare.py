"""Everything that can be wrong with a run is found here: data, base model, name, store and lengths. Trains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from transformers import PreTrainedModel

from adapters.base_model import BaseModel, open_base_model
from adapters.chat_format import HUMAN_ASSISTANT_TEMPLATE, ChatFormat, default_chat_format
from adapters.errors import ChatFormatError
from adapters.home import home_directory
from adapters.naming import check_name
from adapters.store import AdapterStore
from training.config import TrainConfig
from training.conversation import Conversation, rows_digest
from training.data_cache import DataCache, cache_key
from training.errors import ConfigError, DataError
from training.examples import EncodedRows, Example, encode_rows
from training.gather import gather_rows
from training.model import max_positions, num_virtual_tokens
from training.model_format import LocalFormat
from training.progress import say


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """The inputs of a run, checked: its base model (weights not loaded), store, chat format and examples."""

    base: BaseModel
    store: AdapterStore
    chat_format: ChatFormat
    train: EncodedRows
    held_out: Sequence[Example] | None
    data_digest: str

    @property
    def pad_id(self) -> int:
        """What batches are filled up with; nothing sees it."""
        return int(self.base.tokenizer.eos_token_id)


def prepare_run(config: TrainConfig, console: Console) -> PreparedRun:
    """Read the data, open the base model, and cut everything into tokens.

    Raises DataError, ConfigError, BaseModelError, AdapterNameInvalid and StoreFailure.
    """
    rows = gather_rows(config, console)
    base = open_base_model(config.base, home=home_directory())
    if base.tokenizer.eos_token is None:
        raise ConfigError([f"base: the tokenizer of {base.name} has no end-of-sequence token, so no answer would end"])
    check_name(config.name, base_name=base.name)
    store = AdapterStore(config.store)
    if any(alias.name == config.name for alias in store.aliases()):
        raise ConfigError([f"name: {config.name!r} is an alias in the store {config.store}; remove it first"])
    chat_format = _chat_format(base, config)
    encoder = _RowEncoder(base, chat_format, config, console)
    train = encoder.encode("data", rows.train)
    held_out = None if rows.held_out is None else encoder.encode("held-out", rows.held_out).answered
    return PreparedRun(base, store, chat_format, train, held_out, rows_digest(rows.train))


def check_positions(run: PreparedRun, weights: PreTrainedModel, config: TrainConfig) -> None:
    """Raises ConfigError when a row and the soft prompt together have more tokens than the base model has positions."""
    limit = max_positions(weights)
    longest = max(example.length for example in [*run.train.examples, *(run.held_out or ())])
    virtual = num_virtual_tokens(run.base, config)
    if limit is not None and longest + virtual > limit:
        raise ConfigError(
            [
                f"max_length: {longest} tokens of the longest row and {virtual} virtual tokens are over the "
                f"{limit} positions of {run.base.name}"
            ]
        )


def _chat_format(base: BaseModel, config: TrainConfig) -> ChatFormat:
    if config.chat_format == "human_assistant":
        chat_format = ChatFormat(template=HUMAN_ASSISTANT_TEMPLATE, add_special_tokens=True)
    elif config.chat_format == "model" and not base.tokenizer.chat_template:
        raise ConfigError([f"chat_format: 'model', but {base.name} has no chat template of its own"])
    else:
        chat_format = default_chat_format(base.tokenizer)
    return chat_format.model_copy(update={"system_prompt": config.system_prompt})


@dataclass(frozen=True, slots=True)
class _RowEncoder:
    """Cuts rows into tokens, the same way for all rows of a run."""

    base: BaseModel
    chat_format: ChatFormat
    config: TrainConfig
    console: Console

    def encode(self, key: str, rows: Sequence[Conversation]) -> EncodedRows:
        """Rows in tokens, with a word on each thing that a user may not expect of them; `key` names the rows.

        Raises DataError when no row keeps any of its answer, and ConfigError when the chat format does not fit them.
        """
        encoded = self._cut(key, rows)
        max_length = self.config.max_length
        if all(example.is_lost for example in encoded.examples):
            raise DataError([f"{key}: no row keeps any of its answer within max_length {max_length}"])
        say(self.console, f"{key}: {len(rows):,} rows, the longest has {encoded.longest} tokens")
        if encoded.num_cut:
            say(
                self.console,
                f"warning: {key}: {encoded.num_cut:,} rows cut at max_length {max_length}, "
                f"{encoded.num_lost:,} of them lost: their prompt alone is that long",
            )
        if encoded.num_empty:
            say(self.console, f"warning: {key}: {encoded.num_empty:,} rows have an empty output")
        if encoded.num_separate:
            say(
                self.console,
                f"{key}: {encoded.num_separate:,} conversations are one example for each answer, "
                "since the chat template shows earlier turns otherwise",
            )
        return encoded

    def _cut(self, key: str, rows: Sequence[Conversation]) -> EncodedRows:
        """Rows in tokens, from an earlier run where it had the same."""
        config = self.config
        known_as = (
            cache_key(rows, self.base, self.chat_format, max_length=config.max_length) if config.data_cache else None
        )
        if known_as is None:
            return self._fresh(rows)
        cache = DataCache(home_directory() / "prepared")
        known = cache.read(known_as)
        if known is not None:
            say(self.console, f"{key}: prepared before")
            return known
        encoded = self._fresh(rows)
        cache.write(known_as, encoded)
        return encoded

    def _fresh(self, rows: Sequence[Conversation]) -> EncodedRows:
        model_format = LocalFormat(self.base.tokenizer, self.chat_format)
        try:
            return encode_rows(rows, model_format, max_length=self.config.max_length)
        except ChatFormatError as error:
            raise ConfigError([f"chat_format: {error}"]) from error
