"""A catalogue from Python: what its arguments become."""

import numpy as np
import pytest

from deeplegato_pp.catalog import catalog
from deeplegato_pp.errors import ConfigError
from small_sky import load_fake

GIVEN = {"psf_fwhm": 3.0, "noise": 1.0, "pixel_scale": 0.25, "zero_point": 30.5}
SOURCES = {"x": [80.0], "y": [80.0]}
IMAGE = np.random.default_rng(0).normal(size=(160, 160))


def test_fixed_values_and_odds_reach_the_refinement():
    rows = catalog(
        load_fake(), IMAGE, SOURCES, refine="exact", fixed={"sersic_index": 4.0}, star_odds=3.0,
        **GIVEN,
    )  # fmt: skip
    refining = rows.measurer.options.refining
    assert refining.fixed == {"sersic_index": 4.0}
    assert refining.star_odds == 3.0


def test_fixed_values_without_refinement_are_refused():
    with pytest.raises(ConfigError, match="nothing is refined"):
        catalog(load_fake(), IMAGE, SOURCES, fixed={"sersic_index": 4.0}, **GIVEN)
