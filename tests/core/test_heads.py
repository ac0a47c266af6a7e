"""The continuous heads against their definitions: losses, samples, quantiles, flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from seqgen.adaln import AdaLNMLP
from seqgen.canvas import Canvas
from seqgen.guidance import Guidance, GuidedFieldHead
from seqgen.heads import (
    CategoricalHead,
    FlowHead,
    Gaussian,
    GaussianHead,
    Proposal,
    QuantileFunction,
    QuantileHead,
    RegressionHead,
    Request,
    StudentT,
    StudentTHead,
)
from seqgen.heads.continuous import DistributionHead, density_confidence
from seqgen.heads.flow import integrate
from seqgen.heads.quantile import DECILES, pinball
from seqgen.logits import GREEDY, Ban, Sampling, TopK

WIDTH, C = 8, 3
LEVELS = (0.0005, 0.01, 0.1, 0.25, 0.5, 0.8, 0.975, 0.9995)
SAMPLED = Sampling(temperature=1.0)

MAKERS: dict[str, Callable[[], Any]] = {
    "mse": lambda: RegressionHead(WIDTH, C),
    "l1": lambda: RegressionHead(WIDTH, C, error="l1"),
    "huber": lambda: RegressionHead(WIDTH, C, error="huber", delta=0.3),
    "gaussian": lambda: GaussianHead(WIDTH, C),
    "student-t": lambda: StudentTHead(WIDTH, C),
    "quantile": lambda: QuantileHead(WIDTH, C),
    "flow": lambda: flow_head(draws=2),
}
every_head = pytest.mark.parametrize("name", MAKERS)


def make(name: str) -> Any:
    torch.manual_seed(0)
    return MAKERS[name]()


def flow_head(**options: Any) -> FlowHead:
    """A flow head whose network is not at its first state, in which it gives zero."""
    head = FlowHead(WIDTH, C, hidden=16, depth=2, **options)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    return head


def request(
    rows: int, slots: int, *, sampling: Sampling = SAMPLED, draw: int = 0, channels: int = C
) -> Request:
    canvas = Canvas(torch.zeros(rows, slots, channels), seeds=torch.arange(rows) + 11)
    return Request(canvas, torch.arange(slots)[None], sampling, draw)


def hidden(rows: int, slots: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, slots, WIDTH, generator=torch.Generator().manual_seed(seed))


def p_value(sample: Tensor, cdf: Callable[[Any], Any]) -> float:
    return float(scipy.stats.kstest(sample.flatten().double().numpy(), cdf).pvalue)


def samples(distribution: Any, count: int = 20_000) -> Tensor:
    """Many samples of one number's distribution, by the noise of so many slots."""
    head = Fixed(distribution)
    return head.propose(torch.zeros(1, count, WIDTH), request(1, count, channels=1)).values


class Fixed(DistributionHead):
    """The same distribution everywhere."""

    def __init__(self, distribution: Any) -> None:
        super().__init__(WIDTH, 1, 1)
        self.fixed = distribution

    def constrain(self, raw_BQCP: Tensor) -> Tensor:
        return raw_BQCP

    def distribution(self, parameters_BQCP: Tensor) -> Any:
        shape = parameters_BQCP.shape[:-1]
        if isinstance(self.fixed, QuantileFunction):
            return replace(self.fixed, quantiles=self.fixed.quantiles.expand(*shape, -1))
        return type(self.fixed)(*[x.expand(shape) for x in vars(self.fixed).values()])


# --- what all heads have in common --------------------------------------------------------------


@every_head
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_shapes_types_and_confidence(name: str, temperature: float) -> None:
    head = make(name)
    proposal = head.propose(hidden(2, 4), request(2, 4, sampling=Sampling(temperature)))
    assert proposal.values.shape == (2, 4, C)
    assert proposal.values.dtype == torch.float32
    assert bool(proposal.values.isfinite().all())
    assert proposal.confidence_BQ.shape == (2, 4)
    assert bool(((proposal.confidence_BQ > 0) & (proposal.confidence_BQ <= 1)).all())
    loss = head.loss(hidden(2, 4), torch.randn(2, 4, C))
    assert loss.shape == (2, 4)
    assert bool(loss.isfinite().all())


