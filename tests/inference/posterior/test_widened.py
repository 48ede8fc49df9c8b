"""Draws moved to honest widths: what moves, what stays, and what the tables say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.scene.prior import W_MAX
from fake_model import TRUTH, FakeModel, truth_image
from widened_posteriors import posterior_with, widening_of

SIZE = 40


def weighted_moments(posterior: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.from_numpy(posterior.weights(0))
    mean = weights @ posterior.batch_w[0]
    return mean, (weights @ (posterior.batch_w[0] - mean) ** 2).sqrt()


def test_moving_widens_about_the_weighted_mean_and_keeps_the_density():
    still = posterior_with(widening_of(0.3))
    moved = still.widened()
    (before, own), (after, wide) = weighted_moments(still), weighted_moments(moved)
    torch.testing.assert_close(after, before)
    expected = own.clone()
    expected[1] *= 3.0
    torch.testing.assert_close(wide, expected)
    box = still.measurements[0].box
    torch.testing.assert_close(box.to_physical(moved.batch_w), moved.batch_samples)
    # In w the density falls by the volume that the map makes: a factor of three.
    in_w = moved.batch_log_prob - box.log_jacobian(moved.batch_w)
    was = still.batch_log_prob - box.log_jacobian(still.batch_w)
    torch.testing.assert_close(in_w, was - math.log(3.0))
    assert moved.batch_log_weights is still.batch_log_weights


def test_each_mode_moves_by_itself():
    still = posterior_with(widening_of(0.3, -0.4))
    moved = still.widened()
    for mode in (0, 1):
        own = torch.arange(400) % 2 == mode
        own[:5] = False  # without weight
        weights = torch.softmax(still.batch_log_weights[0, own], 0)
        means = [weights @ p.batch_w[0, own] for p in (still, moved)]
        torch.testing.assert_close(*means)
        spread = [p.batch_w[0, own, 1].std() for p in (still, moved)]
        assert float(spread[1] / spread[0]) == pytest.approx(3.0, rel=0.02)
    # Moved about a common mean the two modes would be three times as far apart.
    assert float(moved.batch_w[0, :, 1].abs().max()) < 0.6


def test_the_unmoved_draws_are_kept_through_all_that_a_posterior_goes_through():
    still = posterior_with(widening_of(0.3))
    plain = posterior_with(None, draws=500)
    moved = still.widened()
    for again in (moved, moved[[0]], moved[0], moved.widened()):
        torch.testing.assert_close(again.under_noise().batch_w, still.batch_w)
        torch.testing.assert_close(again.under_noise().batch_samples, still.batch_samples)
        torch.testing.assert_close(again.under_noise().batch_log_prob, still.batch_log_prob)
    joined = Posterior.concatenate([plain, moved])
    torch.testing.assert_close(joined.under_noise().batch_w[1, :400], still.batch_w[0])
    torch.testing.assert_close(joined.under_noise().batch_w[0], plain.batch_w[0])
    torch.testing.assert_close(joined.batch_w[1, :400], moved.batch_w[0])
    assert plain.widened() is plain
    assert plain.under_noise() is plain


def test_points_go_back_where_they_come_from():
    still = posterior_with(widening_of(0.3, -0.4))
    widening = still.measurements[0].widening
    w, log_weights = still.batch_w[0], still.batch_log_weights[0]
    moved, log_det = widening.move(w, log_weights)
    back, same = widening.move_back(moved, widening.centers(w, log_weights))
    torch.testing.assert_close(back, w)
    torch.testing.assert_close(same, log_det)


def test_no_draw_leaves_the_prior():
    far = widening_of(7.995, factor=50.0)
    moved = posterior_with(far, weighted=False).widened()
    assert float(moved.batch_w.abs().max()) <= W_MAX
    assert bool(torch.isfinite(moved.batch_samples).all())


def test_other_coordinates_take_the_maps_along():
    widening = widening_of(0.3)
    scale = torch.diag(torch.tensor([2.0, 3, 1, 1, 1, 0.5, 1], dtype=torch.float64))
    scale[0, 1] = 0.7
    w = posterior_with(widening).batch_w[0]
    other = widening.in_coordinates(scale[None], widening.modes @ scale.T)
    there, _ = other.move(w @ scale.T)
    torch.testing.assert_close(there, widening.move(w)[0] @ scale.T)


def test_tables_have_both_widths_and_say_which():
    moved = posterior_with(widening_of(0.3)).widened()
    row = moved.rows()[0]
    assert row["widths"] == "honest"
    assert row["effective_radius_std"] > 2.5 * row["effective_radius_std_noise"]
    assert row["sersic_index_std"] == pytest.approx(row["sersic_index_std_noise"])
    assert row["structure"] == pytest.approx(1.0)  # the median of one 3 and six 1
    table = moved.summary()
    assert table.meta["widths"] == "honest"
    assert table["effective_radius_std_noise"].unit == "arcsec"
    assert all(f"{c}_noise" in table.colnames for c in table.colnames if c.endswith("_std"))
    unjudged = posterior_with(widening_of(0.3, judged=False)).rows()[0]
    assert (unjudged["widths"], unjudged["structure"]) == ("noise", None)


# --- through the predictor ----------------------------------------------------------------------


def observe(image: np.ndarray, **options: object) -> Observation:
    known = {"noise": 1.0, "psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5}
    return Observation.from_array(image, **(known | options))


def two_images(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A Sérsic galaxy with noise, and the same with two arms of 15 %."""
    image = truth_image().numpy()
    edge = (len(image) - size) // 2
    cut = slice(edge, edge + size)
    y, x = np.mgrid[cut, cut] - (len(image) - 1) / 2
    dx, dy = x - 0.5, y + 1.0
    r = np.hypot(dx, dy)
    wave = np.cos(2 * np.arctan2(dy, dx) + 4 * np.log(r + 1.0)) * r**2 / (r**2 + 4.0)
    smooth = image[cut, cut]
    return smooth, smooth * (1.0 + 0.15 * wave)


