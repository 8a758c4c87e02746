"""The lines that a training logs: at its start and after each epoch, and the epoch's line in history.json."""

from __future__ import annotations

from typing import Any

from affect.engine.metrics.output_metrics import OF_CLASS
from affect.engine.system.device import describe
from affect.engine.training.diagnostics import loss_ratio
from affect.engine.training.learner import Learner, compile_mode
from affect.engine.training.meter import Meter


def start_line(learner: Learner, steps: int) -> str:
    run, ranks, loader = learner.run, learner.ranks, learner.loader
    return (
        f"train: {learner.task}, {run.model.backbone} at {run.model.image_size} px on {describe(learner.device)}"
        + (f", {ranks.world} processes" if ranks.world > 1 else "")
        + f"; {learner.dtype or 'float32'} ({learner.precision_reason}); compile {compile_mode(run, learner.device) or 'off'}; "
        f"loader {loader.kind}; {learner.loss.implementation()}; "
        f"{len(loader.order.rows):,} samples, {steps:,} steps of {loader.order.batch}"
    )


def history_line(learner: Learner, meter: Meter, lr: float, values: dict[str, float]) -> dict[str, Any]:
    """The line of history.json of the epoch that has just ended. meter: over all processes. values: of validation."""
    epoch, loss = len(learner.state.history), learner.loss
    losses = {name: meter.mean(name) for name in meter.sums if name not in ("total", "gradient")}
    line = {
        "epoch": epoch,
        "train_loss": meter.mean(),
        "losses": losses,
        "weighted_losses": {name: weight * losses[name] for name, weight in loss.weight_of.items()},
        **loss.at_epoch(epoch),
        "lr": lr,
        "seconds": meter.seconds,
        "images_per_s": meter.steps * learner.loader.order.batch / max(meter.seconds, 1e-9),
        "waiting_share": meter.waiting_share,
        "final_head": learner.model.head.is_final(epoch),
        "val": values,
    }
    ratio = loss_ratio(line)
    return line if ratio is None else line | {"loss_ratio": ratio}


def epoch_line(line: dict[str, Any], *, best: bool) -> str:
    """Return the log line of a line of the history; the figures of single classes and of training rows are left out."""
    figures = {name: value for name, value in line["val"].items() if not name.startswith(("train_", OF_CLASS))}
    return (
        f"epoch {line['epoch']}: loss {line['train_loss']:.4f}, "
        + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        + f"; {line['seconds']:.0f} s, waiting {100 * line['waiting_share']:.1f} %"
        + (", the best so far" if best else "")
    )
