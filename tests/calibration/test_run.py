from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from deeplegato_pp.calibration import run
from deeplegato_pp.calibration import settings as settings_module
from deeplegato_pp.calibration.document import document
from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.calibration.measure import _moved, observations_of
from deeplegato_pp.calibration.settings import BATCH, Settings, Simulations
from deeplegato_pp.calibration.truth import exact_likelihood
from deeplegato_pp.errors import ConfigError, FormatError, InputError, RangeError
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy

SETTINGS = Settings(number=100, draws=50, detailed=3)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def simulations(predictor) -> Simulations:
    return Simulations.of(predictor.model, None, 0)


@pytest.fixture(scope="module")
def whole(predictor, simulations, tmp_path_factory) -> MeasuredGalaxies:
    return run.measure(predictor, simulations, SETTINGS, tmp_path_factory.mktemp("whole"))


def test_every_column_is_filled(whole):
    assert len(whole) == 100
    for f in fields(whole):
        column = getattr(whole, f.name)
        assert len(column) == 100
        if f.name in ("gain", "nearest"):
            assert (column > 0).all(), f.name
        elif f.name not in (
            "bound", "ess", "khat", "judged_miss", "noise_ranks", "noise_width",
        ):  # fmt: skip
            assert np.isfinite(column).all(), f.name
    assert np.isfinite(whole.bound).all(1).tolist() == [True] * 3 + [False] * 97
    assert ((whole.quality >= 0) == (np.arange(100) < 3)).all()
    assert ((whole.ranks > 0) & (whole.ranks < 1)).all()
    assert (np.diff(whole.quantiles, axis=2) >= 0).all()


def test_a_run_that_was_killed_goes_on(predictor, simulations, whole, tmp_path, monkeypatch):
    def kill(number: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        run.measure(predictor, simulations, SETTINGS, tmp_path, advance=kill)
    parts = tmp_path / run.PARTS
    assert len(list(parts.iterdir())) == 1
    (parts / ".part-000001-x.npz").write_bytes(b"half a file")
    steps = []
    measure_batch = run.measure_batch
    monkeypatch.setattr(run, "measure_batch", lambda *a: steps.append(a[2]) or measure_batch(*a))
    seen = []
    galaxies = run.measure(predictor, simulations, SETTINGS, tmp_path, advance=seen.append)
    assert steps == [1]
    assert seen == [BATCH, 100 - BATCH]
    assert document(predictor.model, simulations, SETTINGS, galaxies) == document(
        predictor.model, simulations, SETTINGS, whole
    )
    assert sorted(p.name for p in parts.iterdir()) == ["part-000000.npz", "part-000001.npz"]


def test_parts_of_another_run_are_refused(predictor, simulations, tmp_path):
    few = Settings(number=20, draws=50, detailed=0)
    first = run.measure(predictor, simulations, few, tmp_path)
    other = Settings(number=20, draws=60, detailed=0)
    with pytest.raises(InputError, match="another model, simulator, seed or number of draws"):
        run.measure(predictor, simulations, other, tmp_path)
    run.measure(predictor, simulations, other, tmp_path, resume=False)
    again = run.measure(predictor, simulations, few, tmp_path, resume=False)
    np.testing.assert_array_equal(again.ranks, first.ranks)
    (tmp_path / run.PARTS / "part-000000.npz").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="no part of a calibration"):
        run.measure(predictor, simulations, few, tmp_path)


def test_widths_are_part_of_what_a_refined_run_is(predictor, simulations):
    def digest(**changes: object) -> str:
        settings = replace(Settings(number=20, refine=True), **changes)
        return settings_module.fingerprint(predictor.model, simulations, settings)

    runs = [{}, {"widths": "noise"}, {"model_error": 0.0}, {"refine": False}]
    assert len({digest(**changes) for changes in runs}) == 4
    assert digest(refine=False) == digest(refine=False, widths="noise", model_error=0.0)


def test_moved_draws_have_the_density_of_where_they_come_from():
    generator = torch.Generator().manual_seed(0)
    w = 0.3 + 0.01 * torch.randn(200, 7, generator=generator, dtype=torch.float64)
    identity = torch.eye(7, dtype=torch.float64)
    matrix = identity.clone()
    matrix[2, 2], matrix[0, 1] = 4.0, 0.5
    widening = Widening(
        w.mean(0)[None],
        1e4 * identity[None],
        matrix[None],
        identity,
        matrix.diagonal(),
        20,
        True,
    )
    galaxy = RefinedGalaxy(w, w[:, 0], w[:, 0], torch.zeros(200).double(), "adapted")
    galaxy.widening = widening
    truth = w.mean(0) + torch.tensor([0.0, 0, 0.04, 0, 0, 0, 0], dtype=torch.float64)
    padded = torch.cat([w, w[:1].expand(3, 7)])
    moved, back, log_det, at_truth = _moved(galaxy, padded, truth)
    assert float(moved[:200, 2].std() / w[:, 2].std()) == pytest.approx(4.0)
    assert float(back[2] - w[:, 2].mean()) == pytest.approx(0.01)  # a quarter of its distance
    torch.testing.assert_close(log_det, torch.full((203,), math.log(4.0)).double())
    assert float(at_truth) == pytest.approx(math.log(4.0))


