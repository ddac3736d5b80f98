"""The README's own words: its curl gives its answer."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy as `make run` starts it."""
    with Proxy(tmp_path_factory.mktemp("readme")) as started:
        yield started


def block(language: str, beginning: str) -> str:
    """Return the README's block of a language that begins so."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return next(each for each in blocks if each.startswith(beginning))


def without_what_changes(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["meta"].pop("feedback").startswith("AQ")
    return {name: value for name, value in answer.items() if name not in {"id", "created"}}


def test_the_curl_gives_the_answer_that_stands_below_it(proxy: Proxy) -> None:
    command = block("sh", "curl").replace("localhost:8080", proxy.url.removeprefix("http://"))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert without_what_changes(json.loads(done.stdout)) == without_what_changes(json.loads(block("json", "{")))


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) < 150
