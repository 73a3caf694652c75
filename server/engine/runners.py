"""Chooses what computes a model, and keeps what passes the self-check. Knows no requests and loads no weights."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from adapters.fitting import linear_shapes
from server.engine.attention import LayerNeeds, PagedAttention
from server.engine.config import EngineConfig
from server.engine.cuda.accelerator import Accelerator
from server.engine.cuda.attention import VarlenAttention, served_layers
from server.engine.cuda.buffers import DecodeBuffers
from server.engine.cuda.decode import RecordedSteps, Recording, bucket_sizes
from server.engine.cuda.low_rank import LowRankKernel
from server.engine.cuda.norms import fuse_norms
from server.engine.cuda.recorded_deltas import RecordedDeltas
from server.engine.delta_check import check_low_rank_kernel, check_recorded_deltas
from server.engine.errors import ModelUnsupported, NativeUnavailable
from server.engine.families import use_attention
from server.engine.forward import Forward, PackedModel, StockForward
from server.engine.kv_cache import KVCache
from server.engine.model_runner import ModelRunner
from server.engine.native.forward import BLOCK_SIZE as NATIVE_BLOCK_SIZE
from server.engine.native.forward import NativeForward
from server.engine.self_check import StockAnswer, check_against_stock, tolerance_of
from server.engine.step_layout import Reach
from server.engine.weight_deltas import WeightDeltas

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A model, what is known of its layers, its own answers, and `num_blocks` blocks that sequences will use."""

    model: PreTrainedModel
    layers: dict[int, LayerNeeds]
    reaches: dict[int, Reach]
    answers: list[StockAnswer]
    config: EngineConfig
    num_blocks: int

    def native_runner(self, cache: Path | None) -> ModelRunner | None:
        """The native decoder; None, told in the log, where there is none. Raises ModelUnsupported if int8 needs it."""
        try:
            if cache is None or self.config.block_size != NATIVE_BLOCK_SIZE:
                raise NativeUnavailable("it is switched off")
            forward = NativeForward(
                self.model,
                num_blocks=self.num_blocks,
                max_model_len=self.config.max_model_len,
                is_int8=self.config.is_int8,
                cache=cache,
            )
            return self._checked(forward)
        except (NativeUnavailable, ModelUnsupported) as error:
            if self.config.is_int8:
                raise ModelUnsupported(f"--quantization int8 needs the native decoder: {error}") from error
            logger.info("no native decoder: %s", error)
            return None

    def stock_runner(self) -> ModelRunner:
        """The stock model, on any device. Raises ModelUnsupported."""
        return self._gathering(self._new_cache(self.num_blocks))

    def accelerated_runner(self, accelerator: Accelerator) -> ModelRunner:
        """The stock model with the device's own attention and recorded decode steps, as far as they pass the check.

        What does not pass is told in the log, and the slower way is taken. Raises ModelUnsupported.
        """
        cache = self._new_cache(self.num_blocks + 1)
        served = served_layers(self.layers)
        attention = VarlenAttention(cache, accelerator.attend, served)
        use_attention(self.model, attention.attend, self.reaches)
        fuse_norms(self.model)
        deltas = WeightDeltas(self.model)
        eager = StockForward(PackedModel(self.model), cache, attention, deltas)
        try:
            runner = self._checked(eager)
        except ModelUnsupported as error:
            logger.warning("no paged attention: %s", error)
            return self._gathering(cache)
        if others := sorted(self.layers.keys() - served):
            logger.warning("decode steps are not recorded: layers %s gather their keys", ", ".join(map(str, others)))
            return runner
        try:
            steps = self._recorded(eager, cache, attention, accelerator)
            recorded = self._checked(steps.forward())
        except Exception as error:  # what a model may do that cannot be captured has no common class
            logger.warning("decode steps are not recorded: %s", _told(error))
            return runner
        if accelerator.low_rank is None:
            return recorded
        try:
            return self._with_recorded_deltas(steps, runner, deltas, accelerator.low_rank)
        except Exception as error:  # nor have a compiler's troubles
            logger.warning("steps with LoRA are not recorded: %s", _told(error))
            return recorded

    def _gathering(self, cache: KVCache) -> ModelRunner:
        attention = PagedAttention(cache)
        use_attention(self.model, attention.attend, self.reaches)
        return self._checked(StockForward(PackedModel(self.model), cache, attention, WeightDeltas(self.model)))

    def _recorded(
        self, eager: StockForward, cache: KVCache, attention: VarlenAttention, accelerator: Accelerator
    ) -> RecordedSteps:
        buckets = bucket_sizes(self.config.max_num_seqs)
        buffers = DecodeBuffers(
            num_rows=buckets[-1],
            num_columns=-(-self.config.max_model_len // self.config.block_size),
            hidden_size=self._embedding_width(),
            dtype=self.model.dtype,
            device=self.model.device,
            block_size=self.config.block_size,
            scratch_block=self.num_blocks,  # the one that the block manager does not know
        )
        recording = Recording(
            model=PackedModel(self.model),
            eager=eager,
            cache=cache,
            attention=attention,
            buffers=buffers,
            buckets=buckets,
            record=accelerator.record,
        )
        return recording.steps()

    def _with_recorded_deltas(
        self, steps: RecordedSteps, eager: ModelRunner, deltas: WeightDeltas, kernel: LowRankKernel
    ) -> ModelRunner:
        """A runner of recorded steps with weight deltas too. Raises ModelUnsupported, and what recording raises."""
        dtype, device = self.model.dtype, self.model.device
        shapes = linear_shapes(self.model)
        check_low_rank_kernel(kernel, set(shapes.values()), dtype=dtype, device=device)
        recorded = RecordedDeltas(
            deltas.modules,
            kernel,
            num_rows=steps.recording.buckets[-1],
            dtype=dtype,
            device=device,
            placed=deltas.placed,
        )
        runner = self._checked(steps.forward_with(recorded))
        check_recorded_deltas(
            runner,
            eager,
            {path: shapes[path] for path in recorded.paths},
            tolerance=tolerance_of(dtype, is_int8=False),
            vocab_size=self.model.config.get_text_config().vocab_size,
            block_size=self.config.block_size,
            num_blocks=self.num_blocks,
            max_num_seqs=self.config.max_num_seqs,
        )
        if left_out := len(shapes) - len(recorded.paths):
            logger.info("steps with LoRA of %d of %d linear modules are not recorded", left_out, len(shapes))
        return runner

    def _embedding_width(self) -> int:
        with torch.inference_mode():
            token = torch.zeros(1, dtype=torch.long, device=self.model.device)
            return int(self.model.get_input_embeddings()(token).shape[-1])

    def _new_cache(self, num_blocks: int) -> KVCache:
        return KVCache(
            {index: needs.shape for index, needs in self.layers.items()},
            num_blocks=num_blocks,
            block_size=self.config.block_size,
            dtype=self.model.dtype,
            device=self.model.device,
        )

    def _checked(self, forward: Forward) -> ModelRunner:
        """A runner of what passes the self-check. Raises ModelUnsupported."""
        runner = ModelRunner(self.model.get_input_embeddings(), forward)
        check_against_stock(
            runner,
            self.answers,
            model_type=self.model.config.model_type,
            tolerance=tolerance_of(self.model.dtype, is_int8=self.config.is_int8),
            block_size=self.config.block_size,
            num_blocks=self.num_blocks,
        )
        return runner


def _told(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
