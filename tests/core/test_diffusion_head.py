"""The diffusion head: MAR's numbers, distributions learned and sampled, seeds, guidance.

tests/core/data/mar_head.npz holds what the published DiffLoss of MAR (torch 2.13.0, CPU) computed
with weights of tests/images/rule_weights.py (4 channels, condition and width 32, one block): the
network's output at three times, schedule and times of 10 steps, losses for given times and noise,
and samples of 10 steps along given noise, at temperature 1 and .7 and under guidance 2.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from tests.images.rule_weights import rule_weights
from torch import Tensor

from seqgen.canvas import Canvas
from seqgen.decoders import Ordered
from seqgen.grid_orders import OnGrid, Shuffled
from seqgen.guidance import GuidedFieldHead, GuidedModel, guided_context
from seqgen.heads.base import Request
from seqgen.heads.diffusion import DiffusionHead, cosine_schedule, denoise, spaced
from seqgen.logits import Sampling, TopK
from seqgen.model import Context, SequenceModel
from seqgen.orders import Raster
from seqgen.transformer import Transformer, TransformerConfig
from seqgen.value_inputs import MaskedValueInputs

NAMES = {
    "net.cond_embed": "condition",
    "net.input_proj": "input",
    "net.time_embed.mlp.0": "time.first",
    "net.time_embed.mlp.2": "time.second",
    "net.res_blocks.0.in_ln": "blocks.0.norm",
    "net.res_blocks.0.mlp.0": "blocks.0.first",
    "net.res_blocks.0.mlp.2": "blocks.0.second",
    "net.res_blocks.0.adaLN_modulation.1": "blocks.0.modulation",
    "net.final_layer.adaLN_modulation.1": "modulation",
    "net.final_layer.linear": "output",
}
"""MAR's modules -> those of `AdaLNMLP`."""


@pytest.fixture(scope="module")
def saved() -> dict[str, Tensor]:
    file = Path(__file__).parent / "data" / "mar_head.npz"
    return {name: torch.from_numpy(np.asarray(x)) for name, x in np.load(file).items()}


@pytest.fixture(scope="module")
def published(saved: dict[str, Tensor]) -> DiffusionHead:
    head = DiffusionHead(32, 4, hidden=32, depth=1, steps=10)
    own = head.network.state_dict()
    names = {
        f"diffloss.{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in NAMES.items()
        for kind in ("weight", "bias")
    }
    weights = rule_weights(
        {theirs: tuple(own[ours].shape) for theirs, ours in names.items()},
        first=int(saved["first"]),
    )
    head.network.load_state_dict({names[name]: value for name, value in weights.items()})
    return head.eval()


def test_the_copy_is_of_the_shared_file(saved: dict[str, Tensor], shared_data: Path) -> None:
    original = np.load(shared_data / "images" / "golden" / "mar_tiny.npz")
    for name in ("head_x", "head_t", "head_out", "timestep_map10"):
        np.testing.assert_array_equal(original[name], saved[name])
    np.testing.assert_array_equal(original["z"][0, :3], saved["z"])
    np.testing.assert_array_equal(original["alphas_cumprod"][::9], saved["alphas_cumprod"])
    np.testing.assert_allclose(original["alphas_cumprod"], cosine_schedule(1000), rtol=1e-12)


def test_published_network(published: DiffusionHead, saved: dict[str, Tensor]) -> None:
    with torch.no_grad():
        embedded = published.network.embed_condition(saved["z"])
        out = published.network(saved["head_x"], saved["head_t"], embedded)
    assert (out - saved["head_out"]).abs().max() < 1e-4


def test_published_schedule(saved: dict[str, Tensor]) -> None:
    schedule = torch.tensor(cosine_schedule(1000), dtype=torch.float64)
    torch.testing.assert_close(schedule[::9], saved["alphas_cumprod"], rtol=1e-12, atol=0)
    assert [step.time for step in reversed(spaced(1000, 10))] == saved["timestep_map10"].tolist()


def test_published_loss(published: DiffusionHead, saved: dict[str, Tensor]) -> None:
    """Error of the noise and bound, at t = 1, 400 and 998."""
    with torch.no_grad():
        loss = published.loss_at(
            saved["z"][None], saved["target"][None], saved["times"][None, None],
            saved["noise"][None, None],
        )  # fmt: skip
    torch.testing.assert_close(loss[0], saved["loss"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "tau"), [("sample10", 1.0), ("sample10_tau7", 0.7)])
def test_published_samples(
    published: DiffusionHead, saved: dict[str, Tensor], name: str, tau: float
) -> None:
    """Relative: a network that has learned nothing gives numbers of 20,000 at 10 steps."""
    noise = saved["steps_noise"][:, None]
    with torch.no_grad():
        field = published.field(saved["z"][None])
        x = denoise(field, noise[0], spaced(1000, 10), lambda k: tau * noise[k])
    torch.testing.assert_close(x[0], saved[name], rtol=1e-3, atol=0)


