"""The training loop: AdamW, schedule, clipping, averaged weights, resumable, one process or many.

    torchrun --nproc-per-node 4 -m seqgen train --plugin speech --preset tiny ...

runs the same loop under DistributedDataParallel. A run's folder holds `state.pt` (everything
needed to go on), `log.jsonl` (one line a logged step or validation) and `curve.png`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqgen.errors import CheckpointError, ConfigError, SeqgenError
from seqgen.seeds import item_seed
from seqgen.training.task import FitConfig, TrainingRun
from seqgen.transformer import Transformer

Report = Callable[[dict[str, Any]], None]


def fit(
    run: TrainingRun,
    config: FitConfig,
    *,
    folder: Path,
    seed: int = 0,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train until `config.steps`; returns the last validation with step, minutes and losses.

    Args:
        folder: where the state, the log and the curve are kept.
        resume: go on from `folder/state.pt`. The result equals an unbroken run's, since batches
            and random numbers are functions of the step.
        report: called with every line of the log (for progress on a terminal).

    Raises:
        ConfigError: the folder holds another run and `resume` is not set.
        CheckpointError: the state to resume from is missing or damaged.
        SeqgenError: the loss is not finite.
    """
    rank, world = _join_processes()
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.pt"
    if state_file.exists() and not resume:
        raise ConfigError(
            f"{folder} already holds a training run",
            fix="add --resume to go on, or choose another folder",
        )
    device = next(run.model.parameters()).device
    if config.compile:
        _require_compiler(device)
        for module in run.model.modules():
            if isinstance(module, Transformer):
                module.compile_training()
    objective: nn.Module = _Objective(run, config.precision)
    if world > 1:
        objective = nn.parallel.DistributedDataParallel(
            objective,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=True,
        )
    optimizer = _optimizer(run.model, config)
    average = _Average(run.model, config.ema) if config.ema else None
    step, spent = 0, 0.0
    if resume and state_file.exists():
        step, spent = _restore(state_file, run.model, optimizer, average, config)

    log = _Log(folder / "log.jsonl", report, quiet=rank > 0, keep_until=step)
    started = time.monotonic()
    totals: dict[str, list[float]] = {}
    result = log.last_validation()
    run.model.train()
    last = min(config.stop or config.steps, config.steps)
    while step < last:
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Every step has its own seed: no random state has to be kept, on any device or process.
        torch.manual_seed(item_seed(seed, f"step {step} rank {rank}"))
        figures: dict[str, float] = {}
        for part in range(config.accumulate):
            batch = run.batch(step * config.accumulate + part, rank, world)
            losses: dict[str, Tensor] = objective(batch, step)
            torch.autograd.backward(losses["loss"] / config.accumulate)
            for name, value in losses.items():
                share = float(value.detach()) / config.accumulate
                figures[name] = figures.get(name, 0.0) + share
        if not math.isfinite(figures["loss"]):
            # Before the weights are spoilt: what was saved last is good.
            raise SeqgenError(
                f"the loss is not finite at step {step + 1}",
                why=f"the losses of this step: {figures}",
                fix="lower the learning rate (--set lr=...), or look at the data of this step",
            )
        if config.clip:
            norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.clip)
            figures["gradient_norm"] = float(norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(run.model, step)
        step += 1
        for name, figure in figures.items():
            totals.setdefault(name, []).append(figure)
        minutes = (spent + time.monotonic() - started) / 60
        # Early figures: a wrong set-up shows in the first minute, not at the first full interval.
        if step % config.log_every == 0 or step in (1, 5, 10, 20) or step == last:
            # Not every loss occurs in every step: stages differ.
            means = {name: sum(each) / len(each) for name, each in totals.items()}
            log.write({"step": step, "minutes": minutes, "lr": rate, **means})
            totals = {}
        if step % config.validate_every == 0 or step == last:
            with _evaluating(run.model, average):
                metrics = run.validate() if rank == 0 else {}
            result = {"step": step, "minutes": minutes, **metrics}
            log.write({"validation": True, **result})
        if rank == 0 and (step % config.save_every == 0 or step == last):
            _save(state_file, run.model, optimizer, average, step, minutes * 60, config)
    if rank == 0:
        with _evaluating(run.model, average):
            notes = {"fit": asdict(config), "seed": seed, **result}
            result["checkpoint"] = str(run.export(folder, notes))
        log.plot(folder / "curve.png")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return result


def _require_compiler(device: torch.device) -> None:
    """torch.compile writes C++ for a CPU."""
    if device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise ConfigError(
            "there is no C++ compiler for torch.compile",
            why=" ".join(str(error).split()[:20]),
            fix="--set compile=false (slower, the same result), or install g++",
        ) from error


def learning_rate(config: FitConfig, step: int) -> float:
    """The rate of a step: linear warm-up, then the schedule down to `final_lr` of the peak.

    With `restart` both happen twice: before that step and from it on.
    """
    length = config.steps
    if config.restart:
        late = step >= config.restart
        step, length = (
            (step - config.restart, length - config.restart) if late else (step, config.restart)
        )
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, length - config.warmup)
    if config.schedule == "constant":
        return config.lr
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape)


