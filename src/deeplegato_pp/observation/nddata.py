"""What an astropy ``NDData`` or ``CCDData`` says, as arguments of an observation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.io import header_keywords
from deeplegato_pp.io.fits_extensions import UNCERTAINTY_TYPES


def uncertainty_of(nddata: Any) -> tuple[np.ndarray | None, str]:
    """Returns the noise map of an ``NDData`` and its type; None if it has none.

    Raises:
        InputError: If its uncertainty is of a kind without a known meaning.
    """
    if nddata.uncertainty is None:
        return None, "sigma"
    kind = type(nddata.uncertainty).__name__
    if kind not in UNCERTAINTY_TYPES:
        raise InputError(
            f"the uncertainty of the NDData must be one of {', '.join(UNCERTAINTY_TYPES)}, got "
            f"{kind}. Convert it, or give noise= and noise_type=."
        )
    return np.asarray(nddata.uncertainty.array), UNCERTAINTY_TYPES[kind]


def nddata_arguments(nddata: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments of :meth:`Observation.from_array`: what is given, else what is there.

    Args:
        nddata: With data, and where it has them mask, uncertainty, psf, unit, wcs and a header as
            meta.
        given: Arguments that win.

    Raises:
        InputError: If there are no data, or the uncertainty has no known meaning.
    """
    if getattr(nddata, "data", None) is None or not hasattr(nddata, "uncertainty"):
        raise InputError(
            f"expected an astropy NDData or CCDData, got {type(nddata).__name__}. Give arrays to "
            "Observation.from_array."
        )
    found: dict[str, Any] = {"image": np.asarray(nddata.data)}
    if given.get("noise") is None:
        noise, kind = uncertainty_of(nddata)
        if noise is not None:
            found |= {"noise": noise, "noise_type": kind}
    if nddata.mask is not None:
        found["mask"] = np.asarray(nddata.mask)
    psf = getattr(nddata, "psf", None)
    if psf is not None and given.get("psf_fwhm") is None:
        found["psf"] = np.asarray(psf)
    if nddata.unit is not None:
        found["unit"] = str(nddata.unit)
    header = dict(nddata.meta or {})
    wcs, wcs_scale = _celestial(nddata.wcs)
    if wcs is not None:
        found["wcs"] = wcs
    scale = header_keywords.find_pixel_scale(header, wcs_scale)
    if scale is not None:
        found["pixel_scale"] = scale[0]
    header.setdefault("BUNIT", found.get("unit", ""))
    zero_point = header_keywords.find_zero_point(
        header, given.get("pixel_scale") or (scale or [None])[0]
    )
    if zero_point is not None:
        found["zero_point"] = zero_point[0]
    return found | {name: value for name, value in given.items() if value is not None}


def _celestial(wcs: Any) -> tuple[Any, float | None]:
    """Returns the celestial FITS WCS and its scale [arcsec/px]; Nones where there is none."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if not isinstance(wcs, WCS) or not wcs.has_celestial:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scales = 3600 * np.asarray(proj_plane_pixel_scales(wcs.celestial), dtype=np.float64)
    return wcs.celestial, float(np.sqrt(scales[0] * scales[1]))