@every_head
def test_gradients_reach_the_hidden_state_and_every_parameter(name: str) -> None:
    head = make(name)
    x = hidden(2, 4).requires_grad_()
    head.loss(x, torch.randn(2, 4, C)).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().min()) > 0
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().sum()) > 0, parameter_name


@every_head
def test_a_sample_depends_on_the_seed_the_slot_and_the_draw_but_not_on_the_batch(name: str) -> None:
    head, x = make(name), hidden(1, 1).expand(3, 4, -1)
    three = head.propose(x, request(3, 4)).values
    alone = Canvas(torch.zeros(1, 4, C), seeds=torch.tensor([13]))
    last = head.propose(x[2:, 1:2], Request(alone, torch.tensor([[1]]), SAMPLED, 0)).values
    torch.testing.assert_close(last[0, 0], three[2, 1])
    if not isinstance(head, RegressionHead):
        assert len(three.flatten(0, 1).unique(dim=0)) == 12
        assert not torch.equal(head.propose(x, request(3, 4, draw=1)).values, three)


@every_head
def test_temperature_zero_is_the_same_for_all_seeds(name: str) -> None:
    head, x = make(name), hidden(1, 1).expand(3, 4, -1)
    values = head.propose(x, request(3, 4, sampling=GREEDY)).values
    torch.testing.assert_close(values, values[:1, :1].expand_as(values))


@every_head
def test_half_precision_hidden_states(name: str) -> None:
    head, x, y = make(name), hidden(2, 4), torch.randn(2, 4, C)
    torch.manual_seed(1)
    full = head.propose(x, request(2, 4)), head.loss(x, y)
    head, x = head.bfloat16(), x.bfloat16()
    torch.manual_seed(1)
    half = head.propose(x, request(2, 4)), head.loss(x, y)
    assert half[0].values.dtype == half[1].dtype == torch.float32
    for low, high in ((half[0].values, full[0].values), (half[1], full[1])):
        assert bool((low - high).norm() < 0.03 * high.norm())


@every_head
@pytest.mark.parametrize(
    "sampling", [Sampling(filters=(TopK(3),)), Sampling(constraints=(Ban((1,)),))]
)
def test_processors_of_logits_are_refused(name: str, sampling: Sampling) -> None:
    with pytest.raises(ValueError, match="no logits"):
        make(name).propose(hidden(1, 1), request(1, 1, sampling=sampling))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown error"):
        RegressionHead(WIDTH, C, error="mae")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="delta"):
        RegressionHead(WIDTH, C, error="huber", delta=0)
    with pytest.raises(ValueError, match="two or more rising"):
        QuantileHead(WIDTH, C, levels=(0.5,))
    with pytest.raises(ValueError, match="two or more rising"):
        QuantileHead(WIDTH, C, levels=(0.9, 0.1))
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        QuantileHead(WIDTH, C, levels=(0.0, 0.5))
    for options in ({"solver": "rk4"}, {"times": "cosine"}, {"steps": 0}, {"draws": 0}):
        with pytest.raises(ValueError, match=r"must be|unknown"):
            FlowHead(WIDTH, C, **options)  # type: ignore[arg-type]


def test_proposals_join_with_their_parameters() -> None:
    head, x = make("gaussian"), hidden(2, 4)
    whole = head.propose(x, request(2, 4))
    parts = [
        head.propose(x[:, i : i + 1], replace(request(2, 4), slots_BQ=torch.tensor([[i]])))
        for i in range(4)
    ]
    joined = Proposal.join(parts)
    torch.testing.assert_close(joined.values, whole.values)
    torch.testing.assert_close(joined.parameters, whole.parameters)


