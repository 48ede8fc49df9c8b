import os
import sys
from types import ModuleType

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.io.files import lock_file
from deeplegato_pp.io.large_fits import fits_canvas


@pytest.mark.parametrize("shape", [(30, 50), (600, 700)])
def test_space_is_reserved_without_a_call_of_the_system_for_it(tmp_path, monkeypatch, shape):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with fits_canvas(tmp_path / "a.fits", shape, "float32") as pixels:
        assert not pixels.any()
        pixels[-1, -1] = 2.5
    assert (tmp_path / "a.fits").stat().st_size % 2880 == 0
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].data.shape == shape
        assert hdus[0].data[-1, -1] == 2.5
        assert np.count_nonzero(hdus[0].data) == 1


def test_a_file_is_locked_without_fcntl(tmp_path, monkeypatch):
    calls = []
    windows = ModuleType("msvcrt")
    windows.LK_NBLCK = 2
    windows.locking = lambda *given: calls.append(given)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it raises an error
    monkeypatch.setattr(sys, "platform", "win32")
    with (tmp_path / "lock").open("w") as file:
        lock_file(file)
        assert calls == [(file.fileno(), 2, 1)]
