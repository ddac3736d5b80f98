"""Unleash's gradual rollout, computed here to show and to explain; the Unleash engine decides."""

from __future__ import annotations

import mmh3


def bucket(group_id: str, key: str) -> int:
    """Return the 1-to-100 bucket of *key*.

    The one that Unleash's flexibleRollout computes: murmur3 (x86, 32 bit, seed 0) of ``group_id:key``,
    modulo 100, plus 1. A user is in where the bucket is at most the rollout percentage.
    """
    hashed: int = mmh3.hash(f"{group_id}:{key}", 0, signed=False)
    return hashed % 100 + 1
