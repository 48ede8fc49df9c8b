import numpy as np
import pytest

from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.noise_maps import scatter_over_noise, sentinels
from deeplegato_pp.observation.noise_types import noise_statement

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("header", "name", "kind"),
    [
        ({}, "INVVAR", "ivar"), ({}, "IVAR", "ivar"), ({}, "WHT", "weight"),
        ({}, "VAR", "variance"),
        ({}, "VARIANCE", "variance"), ({}, "RMS", "sigma"), ({}, "STD", "sigma"),
        ({}, "err", "sigma"), ({}, "3-4.F.RMS", "sigma"), ({"IMTYPE": "invvar"}, "", "ivar"),
        ({"BUNIT": "1/nanomaggy^2"}, "", "ivar"), ({"BUNIT": "nanomaggy2"}, "", "variance"),
        ({}, "", None), ({}, "UNCERT", None),
    ],
)  # fmt: skip
def test_what_the_file_states(header, name, kind):
    statement = noise_statement(header, name, image_unit="nanomaggy")
    assert (statement.kind, statement.factor, statement.flags) == (kind, 1.0, 0)


def test_the_order_of_sources():
    assert noise_statement({}, "UNCERT", "variance").kind == "variance"
    assert noise_statement({}, "", file="/a/field_wht.fits").kind == "weight"
    assert noise_statement({}, "", file="noise.fits").kind is None
    told = noise_statement({}, "INVVAR", None, "sigma")
    assert (told.kind, told.flags) == ("sigma", 0)
    assert "INVVAR says ivar" in told.notes[0]
    apart = noise_statement({"BUNIT": "uJy2"}, "ERR", image_unit="uJy")
    assert (apart.kind, apart.flags) == ("sigma", Flag.NOISE_CONFLICT)


@pytest.mark.parametrize(
    ("unit", "name", "factor"),
    [("mJy", "ERR", 1e3), ("mJy2", "VARIANCE", 1e6), ("1/mJy2", "IVAR", 1e-6), ("uJy", "VAR", 1.0)],
)
def test_units_are_converted(unit, name, factor):
    statement = noise_statement({"BUNIT": unit}, name, image_unit="uJy")
    assert statement.factor == pytest.approx(factor)
    assert statement.flags == 0


def test_units_that_do_not_convert_are_flagged():
    statement = noise_statement({"BUNIT": "electron"}, "ERR", image_unit="uJy")
    assert (statement.factor, statement.flags) == (1.0, Flag.NOISE_CONFLICT)
    assert noise_statement({"BUNIT": "UNITLESS"}, "WHT", image_unit="uJy").flags == 0


def test_sentinels():
    sigma = np.full((8, 8), 0.5)
    sigma[0, :3] = 1e10, 1e-8, np.inf
    assert np.argwhere(sentinels(sigma, np.zeros((8, 8), bool))).tolist() == [[0, 0], [0, 1]]
    assert not sentinels(np.full((8, 8), np.nan), np.zeros((8, 8), bool)).any()


def test_a_noise_map_off_by_orders_of_magnitude():
    y, x = np.indices((64, 64))
    light = 500 * np.exp(-np.hypot(x - 32, y - 32) / 4)
    image = RNG.normal(size=(64, 64)) + light
    nothing = np.zeros(image.shape, bool)
    for factor in (0.2, 1.0, 5.0):
        assert scatter_over_noise(image, np.full(image.shape, factor), nothing) is None
    assert scatter_over_noise(image, np.full(image.shape, 0.01), nothing) > 50
    assert scatter_over_noise(image, np.full(image.shape, 100.0), nothing) < 0.05
    assert scatter_over_noise(image, np.full(image.shape, 100.0), ~nothing) is None
    smooth = sum(np.roll(image - light, s, a) for s in (-1, 0, 1) for a in (0, 1)) / 6
    assert scatter_over_noise(smooth, np.ones(image.shape), nothing) is None
