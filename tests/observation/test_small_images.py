"""Found by fuzzing: images smaller than what is looked at about their centre."""

from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp import Observation


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (16, 16)])
def test_small_images_are_taken(shape):
    made = Observation.from_array(np.ones(shape), noise=1.0, psf_fwhm=3.0)
    assert made.shape == shape