def test_seeds_make_other_galaxies(predictor, simulations):
    other = Simulations.of(predictor.model, None, 1)
    assert not np.array_equal(other.scene(0).params, simulations.scene(0).params)
    assert simulations.draw_seeds(0).tolist() == simulations.draw_seeds(0).tolist()
    assert simulations.draw_seeds(0).tolist() != simulations.draw_seeds(1).tolist()


def test_a_study_spoils_the_same_galaxies(predictor, simulations):
    study = Simulations.of(predictor.model, "studies/wide_psf", 0)
    own, spoilt = simulations.scene(0), study.scene(0)
    np.testing.assert_array_equal(own.params, spoilt.params)
    assert study.name == "wide_psf"
    assert study.describe()["study"]["psf_width"] == 1.05
    assert spoilt.psf.fwhm == pytest.approx(1.05 * own.psf.fwhm)


def test_a_truth_outside_the_prior_is_outside_every_region(predictor, tmp_path):
    high = Simulations.of(predictor.model, "studies/high_index", 0)
    few = Settings(number=20, draws=50, detailed=0)
    galaxies = run.measure(predictor, high, few, tmp_path)
    assert (galaxies.truth[:, 2] >= 8.0).all()
    assert np.isinf(galaxies.nll).all()
    assert (galaxies.hpd > 0.95).all()
    content = document(predictor.model, high, few, galaxies)
    assert content["overall"]["truths_outside_the_prior"] == 20
    assert content["overall"]["nll"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number": 3}, "at least 20 galaxies, got 3"),
        ({"draws": 10}, "at least 50, got 10"),
        ({"seed": -1}, "negative"),
        ({"ess": 0.0}, "positive"),
    ],
)
def test_settings_without_meaning(settings, message):
    with pytest.raises(RangeError, match=message):
        Settings(**settings)


def test_stamps_of_another_size_are_refused(predictor, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {image_size: 32}\n")
    with pytest.raises(ConfigError, match=r"data\.image_size is 32 px"):
        Simulations.of(predictor.model, path, 0)


def test_the_output_is_checked_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run.check_folder(tmp_path / "file")
    with pytest.raises(InputError, match="does not exist"):
        run.check_folder(tmp_path / "no" / "where")


@pytest.mark.slow
def test_refined_posteriors_are_measured_too(predictor, tmp_path, monkeypatch):
    for module in (run, settings_module):
        monkeypatch.setattr(module, "BATCH", 8)
    few = Settings(number=20, draws=50, detailed=0, refine=True, ess=50.0)
    simulations = Simulations.of(predictor.model, None, 3)
    galaxies = run.measure(predictor, simulations, few, tmp_path)
    assert np.isfinite(galaxies.ess).all()
    assert ((galaxies.noise_ranks > 0) & (galaxies.noise_ranks < 1)).all()
    # Either may be larger: draws under the noise hold the model error, which honest ones do not.
    assert (np.abs(np.log(galaxies.width / galaxies.noise_width)) > 0.01).mean() > 0.5
    bare = run.measure(predictor, simulations, replace(few, refine=False), tmp_path, resume=False)
    known = np.isfinite(galaxies.nll)
    assert known.sum() >= 15
    # A median, since unmasked neighbours, of which the likelihood knows nothing, mislead some.
    assert np.median(bare.nll[known] - galaxies.nll[known]) > 5.0
    content = document(predictor.model, simulations, few, galaxies)
    assert content["refinement"]["galaxies"] == 20
    # An untrained network's posterior is the prior; the exact one knows the bright galaxies.
    assert content["overall"]["rmse_over_prior"]["magnitude"] < 0.5


def test_an_error_of_the_psf_is_drawn_and_told(predictor):
    own = Simulations.of(predictor.model, None, 0)
    off = Simulations.of(predictor.model, None, 0, psf_error=0.1)
    assert own.data.conditions.psf_error == 0.0
    assert off.name != own.name  # no recalibration is made of it
    scene = off.scene(0)
    torch.testing.assert_close(scene.psf.fine, own.scene(0).psf.fine)
    assert exact_likelihood(scene, 3, off.simulator.prior).psf_error.tolist() == pytest.approx(
        [0.1] * 3
    )
    assert [o.psf_error for o in observations_of(scene, 2)] == pytest.approx([0.1, 0.1])
    assert [o.psf_error for o in observations_of(own.scene(0), 1)] == [0.0]
    with pytest.raises(RangeError, match="psf_error must lie in"):
        Simulations.of(predictor.model, None, 0, psf_error=0.5)
