from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.diagnostics import central_coverage, crps, rank_test, truth_ranks
from deeplegato_pp.errors import FormatError, InputError, ShapeError
from deeplegato_pp.inference.recalibration import SCORES, Recalibration
from deeplegato_pp.scene.prior import PriorBox
from fake_model import TRUTH, FakeModel, truth_image

BOX = PriorBox()
GALAXIES, DRAWS = 3000, 60


def measured(width: float, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws (B, S, 7) and truths (B, 7) inside the prior's box: Gaussians in the coordinates w."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(GALAXIES, 7))
    sigma = 0.3
    known = 1.0 / (1.0 + sigma**2)
    center = known * (w + sigma * rng.normal(size=w.shape))
    z = width * rng.normal(size=(GALAXIES, DRAWS, 7)) + shift
    draws = center[:, None] + sigma * math.sqrt(known) * z
    samples = BOX.to_physical(torch.from_numpy(draws)).numpy()
    return samples, BOX.to_physical(torch.from_numpy(w)).numpy()


def fitted(width: float, shift: float = 0.0) -> Recalibration:
    return Recalibration.fit(truth_ranks(*measured(width, shift, seed=1)), DRAWS)


@pytest.mark.parametrize(("width", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.4), (0.8, -0.3)])
def test_wrong_posteriors_become_right_on_other_galaxies(width, shift):
    samples, truth = measured(width, shift)
    moved = fitted(width, shift).apply(samples)
    before, after = truth_ranks(samples, truth), truth_ranks(moved, truth)
    assert rank_test(before).p_value.min() < 1e-6
    for level in (0.5, 0.68, 0.9):
        assert np.abs(central_coverage(after, level) - level).max() < 0.035
    assert rank_test(after).statistic.max() < 0.04
    gain = crps(samples, truth).mean(0) - crps(moved, truth).mean(0)
    assert gain.min() > -0.003 * crps(samples, truth).mean()


def test_right_posteriors_stay():
    samples, _ = measured(1.0)
    moved = fitted(1.0).apply(samples)
    width = samples.std(1)
    off = np.abs(moved - samples)[..., [0, 5, 6]] / width[:, None, [0, 5, 6]]
    assert np.median(off) < 0.06


def test_the_identity_moves_nothing():
    samples, _ = measured(1.0)
    same = Recalibration(np.tile(SCORES, (1, 7, 1))).apply(samples[:50])
    off = np.abs(same - samples[:50])
    off[..., 4] = np.minimum(off[..., 4], 180.0 - off[..., 4])
    assert off.max() < 1e-8


def test_draws_keep_their_order_and_stay_in_the_box():
    samples, _ = measured(0.3)
    moved = fitted(0.3).apply(samples[:200])
    for j in (0, 1, 2, 3, 5, 6):
        order = np.argsort(samples[:200, :, j], axis=1)
        assert (np.diff(np.take_along_axis(moved[..., j], order, 1), axis=1) >= 0).all()
    assert bool(BOX.contains(torch.from_numpy(moved)).all())
    assert ((moved[..., 4] >= 0) & (moved[..., 4] < 180)).all()
    wider = moved[..., 0].std(1) / samples[:200, :, 0].std(1)
    assert np.median(wider) == pytest.approx(1 / 0.3, rel=0.2)


def test_classes_have_maps_of_their_own():
    wide, narrow = measured(1.4), measured(0.7, seed=2)
    ranks = np.concatenate([truth_ranks(*wide), truth_ranks(*narrow)])
    snr = np.repeat([5.0, 200.0], GALAXIES)
    found = Recalibration.fit(ranks, DRAWS, "snr", snr)
    assert found.galaxies == (0, GALAXIES, 0, 0, GALAXIES, 0)
    for case, value in ((wide, 5.0), (narrow, 200.0)):
        moved = found.apply(case[0], np.full(GALAXIES, value))
        coverage = central_coverage(truth_ranks(moved, case[1]), 0.68)
        np.testing.assert_allclose(coverage, 0.68, atol=0.035)
    with pytest.raises(InputError, match="goes by snr"):
        found.apply(wide[0])


