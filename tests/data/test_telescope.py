"""Point-spread functions of aberrated telescopes, against GalSim's."""

from __future__ import annotations

import galsim
import pytest
import torch

from deeplegato_pp.data.telescope import ZERNIKES, Telescopes, telescope_psfs
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.scene.psf_grid import normalise

GALSIM_NAMES = ("defocus", "astig1", "astig2", "coma1", "coma2", "trefoil1", "trefoil2", "spher")
SIDE, FWHM, JITTER = 87, 4.0, 1.2


def telescope(
    obscuration: float = 0.0,
    waves: tuple[float, ...] = (0.0,) * len(ZERNIKES),
    vanes: tuple[float, float, float] = (0.0, 0.01, 0.0),
    jitter: float = JITTER,
    centre: tuple[float, float] = (0.0, 0.0),
    fwhm: float = FWHM,
) -> torch.Tensor:
    def row(*values: float) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64)

    telescopes = Telescopes(
        row(fwhm)[0],
        row(obscuration)[0],
        row(*waves),
        row(*vanes),
        row(jitter)[0],
        row(*centre),
    )
    return telescope_psfs(telescopes, SIDE, 2)[0]


def by_galsim(obscuration: float, **waves: float) -> torch.Tensor:
    optics = galsim.OpticalPSF(
        lam_over_diam=FWHM / 1.029, obscuration=obscuration, oversampling=2, pad_factor=2, **waves
    )
    whole = galsim.Convolve(optics, galsim.Gaussian(fwhm=JITTER))
    image = whole.drawImage(nx=SIDE, ny=SIDE, scale=0.5, method="no_pixel", dtype=float)
    return torch.from_numpy(image.array / image.array.sum())


@pytest.mark.parametrize("mode", range(len(ZERNIKES)), ids=list(ZERNIKES))
def test_each_aberration_is_galsims(mode):
    waves = [0.0] * len(ZERNIKES)
    waves[mode] = 0.12
    expected = by_galsim(0.3, **{GALSIM_NAMES[mode]: 0.12})
    found = normalise(telescope(0.3, tuple(waves)))
    assert float((found - expected).abs().max() / expected.max()) < 4e-3
    # The sign of the odd ones can be seen.
    if "coma" in GALSIM_NAMES[mode] or "trefoil" in GALSIM_NAMES[mode]:
        assert float((found.flip(0, 1) - expected).abs().max() / expected.max()) > 0.05


@pytest.mark.parametrize("obscuration", [0.0, 0.4])
def test_all_aberrations_together_are_galsims(obscuration):
    waves = (0.03, -0.02, 0.04, 0.05, -0.03, 0.02, 0.01, 0.03)
    expected = by_galsim(obscuration, **dict(zip(GALSIM_NAMES, waves, strict=True)))
    found = normalise(telescope(obscuration, waves))
    assert float((found - expected).abs().max() / expected.max()) < 4e-3


def test_aberrations_have_the_rms_that_their_amplitudes_say():
    a = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1.0
    y, x = torch.meshgrid(a, a, indexing="ij")
    radius, theta = (x**2 + y**2).sqrt(), torch.atan2(y, x)
    modes = torch.stack([mode(radius, theta)[radius < 1] for mode in ZERNIKES.values()])
    product = modes @ modes.T / modes.shape[1]
    torch.testing.assert_close(
        product, torch.eye(len(ZERNIKES), dtype=torch.float64), atol=0.01, rtol=0
    )


def test_a_clear_pupil_has_its_width_and_an_obscured_one_is_narrower():
    clear, obscured = (
        psf_fwhm(telescope(e, jitter=1e-3).numpy(), oversampling=2) for e in (0.0, 0.3)
    )
    assert clear == pytest.approx(FWHM, rel=0.01)
    assert 0.92 < obscured / clear < 0.98


def test_the_peak_is_one_without_aberrations_and_blur():
    assert float(telescope(0.2, jitter=1e-3).max()) == pytest.approx(1.0, abs=1e-6)


def test_jitter_blurs_and_keeps_the_light():
    sharp, blurred = telescope(jitter=1e-3), telescope(jitter=2.0)
    assert float(blurred.max()) < 0.9 * float(sharp.max())
    assert float(blurred.sum() / sharp.sum()) == pytest.approx(1.0, abs=1e-2)


def test_the_middle_is_where_it_is_asked_for():
    moved = telescope(centre=(1.5, -3.0))
    expected = telescope().roll((-6, 3), (0, 1))
    torch.testing.assert_close(moved[10:-10, 10:-10], expected[10:-10, 10:-10], atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [2, 3])
def test_spikes_stand_square_to_the_vanes(number):
    spiky = telescope(vanes=(number, 0.04, 30.0), fwhm=2.0, jitter=0.6)
    light = spiky - telescope(fwhm=2.0, jitter=0.6) * (spiky.max() / 1.0)
    c = SIDE // 2
    angles = torch.arange(0, 360, 2)
    x = (c + 25 * torch.deg2rad(angles.float()).cos()).round().long()
    y = (c + 25 * torch.deg2rad(angles.float()).sin()).round().long()
    ring = light[y, x].reshape(2 * number, -1)  # one row for each spike's sector
    folded = ring.mean(0)
    brightest = int(angles[int(folded.argmax())]) % (180 // number)
    assert brightest == pytest.approx(30 % (180 // number), abs=4)
    assert float(folded.max()) > 4 * float(folded.median())


@pytest.mark.parametrize(("number", "thickness"), [(2, 0.04), (3, 0.03), (2, 0.02)])
def test_vanes_are_galsims_struts(number, thickness):
    optics = galsim.OpticalPSF(
        lam_over_diam=FWHM / 1.029,
        obscuration=0.2,
        nstruts=2 * number,  # each of GalSim's reaches from the middle to one side
        strut_thick=thickness,
        strut_angle=20.0 * galsim.degrees,
        oversampling=2,
        pad_factor=2,
    )
    whole = galsim.Convolve(optics, galsim.Gaussian(fwhm=JITTER))
    image = whole.drawImage(nx=SIDE, ny=SIDE, scale=0.5, method="no_pixel", dtype=float)
    expected = torch.from_numpy(image.array / image.array.sum())
    found, bare = (normalise(telescope(0.2, vanes=(n, thickness, 20.0))) for n in (number, 0))
    error = float((found - expected).abs().max())
    assert error < 4e-3 * float(expected.max())
    assert error < 0.3 * float((bare - expected).abs().max())
