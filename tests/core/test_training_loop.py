"""The training loop: it learns, stops on nonsense, resumes exactly, and runs on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgen.errors import CheckpointError, ConfigError, SeqgenError
from seqgen.training.loop import fit, learning_rate
from seqgen.training.task import FitConfig

CONFIG = FitConfig(
    steps=12, lr=0.05, warmup=2, clip=1.0, ema=0.9, log_every=3, validate_every=5, save_every=4
)


class Line:
    """Fits y = 3 x1 - 2 x2 through a little dropout; validation draws random numbers too."""

    def __init__(self, *, dropout: float = 0.2, bad_step: int = -1, die_at: int = -1) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(2, 4), nn.Dropout(dropout), nn.Linear(4, 1))
        self.bad_step, self.die_at = bad_step, die_at

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.randn(8 * world, 2, generator=generator)[8 * rank : 8 * (rank + 1)]
        return x, x @ torch.tensor([[3.0], [-2.0]])

    def losses(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        if step == self.die_at:
            raise KeyboardInterrupt
        x, y = batch
        loss = (self.model(x) - y).square().mean()
        return {"loss": loss * (torch.inf if step == self.bad_step else 1.0)}

    def validate(self) -> dict[str, float]:
        assert not self.model.training
        torch.rand(3)
        x = torch.eye(2)
        error = self.model(x) - torch.tensor([[3.0], [-2.0]])
        return {"error": float(error.detach().abs().max())}

    def export(self, folder: Path, notes: Mapping[str, Any]) -> Path:
        torch.save({"weights": self.model.state_dict(), "notes": dict(notes)}, folder / "model.pt")
        return folder / "model.pt"


def exported(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "model.pt", weights_only=True)
    return loaded


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one) and set(one) == set(two)


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=300, ema=0.0, validate_every=100, log_every=100)
    lines: list[dict[str, Any]] = []
    result = fit(Line(dropout=0.0), config, folder=tmp_path, report=lines.append)
    assert result["error"] < 0.1
    assert (result["step"], result["checkpoint"]) == (300, str(tmp_path / "model.pt"))
    assert lines == log(tmp_path)
    steps = [line["step"] for line in lines if not line.get("validation")]
    assert steps == [1, 5, 10, 20, 100, 200, 300]  # early figures, then every hundredth
    assert lines[0]["loss"] > 20 * lines[-2]["loss"]
    assert all(line["minutes"] >= 0 for line in lines)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert exported(tmp_path)["notes"]["fit"]["steps"] == 300


@pytest.mark.parametrize("die_at", [5, 8, 11])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, die_at: int) -> None:
    """Bit for bit, with dropout, averaged weights, optimiser state and the schedule."""
    fit(Line(), CONFIG, folder=tmp_path / "whole", seed=4)
    with pytest.raises(KeyboardInterrupt):
        fit(Line(die_at=die_at), CONFIG, folder=tmp_path / "broken", seed=4)
    state = torch.load(tmp_path / "broken" / "state.pt", weights_only=True)
    assert state["step"] == die_at // 4 * 4
    torch.rand(die_at)  # another process would have drawn other numbers
    fit(Line(), CONFIG, folder=tmp_path / "broken", seed=4, resume=True)
    whole, broken = exported(tmp_path / "whole"), exported(tmp_path / "broken")
    assert same(whole["weights"], broken["weights"])
    times = {"minutes"}
    for one, two in zip(
        validations(tmp_path / "whole"), validations(tmp_path / "broken"), strict=True
    ):
        assert {k: v for k, v in one.items() if k not in times} == {
            k: v for k, v in two.items() if k not in times
        }
    other = tmp_path / "other"
    fit(Line(), CONFIG, folder=other, seed=5)
    assert not same(whole["weights"], exported(other)["weights"])  # dropout did matter


def validations(folder: Path) -> list[dict[str, Any]]:
    return [line for line in log(folder) if line.get("validation")]


def test_resuming_a_finished_run_keeps_its_figures(tmp_path: Path) -> None:
    first = fit(Line(), CONFIG, folder=tmp_path)
    weights = exported(tmp_path)["weights"]
    again = fit(Line(), CONFIG, folder=tmp_path, resume=True)
    assert again["error"] == pytest.approx(first["error"], abs=1e-5)
    assert exported(tmp_path)["notes"]["step"] == 12
    assert same(weights, exported(tmp_path)["weights"])


def test_averaging_that_begins_on_resuming_begins_with_the_saved_weights(tmp_path: Path) -> None:
    """Not with those that the model was made with."""
    plain = replace(CONFIG, steps=200, save_every=100, ema=0.0)
    fit(Line(dropout=0.0), replace(plain, stop=100), folder=tmp_path)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    fit(Line(), replace(plain, stop=101, lr=0.0, ema=0.9999), folder=tmp_path, resume=True)
    assert same(saved, exported(tmp_path)["weights"])


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    fit(Line(), CONFIG, folder=tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="already holds a training run"):
        fit(Line(), CONFIG, folder=tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before
    (tmp_path / "state.pt").write_bytes(before[:100])
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be resumed"):
        fit(Line(), CONFIG, folder=tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    """Between two lines of the log: the step is named, and what is saved is from before it."""
    run = Line(bad_step=7)
    with pytest.raises(SeqgenError, match="not finite at step 8") as caught:
        fit(run, replace(CONFIG, log_every=100), folder=tmp_path)
    assert "lr=" in caught.value.fix
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(bool(torch.isfinite(v).all()) for v in state["model"].values())


def test_averaged_weights_are_validated_and_exported_but_not_trained(tmp_path: Path) -> None:
    """a <- d a + (1 - d) w with d = min(0.9, (s + 1) / (s + 10)), from the first weights on."""
    run = Line()
    trace: list[dict[str, Tensor]] = [copied(run.model)]
    config = replace(CONFIG, steps=6)

    class Traced(Line):
        def losses(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
            if step > 0:
                trace.append(copied(self.model))
            return super().losses(batch, step)

    traced = Traced()
    fit(traced, config, folder=tmp_path)
    trace.append(copied(traced.model))
    average = trace[0]
    for step, weights in enumerate(trace[1:]):
        decay = min(0.9, (step + 1) / (step + 10))
        average = {k: decay * average[k] + (1 - decay) * weights[k] for k in average}
    for name, value in exported(tmp_path)["weights"].items():
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=1e-5)
    assert not same(exported(tmp_path)["weights"], trace[-1])


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.55, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.55, 0.1]),
    ],
)
def test_schedules(schedule: Any, expected: list[float]) -> None:
    config = FitConfig(steps=10, lr=1.0, warmup=2, schedule=schedule, final_lr=0.1)
    rates = [learning_rate(config, step) for step in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx(expected)


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    class Large(Line):
        def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
            parts = [super(Large, self).batch(2 * step + part, rank, world) for part in (0, 1)]
            return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    fit(Line(dropout=0.0), replace(CONFIG, accumulate=2), folder=tmp_path / "two")
    fit(Large(dropout=0.0), CONFIG, folder=tmp_path / "one")
    one, two = (exported(tmp_path / name)["weights"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_equal_one_with_their_batches_together(tmp_path: Path) -> None:
    """torchrun with gloo: the gradients are averaged, one process writes, resuming works."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        __file__, str(tmp_path / "two"),
    ]  # fmt: skip
    roots = [str(Path(__file__).parents[2] / "core"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, roots)),
    }  # fmt: skip
    for resume in ([], ["--resume"]):
        done = subprocess.run(
            [*command, *resume], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    fit(Together(dropout=0.0), CONFIG, folder=tmp_path / "one")
    one, two = (exported(tmp_path / name)["weights"] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    steps = [line["step"] for line in log(tmp_path / "two") if not line.get("validation")]
    assert steps == sorted(set(steps))


class Together(Line):
    """Both processes' batches as one."""

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        parts = [super(Together, self).batch(step, part, 2) for part in (0, 1)]
        return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


if __name__ == "__main__":  # what torchrun starts in the test above: first half, then the rest
    going_on = "--resume" in sys.argv
    fit(
        Line(dropout=0.0),
        CONFIG if going_on else replace(CONFIG, stop=6),
        folder=Path(sys.argv[1]),
        resume=going_on,
    )


def test_a_second_stage_cannot_begin_in_the_past(tmp_path: Path) -> None:
    """What a run does at its beginning would be left out."""
    config = FitConfig(steps=12, restart=8, stop=4, save_every=4, validate_every=100, warmup=1)
    fit(Line(), config, folder=tmp_path)
    with pytest.raises(ConfigError, match="cannot begin at step 2"):
        fit(Line(), replace(config, restart=2, stop=0), folder=tmp_path, resume=True)
    fit(Line(), replace(config, restart=4, stop=0), folder=tmp_path, resume=True)


@pytest.mark.parametrize("restart", [12, 30, -1])
def test_a_second_stage_lies_within_the_steps(restart: int) -> None:
    with pytest.raises(ValueError, match="between 0 and steps"):
        FitConfig(steps=12, restart=restart)


def test_the_schedule_restarts() -> None:
    config = FitConfig(steps=20, restart=10, warmup=2, lr=1.0, final_lr=0.5)
    rates = [learning_rate(config, step) for step in range(20)]
    assert rates[:10] == rates[10:]
    assert rates[0] == 0.5
    assert max(rates) == 1.0
    assert rates[9] < rates[5]


def test_compiling_without_a_compiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder

    def none() -> str:
        raise RuntimeError("no compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler"):
        fit(Line(), FitConfig(steps=2, compile=True), folder=tmp_path)
