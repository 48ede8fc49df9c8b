"""Flags on what the PSF keeps from being measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.structure import widening_at
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.verdict.psf_limits import psf_limits
from deeplegato_pp.observation.effective_psf import missing_light
from deeplegato_pp.observation.preparation import PreparedStamp, prepare
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import PriorBox


def moffat(size: int, beta: float = 2.2, fwhm: float = 3.2) -> np.ndarray:
    """A Moffat whose light is 1 on an infinite array."""
    axis = np.arange(size) - size // 2
    scale2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    profile = (1 + (axis[:, None] ** 2 + axis**2) / scale2) ** -beta
    return profile * (beta - 1) / (np.pi * scale2)


def stamp(psf: np.ndarray) -> PreparedStamp:
    image = np.random.default_rng(0).normal(size=(32, 32))
    known = {"psf": psf, "noise": 1.0, "pixel_scale": 0.25, "zero_point": 30.5}
    return prepare(Observation.from_array(image, **known), 32)


def found(psf: np.ndarray, snr: float, radius: float = 5.0, model_error: float = 0.03) -> list[str]:
    """Names of the flags of a round galaxy of so many pixels."""
    flux = snr * 2.0 * np.sqrt(2.0 * np.pi * (radius**2 + 3.2**2 / 4.0))
    mean = torch.tensor([30.5 - 2.5 * np.log10(flux), 0.25 * radius, 1.0, 1.0, 0.0, 0.0, 0.0])
    flags, notes = psf_limits(mean.double(), stamp(psf), 3.2, model_error)
    assert len(notes) == len(Flag.names(flags))
    return Flag.names(flags)


@pytest.mark.parametrize("beta", [2.2, 3.5, 4.765])
@pytest.mark.parametrize("size", [11, 15, 25, 41])
def test_light_beyond_the_array_is_told_from_its_wings(size, beta):
    psf = moffat(size, beta)
    truth = 1.0 - psf.sum()
    assert missing_light(7.0 * psf) == pytest.approx(truth, rel=0.15, abs=1e-3)


def test_an_observation_says_how_much_light_is_missing():
    image = np.random.default_rng(0).normal(size=(32, 32))
    cut = Observation.from_array(image, psf=moffat(15), noise=1.0, pixel_scale=1.0, zero_point=30.0)
    assert "psf_truncated" in cut.flag_names
    (note,) = [note for note in cut.notes if "of the PSF's light" in note]
    assert float(note.split()[1].strip("%")) == pytest.approx(5.6, abs=0.9)


def test_missing_wings_matter_where_the_signal_is():
    assert found(moffat(15), 20.0) == []
    assert found(moffat(15), 1000.0) == ["psf_wings"]
    assert found(moffat(41), 1000.0) == []
    assert found(moffat(81), 1000.0, model_error=0.0) == []
    assert found(moffat(25), 1000.0, model_error=0.0) == ["psf_wings"]


@pytest.mark.parametrize(("moved", "flagged"), [(0.4, False), (2.5, False), (3.5, True)])
def test_where_widths_are_honest_what_wings_move_is_known(moved, flagged):
    eye = torch.eye(7, dtype=torch.float64)
    widening = Widening(eye[:1], eye[None], eye[None], eye, eye[0], 20, True, wings=moved)
    mean = torch.tensor([18.0, 1.25, 1.0, 1.0, 0.0, 0.0, 0.0]).double()
    flags, notes = psf_limits(mean, stamp(moffat(15)), 3.2, 0.03, widening)
    assert bool(flags & Flag.PSF_WINGS) is flagged
    assert len(notes) == (moved > 1.0)
    unjudged = replace(widening, judged=False)
    assert psf_limits(mean, stamp(moffat(15)), 3.2, 0.03, unjudged)[0] & Flag.PSF_WINGS


def test_what_missing_wings_move_is_what_the_fit_does():
    """Data under the whole PSF, fitted with one cut to 15 px and with the whole one."""
    whole, cut = (torch.from_numpy(moffat(size)) for size in (61, 15))
    params = torch.tensor([[20.0, 1.0, 1.0, 0.7, 30.0, 0.2, -0.3]], dtype=torch.float64)
    image = SersicSimulator(64).render(params, whole / whole.sum())[0].numpy()
    stamps = [
        prepare(
            Observation.from_array(
                image, psf=(psf / psf.sum()).numpy(), noise=1.0, pixel_scale=0.25, zero_point=30.5
            ),
            64,
        )
        for psf in (cut, whole)
    ]
    likelihood = Likelihood.of(stamps, PriorBox(), model_error=0.03)
    start = likelihood.box.to_normal(params).expand(2, 7)
    optima = fit(likelihood, torch.arange(2), start)
    likelihood.freeze(optima.rows, optima.u)
    optima = fit(likelihood, torch.arange(2), optima.u)
    found = widening_at(likelihood, 0, optima[:1], optima.u[0])
    assert found.wings > 1.0
    # Widths that hold the shift are about as large as it is.
    held = (optima.u[0] - optima.u[1]).abs() / found.covariance.diagonal().sqrt()
    assert 0.7 < float(held.max()) < 1.5
    assert widening_at(likelihood, 1, optima[1:], optima.u[1]).wings == 0.0


def test_a_galaxy_much_smaller_than_the_psf_is_unresolved():
    psf = moffat(41, 4.765)
    assert found(psf, 100.0, radius=0.8) == ["unresolved"]
    assert found(psf, 100.0, radius=1.2) == []


def test_the_stamp_s_own_pixels_count():
    binned = replace(stamp(moffat(41, 4.765)), pixel_scale=0.5)
    mean = torch.tensor([22.0, 0.3, 1.0, 1.0, 0.0, 0.0, 0.0]).double()  # 0.6 px of the stamp
    assert Flag.names(psf_limits(mean, binned, 1.6, 0.03)[0]) == []
    assert Flag.names(psf_limits(mean, binned, 3.2, 0.03)[0]) == ["unresolved"]
