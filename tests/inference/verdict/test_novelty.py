"""Features of training images: density, p-values, files."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from deeplegato_pp.calibration import novelty_reference
from deeplegato_pp.calibration.novelty_reference import fit_novelty
from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.errors import FormatError, RangeError
from deeplegato_pp.inference.verdict.novelty import Novelty
from deeplegato_pp.models import DeepLeGAToPP
from tiny_model import TINY


class FeatureModel(nn.Module):
    """A network whose features are normal numbers, correlated, the same for the same weights."""

    def __init__(self, features: int = 40) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mixing = nn.Parameter(torch.randn(features, features, generator=generator))
        self.config = Config()
        self.reference: dict[str, torch.Tensor] = {}


def fake_features(model, number, seed, advance):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(number, model.mixing.shape[0], generator=generator)
    advance(number)
    return (normal @ model.mixing.detach()).double() + 5.0


@pytest.fixture
def model(monkeypatch) -> FeatureModel:
    monkeypatch.setattr(novelty_reference, "_features", fake_features)
    return FeatureModel()


def test_training_images_are_familiar_and_others_are_not(model):
    fitted = fit_novelty(model, 3000)
    fresh = fake_features(model, 4000, 99, lambda _: None)
    p = fitted.p_value(fitted.score(fresh))
    for level in (0.5, 0.1, 0.02):
        assert float((p < level).double().mean()) == pytest.approx(level, abs=0.3 * level + 0.002)
    assert float(fitted.score(fresh).mean()) == pytest.approx(1.0, abs=0.1)
    strange = fresh[:50] + 60.0
    assert bool((fitted.p_value(fitted.score(strange)) < 1e-4).all())


def test_p_values_fall_steadily(model):
    fitted = fit_novelty(model, 2000)
    p = fitted.p_value(torch.linspace(0.0, 5.0, 400).double())
    assert float(p[0]) == 1.0
    assert bool((p.diff() <= 0).all())
    assert bool((p >= 0).all())


def test_a_file_says_the_same(model):
    fitted = fit_novelty(model, 1500)
    model.reference = fitted.tensors(model)
    loaded = Novelty.of(model)
    fresh = fake_features(model, 100, 5, lambda _: None)
    torch.testing.assert_close(loaded.score(fresh), fitted.score(fresh), rtol=0.01, atol=0)


def test_what_belongs_to_other_weights_is_not_used(model):
    model.reference = fit_novelty(model, 1500).tensors(model)
    with torch.no_grad():
        model.mixing[0, 0] += 1.0
    assert Novelty.of(model) is None


def test_without_file_there_is_none_and_a_damaged_one_is_refused(model):
    assert Novelty.of(model) is None
    model.reference = fit_novelty(model, 1500).tensors(model)
    del model.reference["scores"]
    with pytest.raises(FormatError, match="Fit them anew"):
        Novelty.of(model)


def test_too_few_simulations_are_refused(model):
    with pytest.raises(RangeError, match="1024"):
        fit_novelty(model, 1000)


def test_features_are_those_of_simulations():
    class Encoder(FeatureModel):
        def encode(self, stamps):
            flat = stamps.image.flatten(1)[:, :40]
            return type("Context", (), {"features": flat})

    seen = []
    found = novelty_reference._features(Encoder(), 70, 1, seen.append)
    assert found.shape == (70, 40)
    assert seen == [64, 6]
    assert bool(torch.isfinite(found).all())
    assert math.isfinite(float(found.std()))
    again = novelty_reference._features(Encoder(), 70, 1, seen.append)
    torch.testing.assert_close(found, again)


def test_features_of_galaxies_with_structure_need_no_truth():
    keys = ("structure.share=1.0", "structure.modulated=1.0")
    model = DeepLeGAToPP(load_config(TINY, [f"data.{key}" for key in keys]))
    features = novelty_reference._features(model, 8, 1, lambda _: None)
    assert bool(torch.isfinite(features).all())
    assert float(features.std(0).max()) > 0.0
    simulator = SersicSimulator.from_config(model.config.data, truth=novelty_reference._not_sought)
    scene = simulator.sample_scene(64, torch.Generator().manual_seed(0))
    assert 0 < int(scene.structured.sum()) < 64  # faint and unresolved ones stay smooth