def test_published_guidance(published: DiffusionHead, saved: dict[str, Tensor]) -> None:
    """Of the noise; the variance is the conditional branch's."""
    noise, fields = saved["steps_noise"][:, None], []
    sample = published.sample
    published.sample = lambda field, request: fields.append(field) or sample(field, request)  # type: ignore[method-assign]
    both = torch.stack([saved["z"], saved["z"].flip(0)])
    with torch.no_grad():
        request = Request(Canvas(torch.zeros(1, 3, 4)), torch.arange(3)[None], Sampling(), 0)
        GuidedFieldHead(published, lambda step, steps: 2.5).propose(both, request)
        x = denoise(fields[0], noise[0], spaced(1000, 10), lambda k: noise[k])
    del published.sample
    torch.testing.assert_close(x[0], saved["sample10_cfg"], rtol=1e-3, atol=0)


def request_for(rows: int, slots: int, temperature: float = 1.0, **more: Any) -> Request:
    canvas = Canvas(torch.zeros(rows, slots, 1), seeds=torch.arange(rows))
    return Request(canvas, torch.arange(slots)[None], Sampling(temperature, **more), 0)


def train(head: DiffusionHead, hidden_ND: Tensor, targets_NC: Tensor, steps: int) -> None:
    """On batches of 256 of these pairs."""
    optimizer = torch.optim.Adam(head.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(steps):
        rows = torch.randint(len(targets_NC), (256,))
        loss = head.loss(hidden_ND[rows][None], targets_NC[rows][None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def test_a_mixture_is_learned_and_sampled() -> None:
    """Two numbers: a mixture of two Gaussians, and one that follows it, mirrored by the state."""
    torch.manual_seed(0)
    count = 20_000
    side = (torch.rand(count) < 0.3).float() * 2 - 1  # +1 with .3
    first = 1.2 * side + 0.25 * torch.randn(count)
    sign = (torch.rand(count) < 0.5).float() * 2 - 1
    second = sign * first + 0.2 * torch.randn(count)
    head = DiffusionHead(1, 2, hidden=32, depth=2, steps=50)
    train(head, sign[:, None], torch.stack([first, second], dim=-1), 600)

    for state in (-1.0, 1.0):
        with torch.inference_mode():
            values = head.propose(torch.full((1, 1500, 1), state), request_for(1, 1500)).values[0]
        x, y = values.double().unbind(dim=-1)

        def distribution(t: Any) -> Any:
            return 0.7 * norm.cdf(t, -1.2, 0.25) + 0.3 * norm.cdf(t, 1.2, 0.25)

        # A Gaussian of the same mean and variance is .27 away.
        assert kstest(x.numpy(), distribution).statistic < 0.08
        difference = y - state * x
        assert abs(difference.mean()) < 0.05
        assert difference.std() == pytest.approx(0.2, abs=0.06)


def test_temperature_is_that_of_the_added_noise() -> None:
    """With data of one Gaussian, less noise gives a narrower one, around the same mean."""
    torch.manual_seed(0)
    head = DiffusionHead(1, 1, hidden=32, depth=1, steps=25)
    train(head, torch.zeros(4000, 1), 0.5 + torch.randn(4000, 1), 200)
    with torch.inference_mode():
        spread = [
            head.propose(torch.zeros(1, 1500, 1), request_for(1, 1500, t)).values
            for t in (1.0, 0.5, 0.0)
        ]
    assert [float(x.mean()) for x in spread] == pytest.approx([0.5] * 3, abs=0.2)
    assert spread[0].std() == pytest.approx(1.0, abs=0.15)
    assert spread[0].std() > spread[1].std() + 0.1
    assert spread[1].std() > spread[2].std()


def random_head(**options: Any) -> DiffusionHead:
    torch.manual_seed(1)
    head = DiffusionHead(8, 3, hidden=16, depth=1, **{"steps": 4, **options})
    for parameter in head.parameters():  # it begins as zero everywhere
        torch.nn.init.normal_(parameter, std=0.1)
    return head.eval()


def small_model() -> SequenceModel:
    torch.manual_seed(2)
    return SequenceModel(
        inputs=MaskedValueInputs(3, 8, adds_given=True),
        backbone=Transformer(TransformerConfig(width=8, layers=1, heads=2, axes=2)),
        head=random_head(),
    ).eval()


@pytest.mark.parametrize("order", [OnGrid(Raster(), 2, 3), Shuffled(2, 3, passes=3)])
def test_a_row_of_a_batch_is_the_row_alone(order: Any) -> None:
    model, seeds = small_model(), torch.tensor([5, 6, 7])
    given = torch.randn(3, 6, 8)
    decoder = Ordered(order=order, sampling=Sampling(temperature=1.0))

    def run(rows: slice) -> Tensor:
        canvas = Canvas(torch.zeros(len(seeds[rows]), 6, 3), seeds=seeds[rows])
        return decoder.generate(model, canvas, Context(given_BSD=given[rows])).values

    together = run(slice(3))
    torch.testing.assert_close(run(slice(1, 2)), together[1:2], atol=1e-5, rtol=1e-5)
    assert torch.equal(run(slice(3)), together)
    assert (together[:, 0] - together[:, 1]).abs().min() > 1e-3  # slots have noise of their own


@pytest.mark.parametrize(("scale", "which"), [(1.0, 0), (0.0, 1)])
def test_guidance_of_one_is_the_conditional_model(scale: float, which: int) -> None:
    """At 0 the noise is the other branch's; the variance stays the conditional one's."""
    model, contexts = small_model(), [Context(given_BSD=torch.randn(2, 6, 8)) for _ in range(2)]
    decoder = Ordered(order=OnGrid(Raster(), 2, 3), sampling=Sampling(temperature=float(not which)))

    def run(used: SequenceModel, context: Context) -> Tensor:
        canvas = Canvas(torch.zeros(2, 6, 3), seeds=torch.tensor([5, 6]))
        return decoder.generate(used, canvas, context).values

    guided = run(GuidedModel(model, scale=scale), guided_context(*contexts))
    torch.testing.assert_close(guided, run(model, contexts[which]), atol=1e-4, rtol=1e-4)


def test_the_error_trains_the_noise_and_the_bound_the_variance() -> None:
    """Neither reaches the other's half of the last layer."""
    head = random_head()
    hidden, target = torch.randn(1, 5, 8), torch.randn(1, 5, 3)
    time, e = torch.randint(1, 1000, (2, 1, 5)), torch.randn(2, 1, 5, 3)
    head.loss_at(hidden, target, time, e).sum().backward()
    bias = head.network.output.bias
    assert bias.grad is not None
    with torch.no_grad():
        x_field = head.network.embed_condition(hidden)
        a = torch.tensor(cosine_schedule(1000), dtype=torch.float32)[time][..., None]
        x = a.sqrt() * target + (1 - a).sqrt() * e
        error = head.network(x, time, x_field)[..., :3] - e
    expected = (2 * error / error.shape[0] / error.shape[-1]).sum(dim=(0, 1, 2))
    torch.testing.assert_close(bias.grad[:3], expected, atol=1e-4, rtol=1e-3)
    assert bias.grad[3:].abs().min() > 0


def test_the_first_step_is_the_density() -> None:
    """At t = 0: -log N(y; mean, var) in bits, by the definition."""
    head = random_head()
    hidden, target, e = torch.randn(1, 1, 8), torch.randn(1, 1, 3), torch.randn(1, 1, 1, 3)
    time = torch.zeros(1, 1, 1, dtype=torch.int64)
    a, step = cosine_schedule(1000)[0], spaced(1000, 1000)[-1]
    with torch.no_grad():
        loss = head.loss_at(hidden, target, time, e).double()
        x = a**0.5 * target + (1 - a) ** 0.5 * e
        out = head.network(x, time, head.network.embed_condition(hidden)).double()
        predicted, v = out.chunk(2, dim=-1)
        mean = (x.double() - (1 - a) ** 0.5 * predicted) / a**0.5
        log_var = (v + 1) / 2 * step.high + (1 - v) / 2 * step.low
        density = torch.distributions.Normal(mean, (0.5 * log_var).exp()).log_prob(target)
        bits = -density.mean() / np.log(2)
        expected = (predicted - e).square().mean() + bits
    assert float(loss) == pytest.approx(float(expected), rel=2e-3)


def test_values_stay_within_the_limit() -> None:
    """With the noise predicted by a network that has learned nothing."""
    for limit, inside in ((2.0, True), (None, False)):
        head = random_head(steps=10, limit=limit)
        with torch.inference_mode():
            values = head.propose(torch.randn(1, 50, 8), request_for(1, 50)).values
        assert (float(values.abs().max()) <= 2.001) is inside


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_any_number_of_steps(steps: int) -> None:
    head = random_head(steps=steps)
    assert len(spaced(1000, steps)) == steps
    with torch.inference_mode():
        assert head.propose(torch.zeros(1, 2, 8), request_for(1, 2)).values.isfinite().all()


def test_bad_settings() -> None:
    for options in ({"steps": 0}, {"steps": 1001}, {"draws": 0}, {"limit": 0.0}):
        with pytest.raises(ValueError, match="not"):
            DiffusionHead(8, 3, **options)
    with pytest.raises(ValueError, match="no logits"):
        random_head().propose(torch.zeros(1, 1, 8), request_for(1, 1, filters=(TopK(1),)))
