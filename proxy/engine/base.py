"""The port between the batcher and whatever runs the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.pairs import PairEncoder, PairLimits, TokenPair

Logits = NDArray[np.float64]


class Engine(Protocol):
    """Runs one model. Called from one worker thread, never from the event loop."""

    name: str
    """How it runs, for labels: ``openvino-bfloat16``, ``stock-float32-cpu``."""
    precision: str
    """What its weights are multiplied in, here: ``float32``, ``bfloat16``, ``float16`` or ``int8``."""
    encoder: PairEncoder
    limits: PairLimits
    batch_tokens: int
    """Tokens of one batch, padding included."""

    def score(self, batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        """Return the raw logits of each batch, in its order; a batch holds rows of similar length.

        Raises:
            BackendError: the model failed.

        """

    def close(self) -> None:
        """Give back what the model holds."""
