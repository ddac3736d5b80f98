"""How long and how fast is trained, and what is seen of it: the same for a reranker and a retriever."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import EarlyStoppingCallback, TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import TrainerControl, TrainerState, TrainingArguments


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """How much, how fast, and when it ends."""

    epochs: int = 3
    batch: int = 16
    """Lists, or pairs of query and passage, of one step and process."""
    learning_rate: float = 7e-5
    evaluate_steps: int = 500
    """Held-out queries are ranked after so many steps, and at least five times."""
    patience: int = 4
    """Training ends when so many evaluations in a row were no better."""
    max_examples: int | None = None
    max_seconds: float | None = None
    """Training ends then, wherever it is; the best so far is kept."""
    seed: int = 20


def arguments_of(schedule: Schedule, out: Path, examples: int, metric: str) -> dict[str, Any]:
    """Return the arguments of a trainer: bfloat16, a cosine, the best checkpoint by *metric*."""
    steps = max(1, -(-examples // (schedule.batch * processes())))
    every = max(1, min(schedule.evaluate_steps, steps // 5))
    return dict(  # noqa: C408 - read as the call that it becomes
        output_dir=str(out / "checkpoints"),
        num_train_epochs=1,  # the epochs stand one after the other in the data set
        per_device_train_batch_size=schedule.batch,
        learning_rate=schedule.learning_rate,
        warmup_steps=0.06,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if processes() > 1 and not torch.cuda.is_available() else None,
        bf16=True,
        eval_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        logging_steps=min(50, every),
        report_to="none",
        disable_tqdm=True,
        seed=schedule.seed,
    )


def callbacks_of(schedule: Schedule, figures: Mapping[str, str]) -> list[TrainerCallback]:
    """Return who stops training early, and who shows it; *figures*: what the trainer calls them → what people do."""
    deadline = [] if schedule.max_seconds is None else [Deadline(schedule.max_seconds)]
    shown = [RichProgress(figures)] if is_first_process() else []
    return [EarlyStoppingCallback(schedule.patience), *deadline, *shown]


def resumable(out: Path) -> bool | None:
    """Return whether there is a checkpoint to go on from, as a trainer wants to be told."""
    return any((out / "checkpoints").glob("checkpoint-*")) or None


def processes() -> int:
    """Return how many train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Tell whether this is the process that writes and shows."""
    return os.environ.get("RANK", "0") == "0"


class Deadline(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
    """Evaluates, saves and ends when the time is over."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> TrainerControl:
        """Look at the clock."""
        del state, kwargs
        if _any(time.monotonic() >= self._ends_at, args.device):
            control.should_evaluate = control.should_save = control.should_training_stop = True
        return control


def _any(is_so: bool, device: torch.device) -> bool:  # noqa: FBT001 - what is asked about
    """Tell whether it is so in one of the processes: they must all stop at the same step, or wait for ever."""
    if not torch.distributed.is_initialized():
        return is_so
    told = torch.tensor(float(is_so), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told.item())


class RichProgress(TrainerCallback):  # type: ignore[misc]  # transformers ships no types for it
    """One progress bar, on stderr, with the newest figures."""

    def __init__(self, figures: Mapping[str, str]) -> None:
        self._wanted = figures
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
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
        logs: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        """Show the newest figures."""
        del args, state, control, kwargs
        self._figures |= {self._wanted[name]: value for name, value in (logs or {}).items() if name in self._wanted}
        text = "  ".join(f"{name} {value:.4f}" for name, value in self._figures.items())
        self._bar.update(self._task, figures=text)
        self._bar.console.log(text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the bar away."""
        del args, state, control, kwargs
        self._bar.stop()