class _Objective(nn.Module):
    """The run's losses as a module, so that DistributedDataParallel can wrap them."""

    def __init__(self, run: TrainingRun, precision: str) -> None:
        super().__init__()
        self.model = run.model
        self.run = run
        self.autocast = precision == "bfloat16"

    def forward(self, batch: Any, step: int) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.autocast):
            return self.run.losses(batch, step)


class _Average:
    """Exponential moving average of the weights, warmed up so that early weights do not linger."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from these weights, wherever they lie."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


@contextmanager
def _evaluating(model: nn.Module, average: _Average | None) -> Iterator[None]:
    """The model in eval mode with averaged weights; put back afterwards."""
    kept = None
    if average is not None:
        kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(average.weights)
    model.eval()
    try:
        yield
    finally:
        if kept is not None:
            model.load_state_dict(kept)
        model.train()


def _optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(0.9, config.beta2),
        eps=1e-8,
    )


def _save(
    file: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: _Average | None,
    step: int,
    seconds: float,
    config: FitConfig,
) -> None:
    temporary = file.with_suffix(".part")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": None if average is None else average.weights,
            "step": step,
            "restart": config.restart,
            "seconds": seconds,
        },
        temporary,
    )
    temporary.replace(file)


def _restore(
    file: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: _Average | None,
    config: FitConfig,
) -> tuple[int, float]:
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.restore(state["average"] or state["model"])
    except Exception as error:
        raise CheckpointError(
            f"{file} cannot be resumed",
            why=str(error).splitlines()[0],
            fix="use the options the run was started with, or start another folder",
        ) from error
    step, begun = int(state["step"]), int(state.get("restart", config.restart))
    if 0 < config.restart < step and not 0 < begun < step:
        # What happens at the beginning of a stage would never happen.
        raise ConfigError(
            f"the second stage cannot begin at step {config.restart}: {file} is at step {step}",
            why="it was saved in the first stage",
            fix=f"--set restart={step} or later",
        )
    return step, float(state["seconds"])


class _Log:
    """JSON lines, one a report; lines beyond the resumed step are dropped."""

    def __init__(self, file: Path, report: Report | None, *, quiet: bool, keep_until: int) -> None:
        self.file, self.report, self.quiet = file, report, quiet
        self.lines: list[dict[str, Any]] = []
        if file.exists() and not quiet:
            old = [json.loads(line) for line in file.read_text().splitlines() if line]
            self.lines = [line for line in old if line["step"] <= keep_until]
            file.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, line: dict[str, Any]) -> None:
        if self.quiet:
            return
        line = {k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}
        self.lines.append(line)
        with self.file.open("a") as out:
            out.write(json.dumps(line) + "\n")
        if self.report is not None:
            self.report(line)

    def last_validation(self) -> dict[str, Any]:
        """What the run has validated last, of lines that an earlier process wrote."""
        found = [line for line in self.lines if line.get("validation")]
        return {k: v for k, v in found[-1].items() if k != "validation"} if found else {}

    def plot(self, file: Path) -> None:
        """Losses and validation metrics over steps."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        skip = {"step", "minutes", "lr", "validation", "gradient_norm"}
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
        for axis, validation in zip(axes, (False, True), strict=True):
            lines = [x for x in self.lines if bool(x.get("validation")) == validation]
            names = sorted({k for x in lines for k, v in x.items() if isinstance(v, float)} - skip)
            for name in names:
                points = [(x["step"], x[name]) for x in lines if name in x]
                axis.plot(*zip(*points, strict=True), marker="." if validation else "", label=name)
            axis.set_title("validation" if validation else "training loss")
            axis.set_xlabel("step")
            if names:
                axis.legend()
        figure.savefig(file, dpi=120)
        plt.close(figure)


def _join_processes() -> tuple[int, int]:
    """(rank, world size); joins the process group that torchrun has set up."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)
