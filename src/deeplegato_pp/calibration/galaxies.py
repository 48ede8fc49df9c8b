"""Compact results of measured galaxies, and their part files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import FormatError
from deeplegato_pp.inference.posterior.covariates import RADIUS_OVER_PSF, SNR
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    NAMES,
    PARAMETERS,
    SERSIC_INDEX,
)

UNJUDGED = -1
"""Value of flags and quality for galaxies without verdict."""

ESTIMATES = (SNR, RADIUS_OVER_PSF, NAMES[SERSIC_INDEX], NAMES[AXIS_RATIO])
"""Estimates by which galaxies are classified: see `inference.posterior.covariates`."""

QUALITIES = ("good", "caution", "bad")
"""Qualities by their index."""


@dataclass(frozen=True)
class MeasuredGalaxies:
    """Compact results; the first axis is the galaxy.

    Errors and widths are in "shown" units, those of `diagnostics.log_scaled`: magnitudes, natural
    logarithms of radius and index, axis ratio, degrees, pixels.

    Attributes:
        truth: True parameters at the reference instrument, with shape (B, 7).
        mean: Posterior means (circular for the angle), with shape (B, 7).
        width: Posterior standard deviations, with shape (B, 7). [shown units]
        quantiles: Quantiles 2.5, 16, 50, 84 and 97.5 %, with shape (B, 7, 5); those of the angle
            are unwrapped about its mean. [shown units]
        error: Mean minus truth, circular for the angle, with shape (B, 7). [shown units]
        miss: Distance of the truth from the central 95 % interval in posterior standard deviations,
            0 inside, with shape (B, 7).
        ranks: Posterior probability below the truth, with shape (B, 7).
        crps: Continuous ranked probability score, with shape (B, 7). [shown units]
        hpd: Probability of the highest-density region with the truth on its edge, with shape (B,).
        tarp: Posterior probability closer to the reference point than the truth, with shape (B,).
        nll: -ln q(truth) in the coordinates in which the prior is N(0, I), with shape (B,);
            infinite for a truth outside the model's box. That of a refined posterior is normalised
            by its evidence, and NaN if a Markov chain provides none.
        estimates: Posterior medians of the :data:`ESTIMATES`, with shape (B, 4).
        snr: True signal-to-noise ratio, with shape (B,).
        psf_fwhm: FWHM of the given PSF, with shape (B,). [px]
        gain: Electrons per background sigma, infinite without gain, with shape (B,).
        noise_correlation: Noise variance of sums over many pixels relative to that of independent
            pixels, with shape (B,).
        masked: Fraction of the stamp that is masked or missing, with shape (B,).
        nearest: Distance of the nearest neighbour from the stamp's centre, infinite without
            neighbours, with shape (B,). [px]
        bound: Square root of the Cramér-Rao bound including the prior, with shape (B, 7); NaN if
            not computed. [shown units]
        ess: Effective sample size of refined draws, NaN otherwise, with shape (B,).
        khat: Pareto k-hat of refined draws, NaN otherwise, with shape (B,).
        flags: Sum of the verdict's flags, or -1, with shape (B,).
        quality: Index into :data:`QUALITIES`, or -1, with shape (B,).
        judged_miss: Largest `miss` among the parameters of the posterior judged by the verdict,
            with shape (B,); NaN without verdict.
        noise_ranks: Ranks with the widths of the stated noise, with shape (B, 7); NaN unless
            galaxies are refined with honest widths.
        noise_width: Posterior standard deviations with those widths, with shape (B, 7). [shown
            units]
    """

    truth: Float[Array, "b 7"]
    mean: Float[Array, "b 7"]
    width: Float[Array, "b 7"]
    quantiles: Float[Array, "b 7 5"]
    error: Float[Array, "b 7"]
    miss: Float[Array, "b 7"]
    ranks: Float[Array, "b 7"]
    crps: Float[Array, "b 7"]
    hpd: Float[Array, " b"]
    tarp: Float[Array, " b"]
    nll: Float[Array, " b"]
    estimates: Float[Array, "b 4"]
    snr: Float[Array, " b"]
    psf_fwhm: Float[Array, " b"]
    gain: Float[Array, " b"]
    noise_correlation: Float[Array, " b"]
    masked: Float[Array, " b"]
    nearest: Float[Array, " b"]
    bound: Float[Array, "b 7"]
    ess: Float[Array, " b"]
    khat: Float[Array, " b"]
    flags: Int[Array, " b"]
    quality: Int[Array, " b"]
    judged_miss: Float[Array, " b"]
    noise_ranks: Float[Array, "b 7"]
    noise_width: Float[Array, "b 7"]

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: slice | Array) -> MeasuredGalaxies:
        """Returns a subset of the galaxies."""
        return MeasuredGalaxies(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[MeasuredGalaxies]) -> MeasuredGalaxies:
        """Joins parts in order."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def shown_unit(index: int) -> tuple[str, str]:
    """Returns symbol and unit of a parameter's errors.

    Example:
        >>> shown_unit(0), shown_unit(1)[1]
        (('$m$', 'mag'), '')
    """
    p = PARAMETERS[index]
    if p.scale == "log":
        return rf"$\ln\,{p.symbol.strip('$')}$", ""
    return p.symbol, {"pix": "px"}.get(p.unit, p.unit)


def prior_width(bounds: Sequence[tuple[float, float]]) -> Float[Array, "7"]:
    """Returns the standard deviation of the prior in shown units, from the bounds of the box."""
    spans = [
        math.log(high / low) if p.scale == "log" else high - low
        for p, (low, high) in zip(PARAMETERS, bounds, strict=True)
    ]
    return np.array(spans) / math.sqrt(12.0)


def write_part(galaxies: MeasuredGalaxies, path: Path, fingerprint: str) -> None:
    """Writes a part file atomically."""
    arrays = {f.name: getattr(galaxies, f.name) for f in fields(galaxies)}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, fingerprint=np.array(fingerprint), **arrays)


def read_part(path: Path) -> tuple[MeasuredGalaxies, str]:
    """Returns the galaxies of a part file, and the digest of its run.

    Raises:
        FormatError: If it cannot be read.
    """
    try:
        with np.load(path) as file:
            arrays = [file[f.name] for f in fields(MeasuredGalaxies)]
            return MeasuredGalaxies(*arrays), str(file["fingerprint"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise FormatError(
            f"{path} is no part of a calibration: {error}. Delete it, or start with --no-resume."
        ) from error