# --- regression ---------------------------------------------------------------------------------


def test_regression_errors_are_their_formulas() -> None:
    x, y = hidden(2, 3), torch.randn(2, 3, C)
    for name in ("mse", "l1", "huber"):
        head = make(name)
        error = (x @ head.projection.weight.T + head.projection.bias - y).abs()
        expected = {
            "mse": error**2,
            "l1": error,
            "huber": torch.where(error < 0.3, error**2 / 2, 0.3 * (error - 0.15)),
        }[name]
        torch.testing.assert_close(head.loss(x, y), expected.mean(-1))


# --- Gaussian and Student-t ---------------------------------------------------------------------


def test_gaussian_density_quantiles_and_samples_are_scipys() -> None:
    one = Gaussian(torch.tensor(1.5), torch.tensor(0.7))
    reference = scipy.stats.norm(1.5, 0.7)
    y = torch.linspace(-3, 5, 50)
    np.testing.assert_allclose(one.log_prob(y), reference.logpdf(y), atol=1e-5)
    np.testing.assert_allclose(one.quantile(LEVELS), reference.ppf(LEVELS), atol=1e-5)
    assert p_value(samples(one), reference.cdf) > 0.01


@pytest.mark.parametrize("df", [2.0, 2.75, 5.0, 40.0, 1e4])
def test_student_t_density_quantiles_and_samples_are_scipys(df: float) -> None:
    one = StudentT(torch.tensor(df), torch.tensor(-2.0), torch.tensor(1.25))
    reference = scipy.stats.t(df, -2.0, 1.25)
    y = torch.linspace(-30, 30, 61)
    double = StudentT(*[x.double() for x in vars(one).values()])
    np.testing.assert_allclose(double.log_prob(y.double()), reference.logpdf(y.double()), atol=1e-8)
    np.testing.assert_allclose(double.quantile(LEVELS), reference.ppf(LEVELS), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.quantile(LEVELS), reference.ppf(LEVELS), rtol=1e-5, atol=1e-5)
    assert p_value(samples(one), reference.cdf) > 0.01
    if df <= 5:
        assert p_value(samples(one), scipy.stats.norm(-2.0, 1.25).cdf) < 1e-6


def test_the_likelihood_heads_losses_are_scipys() -> None:
    x, y = hidden(2, 3), torch.randn(2, 3, C)
    head = make("gaussian")
    mean, std = head.parameters_of(x).detach().unbind(-1)
    expected = -scipy.stats.norm(mean, std).logpdf(y).mean(-1)
    np.testing.assert_allclose(head.loss(x, y).detach(), expected, rtol=1e-5)
    head = make("student-t")
    df, loc, scale = head.parameters_of(x).detach().unbind(-1)
    assert bool((df > 2).all())
    expected = -scipy.stats.t(df, loc, scale).logpdf(y).mean(-1)
    np.testing.assert_allclose(head.loss(x, y).detach(), expected, rtol=1e-5)


def test_the_scale_has_a_floor() -> None:
    head = GaussianHead(WIDTH, 1, floor=0.5)
    nn.init.constant_(head.projection.bias, -50.0)
    distribution = head.distribution(head.parameters_of(torch.zeros(1, 1, WIDTH)))
    assert distribution.std.item() == 0.5
    loss = head.loss(torch.zeros(1, 1, WIDTH), torch.full((1, 1, 1), -50.0))
    assert loss.item() > -1


def test_the_student_t_head_learns_its_parameters() -> None:
    df, loc, scale = 4.0, 0.5, 0.2
    target = torch.tensor(scipy.stats.t(df, loc, scale).rvs(8000, random_state=0)).float()
    torch.manual_seed(0)
    head, x = StudentTHead(1, 1), torch.ones(1, 8000, 1)
    train(head, lambda step: (x, target.view(1, -1, 1)), steps=200, lr=0.1)
    found = head.parameters_of(x[:, :1]).flatten().tolist()
    assert found == pytest.approx([df, loc, scale], rel=0.15)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
