"""What is minimised: each weight acts, and unknown parameters are completed."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.data.loaders import training_set
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.npe_head import Context
from deeplegato_pp.training.objective import Objective, complete
from deeplegato_pp.training.pretraining import CELLS, GRID, hide_cells, targets
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer, mismatches


def make(config) -> DeepLeGAToPPTrainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepLeGAToPPTrainer(config)


@pytest.fixture
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


@pytest.mark.parametrize("term", ["physics", "calibration", "reconstruction"])
@pytest.mark.usefixtures("seeded")
def test_each_weight_adds_its_term(tiny, term):
    module = make(tiny(f"training.{term}_weight=0.5"))
    stamps, w = training_set(module.config, 1)[0]
    terms = module.objective(module.model, stamps, w)
    plain = module.model.compute_loss(stamps, w.float())
    nll = (plain["flow"] + plain["gaussian"]).mean()
    assert (terms["loss"] - nll).item() == pytest.approx(0.5 * float(terms[term]), rel=1e-3)
    assert float(terms[term]) > 0
    terms["loss"].backward()
    parameters = list(module.parameters())
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in parameters)
    assert terms.keys() == {"loss", "flow_nll", term}
    assert not any(v.requires_grad for k, v in terms.items() if k != "loss")


@pytest.mark.usefixtures("seeded")
def test_the_calibration_term_alone_reaches_flow_and_whitening(tiny):
    module = make(tiny())
    stamps, w = training_set(module.config, 1)[0]
    context = module.model.encode(stamps)
    loss = module.objective.calibration(module.objective._draws(module.model, context), w)
    loss.backward()
    for part in (module.model.head.flow, module.model.head.logvar_head, module.model.backbone):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


@pytest.mark.usefixtures("seeded")
def test_pretraining_needs_no_labels_and_teaches_the_backbone(tiny):
    module = make(tiny("training.task=reconstruction", "training.learning_rate=0.01"))
    assert module.monitored == "val_full/reconstruction"
    stamps, w = training_set(module.config, 1)[0]
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(25):
        terms = module.objective(module.model, stamps, torch.full_like(w, math.nan))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["reconstruction"]))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(p.grad is not None for p in module.model.backbone.parameters())


@pytest.mark.usefixtures("seeded")
def test_hidden_pixels_are_what_is_asked_for(tiny):
    stamps, _ = training_set(tiny(), 1)[0]
    seen, hidden = hide_cells(stamps, 0.5)
    assert bool((seen.mask == (stamps.mask | hidden)).all())
    side = stamps.image.shape[-1] // CELLS
    cells = hidden.unfold(1, side, side).unfold(2, side, side)
    assert bool((cells.amin((-2, -1)) == cells.amax((-2, -1))).all())
    assert 0.3 < float(hidden.float().mean()) < 0.7
    images, ignore = targets(stamps, hidden)
    assert images.shape == ignore.shape == (4, 2, GRID, GRID)
    assert bool(torch.isfinite(images).all())
    whole = torch.nn.functional.interpolate(hidden.float()[:, None], GRID, mode="area")[:, 0] > 0.5
    assert not bool((~ignore[:, 1] & ~whole).any())
    assert bool(targets(stamps, torch.zeros_like(hidden))[1].all())


class Line:
    """A network whose posterior is known: w1 = w0 exactly, all else N(0, 1)."""

    def __init__(self) -> None:
        self.head = self

    def from_noise(self, context: Context, noise: torch.Tensor):
        draws = noise.clone()
        draws[..., 1] = draws[..., 0]
        return draws, torch.zeros(noise.shape[:2])


@pytest.mark.usefixtures("seeded")
def test_unknown_parameters_come_from_the_posterior_given_the_known():
    w = torch.randn(200, 7, dtype=torch.float64).clamp(-2, 2)
    w[:, 1:] = math.nan
    zero = torch.zeros(200, 7)
    context = Context(zero, zero, zero, zero)
    filled = complete(Line(), context, w)
    assert torch.equal(filled[:, 0], w[:, 0])
    assert float((filled[:, 1] - w[:, 0]).abs().median()) < 0.05  # follows from what is known
    assert float(filled[:, 2].std()) == pytest.approx(1.0, abs=0.2)  # does not


@pytest.mark.usefixtures("seeded")
def test_a_step_with_partly_known_galaxies(tiny):
    module = make(tiny())
    stamps, w = training_set(module.config, 1)[0]
    w[:, 2] = math.nan
    loss = module.objective(module.model, stamps, w)["loss"]
    loss.backward()
    assert bool(torch.isfinite(loss))


def test_an_unknown_task_is_named(tiny):
    with pytest.raises(ConfigError, match="posterior, reconstruction, got 'sleep'"):
        Objective(tiny("training.task=sleep"), 8)


def test_mismatches_are_described():
    own = {"a": torch.zeros(2), "b": torch.zeros(1), "same": torch.zeros(1)}
    other = {"a": torch.zeros(3), "c": torch.zeros(1), "same": torch.ones(1)}
    assert mismatches(own, other) == ("missing b; unexpected c; of another shape a (3,) for (2,)")
    assert mismatches(own, own) == ""
    many = {f"k{i}": torch.zeros(1) for i in range(5)}
    assert mismatches(many, {}) == "missing k0, k1, k2 and 2 more"
