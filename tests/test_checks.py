import numpy as np
import pytest

from deeplegato_pp import checks
from deeplegato_pp.errors import InputError, RangeError, ShapeError


def test_arrays_become_native_float64_copies():
    given = np.arange(6, dtype=">i2").reshape(2, 3)
    array = checks.as_real_array(given, "image")
    array[0, 0] = 9
    assert array.dtype == np.float64
    assert array.dtype.isnative
    assert given[0, 0] == 0


def test_entries_of_masked_arrays_become_nan():
    given = np.ma.masked_equal(np.array([[1, 2], [3, 4]]), 2)
    assert np.isnan(checks.as_real_array(given, "image")[0, 1])


@pytest.mark.parametrize("array", [np.array([["a"]]), np.array([[1j]]), np.array([[None]])])
def test_other_types_are_refused(array):
    with pytest.raises(InputError, match="real numbers"):
        checks.as_real_array(array, "image")


def test_noise_check_counts_unmasked_values_only():
    noise = np.array([[1.0, 0.0], [-1.0, np.nan]])
    checks.check_noise_positive(noise, noise != 1)
    with pytest.raises(RangeError, match="got 3 zero or negative values among 4"):
        checks.check_noise_positive(noise, np.zeros((2, 2), dtype=bool))


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (4, 4)])
def test_even_psfs_are_refused_with_the_remedy(shape):
    with pytest.raises(ShapeError, match=r"--psf-even shift"):
        checks.check_psf_odd(np.ones(shape))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "two", float("nan")])
def test_whole_numbers(value):
    with pytest.raises(InputError):
        checks.check_positive_integer(value, "bin")


def test_numbers():
    assert checks.check_positive("2.5", "gain") == 2.5
    assert checks.check_positive_integer(3.0, "bin") == 3
    with pytest.raises(RangeError, match="gain must be positive, got -1"):
        checks.check_positive(-1, "gain")
    with pytest.raises(InputError, match="must be one number"):
        checks.check_finite([1, 2], "zero_point")
    with pytest.raises(InputError, match="one of a, b, got 'c'"):
        checks.check_choice("c", ("a", "b"), "noise_type")