@pytest.mark.parametrize("name", ["gaussian", "student-t", "quantile"])
def test_temperature_multiplies_the_variance(name: str, temperature: float) -> None:
    head, x = make(name), hidden(1, 1).expand(2, 50, -1)
    centre = head.propose(x, request(2, 50, sampling=GREEDY)).values
    one = head.propose(x, request(2, 50)).values - centre
    other = head.propose(x, request(2, 50, sampling=Sampling(temperature))).values - centre
    torch.testing.assert_close(other, math.sqrt(temperature) * one, atol=1e-4, rtol=1e-3)


def test_confidence_ranks_narrow_over_wide_and_typical_over_odd() -> None:
    log_p = Gaussian(torch.zeros(3), torch.tensor([0.1, 1.0, 5.0])).log_prob(torch.zeros(3))
    narrow, middle, wide = density_confidence(log_p[:, None]).tolist()
    assert narrow > middle > wide
    p = 1 / (5 * math.sqrt(2 * math.pi))
    assert wide == pytest.approx(p / (1 + p), rel=1e-5)
    assert density_confidence(torch.zeros(1, C)).item() == 0.5


def test_raw_confidence_is_the_models_and_tempered_confidence_the_samplers() -> None:
    head, x = make("gaussian"), hidden(2, 4)
    for kind, factor in (("raw", 1.0), ("temperature", 0.5)):
        sampling = Sampling(temperature=0.25, confidence=kind)  # type: ignore[arg-type]
        proposal = head.propose(x, request(2, 4, sampling=sampling))
        mean, std = proposal.parameters.unbind(-1)
        log_p = scipy.stats.norm(mean.detach(), factor * std.detach()).logpdf(
            proposal.values.detach()
        )
        p = np.exp(log_p.mean(-1))
        np.testing.assert_allclose(proposal.confidence_BQ.detach(), p / (1 + p), rtol=1e-4)


# --- quantiles ----------------------------------------------------------------------------------


def test_pinball_is_its_definition() -> None:
    levels = torch.tensor([0.1, 0.7])
    loss = pinball(torch.tensor([[2.0, 2.0], [2.0, 2.0]]), torch.tensor([5.0, 1.0]), levels)
    torch.testing.assert_close(loss, torch.tensor([[0.3, 2.1], [0.9, 0.3]]))


def test_quantiles_never_cross() -> None:
    proposal = make("quantile").propose(hidden(4, 50), request(4, 50))
    assert bool((proposal.parameters.diff(dim=-1) >= 0).all())