def same_draws(first: torch.Tensor, second: torch.Tensor) -> None:
    """Draws of two runs agree to a thousandth of their width: fits end within their tolerance."""
    width = second.flatten(0, -2).std(0)
    assert float(((first - second).abs() / width).max()) < 1e-3


@pytest.fixture(scope="module")
def laplace() -> tuple[Predictor, Posterior, Posterior]:
    predictor = Predictor(FakeModel(TRUTH, 0.02), "cpu")
    predictor.model.image_size = SIZE
    network = predictor.posterior([observe(i) for i in two_images()], 200, widths="noise")
    return predictor, network, predictor.refine(network, "laplace")


def test_structure_is_in_the_error_bars_of_the_galaxy_that_has_it(laplace):
    predictor, network, refined = laplace
    smooth, arms = refined.rows()
    assert smooth["structure"] < 1.4
    assert arms["structure"] > 2.0
    assert refined.structure.tolist() == [smooth["structure"], arms["structure"]]
    assert arms["effective_radius_std"] > 1.8 * arms["effective_radius_std_noise"]
    noise = predictor.refine(network, "laplace", widths="noise")
    assert noise.batch_noise_w is None
    assert noise.widths == ["noise", "noise"]
    for own, plain in zip(refined.under_noise().batch_w, noise.batch_w, strict=True):
        same_draws(own, plain)


def test_a_network_s_posterior_reaches_the_optimum_of_a_bright_galaxy(laplace):
    predictor, network, _ = laplace
    both = [observe(i) for i in two_images()]
    honest = predictor.posterior(both, 200)
    assert honest.method == ["amortized", "amortized"]
    same_draws(honest.under_noise().batch_w, network.batch_w)
    # A network that is sure of a wrong place: its error bars are to reach the right one.
    wrong = TRUTH.clone()
    wrong[2] = 3.0
    sure = Predictor(FakeModel(wrong, 0.002), "cpu")
    sure.model.image_size = SIZE
    row, plain = (sure.posterior(both[0], 200, widths=w).rows()[0] for w in ("honest", "noise"))
    assert abs(plain["sersic_index"] - 2.5) > 10.0 * plain["sersic_index_std"]
    assert abs(row["sersic_index"] - 2.5) < 3.0 * row["sersic_index_std"]
    assert row["sersic_index_std_noise"] == pytest.approx(plain["sersic_index_std"])
    # Refining starts from the network's own draws, moved or not.
    first, second = (predictor.refine(p, "laplace").batch_w for p in (network, honest))
    for own, other in zip(first, second, strict=True):
        same_draws(own, other)


