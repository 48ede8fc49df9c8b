"""Training that starts from another model's weights."""

from dataclasses import replace

import pytest
import torch

from deeplegato_pp.config.schema import StructureConfig
from deeplegato_pp.data.loaders import training_set
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.models.npe_head import LOG_SIGMA_RANGE
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.training import train
from deeplegato_pp.training.warm_start import initial_model, linear_map


def test_it_starts_from_the_weights_of_another_model(tiny, tmp_path):
    first = train(tiny("training.max_steps=3", folder="first"))
    started = initial_model(tiny(f"model.init={tmp_path / 'first' / 'model'}"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, started.state_dict()[name]), name
    with pytest.raises(ConfigError, match=r"model\.init=.* does not fit .*of another shape"):
        initial_model(tiny(f"model.init={tmp_path / 'first' / 'model'}", "model.npe.context_dim=9"))


def test_an_input_may_be_added_to_a_trained_network(tiny, tmp_path, caplog):
    independent = "data.conditions.correlated_noise=0"
    first = train(tiny("training.max_steps=3", independent, folder="first"))
    more = tiny(f"model.init={tmp_path / 'first' / 'model'}", "data.conditions.correlated_noise=1")
    started = initial_model(more)
    assert "correlation.weight" in caplog.text
    stamps, w = next(iter(training_set(more, 1)))
    with torch.no_grad():
        known, new = (m.eval().compute_loss(stamps, w.float())["flow"] for m in (first, started))
    torch.testing.assert_close(new, known)
    assert bool((stamps.noise_correlation > 1.0).all())


def test_a_wider_prior_takes_over_means_and_widths():
    first = DeepLeGAToPP.from_pretrained("default")
    data = replace(first.config.data, structure=StructureConfig())
    config = replace(first.config, model=replace(first.config.model, init="default"), data=data)
    bounds = tuple(1.2 * v for v in first.prior.center_x)
    wider = replace(config, data=replace(data, priors={**data.priors, "center_x": bounds}))
    started = initial_model(wider)
    stamps, _ = next(iter(training_set(config, 1)))
    with torch.no_grad():
        known, new = (m.eval().encode(stamps) for m in (first, started))
    x = first.prior.to_physical(known.mean)[:, 5]
    moved = started.prior.to_physical(new.mean)[:, 5]
    untouched = started.prior.to_physical(known.mean)[:, 5]
    near = x.abs() < 3.0
    assert int(near.sum()) > 10
    left, before = ((found - x)[near].abs().mean() for found in (moved, untouched))
    assert float(left) < 0.6 * float(before), (left, before)
    low, high = LOG_SIGMA_RANGE
    free = (known.log_sigma[:, 5] > low + 1.0) & (known.log_sigma[:, 5] < high - 1.0)
    ratio = (new.log_sigma - known.log_sigma)[free, 5].exp()
    assert int(free.sum()) > 10
    torch.testing.assert_close(ratio, ratio[:1].expand(len(ratio)))
    assert 0.75 < float(ratio[0]) < 5.0 / 6.0  # from the slope in the middle to that outside
    torch.testing.assert_close(new.mean[:, :5], known.mean[:, :5])


def test_priors_without_a_common_galaxy_leave_coordinates_alone():
    far = PriorBox(magnitude=(40.0, 41.0))
    scale, offset = linear_map(PriorBox(), far)
    assert scale.tolist() == [1.0] * 7
    assert offset.tolist() == [0.0] * 7
