"""The registry: models are there as a whole, as their cards say, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.errors import InvalidModel, InvalidSettings
from proxy.learning.card import Comparison, DataWindow, ModelCard, readme_of
from proxy.learning.registry import Registry

CARD = ModelCard(
    name="reranker-1",
    kind="reranker",
    made_at=1_764_000_000.0,
    parent="minilm-l6@abc",
    data=DataWindow(since=1_763_000_000.0, until=1_764_000_000.0, lists=1200, held_out=300),
    comparisons=[
        Comparison(
            name="held-out", measure="nDCG@10", queries=300, current=0.8, candidate=0.9, low=0.05, high=0.15, p=0.001
        )
    ],
    p95_milliseconds=123.4,
    machine="2 cores",
)


@pytest.fixture(params=["folder", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    if request.param == "folder":
        return Registry(tmp_path / "registry")
    fsspec.filesystem("memory").store.clear()
    return Registry("memory://registry")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine/model.xml").write_text("<net></net>")
    (folder / "engine/model.bin").write_bytes(bytes(range(256)) * 5000)
    return folder


def test_a_model_comes_back_as_it_was(registry: Registry, model: Path, tmp_path: Path) -> None:
    kept = registry.add(model, CARD)
    assert sorted(kept.files) == ["engine/model.bin", "engine/model.xml"]
    found = registry.fetch("reranker-1", tmp_path / "into")
    assert (found / "engine/model.bin").read_bytes() == (model / "engine/model.bin").read_bytes()
    assert registry.cards() == [kept]
    assert registry.fetch("reranker-1", tmp_path / "into") == found  # a second time it is checked, not copied


def test_the_newest_stands_first(registry: Registry, model: Path) -> None:
    registry.add(model, CARD)
    registry.add(model, msgspec.structs.replace(CARD, name="reranker-2", made_at=CARD.made_at + 1))
    assert [card.name for card in registry.cards()] == ["reranker-2", "reranker-1"]


def test_no_model_is_ever_changed(registry: Registry, model: Path) -> None:
    registry.add(model, CARD)
    with pytest.raises(InvalidModel, match="none is ever changed"):
        registry.add(model, CARD)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def test_a_file_that_was_changed_is_not_loaded(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(model, CARD)
    damage(tmp_path / "registry/reranker-1/engine/model.bin")
    with pytest.raises(InvalidModel, match=r"engine/model\.bin is not what its card says"):
        registry.fetch("reranker-1", tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_copy_that_was_changed_since_is_not_loaded(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(model, CARD)
    damage(registry.fetch("reranker-1", tmp_path / "into") / "engine/model.xml")
    with pytest.raises(InvalidModel, match=r"engine/model\.xml is not what"):
        registry.fetch("reranker-1", tmp_path / "into")


def test_a_model_that_was_not_written_to_the_end_is_none(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(model, CARD)
    (tmp_path / "registry/reranker-1/card.json").unlink()
    assert registry.cards() == []
    with pytest.raises(InvalidModel, match="has no such model"):
        registry.fetch("reranker-1", tmp_path / "into")
    registry.add(model, CARD)  # and may be written anew


def test_a_file_that_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(model, CARD)
    (tmp_path / "registry/reranker-1/engine/model.xml").unlink()
    with pytest.raises(InvalidModel, match=r"lacks engine/model\.xml"):
        registry.fetch("reranker-1", tmp_path / "into")


CHANGES = [{"files": {"../../x": {"sha256": "", "size": 0}}}, {"name": "other"}, {"kind": "cat"}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_card_that_cannot_be_right_is_refused(model: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    registry = Registry(tmp_path / "registry")
    registry.add(model, CARD)
    file = tmp_path / "registry/reranker-1/card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InvalidModel, match="reranker-1"):
        registry.fetch("reranker-1", tmp_path / "into")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", ".hidden", "x" * 81])
def test_a_name_that_is_none_is_refused(registry: Registry, model: Path, name: str) -> None:
    with pytest.raises(InvalidModel, match="is no name of a model"):
        registry.add(model, msgspec.structs.replace(CARD, name=name))


def test_an_unknown_kind_of_url_is_named() -> None:
    with pytest.raises(InvalidSettings, match="cannot be opened"):
        Registry("nothing-such://x")


def test_the_card_is_written_for_people_too() -> None:
    text = readme_of(CARD)
    assert "| held-out | nDCG@10 | 300 | 0.8000 | 0.9000 | +0.1000 (+0.0500 to +0.1500) | 0.0010 |" in text
    assert "p95 of 25 documents: 123 ms (2 cores)" in text
    assert "1,200 lists of what users chose" in text


def test_the_command_lists_and_fetches(model: Path, tmp_path: Path) -> None:
    words = ["models", "--registry", str(tmp_path / "registry")]
    assert "no model yet" in CliRunner().invoke(main, words).output
    Registry(tmp_path / "registry").add(model, CARD)
    assert "reranker-1" in CliRunner().invoke(main, words).output
    assert json.loads(CliRunner().invoke(main, [*words, "--json"]).output)[0]["parent"] == "minilm-l6@abc"
    done = CliRunner().invoke(main, [*words, "fetch", "reranker-1", str(tmp_path / "into")])
    assert (done.exit_code, Path(done.output.strip()).is_dir()) == (0, True)
    assert CliRunner().invoke(main, [*words, "fetch", "reranker-9", str(tmp_path / "into")]).exit_code == 2
