"""Training and quantising, from the shipped model's own weights to a folder that the engine serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from proxy.backends import CrossEncoderBackend
from proxy.cli import main
from proxy.engine.loading import load
from proxy.engine.model_folder import shipped_folder
from proxy.errors import InvalidModel
from proxy.offline.drift import Version
from proxy.offline.float_weights import restore

if TYPE_CHECKING:
    from click.testing import Result

SAMPLE = Path(__file__).parents[2] / "proxy/offline/sample"
TEXTS = ["The cat sat on the mat.", "A soft boiled egg should cook for about six minutes in boiling water.", "Eggs."]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped model in float32."""
    return restore(shipped_folder(), tmp_path_factory.mktemp("restored"))


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 16 short ranking lists of the shipped sample, and return the file."""
    texts = {row["id"]: row["text"] for row in rows("passages.jsonl")}
    good: dict[str, list[str]] = {}
    for row in rows("judgements.jsonl"):
        if row["grade"] > 0:
            good.setdefault(row["query_id"], []).append(row["passage_id"])
    file = tmp_path_factory.mktemp("lists") / "lists.jsonl"
    made = [
        {
            "q": row["query"],
            "pos": [texts[name] for name in good[row["id"]]],
            "neg": [texts[name] for name in row["candidates"] if name not in good[row["id"]]][:3],
        }
        for row in rows("sample_queries.jsonl")
        if row["id"] in good
    ][:16]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_weights_of_an_ir_come_back(restored: Path) -> None:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415 - slow

    version = Version(shipped_folder(), threads=1)
    served = version.logits("how long does an egg cook", TEXTS)
    version.close()
    model = CrossEncoder(str(restored), local_files_only=True)
    found = model.predict([("how long does an egg cook", text) for text in TEXTS], activation_fn=None)
    logits = np.log(found / (1 - found)) if found.max() < 1 and found.min() > 0 else found
    assert np.argsort(logits).tolist() == np.argsort(served).tolist()
    assert np.abs(np.asarray(logits) - served).max() < 1.0


def test_weights_of_another_family_are_not_guessed(tmp_path: Path) -> None:
    for file in shipped_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "xlm-roberta"}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(InvalidModel, match="xlm-roberta is not known"):
        restore(tmp_path, tmp_path / "out")


def test_weights_that_are_not_what_the_configuration_says_are_refused(tmp_path: Path) -> None:
    for file in shipped_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 7}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(InvalidModel, match=r"layer\.6"):
        restore(tmp_path, tmp_path / "out")


def test_a_reranker_is_trained_stopped_and_trained_on(lists: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["train", "reranker", lists, "--out", out, "--held-out", lists, "--batch", 4, "--list-size", 3, "--json"]
    # the steps of one epoch are a schedule: ended early, and gone on with
    ended = run(*words, "--max-minutes", 0.001)
    assert ended.exit_code == 0, ended.output
    first = json.loads(ended.stdout)
    assert first["steps"] == 1
    done = run(*words)
    assert done.exit_code == 0, done.output
    second = json.loads(done.stdout)
    assert second["steps"] > 1
    assert second["after"] >= second["before"]  # on what it was trained on
    assert sorted(file.name for file in (out / "model").glob("*.safetensors")) == ["model.safetensors"]


def test_two_processes_train_one_model(lists: Path, tmp_path: Path) -> None:
    words = [
        "--nproc-per-node",
        "2",
        "-m",
        "proxy.cli",
        "train",
        "reranker",
        str(lists),
        "--out",
        str(tmp_path / "out"),
    ]
    more = [
        "--out",
        str(tmp_path / "out"),
        "--held-out",
        str(lists),
        "--batch",
        "2",
        "--list-size",
        "3",
        "--max-lists",
        "12",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["steps"] == 3  # 12 lists, 2 a step in each of 2 processes
    assert (tmp_path / "out/model/model.safetensors").is_file()


def test_a_retriever_is_trained(restored: Path, lists: Path, tmp_path: Path) -> None:
    words = ["train", "retriever", lists, "--from", restored, "--held-out", lists, "--batch", 8, "--max-length", 64]
    done = run(*words, "--out", tmp_path / "out", "--max-lists", 16, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == 2
    assert (tmp_path / "out/model/modules.json").is_file()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"q": "a", "pos": ["b"]}', "neg"),
        ('{"q": "a", "pos": [4], "neg": ["b"]}', "line 4 of 0 passages"),
        ("not json", "lists.jsonl:1"),
        ('{"q": "a", "pos": ["b"], "neg": ["c"]}', "it takes 1 and 10"),
    ],
)
def test_lists_that_cannot_be_trained_on_are_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "lists.jsonl"
    file.write_text("\n".join([line] * (20 if "4]" in line else 1)))
    done = run("train", "reranker", file, "--out", tmp_path / "out", *(["--held-out", file] if "4]" in line else []))
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_a_model_is_quantised_and_then_served(restored: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    done = run("quantize", restored, "--out", out, "--limit", 12, "--depth", 6, "--max-loss", 0.2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    exact, *_, small = found["versions"]
    assert small["engine"].startswith("openvino-int8")
    assert small["megabytes"] < exact["megabytes"] / 3
    assert small["drift"]["spearman"] > 0.8
    loaded = load(CrossEncoderBackend(model=str(out)))
    assert loaded.calibration.slope > 0
    loaded.engine.close()


def test_a_model_that_loses_too_much_is_not_written(restored: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    done = run("quantize", restored, "--out", out, "--limit", 8, "--depth", 4, "--max-loss", -1)
    assert done.exit_code == 1
    assert "is not written" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_that_lacks_something_is_not_quantised(restored: Path, tmp_path: Path, lacks: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in restored.iterdir():
        if file.name != lacks:
            (folder / file.name).symlink_to(file)
    done = run("quantize", folder, "--limit", 8)
    assert done.exit_code == 2
    assert str(folder) in done.output.replace("\n", "")
