import numpy as np
import pytest

from deeplegato_pp.observation.blank_pixels import placeholders, sky_left

RNG = np.random.default_rng(1)
IMAGE = RNG.normal(size=(48, 48))
NOTHING = np.zeros(IMAGE.shape, bool)
BAD = NOTHING.copy()
BAD[:5, :5] = BAD[30, 10:18] = True


@pytest.mark.parametrize("value", [0.0, -999.0, -1e30, 1e30])
def test_placeholders_are_found(value):
    found, values = placeholders(np.where(BAD, value, IMAGE), NOTHING)
    assert np.array_equal(found, BAD)
    assert values == [value]


def test_what_is_no_placeholder():
    whole = np.rint(5 * IMAGE)  # counts: every value is there many times
    clipped = np.clip(IMAGE, 0, None)
    flat_top = np.where(BAD, 50.0, IMAGE)  # saturation is another matter
    few = IMAGE.copy()
    few[0, :9] = 0.0
    for image in (IMAGE, whole, clipped, flat_top, few, np.zeros_like(IMAGE)):
        assert placeholders(image, NOTHING)[1] == []
    assert placeholders(np.where(BAD, 0.0, IMAGE), BAD)[1] == []


def test_sky_that_was_left():
    noise = np.ones_like(IMAGE)
    assert sky_left(IMAGE, noise, NOTHING) is None
    assert sky_left(IMAGE + 3, noise, NOTHING) == pytest.approx(3, abs=0.4)
    assert sky_left(IMAGE - 3, noise, NOTHING) == pytest.approx(-3, abs=0.4)
    y, x = np.indices(IMAGE.shape)
    galaxy = 30 * np.exp(-np.hypot(x - 23, y - 23) / 6)
    assert sky_left(IMAGE + galaxy, noise, NOTHING) is None
    assert sky_left(IMAGE + 0.5 * (x - 24), noise, NOTHING) is None  # a gradient, of both signs
