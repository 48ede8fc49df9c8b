from __future__ import annotations

import re

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.plots import plot_posterior
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.scene.parameters import PARAMETERS
from fake_model import TRUTH, FakeModel, truth_image


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    mask = np.zeros((128, 128), dtype=bool)
    mask[:, :28] = True
    obs = Observation.from_array(
        truth_image().numpy(), noise=1.0, mask=mask, psf_fwhm=3.0, pixel_scale=0.25,
        zero_point=30.5, name="a_$ galaxy",
    )  # fmt: skip
    return Predictor(FakeModel(TRUTH), "cpu").posterior([obs, np.zeros((1, 1, 1))], 300)


def test_the_figure_shows_what_it_should(posterior, tmp_path):
    before = dict(matplotlib.rcParams)
    figure = plot_posterior(posterior[0], tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 20_000
    assert dict(matplotlib.rcParams) == before
    pictures = [a for a in figure.axes if a.images]
    assert [a.get_title() for a in pictures] == ["image", "model", "residual"]
    image, model, residual = (a.images[0] for a in pictures)
    assert image.norm is model.norm
    assert residual.get_clim() == (-5.0, 5.0)
    # Columns that are masked over the whole height are padding, and not shown.
    assert image.get_array().shape == (128, 100)
    shown = residual.get_array().compressed()
    assert shown.std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(
        image.get_array() - model.get_array(), residual.get_array(), atol=0.02
    )
    labels = {a.get_xlabel() for a in figure.axes}
    assert all(any(p.symbol in label for label in labels) for p in PARAMETERS)
    titles = [a.get_title() for a in figure.axes]
    assert any(re.search(r"m\$ \$= 2[01]\.\d+_\{-0\.\d+\}\^\{\+0", t) for t in titles)
    # The angle at the seam is unwrapped: its histogram is one heap a few degrees wide.
    angle = next(a for a in figure.axes if r"\theta" in a.get_title())
    assert np.diff(angle.get_xlim())[0] < 20.0
    plt.close(figure)


def test_closing_leaves_no_figure(posterior):
    plt.close("all")
    assert plot_posterior(posterior[0], close=True) is None
    assert plt.get_fignums() == []


def test_what_cannot_be_drawn_is_refused(posterior, tmp_path):
    with pytest.raises(InputError, match="one galaxy"):
        plot_posterior(posterior)
    with pytest.raises(InputError, match="not measured"):
        plot_posterior(posterior[1])
    with pytest.raises(InputError, match="unknown suffix"):
        plot_posterior(posterior[0], tmp_path / "f.nonsense")
    assert list(tmp_path.iterdir()) == []
    plt.close("all")


def test_predictions_are_drawn_too(posterior):
    result = Predictor(FakeModel(TRUTH), "cpu").predict(truth_image(), num_samples=100)
    figure = Predictor.plot_posterior(result)
    assert len(figure.axes) >= 49
    plt.close(figure)
