"""The flow as a distribution, and the head on a problem whose posterior is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Distribution

from deeplegato_pp.config.schema import NPEConfig
from deeplegato_pp.errors import ConfigError, RangeError, ShapeError
from deeplegato_pp.models.npe_head import DEFAULT_BOUNDS, Context, NPEHead
from deeplegato_pp.scene.parameters import PARAMETERS, POSITION_ANGLE
from deeplegato_pp.scene.prior import PriorBox


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def context(any_model, stamps) -> Context:
    with torch.no_grad():
        return any_model.encode(stamps)


@torch.no_grad()
def test_the_density_of_draws_is_that_of_log_prob(any_model, context):
    w, log_q = any_model.head.from_noise(context, noise(len(context), 200, 7))
    assert w.dtype == log_q.dtype == torch.float64
    torch.testing.assert_close(any_model.log_prob(context, w).double(), log_q, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_the_flow_is_invertible(any_model, context):
    head, z = any_model.head, noise(len(context), 100, 7)
    w, _ = head.from_noise(context, z)
    residual = (w - context.mean[:, None]) / context.log_sigma[:, None].double().exp()
    back = head.flow(context.embedding[:, None]).transform(residual.float())
    torch.testing.assert_close(back, z, atol=2e-4, rtol=1e-4)


def test_the_jacobian_is_autograds(any_model, context):
    one = context[:1]
    z = noise(7).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(
        lambda z: any_model.head.from_noise(one, z[None, None])[0][0, 0], z
    )
    with torch.no_grad():
        _, log_q = any_model.head.from_noise(one, z[None, None])
        expected = -0.5 * (z**2).sum() - 3.5 * math.log(2 * math.pi) - torch.logdet(jacobian)
    torch.testing.assert_close(log_q[0, 0], expected, atol=1e-3, rtol=0, check_dtype=False)


@torch.no_grad()
@pytest.mark.parametrize("flow", ["coupling_nsf", "realnvp", "nsf", "maf"])
def test_the_density_integrates_to_one_over_the_physical_box(make_model, stamps, flow):
    # A posterior not much unlike the prior, or the uniform draws would seldom meet it.
    model = make_model(flow, spread=0.02)
    context = model.encode(stamps[:1])
    draws = 100_000
    generator = torch.Generator().manual_seed(3)
    u = torch.rand(draws, 7, generator=generator, dtype=torch.float64)
    physical, log_volume = torch.empty_like(u), torch.zeros(draws, dtype=torch.float64)
    for i, parameter in enumerate(PARAMETERS):
        lower, upper = parameter.bounds
        if parameter.scale == "log":
            physical[:, i] = lower * (upper / lower) ** u[:, i]
            log_volume += (physical[:, i] * math.log(upper / lower)).log()
        else:
            physical[:, i] = lower + (upper - lower) * u[:, i]
            log_volume += math.log(upper - lower)
    box = PriorBox()
    w = box.to_normal(physical)
    log_q = model.log_prob(context, w[None])[0] + box.log_jacobian(w)
    ratio = (log_q + log_volume).exp()
    error = float(ratio.std()) / math.sqrt(draws)
    assert error < 0.03
    assert abs(float(ratio.mean()) - 1.0) < 4 * error


@torch.no_grad()
def test_the_density_is_continuous_across_the_seam_of_the_angle(any_model, context):
    box = PriorBox()
    middle = box.to_physical(torch.full((1, 7), 0.4, dtype=torch.float64))

    def log_density(angle: float) -> torch.Tensor:
        p = middle.clone()
        p[:, POSITION_ANGLE] = angle
        w = box.to_normal(p)
        return any_model.log_prob(context, w.expand(len(context), 1, 7))[:, 0] + box.log_jacobian(w)

    torch.testing.assert_close(log_density(1e-4), log_density(180.0 - 1e-4), atol=1e-3, rtol=0)
    assert bool(((log_density(60.0) - log_density(0.0)).abs() > 0.01).any())


def test_every_parameter_receives_a_gradient(make_model, stamps):
    model = make_model("coupling_nsf").train()
    terms = model.compute_loss(stamps, noise(len(stamps), 7))
    (terms["flow"] + terms["gaussian"]).sum().backward()
    idle = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not bool(torch.isfinite(p.grad).all()) or not bool(p.grad.any())
    ]
    assert idle == []


@pytest.mark.parametrize("flow", ["nsf", "maf", "realnvp"])
def test_every_parameter_of_the_other_flows_too(make_model, stamps, flow):
    head = make_model(flow).head
    context = head(noise(4, head.trunk[0].normalized_shape[0]))
    head.log_prob(context, noise(4, 1, 7)).sum().backward()
    assert all(bool(p.grad.any()) for p in head.parameters())


def test_the_gaussian_term_is_a_normal_density(model, stamps):
    context, w = model.encode(stamps), noise(len(stamps), 7)
    normal = torch.distributions.Normal(context.mean, context.log_sigma.exp())
    torch.testing.assert_close(
        model.head.gaussian_log_prob(context, w), normal.log_prob(w).sum(-1), atol=1e-4, rtol=1e-5
    )


def test_contexts_are_cut_and_joined(model, stamps):
    context = model.encode(stamps)
    joined = Context.concatenate([context[:2], context[torch.tensor([2, 3, 4, 5])]])
    assert len(joined) == len(stamps)
    assert torch.equal(joined.mean, context.mean)
    assert torch.equal(joined.log_sigma, context.log_sigma)
    assert torch.equal(joined.embedding, context.embedding)


def test_an_unknown_flow_is_named():
    with pytest.raises(ConfigError, match=r"model\.npe\.type .* realnvp, .* 'glow'"):
        NPEHead(NPEConfig(type="glow"), 8)


@torch.no_grad()
def test_without_whitening_the_flow_is_on_its_own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = NPEHead(NPEConfig(num_flow_layers=2, hidden_dim=16, whitening=False), 8)
    context = head(noise(4, 8))
    assert not bool(context.mean.any())
    assert not bool(context.log_sigma.any())
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {
        "trunk",
        "feature_embedding",
        "flow",
    }
    w, log_q = head.from_noise(context, noise(4, 50, 7))
    torch.testing.assert_close(head.log_prob(context, w).double(), log_q, atol=1e-4, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("flow", ["coupling_nsf", "realnvp", "nsf", "maf"])
def test_a_posterior_of_two_parameters(flow):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = NPEHead(NPEConfig(type=flow, num_flow_layers=2, hidden_dim=8), 5, num_parameters=2)
    context = head(noise(3, 5))
    w, log_q = head.from_noise(context, noise(3, 20, 2))
    assert w.shape == (3, 20, 2)
    torch.testing.assert_close(head.log_prob(context, w).double(), log_q, atol=1e-4, rtol=1e-5)
    normal = torch.distributions.Normal(context.mean, context.log_sigma.exp())
    torch.testing.assert_close(
        head.gaussian_log_prob(context, w[:, 0]),
        normal.log_prob(w[:, 0].float()).sum(-1),
        atol=1e-4,
        rtol=1e-5,
    )


def test_blocks_and_dropout_build_what_they_say():
    one, three = (
        NPEHead(NPEConfig(num_flow_layers=1, hidden_dim=8, num_blocks=n, dropout=0.5), 4)
        for n in (1, 3)
    )
    assert sum(p.numel() for p in three.flow.parameters()) - sum(
        p.numel() for p in one.flow.parameters()
    ) == 2 * (8 * 8 + 8)
    features = noise(2, 4)
    assert not torch.equal(one(features).embedding, one(features).embedding)
    assert torch.equal(one.eval()(features).embedding, one(features).embedding)


def test_bounds_come_from_the_table():
    assert {p.name: p.bounds for p in PARAMETERS} == DEFAULT_BOUNDS


def test_distributions_check_their_arguments_still():
    # zuko, which the head imports, switches this off for everyone.
    assert Distribution._validate_args is __debug__


def toy_problem(features: int = 9, seed: int = 5):
    """w ~ N(0, I), x = A w + e: the posterior is Gaussian, and strongly correlated here."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(features, 7, generator=generator)
    matrix[:, 1] = 0.8 * matrix[:, 0] + 0.2 * matrix[:, 1]  # magnitude and radius, say
    sigma = 0.7
    covariance = torch.linalg.inv(torch.eye(7) + matrix.T @ matrix / sigma**2)

    def draw(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        w = torch.randn(batch, 7, generator=generator)
        return w, w @ matrix.T + sigma * torch.randn(batch, features, generator=generator)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x @ matrix @ covariance / sigma**2

    return draw, mean, covariance


@pytest.mark.slow
def test_the_head_learns_the_posterior_of_a_linear_gaussian_problem():
    draw, mean, covariance = toy_problem()
    # Constants beside the data keep their scale through the head's layer norm.
    anchor = torch.tensor([8.0, -8.0]).repeat(8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = NPEConfig(num_flow_layers=4, hidden_dim=48, context_dim=8, trunk_dim=96)
        head = NPEHead(config, 9 + len(anchor))
    steps = 2500
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def encode(x: torch.Tensor) -> Context:
        return head(torch.cat([x, anchor.expand(len(x), -1)], 1))

    for _ in range(steps):
        w, x = draw(256)
        context = encode(x)
        loss = -(head.log_prob(context, w[:, None])[:, 0] + head.gaussian_log_prob(context, w))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        schedule.step()

    with torch.no_grad():
        w, x = draw(64)
        draws, _ = head.from_noise(encode(x), noise(64, 4000, 7, seed=9))
        truth = torch.distributions.MultivariateNormal(mean(x), covariance)
        # The Kullback-Leibler divergence of the learned from the true posterior, both ways.
        w, x = draw(2000)
        exact = torch.distributions.MultivariateNormal(mean(x), covariance).log_prob(w)
        learned = head.log_prob(encode(x), w[:, None])[:, 0]
    sigma = covariance.diag().sqrt()
    offset = (draws.mean(1) - truth.mean) / sigma
    assert float(offset.pow(2).mean().sqrt()) < 0.15
    learned_covariance = torch.stack([torch.cov(d.T) for d in draws]).mean(0).float()
    error = (learned_covariance - covariance) / (sigma[:, None] * sigma)
    assert float(error.abs().max()) < 0.1
    assert float((exact - learned).mean()) < 0.15


# --- by keyword arguments ---------------------------------------------------------------------


def test_keywords_and_a_configuration_build_the_same_head():
    one = NPEHead(NPEConfig(num_flow_layers=2, hidden_dim=8), 5, num_parameters=3)
    other = NPEHead(feature_dim=5, num_params=3, num_flow_layers=2, hidden_dim=8)
    assert {k: v.shape for k, v in one.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
    assert other.num_parameters == 3


@pytest.mark.parametrize("flow", ["coupling_nsf", "realnvp", "nsf", "maf"])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_draws_come_with_their_density_and_moments(flow, dimensions):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = NPEHead(5, dimensions, type=flow, num_flow_layers=2, hidden_dim=8)
        found = head(noise(2, 5), num_samples=30)
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "samples": (2, 30, dimensions),
        "log_prob": (2, 30),
        "mean": (2, dimensions),
        "std": (2, dimensions),
    }
    again = head.log_prob(head(noise(2, 5)), found["samples"])
    torch.testing.assert_close(again.double(), found["log_prob"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["mean"], found["samples"].mean(1))
    found["samples"].sum().backward()  # draws are differentiable
    assert bool(head.mean_head.weight.grad.any())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_params": 0}, RangeError, "num_params must be a whole number >= 1, got 0"),
        ({"feature_dim": -8}, RangeError, "feature_dim must be a whole number >= 1, got -8"),
        ({"hidden_dim": -256}, RangeError, "hidden_dim"),
        ({"dropout": 1.0}, RangeError, r"dropout must lie in \[0, 1\)"),
        ({"num_flows": 3}, ConfigError, "no option 'num_flows' .did you mean num_flow_layers"),
        ({"psf_channels": 3}, ConfigError, "NPEHead has no option 'psf_channels'"),
    ],
)
def test_bad_sizes_and_names_of_a_head_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        NPEHead(**{"feature_dim": 8, "num_params": 2, "num_flow_layers": 1, **options})


def test_features_of_another_length_and_no_draws_are_refused():
    head = NPEHead(feature_dim=8, num_params=2, num_flow_layers=1, hidden_dim=8)
    with pytest.raises(ShapeError, match=r"shape \(B, 8\), got \(3, 9\). Build the head"):
        head(torch.zeros(3, 9))
    with pytest.raises(RangeError, match="num_samples must be a whole number >= 1, got -5"):
        head(torch.zeros(3, 8), num_samples=-5)