def test_the_quantile_head_covers_what_its_levels_say() -> None:
    """A skewed distribution whose scale depends on the input; the pinball loss finds it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(1, 32), nn.SiLU()), QuantileHead(32, 1)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        x = 2 * torch.rand(1, rows, 1, generator=generator) - 1
        e = torch.empty_like(x).exponential_(generator=generator)
        return x, x.exp() * e

    def batch(step: int) -> tuple[Tensor, Tensor]:
        x, y = draw(2000)
        return body(x), y

    train(nn.ModuleList([body, head]), batch, steps=400, lr=0.02, loss=head.loss)
    x, y = draw(20_000)
    quantiles = head.parameters_of(body(x)).squeeze(-2).detach()
    covered = (y <= quantiles).float()
    for part in (x < -0.5, x.abs() < 0.3, x > 0.5):
        found = (covered * part).sum((0, 1)) / part.sum()
        np.testing.assert_allclose(found, DECILES, atol=0.05)


def test_the_quantile_function_inverts_itself_and_its_density_integrates_to_one() -> None:
    one = QuantileFunction(torch.tensor([0.1, 0.3, 0.8]), torch.tensor([-1.0, 0.5, 4.0]))
    np.testing.assert_allclose(one.quantile((0.1, 0.2, 0.3, 0.8)), [-1, -0.25, 0.5, 4], atol=1e-5)
    # The tails: exponential, with the density of the neighbouring segment.
    assert one.quantile((0.05,)).item() == pytest.approx(-1 + 7.5 * 0.1 * math.log(0.5))
    assert one.quantile((0.9,)).item() == pytest.approx(4 + 7 * 0.2 * math.log(2))
    y = torch.linspace(-20, 40, 600_001)
    density = one.log_prob(y)
    cdf = torch.cumulative_trapezoid(density.double().exp(), y.double())
    assert float(cdf[-1]) == pytest.approx(1, abs=1e-3)
    at = torch.searchsorted(cdf, torch.tensor([0.02, 0.1, 0.5, 0.8, 0.95]).double())
    np.testing.assert_allclose(y[at], one.quantile((0.02, 0.1, 0.5, 0.8, 0.95)), atol=5e-3)
    mean = float(torch.trapezoid(density.double().exp() * y.double(), y.double()))
    assert float(one.mean) == pytest.approx(mean, abs=1e-3)


def test_quantile_samples_follow_the_quantile_function() -> None:
    one = QuantileFunction(torch.tensor([0.1, 0.3, 0.8]), torch.tensor([-1.0, 0.5, 4.0]))
    drawn = samples(one)
    levels = np.linspace(0.005, 0.995, 199)
    knots = one.quantile(levels.tolist()).numpy()
    assert p_value(drawn, lambda y: np.interp(y, knots, levels, left=0.0025, right=0.9975)) > 0.01
    for level in (0.02, 0.1, 0.3, 0.6, 0.8, 0.99):
        below = float((drawn < one.quantile((level,))).float().mean())
        assert below == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / drawn.numel()))


def test_rounding_does_not_change_the_density_at_a_quantile() -> None:
    one = QuantileFunction(torch.tensor([0.2, 0.5, 0.6]), torch.tensor([0.0, 1.0, 4.0]))
    slope = (1 / 0.3 + 3 / 0.1) / 2
    for value in (1.0, math.nextafter(1.0, 0), 1.0 + 2e-7):
        found = one.log_prob(torch.tensor(value)).item()
        assert found == pytest.approx(-math.log(slope), rel=1e-5)


def test_equal_quantiles_are_a_point() -> None:
    head = QuantileHead(WIDTH, 1)
    nn.init.zeros_(head.projection.weight)
    nn.init.constant_(head.projection.bias, 2.0)
    proposal = head.propose(hidden(1, 5), request(1, 5, channels=1))
    assert proposal.values.tolist() == [[[2.0]] * 5]
    assert bool((proposal.confidence_BQ > 0.999).all())
    assert bool(head.loss(hidden(1, 5), torch.zeros(1, 5, 1)).isfinite().all())


# --- flow ---------------------------------------------------------------------------------------

MEANS, STDS, WEIGHTS = (-2.0, 1.5), (0.3, 0.6), (0.4, 0.6)


def mixture_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[y - e | x_t = x] for y from a mixture of two Gaussians and standard normal e, exactly.

    Within a component x_t ~ N(t m, v) with v = t^2 s^2 + (1 - t)^2, and regression on x gives
    E[y - e | x] = m + (t s^2 - (1 - t)) / v (x - t m).
    """
    x, t = x.double(), t.double()
    log_w, velocity = [], []
    for m, s, w in zip(MEANS, STDS, WEIGHTS, strict=True):
        v = t**2 * s**2 + (1 - t) ** 2
        log_w.append(math.log(w) - 0.5 * v.log() - 0.5 * (x - t * m) ** 2 / v)
        velocity.append(m + (t * s**2 - (1 - t)) / v * (x - t * m))
    posterior = torch.stack(log_w).softmax(dim=0)
    return (posterior * torch.stack(velocity)).sum(dim=0).float()


