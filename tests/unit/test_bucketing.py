from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.bucketing import bucket

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/unleash_buckets.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['group_id']}:{v['key']}")
def test_the_bucket_is_the_one_unleash_computes(vector: dict[str, Any]) -> None:
    assert bucket(vector["group_id"], vector["key"]) == vector["bucket"]


@given(st.text(), st.text())
def test_a_bucket_is_a_whole_number_from_1_to_100_and_always_the_same(group_id: str, key: str) -> None:
    found = bucket(group_id, key)
    assert 1 <= found <= 100
    assert bucket(group_id, key) == found


def test_buckets_are_spread_evenly() -> None:
    share = sum(bucket("g", f"user-{i}") <= 5 for i in range(20_000)) / 20_000
    assert abs(share - 0.05) < 0.0062  # four standard errors
