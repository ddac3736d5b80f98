"""Trains the cross-encoder that the proxy ships: ``rerank-canary train reranker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from datasets import Dataset
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from transformers import EarlyStoppingCallback, TrainerCallback

from proxy.offline.losses import ListwiseLoss
from proxy.offline.teacher import Teacher
from proxy.offline.training_data import Example, TrainingList, draw_epoch, read_lists, read_passages, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import TrainerControl, TrainerState, TrainingArguments


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to train on and how long."""

    data: Path
    out: Path
    backbone: Path
    passages: Path | None = None
    teacher: Path | None = None
    exclude_sources: frozenset[str] = frozenset()
    layers: int | None = None
    """Keep this many of the backbone's layers, evenly spaced, the last among them."""
    epochs: int = 3
    list_size: int = 8
    source_cap: int = 5000
    """No more lists of one source in an epoch than this."""
    lists_per_step: int = 16
    learning_rate: float = 7e-5
    max_length: int = 176
    held_out: int = 150
    evaluate_steps: int = 500
    patience: int = 4
    train_embeddings: bool = False
    seed: int = 20


def train_reranker(plan: TrainingPlan) -> Path:
    """Fine-tune a cross-encoder as *plan* says, going on from a checkpoint in its folder if there is one.

    Returns:
        The folder of the best model by nDCG@10 on held-out queries.

    """
    lists = read_lists(plan.data, exclude=plan.exclude_sources)
    passages = read_passages(plan.passages) if plan.passages else []
    training, held_out = split(lists, plan.held_out, plan.seed)
    examples = [
        example
        for epoch in range(plan.epochs)
        for example in draw_epoch(
            training, passages, list_size=plan.list_size, source_cap=plan.source_cap, seed=plan.seed + epoch
        )
    ]
    teacher = Teacher(plan.teacher, _texts(examples), plan.out) if plan.teacher else None
    model = load_backbone(plan)
    trainer = CrossEncoderTrainer(
        model=model,
        args=_arguments(plan),
        train_dataset=_dataset(examples, teacher),
        loss=ListwiseLoss(model),
        evaluator=_evaluator(held_out, passages),
        callbacks=[EarlyStoppingCallback(plan.patience), RichProgress()],
    )
    trainer.train(resume_from_checkpoint=any((plan.out / "checkpoints").glob("checkpoint-*")) or None)
    best = plan.out / "model"
    model.save_pretrained(str(best))
    return best


def load_backbone(plan: TrainingPlan) -> CrossEncoder:
    """Return a cross-encoder on the backbone, its embeddings frozen unless the plan trains them."""
    model = CrossEncoder(
        str(plan.backbone),
        num_labels=1,
        max_length=plan.max_length,
        activation_fn=torch.nn.Identity(),
        local_files_only=True,
        model_kwargs={"attn_implementation": "eager", "dtype": "float32"},
        config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )
    base = model.model.base_model
    if plan.layers:
        layers = base.encoder.layer
        kept = [round((i + 1) * len(layers) / plan.layers) - 1 for i in range(plan.layers)]
        base.encoder.layer = torch.nn.ModuleList([layers[i] for i in kept])
        model.model.config.num_hidden_layers = plan.layers
    if not plan.train_embeddings:
        base.embeddings.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    return model


def _texts(examples: Iterable[Example]) -> Iterable[str]:
    for example in examples:
        yield example.query
        yield from example.passages


def _dataset(examples: Sequence[Example], teacher: Teacher | None) -> Dataset:
    def rows() -> Iterable[dict[str, Any]]:
        for example in examples:
            similar = (
                teacher.similarities(example.query, example.passages)
                if teacher
                else [float("nan")] * len(example.passages)
            )
            labels = [[float(i == 0), s] for i, s in enumerate(similar)]
            yield {"query": example.query, "passages": example.passages, "labels": labels}

    return Dataset.from_list(list(rows()))


def _evaluator(held_out: Sequence[TrainingList], passages: Sequence[str]) -> CrossEncoderRerankingEvaluator:
    def text(passage: str | int) -> str:
        return passage if isinstance(passage, str) else passages[passage]

    samples = [
        {
            "query": row.query,
            "positive": [text(p) for p in row.positives],
            "negative": [text(p) for p in row.negatives],
        }
        for row in held_out
    ]
    return CrossEncoderRerankingEvaluator(samples=samples, at_k=10, name="held_out", batch_size=64)


def _arguments(plan: TrainingPlan) -> CrossEncoderTrainingArguments:
    return CrossEncoderTrainingArguments(
        output_dir=str(plan.out / "checkpoints"),
        num_train_epochs=1,  # the epochs stand one after the other in the data set
        per_device_train_batch_size=plan.lists_per_step,
        learning_rate=plan.learning_rate,
        warmup_steps=0.06,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        use_cpu=not torch.cuda.is_available(),
        bf16=True,
        eval_strategy="steps",
        eval_steps=plan.evaluate_steps,
        save_steps=plan.evaluate_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_held_out_ndcg@10",
        logging_steps=50,
        report_to="none",
        disable_tqdm=True,
        seed=plan.seed,
    )


class RichProgress(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
    """One progress bar with loss and held-out nDCG."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._figures: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Show the bar."""
        del args, control, kwargs
        self._bar.start()
        self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step, figures="")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move the bar."""
        del args, control, kwargs
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Show the newest figures."""
        del args, state, control, kwargs
        wanted = {"loss": "loss", "eval_held_out_ndcg@10": "nDCG@10"}
        self._figures |= {wanted[name]: value for name, value in (logs or {}).items() if name in wanted}
        text = "  ".join(f"{name} {value:.4f}" for name, value in self._figures.items())
        self._bar.update(self._task, figures=text)
        self._bar.console.log(text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the bar away."""
        del args, state, control, kwargs
        self._bar.stop()