def test_wings_that_the_psf_lacks_are_held_by_a_network_s_honest_widths_too(laplace):
    predictor, _, _ = laplace
    axis = np.arange(11) - 5
    psf = (1.0 + (axis[:, None] ** 2 + axis**2) / 6.5) ** -2.2  # 11 % of a Moffat's light missing
    plain, honest = (
        predictor.posterior(observe(two_images()[0], psf=psf, psf_fwhm=None), 200, widths=w)
        for w in ("noise", "honest")
    )
    assert "psf_wings" in plain.flag_names
    assert sum("bias R_e" in note for note in plain.measurements[0].notes) == 1
    m = honest.measurements[0]
    assert m.widening is not None
    assert m.widening.wings > 0.0
    assert ("psf_wings" in honest.flag_names) == (m.widening.wings > 3.0)
    assert not any("bias R_e" in note for note in m.notes)


def test_a_stamp_too_small_to_judge_structure_says_so(laplace):
    predictor, _, _ = laplace
    image = two_images()[1]
    mask = np.ones_like(image, dtype=bool)
    mask[16:24, 16:24] = False
    network = predictor.posterior(observe(image, mask=mask), 100, widths="noise")
    row = predictor.refine(network, "laplace")
    assert row.flags & Flag.STRUCTURE_UNJUDGED
    assert row.widths == "noise"
    torch.testing.assert_close(row.w, row.under_noise().w)
    assert not predictor.refine(network, "laplace", widths="noise").flags & Flag.STRUCTURE_UNJUDGED


def test_a_failure_to_find_widths_costs_the_widths_alone(laplace, monkeypatch):
    predictor, network, _ = laplace

    def fails(*_: object) -> None:
        raise torch.linalg.LinAlgError("not positive definite")

    plain = predictor.refine(network[[1]], "laplace", widths="noise")
    monkeypatch.setattr("deeplegato_pp.inference.refine.engine.widening_at", fails)
    row = predictor.refine(network[[1]], "laplace")
    assert row.method == ["laplace"]
    assert row.flags[0] & Flag.STRUCTURE_UNJUDGED
    assert row.widths == ["noise"]
    same_draws(row.batch_w, plain.batch_w)


def test_too_few_draws_of_a_network_are_not_moved(laplace):
    predictor, _, _ = laplace
    image = observe(two_images()[1])
    assert predictor.posterior(image, 1).widths == "noise"
    assert predictor.posterior(image, 100).widths == "honest"


def test_unknown_widths_are_refused(laplace):
    predictor, network, _ = laplace
    with pytest.raises(InputError, match="widths must be one of"):
        predictor.refine(network, widths="wide")
    with pytest.raises(InputError, match="widths must be one of"):
        predictor.posterior(observe(two_images()[0]), widths="wide")


def test_reweighting_acts_on_unmoved_draws(laplace):
    predictor, network, _ = laplace
    exact = predictor.refine(network[[1]], ess=60, star_odds=None)
    box = exact.boxes[0]
    low, high = box.sersic_index
    prior = {"sersic_index": (low, 0.5 * (low + high))}
    moved, still = exact.reweight(prior), exact.under_noise()
    plain = replace(
        still, measurements=[replace(m, widening=None) for m in still.measurements]
    ).reweight(prior)
    torch.testing.assert_close(moved.batch_log_weights, plain.batch_log_weights)
    torch.testing.assert_close(moved.under_noise().batch_w, plain.batch_w)
    assert float(moved.structure[0]) == pytest.approx(float(exact.structure[0]))
    narrow = exact.reweight(replace(box, sersic_index=prior["sersic_index"]))
    first, second = narrow.rows()[0], moved.rows()[0]
    for name in ("magnitude", "effective_radius", "sersic_index", "center_x"):
        assert first[f"{name}_std"] == pytest.approx(second[f"{name}_std"], rel=0.05), name
