"""DeepLeGATo++ in four ways: the network, Laplace, exact, and exact with honest widths."""

from __future__ import annotations

from functools import cache

import numpy as np
from galaxy import PARAMETERS, Fit, Galaxy

from deeplegato_pp import Observation, Predictor

SCALE = 0.25
ZERO_POINT = 30.5


@cache
def predictor() -> Predictor:
    """The packaged model, loaded once."""
    return Predictor.from_pretrained(device="cpu")


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Measures one galaxy; the sky is known, as for the others."""
    observation = Observation.from_array(
        galaxy.image,
        galaxy.psf,
        galaxy.sigma,
        mask=galaxy.mask,
        pixel_scale=SCALE,
        zero_point=ZERO_POINT,
        sky_sigma=0.0,
    )
    widths = "honest" if method == "honest" else "noise"
    posterior = predictor().posterior(observation, widths=widths)
    if method == "laplace":
        posterior = predictor().refine(posterior, "laplace", widths="noise", model_error=0.0)
    elif method == "exact":
        posterior = predictor().refine(posterior, "exact", widths="noise", model_error=0.0)
    elif method == "honest":
        posterior = predictor().refine(posterior, "exact")
    row = posterior.rows()[0]
    theirs = ("magnitude", "effective_radius", "sersic_index", "axis_ratio", "position_angle")
    theirs += ("center_x", "center_y")
    value = {ours: row[name] for ours, name in zip(PARAMETERS, theirs, strict=True)}
    error = {ours: row[f"{name}_std"] for ours, name in zip(PARAMETERS, theirs, strict=True)}
    value["flux"] = 10.0 ** (-0.4 * (value["flux"] - ZERO_POINT))
    error["flux"] *= np.log(10.0) / 2.5
    value["radius"] /= SCALE
    error["radius"] /= SCALE
    height, width = galaxy.image.shape
    value["x"] += (width - 1) / 2
    value["y"] += (height - 1) / 2
    return Fit(value, error, caution=row["quality"] == "bad")
