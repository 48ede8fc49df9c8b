"""MeasuredGalaxies whose calibration is known, and a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.inference import Predictor
from deeplegato_pp.stats.weighted import QUANTILES
from tiny_model import save_tiny_model

CENTER = np.array([21.0, 0.0, 0.5, 0.5, 90.0, 0.0, 0.0])
"""In shown units: magnitude, ln R_e, ln n, q, degrees, pixels."""


def known_galaxies(number: int = 2000, factor: float = 1.0, seed: int = 0) -> MeasuredGalaxies:
    """Gaussian posteriors about exchangeable truths, `factor` times as wide as they should be."""
    rng = np.random.default_rng(seed)
    sigma = 0.02 * np.exp(rng.normal(0.0, 0.3, (number, 7))) * np.array([1, 1, 1, 1, 90, 1, 1])
    mean = CENTER + 0.1 * rng.normal(size=(number, 7))
    truth = mean + sigma * rng.normal(size=(number, 7))
    width = factor * sigma
    z = (truth - mean) / width
    quantiles = np.array(list(QUANTILES.values()))
    scores = np.array([-1.95996, -0.99446, 0.0, 0.99446, 1.95996])
    physical = truth.copy()
    physical[:, 1:3] = np.exp(truth[:, 1:3])
    flags = np.where(np.arange(number) < 100, 1 << 19, -1)
    return MeasuredGalaxies(
        truth=physical,
        mean=mean,
        width=width,
        quantiles=mean[..., None] + width[..., None] * scores[: len(quantiles)],
        error=mean - truth,
        miss=np.maximum(np.abs(z) - 1.95996, 0.0),
        ranks=ndtr(z),
        crps=np.abs(mean - truth),
        hpd=rng.uniform(size=number),
        tarp=rng.uniform(size=number),
        nll=0.5 * (z**2).sum(1),
        estimates=np.exp(rng.normal(size=(number, 4)) * 2.0 + 3.0),
        snr=np.exp(rng.normal(size=number) * 2.0 + 3.0),
        psf_fwhm=np.exp(rng.uniform(0.0, 1.8, number)),
        gain=np.where(rng.uniform(size=number) < 0.5, np.inf, 10 ** rng.uniform(0, 4, number)),
        noise_correlation=np.maximum(rng.uniform(0.0, 4.0, number), 1.0),
        masked=np.maximum(rng.uniform(-0.5, 0.5, number), 0.0),
        nearest=np.where(rng.uniform(size=number) < 0.5, np.inf, rng.uniform(6, 77, number)),
        bound=np.where(np.arange(number)[:, None] < 500, sigma, np.nan),
        ess=np.full(number, np.nan),
        khat=np.full(number, np.nan),
        flags=flags,
        quality=np.where(np.arange(number) < 100, np.arange(number) % 3, -1),
        judged_miss=np.where(
            np.arange(number) < 100, np.where(np.arange(number) < 30, 4, 0), np.nan
        ),
        noise_ranks=np.full((number, 7), np.nan),
        noise_width=np.full((number, 7), np.nan),
    )


@pytest.fixture(scope="session")
def make_galaxies() -> Callable[..., MeasuredGalaxies]:
    return known_galaxies


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def predictor(model_folder) -> Predictor:
    return Predictor.from_pretrained(model_folder, "cpu")
