"""What quantising a model came to, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.offline.benchmark_tables import Table
from proxy.offline.drift import DOCUMENTS, TOKENS

if TYPE_CHECKING:
    from proxy.offline.drift import Measured
    from proxy.offline.quantize import Quantized

_COLUMNS = ["engine", "MB", "ms", "times as fast", "nDCG@10", "loss", "95 % of it", "Spearman", "top-5 overlap"]


def table_of(found: Quantized) -> Table:
    """Return a row for each version, float32 first."""
    first = found.versions[0]
    captions = [
        f"ms: median for {DOCUMENTS} documents of {TOKENS} tokens, tokenising included, {found.threads} threads",
        f"loss: of nDCG@10, on {found.queries} queries of {found.collection}; at most {found.max_loss:.2%} is allowed",
        f"activation ranges from {found.pairs} pairs, none of them of these queries",
        *found.notes,
    ]
    return Table(found.model, _COLUMNS, [_row(each, first) for each in found.versions], captions)


def _row(each: Measured, first: Measured) -> list[str]:
    drift = each.drift
    return [
        each.engine,
        f"{each.megabytes:.1f}",
        f"{each.milliseconds:.1f}",
        f"{first.milliseconds / each.milliseconds:.2f}",
        f"{each.ndcg10:.4f}",
        *(
            ["-"] * 4
            if drift is None
            else [
                f"{drift.ndcg_loss:+.2%}",
                f"{drift.ndcg_loss_low:+.2%} to {drift.ndcg_loss_high:+.2%}",
                f"{drift.spearman:.4f}",
                f"{drift.top5_overlap:.3f}",
            ]
        ),
    ]
