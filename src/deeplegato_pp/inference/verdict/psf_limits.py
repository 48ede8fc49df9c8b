"""Limits set by the PSF: unresolved galaxies, and PSF wings missing from the array."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.verdict.best_fit import MODEL_FLOOR
from deeplegato_pp.observation.effective_psf import missing_light
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene import units
from deeplegato_pp.scene.parameters import RADIUS

SMALLEST = 0.3
"""R_e/FWHM below which a galaxy is unresolved.

Widths add in quadrature: at 0.3 the galaxy's image is 3 to 8 % wider than a star's, depending on
the Sérsic index, which is comparable to the accuracy of PSFs.
"""

BIAS = 0.25
"""Bias of R_e in units of its error, per missing fraction of the PSF's light and unit of S/N.

Measured on exponential discs of R_e 1.6 FWHM with 2 to 11 % missing; see `benchmarks/psf_error.py`.
"""

CAP = 0.07
"""Inverse of the S/N at which errors stop decreasing, divided by the relative model error."""

MISSED = 1.0
"""Bias of R_e in units of its error above which missing wings are flagged."""

HELD = 3.0
"""The same of any parameter where honest widths hold the bias: up to here its linear estimate was
seen to be within a third of what fits do, beyond it up to three times too small."""


def psf_limits(
    mean: Float[Tensor, "7"],
    prepared: PreparedStamp,
    fwhm: float,
    model_error: float,
    widening: Widening | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Returns the flags ``unresolved`` and ``psf_wings``, and remarks on them.

    Args:
        mean: Mean parameters in the user's units.
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        model_error: Model error of the likelihood, as a fraction of the model image.
        widening: Widening of the draws to honest widths, which include the shift by missing wings.
    """
    flags, notes = 0, []
    ratio = float(mean[RADIUS]) / prepared.pixel_scale / fwhm
    if ratio < SMALLEST:
        flags |= Flag.UNRESOLVED
        notes.append(f"R_e is {ratio:.2f} of the PSF's FWHM")
    missing = missing_light(prepared.psf)
    if widening is not None and widening.judged:
        bias, most, what = widening.wings, HELD, "a parameter"
    else:
        snr = units.median_snr(mean[None], prepared, fwhm)
        bias, most, what = expected_bias(missing, snr, model_error), MISSED, "R_e"
    if bias > most:
        flags |= Flag.PSF_WINGS
        notes.append(
            f"{missing:.1%} of the PSF's light lies beyond its array, which is expected to bias "
            f"{what} by {bias:.1f} sigma"
        )
    elif bias > MISSED and most == HELD:
        notes.append(f"the error bars hold {bias:.1f} sigma for the PSF's missing wings")
    return int(flags), tuple(notes)


def expected_bias(missing: float, snr: float, model_error: float) -> float:
    """Returns the bias of R_e, in units of its error, from missing wings of the PSF.

    Args:
        missing: Missing fraction of the PSF's light.
        snr: Signal-to-noise ratio.
        model_error: Model error as a fraction of the model image; at least 1 % is used.

    Example:
        >>> [round(expected_bias(0.06, snr, 0.03), 1) for snr in (20.0, 1000.0)]
        [0.3, 6.2]
    """
    if not snr > 0:
        return 0.0
    return BIAS * missing / math.hypot(1.0 / snr, CAP * math.hypot(model_error, MODEL_FLOOR))
