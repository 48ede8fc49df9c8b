"""Correlations of noise: validated, drizzled, smoothed, binned, read and found in headers."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp import Observation
from deeplegato_pp.errors import FormatError, InputError, RangeError, ShapeError
from deeplegato_pp.observation.correlation import FLOOR, NoiseCorrelation, gaussian_lags
from deeplegato_pp.observation.correlation_inputs import (
    drizzle_of_header,
    parse_noise_correlation,
)
from deeplegato_pp.observation.preparation import prepare

LINE = np.array([0.25, 1.0, 0.25])
LAGS = np.outer(LINE, LINE)


def drizzled(scale: float, pixfrac: float, exposures: int = 4000) -> np.ndarray:
    """Covariance of output pixels, from drops of white pixels laid down at many dithers."""
    rng = np.random.default_rng(0)
    out = scale * np.arange(-3, 4)
    sums = np.zeros(7)
    for phase in rng.uniform(0.0, 1.0, exposures):
        drops = np.arange(-8, 9) + phase
        edges = [np.maximum.outer(out - scale / 2, drops - pixfrac / 2)]
        edges.append(np.minimum.outer(out + scale / 2, drops + pixfrac / 2))
        overlap = np.maximum(edges[1] - edges[0], 0.0)
        sums += overlap @ overlap[3]
    return sums / sums[3]


@pytest.mark.parametrize(("scale", "pixfrac"), [(1.0, 1.0), (0.6, 0.8), (0.5, 1.0), (1.0, 0.6)])
def test_drizzled_noise_correlates_as_drops_overlap(scale, pixfrac):
    found = NoiseCorrelation.drizzle(scale, pixfrac)
    line = found.padded_lags[8, 5:12]
    assert line == pytest.approx(drizzled(scale, pixfrac), abs=0.01)
    r = pixfrac / scale
    casertano = r / (1 - 1 / (3 * r)) if r >= 1 else 1 / (1 - r / 3)
    assert found.total == pytest.approx(casertano**2, rel=2e-3)  # the floor takes some


def test_power_has_a_floor_and_the_middle_stays_one():
    found = NoiseCorrelation.drizzle(0.5, 1.0)  # which has no power at the Nyquist frequency
    grid = np.zeros((64, 64))
    grid[:17, :17] = found.padded_lags
    power = np.fft.fft2(np.roll(grid, (-8, -8), (0, 1))).real
    assert power.min() == pytest.approx(FLOOR, rel=1e-6)
    assert power.mean() == pytest.approx(1.0)


def test_the_gaussian_family_has_the_totals_asked_for():
    totals = np.array([1.0, 1.3, 2.25, 12.0])
    lags = gaussian_lags(totals)
    assert lags.sum((1, 2)) == pytest.approx(totals, rel=1e-3)
    assert np.count_nonzero(lags[0]) == 1
    # Smoothing by a Gaussian of width s: exp(-distance^2 / (4 s^2)).
    line = np.log(lags[3, 8, 9:11])
    assert line[1] / line[0] == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize(
    ("lags", "error", "match"),
    [
        (np.ones((2, 2)), ShapeError, "odd side"),
        (np.ones(3), ShapeError, "square array"),
        (2.0 * LAGS, InputError, "1 at lag zero, its middle, got 2"),
        (np.where(LAGS == 0.25, np.nan, LAGS), InputError, "finite"),
        (np.array([[0.0, 0.2, 0.0], [0.1, 1.0, 0.1], [0.0, 0.0, 0.0]]), InputError, "half turn"),
        (np.outer([0.9, 1.0, 0.9], [0.9, 1.0, 0.9]), InputError, "positive-definite .* 'measure'"),
        (np.pad(LAGS, 8), InputError, "reaches 9 px, expected up to 8"),
    ],
)
def test_what_is_no_correlation_is_refused_in_one_line(lags, error, match):
    with pytest.raises(error, match=match) as raised:
        NoiseCorrelation(lags)
    assert "\n" not in str(raised.value)


def test_sums_over_blocks_have_the_noise_and_correlation_of_their_pixels():
    single = NoiseCorrelation(LAGS)
    one, two = np.zeros((2, 12, 12))
    one[4:6, 4:6] = 1.0
    two[4:6, 6:8] = 1.0
    index = np.indices((12, 12)).reshape(2, -1).T
    apart = np.clip(index[:, None] - index + 8, 0, 16)
    dense = single.padded_lags[apart[..., 0], apart[..., 1]]
    dense[np.abs(index[:, None] - index).max(-1) > 8] = 0.0
    variance = one.ravel() @ dense @ one.ravel()
    assert single.block_variance(2) == pytest.approx(variance / 4)
    binned = single.binned(2)
    middle = binned.reach
    shared = one.ravel() @ dense @ two.ravel()
    assert binned.lags[middle, middle + 1] == pytest.approx(shared / variance)
    assert binned.total * single.block_variance(2) == pytest.approx(single.total)


def test_a_binned_stamp_has_the_noise_of_correlated_pixels():
    options = {"psf_fwhm": 3.0, "noise": np.ones((32, 32))}
    image = np.random.default_rng(0).normal(size=(32, 32))
    plain = prepare(Observation.from_array(image, **options), 16, bin=2)
    told = prepare(Observation.from_array(image, noise_correlation=LAGS, **options), 16, bin=2)
    wider = NoiseCorrelation(LAGS).block_variance(2) ** 0.5
    assert told.scale == pytest.approx(wider * plain.scale)
    assert told.noise_correlation == pytest.approx(2.25 / wider**2)
    assert told.correlation.total == pytest.approx(told.noise_correlation)


def test_it_is_given_in_many_ways(tmp_path):
    np.save(tmp_path / "lags.npy", LAGS)
    np.savetxt(tmp_path / "lags.txt", LAGS)
    fits.PrimaryHDU(LAGS).writeto(tmp_path / "lags.fits")
    for name in ("lags.npy", "lags.txt", "lags.fits"):
        for path in (tmp_path / name, str(tmp_path / name)):
            assert parse_noise_correlation(path).lags == pytest.approx(LAGS)
    assert parse_noise_correlation(LAGS).total == pytest.approx(2.25)
    assert parse_noise_correlation("drizzle:1,1").lags == pytest.approx(LAGS)
    assert parse_noise_correlation("2.5") == 2.5
    assert parse_noise_correlation("measure") == "measure"
    image = np.random.default_rng(0).normal(size=(32, 32))
    told = Observation.from_array(image, psf_fwhm=3.0, noise=1.0, noise_correlation="drizzle:1,1")
    assert told.noise_correlation == pytest.approx(2.25)
    assert told.correlation.lags == pytest.approx(LAGS)


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        ("guess", FormatError, "which is no file"),
        ("drizzle:0.5", InputError, r"two numbers, SCALE,PIXFRAC"),
        ("drizzle:0.5,x", InputError, "pixfrac must be one number"),
        ("drizzle:0.5,1.2", RangeError, r"PIXFRAC in \(0, 1\]"),
        ("drizzle:0.1,1", RangeError, "at most 8 times"),
        (0.5, RangeError, "at least 1"),
        (80.0, RangeError, "noise_correlation"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(value, error, match):
    with pytest.raises(error, match=match) as raised:
        parse_noise_correlation(value)
    assert "\n" not in str(raised.value)


def test_a_text_that_is_no_array_is_named(tmp_path):
    path = tmp_path / "lags.txt"
    path.write_text("one two\n")
    with pytest.raises(FormatError, match=r"lags\.txt: is no array of numbers"):
        parse_noise_correlation(path)


def test_pipelines_say_how_they_drizzled():
    hst = {"D001ISCL": 0.05, "D001SCAL": 0.03, "D001PIXF": 0.8, "D001KERN": "square"}
    assert drizzle_of_header(hst, None).lags == pytest.approx(
        NoiseCorrelation.drizzle(0.6, 0.8).lags
    )
    del hst["D001SCAL"]
    assert drizzle_of_header(hst, 0.03).total == pytest.approx(
        NoiseCorrelation.drizzle(0.6, 0.8).total
    )
    jwst = {"PXSCLRT": 0.5, "PIXFRAC": 1.0}
    assert drizzle_of_header(jwst, None).total == pytest.approx(5.755, abs=1e-3)
    with pytest.raises(InputError, match="kernel 'gaussian' is not known"):
        drizzle_of_header(hst | {"D001KERN": "gaussian"}, 0.03)
    with pytest.raises(InputError, match=r"Write drizzle:SCALE,PIXFRAC"):
        drizzle_of_header({}, 0.03)


def test_a_file_s_header_is_asked_when_told_to(tmp_path):
    image = np.random.default_rng(0).normal(size=(32, 32))
    header = fits.Header({"PXSCLRT": 0.6, "PIXFRAC": 0.8, "PIXSCALE": 0.03, "MAGZERO": 25.0})
    path = tmp_path / "galaxy.fits"
    fits.PrimaryHDU(image, header).writeto(path)
    options = {"psf_fwhm": 3.0, "noise": 1.0}
    assert Observation.from_fits(path, **options).correlation is None
    told = Observation.from_fits(path, noise_correlation="drizzle", **options)
    assert told.correlation.total == pytest.approx(NoiseCorrelation.drizzle(0.6, 0.8).total)
    with pytest.raises(InputError, match="there is none"):
        Observation.from_array(image, noise_correlation="drizzle", **options)
