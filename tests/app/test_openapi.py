"""The served OpenAPI page, and a fuzzer that believes it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from proxy.offline.index_corpus import write_index
from tests.retrieval import write_jsonl
from tests.running import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Plane


async def page(plane: Plane) -> dict[str, Any]:
    found: dict[str, Any] = (await plane.client.get("/docs/openapi.json")).json()
    return found


async def test_every_path_that_ranks_says_what_it_takes_and_answers(plane: Plane) -> None:
    paths = (await page(plane))["paths"]
    posts = {path: operations["post"] for path, operations in paths.items() if "post" in operations}
    feedback = posts.pop("/v1/feedback")
    assert {"200", "400", "401", "413", "429"} <= set(feedback["responses"])
    assert len(posts) == 10
    for operation in posts.values():
        assert operation["requestBody"]["content"]["application/json"]["schema"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert {"400", "401", "413", "422", "429", "503", "504"} <= set(operation["responses"])


async def test_a_dialect_names_its_fields(plane: Plane) -> None:
    schema = (await page(plane))["paths"]["/v2/rerank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"query", "documents", "top_n", "max_tokens_per_doc"} <= set(schema["properties"])
    assert set(schema["required"]) == {"query", "documents"}


async def test_the_docs_are_a_page_that_needs_nothing_from_elsewhere(plane: Plane) -> None:
    response = await plane.client.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "POST /v1/rerank" in response.text
    assert "/docs/openapi.json" in response.text
    assert "://" not in response.text
    assert "<script" not in response.text


@pytest.mark.timeout(600)
def test_a_fuzzer_finds_no_5xx_and_no_undocumented_status(tmp_path: Path) -> None:
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index")
    env = {
        "RERANK_CANARY__SEARCH__INDEX": str(tmp_path / "index"),
        "RERANK_CANARY__BACKENDS__GPT__KIND": "llm",
        "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "50",
    }
    with Proxy(tmp_path / "proxy", env) as proxy:
        found = subprocess.run(
            [
                *(f"{os.path.dirname(sys.executable)}/schemathesis", "run", f"{proxy.url}/docs/openapi.json"),  # noqa: PTH120
                *("--checks", "not_a_server_error,status_code_conformance,response_schema_conformance"),
                *("--max-examples", "30", "--workers", "2", "--seed", "7", "--phases", "examples,coverage,fuzzing"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout[-6000:]
        assert "No issues found" in found.stdout or "passed" in found.stdout
        assert not proxy.logged("request.failed")
        assert not proxy.logged("arm.failed")