def mixture_cdf(y: Any) -> Any:
    parts = zip(MEANS, STDS, WEIGHTS, strict=True)
    return sum(w * scipy.stats.norm(m, s).cdf(y) for m, s, w in parts)


@pytest.mark.parametrize(("solver", "steps"), [("euler", 200), ("midpoint", 32)])
def test_the_exact_field_gives_the_data_distribution(solver: Any, steps: int) -> None:
    head = FlowHead(WIDTH, 1, hidden=8, solver=solver, steps=steps)
    drawn = head.sample(mixture_velocity, request(4, 1000, channels=1)).values
    assert p_value(drawn, mixture_cdf) > 0.01
    assert p_value(drawn, scipy.stats.norm(drawn.mean(), drawn.std()).cdf) < 1e-6


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_solvers_converge_in_their_order(solver: Any, order: int) -> None:
    e = torch.linspace(-2, 2, 9).view(1, -1, 1)
    exact = integrate(mixture_velocity, e, steps=1000, solver="midpoint")
    coarse, fine = (
        float((integrate(mixture_velocity, e, steps=n, solver=solver) - exact).abs().mean())
        for n in (40, 80)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_the_flow_loss_is_its_equation() -> None:
    head, x, y = flow_head(), hidden(2, 3), torch.randn(2, 3, C)
    time, e = torch.rand(4, 2, 3), torch.randn(4, 2, 3, C)
    expected = torch.zeros(2, 3)
    for t, noise in zip(time, e, strict=True):
        x_t = (1 - t[..., None]) * noise + t[..., None] * y
        velocity = head.network(x_t, t, head.network.embed_condition(x))
        expected += ((velocity - (y - noise)) ** 2).mean(-1) / 4
    torch.testing.assert_close(head.loss_at(x, y, time, e), expected)


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_the_flow_head_learns_a_joint_distribution_for_each_condition(times: Any) -> None:
    """Two numbers on a line that the hidden state turns: their correlation is what counts."""
    torch.manual_seed(0)
    head = FlowHead(2, 2, hidden=32, depth=2, steps=8, times=times)
    conditions = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def batch(step: int) -> tuple[Tensor, Tensor]:
        which = torch.randint(2, (1, 256))
        a = torch.randn(1, 256)
        y = torch.stack([a, (1 - 2 * which) * a + which], dim=-1) + 0.1 * torch.randn(1, 256, 2)
        return conditions[which], y

    train(head, batch, steps=500, lr=4e-3)
    x = conditions[:, None].expand(-1, 2000, -1)
    drawn = head.propose(x, request(2, 2000, channels=2)).values.detach().double().numpy()
    for which, (sign, shift) in enumerate(((1, 0), (-1, 1))):
        a, b = drawn[which].T
        assert np.corrcoef(a, b)[0, 1] * sign > 0.95
        assert (a.mean(), b.mean()) == pytest.approx((0, shift), abs=0.12)
        assert (a.std(), b.std()) == pytest.approx((1, 1), abs=0.12)


def test_more_draws_give_the_same_loss_with_less_noise() -> None:
    one, many = flow_head(draws=1), flow_head(draws=16)
    many.load_state_dict(one.state_dict())
    x, y = hidden(1, 4), torch.randn(1, 4, C)
    torch.manual_seed(0)
    losses = [torch.stack([head.loss(x, y) for _ in range(200)]).detach() for head in (one, many)]
    torch.testing.assert_close(losses[0].mean(0), losses[1].mean(0), atol=0.5, rtol=0.25)
    assert bool((losses[1].std(0) < 0.5 * losses[0].std(0)).all())


def test_guidance_combines_the_two_fields() -> None:
    head, x = flow_head(solver="euler", steps=3), hidden(4, 5)
    seen = Request(Canvas(torch.zeros(2, 5, C)), torch.arange(5)[None], SAMPLED, 0)
    for scale, rows in ((1.0, x[:2]), (0.0, x[2:])):
        guided = GuidedFieldHead(head, Guidance(scale)).propose(x, seen).values
        torch.testing.assert_close(guided, head.propose(rows, seen).values, atol=1e-5, rtol=1e-5)

    def combined(values: Tensor, t: Tensor) -> Tensor:
        with_context, without = head.field(x[:2])(values, t), head.field(x[2:])(values, t)
        return without + 3.0 * (with_context - without)

    guided = GuidedFieldHead(head, Guidance(3.0)).propose(x, seen).values
    torch.testing.assert_close(guided, head.sample(combined, seen).values, atol=1e-4, rtol=1e-4)


# --- the network --------------------------------------------------------------------------------


def test_adaln_begins_as_zero_and_then_depends_on_all_it_reads() -> None:
    torch.manual_seed(0)
    network = AdaLNMLP(C, WIDTH, width=16, depth=2, out_channels=2 * C)
    x, t, h = torch.randn(2, 4, C), torch.rand(2, 4), hidden(2, 4)
    assert torch.equal(network(x, t, network.embed_condition(h)), torch.zeros(2, 4, 2 * C))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    out = network(x, t, network.embed_condition(h))
    for other in (
        network(x + 0.1, t, network.embed_condition(h)),
        network(x, t + 0.1, network.embed_condition(h)),
        network(x, t, network.embed_condition(h + 0.1)),
    ):
        assert (other - out).abs().min().item() > 1e-6
    one = network(x[:1, 1:2], t[:1, 1:2], network.embed_condition(h[:1, 1:2]))
    torch.testing.assert_close(one, out[:1, 1:2])  # each token on its own


def test_an_adaln_block_is_its_equation() -> None:
    torch.manual_seed(0)
    network = AdaLNMLP(C, WIDTH, width=16, depth=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, t, h = torch.randn(5, C), torch.rand(5), torch.randn(5, WIDTH)
    w = dict(network.named_parameters())

    def dense(name: str, v: Tensor) -> Tensor:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(v: Tensor) -> Tensor:
        return v / (1 + (-v).exp())

    def norm(v: Tensor) -> Tensor:
        return (v - v.mean(-1, keepdim=True)) / (
            v.var(-1, keepdim=True, correction=0) + 1e-6
        ).sqrt()

    angle = 1000 * t[:, None] * 10_000 ** (-torch.arange(128) / 128)
    sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1)
    context = silu(
        dense("time.second", silu(dense("time.first", sinusoids))) + dense("condition", h)
    )
    z = dense("input", x)
    shift, scale, gate = dense("blocks.0.modulation", context).chunk(3, -1)
    inner = norm(z) * w["blocks.0.norm.weight"] + w["blocks.0.norm.bias"]
    inner = inner * (1 + scale) + shift
    z = z + gate * dense("blocks.0.second", silu(dense("blocks.0.first", inner)))
    shift, scale = dense("modulation", context).chunk(2, -1)
    expected = dense("output", norm(z) * (1 + scale) + shift)
    found = network(x, t, network.embed_condition(h))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_categorical_proposals_have_no_parameters() -> None:
    head = CategoricalHead(WIDTH, 5)
    canvas = Canvas(torch.zeros(1, 2, dtype=torch.int64))
    proposal = head.propose(hidden(1, 2), Request(canvas, torch.arange(2)[None], GREEDY, 0))
    assert proposal.parameters is None


def train(
    module: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    *,
    steps: int,
    lr: float,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> None:
    optimiser = torch.optim.Adam(module.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    measure: Any = loss or module.loss
    for step in range(steps):
        optimiser.zero_grad()
        measure(*batch(step)).mean().backward()
        optimiser.step()
        schedule.step()