def test_it_is_stored_and_read(tmp_path):
    ranks = truth_ranks(*measured(0.7))
    found = Recalibration.fit(ranks, DRAWS, "snr", np.geomspace(1.0, 1e4, GALAXIES))
    path = found.save(tmp_path / "recalibration.json")
    again = Recalibration.load(path)
    np.testing.assert_allclose(again.maps, found.maps, atol=1e-6)
    assert (again.edges, again.covariate, again.galaxies) == (
        found.edges,
        found.covariate,
        found.galaxies,
    )


@pytest.mark.parametrize("damage", ["{", "{}", '{"maps": 1}'])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "recalibration.json"
    path.write_text(damage)
    with pytest.raises(FormatError, match="cannot be read"):
        Recalibration.load(path)
    with pytest.raises(FormatError, match="cannot be read"):
        Recalibration.load(tmp_path / "none.json")


def test_maps_of_other_scores_are_refused(tmp_path):
    path = fitted(1.0).save(tmp_path / "recalibration.json")
    content = json.loads(path.read_text())
    content["scores"] = content["scores"][:-1]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="maps have shape"):
        Recalibration.load(path)


def test_bad_calls_are_refused():
    ranks = np.random.default_rng(0).uniform(size=(100, 7))
    with pytest.raises(ShapeError, match=r"\(B, 7\)"):
        Recalibration.fit(ranks[:, :6], 10)
    with pytest.raises(InputError, match="both its name and its values"):
        Recalibration.fit(ranks, 10, "snr")
    with pytest.raises(ShapeError, match="values"):
        Recalibration.fit(ranks, 10, "snr", np.ones(3))
    with pytest.raises(ShapeError, match="boxes"):
        fitted(1.0).apply(np.ones((2, 5, 7)), boxes=[BOX])


def observe(added: float = 0.0, **options: object) -> Observation:
    given = {"noise": 1.0, "psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5} | options
    return Observation.from_array(truth_image().numpy() + added, **given)


def test_a_predictor_recalibrates_in_the_users_units():
    twice = Recalibration(2.0 * np.tile(SCORES, (1, 7, 1)))
    plain = Predictor(FakeModel(TRUTH), "cpu")
    mended = Predictor(FakeModel(TRUTH), "cpu", twice)
    failed = observe(2e6)  # the network of these tests refuses stamps as bright as this
    observations = [observe(), failed, observe(pixel_scale=0.05, zero_point=26.0)]
    before, after = (p.posterior(observations, 400, widths="noise") for p in (plain, mended))
    assert after.method == ["recalibrated", "", "recalibrated"]
    ratio = after.samples.std(1) / before.samples.std(1)
    np.testing.assert_allclose(ratio[[0, 2]][:, [0, 1, 2, 3, 5, 6]], 2.0, rtol=0.1)
    assert bool(after.batch_samples[1].isnan().all())
    for i in (0, 2):
        box = after.boxes[i]
        np.testing.assert_allclose(
            box.to_physical(after.w[i]), after.samples[i], rtol=1e-6, atol=1e-6
        )
    assert bool(after.log_prob[0].isnan().all())
    with pytest.raises(InputError, match="recalibrated"):
        mended.refine(before)
    with pytest.raises(InputError, match="own draws"):
        twice.apply_to(after)


def test_a_model_without_recalibration_says_so(tmp_path):
    import shutil
    from pathlib import Path

    import deeplegato_pp

    packaged = Path(deeplegato_pp.__file__).with_name("pretrained") / "default"
    folder = shutil.copytree(packaged, tmp_path / "model")
    (folder / "recalibration.json").unlink(missing_ok=True)
    with pytest.raises(FormatError, match="deeplegato calibrate"):
        Predictor.from_pretrained(folder, "cpu", recalibrated=True)
    fitted(1.0).save(folder / "recalibration.json")
    predictor = Predictor.from_pretrained(folder, "cpu", recalibrated=True)
    assert predictor.posterior(observe(), 20).method == "recalibrated"
    fitted(1.0).save(folder / "recalibration.json", weights="0123456789abcdef")
    with pytest.raises(FormatError, match="fitted to other weights"):
        Predictor.from_pretrained(folder, "cpu", recalibrated=True)
