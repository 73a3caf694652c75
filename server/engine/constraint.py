"""What may restrict a sequence's tokens, step by step. Knows no grammar, no text and no tensors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.errors import NoTokenAllowed, SequenceFailed

logger = logging.getLogger(__name__)


class TokenConstraint(Protocol):
    """Belongs to one request, and is called on the engine's thread alone. What it raises fails that request alone."""

    def fill(self, mask: NDArray[np.int32]) -> None:
        """Set bit i % 32 of word i // 32 for each token i that may come next.

        `mask` is `[ceil(vocab_size / 32)]`, all zero. May be called several times for the same token. A mask with no
        bit set fails the request.
        """

    def accept(self, token_id: int) -> None:
        """Take note that the token was chosen; called once for each, stop tokens too."""


@contextmanager
def failing_alone() -> Iterator[None]:
    """Call a constraint in here: what it raises becomes NoTokenAllowed, and its cause goes to the log, not to a client.

    Raises NoTokenAllowed. A SequenceFailed that the constraint raises itself, with its own words, is left as it is.
    """
    try:
        yield
    except (SequenceFailed, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a library written in Rust is no Exception
        logger.warning("the constraint on a request's tokens failed", exc_info=True)
        raise NoTokenAllowed("the constraint on this request's tokens failed") from error
