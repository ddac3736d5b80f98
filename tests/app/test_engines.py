"""The engines on real files: what they score alike, and what they refuse to load."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.doubt import doubt_of
from proxy.engine.loading import load
from proxy.engine.model_folder import read_facts, revision_of, shipped_folder
from proxy.engine.stock import StockEngine
from proxy.errors import InvalidModel, InvalidSettings, NotReady
from proxy.settings import CrossEncoderBackend, Fallback
from tests.running import DOCUMENTS, QUERY

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
SHIPPED = shipped_folder()
TEXTS = [*DOCUMENTS, "🙂 שלום", "x" * 900, "tree " * 700, "a"]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small cross-encoder with random weights, head included, on the shipped vocabulary."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast  # noqa: PLC0415 - slow

    folder = tmp_path_factory.mktemp("random")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(SHIPPED / "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(folder)
    return folder


def stock(folder: Path, **fields: Any) -> StockEngine:
    return StockEngine(
        str(folder),
        **{
            "device": "cpu",
            "rows": 3,
            "max_tokens": None,
            "limits_query": 128,
            "windows": False,
            "trust_remote_code": False,
            **fields,
        },
    )


def test_the_stock_engine_scores_as_predict_does(random_model: Path) -> None:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415 - slow

    reference = CrossEncoder(str(random_model), device="cpu", activation_fn=torch.nn.Identity())
    expected = reference.predict([(QUERY, text) for text in TEXTS], batch_size=16, show_progress_bar=False)
    engine = stock(random_model)
    assert (engine.precision, engine.name) == ("float32", "stock-float32-cpu")
    rows = engine.encoder.encode(QUERY, TEXTS, engine.limits).rows
    assert engine.score([rows])[0] == pytest.approx(np.asarray(expected, dtype=np.float64), abs=1e-5)


def test_rows_of_the_stock_engine_may_come_in_any_batches(random_model: Path) -> None:
    engine = stock(random_model)
    rows = engine.encoder.encode(QUERY, TEXTS, engine.limits).rows
    parts = engine.score([rows[:2], rows[2:3], rows[3:]])
    assert np.concatenate(parts) == pytest.approx(engine.score([rows])[0], abs=1e-5)


def test_a_model_whose_head_is_missing_is_refused(random_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - slow

    folder = tmp_path / "headless"
    shutil.copytree(random_model, folder)
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("classifier")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModel, match="the head would be random"):
        stock(folder)


def test_a_model_that_ranks_at_random_is_refused(random_model: Path) -> None:
    with pytest.raises(InvalidModel, match="is its head trained"):
        load(CrossEncoderBackend(model=str(random_model)))


def test_a_model_of_another_task_is_refused(random_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "three"
    shutil.copytree(random_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    config["label2id"] = {"a": 0, "b": 1, "c": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidModel):
        load(CrossEncoderBackend(model=str(folder)))


def test_an_explicit_length_over_the_positions_is_capped(random_model: Path) -> None:
    assert stock(random_model, max_tokens=1024).limits.pair == 512


def test_a_device_that_is_not_there_is_refused(random_model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InvalidModel, match="no CUDA device"):
        stock(random_model, device="cuda")


@pytest.mark.parametrize("broken", ["model.bin", "model.xml", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
def test_a_broken_model_folder_is_refused_with_the_reason(tmp_path: Path, broken: str, how: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(SHIPPED, folder)
    file = folder / broken
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")
    with pytest.raises(InvalidModel):
        load(CrossEncoderBackend(model=str(folder)))


def test_a_name_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidModel, match="cannot be loaded"):
        load(CrossEncoderBackend(model="no-such/model"))


def test_the_openvino_engine_refuses_a_folder_without_an_ir(random_model: Path) -> None:
    with pytest.raises(InvalidModel, match="stock"):
        load(CrossEncoderBackend(model=str(random_model), engine="openvino"))


def test_a_revision_changes_with_the_weights_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(SHIPPED, folder)
    assert revision_of(folder) == revision_of(SHIPPED)
    with (folder / "model.bin").open("r+b") as file:
        file.write(b"\1\2\3")
    assert revision_of(folder) != revision_of(SHIPPED)


def test_roberta_counts_its_positions_from_the_padding_on(tmp_path: Path) -> None:
    facts = {"max_position_embeddings": 514, "model_type": "xlm-roberta", "num_labels": 1, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    assert read_facts(tmp_path).max_tokens == 512


async def arm(**fields: Any) -> CrossEncoderArm:
    made = CrossEncoderArm(CrossEncoderBackend(**fields))
    await made.start()
    return made


async def test_a_score_does_not_depend_on_what_shares_its_batch() -> None:
    made = await arm(cache_entries=0)
    deadline = time.monotonic() + 60
    alone = [(await made.score(QUERY, [text], deadline=deadline)).logits[0] for text in TEXTS]
    together = (await made.score(QUERY, TEXTS, deadline=deadline)).logits
    assert together == pytest.approx(alone, abs=0.2)
    assert np.argsort(together).tolist() == np.argsort(alone).tolist()
    await made.close()


async def test_a_pair_seen_before_is_answered_from_memory() -> None:
    made = await arm()
    deadline = time.monotonic() + 60
    first = await made.score(QUERY, DOCUMENTS, deadline=deadline)
    again = await made.score(QUERY, [*DOCUMENTS, "new"], deadline=deadline)
    assert again.logits[: len(DOCUMENTS)] == first.logits
    assert first.tokens < again.tokens < 2 * first.tokens
    other = await made.score(QUERY, DOCUMENTS, deadline=deadline, max_document_tokens=4)
    assert other.logits != first.logits
    await made.close()


async def test_what_is_said_of_a_pair_does_not_depend_on_the_memory() -> None:
    made = await arm()
    deadline = time.monotonic() + 60
    query, texts = "virus " * 200, [*DOCUMENTS, "tree " * 700]
    first = await made.score(query, texts, deadline=deadline)
    again = await made.score(query, texts, deadline=deadline)
    half = await made.score(query, [*texts, "new"], deadline=deadline)
    assert len(first.warnings) == 2
    assert again.tokens == first.tokens > 0
    assert again.warnings == half.warnings == first.warnings
    await made.close()


@pytest.mark.parametrize("is_calibrated", [True, False], ids=["as shipped", "never calibrated"])
def test_a_mean_that_no_list_of_candidates_reaches_stops_the_start(tmp_path: Path, is_calibrated: bool) -> None:  # noqa: FBT001 - a parameter
    folder = tmp_path / "m"
    shutil.copytree(SHIPPED, folder)
    if not is_calibrated:
        (folder / "calibration.json").unlink(missing_ok=True)
    model = load(CrossEncoderBackend(model=str(folder)))
    with pytest.raises(InvalidSettings, match="every request would fall back"):
        doubt_of(Fallback(statistic="mean", threshold=6.5), model)


def test_the_engines_name_says_in_what_precision_it_runs() -> None:
    engine = load(CrossEncoderBackend()).engine
    assert engine.precision == "int8"
    assert engine.name in {"openvino-int8-float32", "openvino-int8-bfloat16"}  # as the CPU runs the rest


async def test_windows_find_an_answer_at_the_end_of_a_long_document() -> None:
    buried = "The weather was mild and the roads were dry. " * 80 + DOCUMENTS[1]
    deadline = time.monotonic() + 60
    cut, windowed = await arm(), await arm(long_documents="windows")
    without = (await cut.score(QUERY, [buried], deadline=deadline)).logits[0]
    found = (await windowed.score(QUERY, [buried], deadline=deadline)).logits[0]
    assert found > without + 1
    await cut.close()
    await windowed.close()


async def test_two_thousand_documents_are_scored() -> None:
    made = await arm()
    texts = [f"virus {i}" for i in range(2000)]
    answer = await made.score(QUERY, texts, deadline=time.monotonic() + 120)
    assert len(answer.logits) == 2000
    await made.close()


async def test_an_arm_that_is_not_started_is_not_ready() -> None:
    with pytest.raises(NotReady):
        await CrossEncoderArm(CrossEncoderBackend()).score("q", ["a"], deadline=time.monotonic() + 1)
