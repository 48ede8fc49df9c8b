"""The figure of a galaxy of several components."""

from __future__ import annotations

from dataclasses import replace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.cli.measuring import check_plot_columns
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.plots import plot_posterior, symbol_of
from deeplegato_pp.inference.posterior.scene_plots import component_images, ring_means
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from fake_model import TRUTH, FakeModel, truth_image

NAMES = ("sersic", "sersic+point")


def record(number: int = 200) -> SceneRecord:
    """A host of nine tenths of the galaxy's light, and a point of a tenth."""
    rng = np.random.default_rng(3)

    def about(value: float, width: float) -> np.ndarray:
        return value + width * rng.standard_normal(number)

    draws = {
        "magnitude": about(21.0, 0.01),
        "effective_radius": about(1.0, 0.02),
        "center_x": about(0.5, 0.02),
        "center_y": about(-1.0, 0.02),
        "host_magnitude": about(21.114, 0.01),
        "host_effective_radius": about(1.05, 0.02),
        "host_sersic_index": about(2.0, 0.1),
        "host_axis_ratio": about(0.6, 0.01),
        "host_position_angle": about(179.0, 2.0) % 180.0,
        "point_magnitude": about(23.5, 0.05),
        "point_to_total": about(0.1, 0.005),
    }
    weights = np.full(number, 1.0 / number)
    return SceneRecord(NAMES, NAMES[1], dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0.1),
                       dict.fromkeys(NAMES, 0.0), draws, draws, weights)  # fmt: skip


@pytest.fixture(scope="module")
def posterior():
    seen = Observation.from_array(
        truth_image(64).numpy(), noise=1.0, psf_fwhm=3.0, pixel_scale=0.25, zero_point=30.5
    )
    model = FakeModel(TRUTH)
    model.image_size = 64
    found = Predictor(model, "cpu").posterior(seen, 100, widths="noise")
    return replace(found, measurements=[replace(found.measurements[0], scene=record())])


def test_components_have_the_light_that_their_draws_say(posterior):
    prepared = posterior.measurements[0].prepared
    images = component_images(record(), prepared, 5)
    assert list(images) == ["host", "point"]
    light = {name: float(image.sum((-2, -1)).mean()) for name, image in images.items()}
    share = light["point"] / sum(light.values())
    assert share == pytest.approx(0.1, abs=0.01)
    brightest = images["point"].mean(0).flatten().argmax()
    assert divmod(int(brightest), 64) in {(30, 32), (31, 32), (30, 31), (31, 31)}


def test_rings_follow_the_ellipse():
    axis = np.arange(41) - 20.0
    inside = np.hypot(axis[:, None] / 12.0, axis[None, :] / 6.0)  # upright, q 0.5
    radii, counts, means = ring_means(inside[None], np.ones((41, 41), bool), (0.0, 0.0), 0.5, 0.0)
    np.testing.assert_allclose(means[0][radii < 12], radii[radii < 12] / 12.0, atol=0.02)
    assert counts.sum() > 600
    used = np.ones((41, 41), bool)
    used[:, :20] = False
    assert ring_means(inside[None], used, (0.0, 0.0), 0.5, 0.0)[1].sum() < counts.sum()


def test_the_figure_shows_every_component_and_the_chosen_columns(posterior, tmp_path):
    columns = ["point_to_total", "host_position_angle"]
    figure = plot_posterior(posterior, tmp_path / "f.png", columns=columns)
    titles = [a.get_title() for a in figure.axes if a.images]
    assert titles == ["image", "host", "point", "model", "residual"]
    profile = next(a for a in figure.axes if "mag arcsec" in a.get_ylabel())
    assert {"host", "point", "sum", "image"} == {t.get_text() for t in profile.get_legend().texts}
    assert profile.yaxis_inverted()
    shown = np.concatenate([line.get_ydata() for line in profile.lines])
    assert np.isfinite(shown).all()
    labels = {a.get_xlabel() for a in figure.axes}
    assert any(r"f_\mathrm{point}" in label for label in labels)
    # The angle at the seam is unwrapped.
    angle = next(a for a in figure.axes if r"\theta_{\mathrm{host}}" in a.get_title())
    assert np.diff(angle.get_xlim())[0] < 30.0
    assert (tmp_path / "f.png").stat().st_size > 20_000
    plt.close(figure)


def test_a_single_profile_shows_the_chosen_parameters(posterior):
    alone = replace(posterior, measurements=[replace(posterior.measurements[0], scene=None)])
    figure = plot_posterior(alone, columns=["sersic_index", "magnitude"])
    labels = [a.get_xlabel() for a in figure.axes if a.get_xlabel() not in ("", "arcsec")]
    assert labels == ["$n$", "$m$ [mag]"]
    plt.close(figure)
    with pytest.raises(InputError, match="no column point_to_total"):
        plot_posterior(alone, columns=["point_to_total"])


def test_symbols_name_the_component():
    assert symbol_of("magnitude") == "$m$"
    assert symbol_of("disc_sersic_index") == r"$n_{\mathrm{disc}}$"


def test_columns_are_checked_before_any_work():
    check_plot_columns(("magnitude", "bulge_to_total"), plotted=True)
    for columns, plotted, said in (
        (("bulge",), True, "got 'bulge'"),
        ((), True, "got 'none'"),
        (("magnitude",), False, "Add --plot"),
    ):
        with pytest.raises(InputError, match=said):
            check_plot_columns(columns, plotted)
