import pytest

from deeplegato_pp.io.flux_units import conversion, read_unit


@pytest.mark.parametrize(
    ("text", "jansky"),
    [
        ("Jy", 1), ("JY", 1), ("mJy", 1e-3), ("MJy", 1e6), ("uJy", 1e-6), ("UJY", 1e-6),
        ("\u00b5Jy", 1e-6), ("nJy/pix", 1e-9), ("nanoJy", 1e-9), ("micro Jansky", 1e-6),
        ("10.0*nanoJansky", 1e-8), ("10 nJy", 1e-8), ("1e-9 Jy", 1e-9), ("10**(-8) Jy", 1e-8),
        ("10^-9 Jy", 1e-9), ("nanomaggy", 3.631e-6), ("NMGY", 3.631e-6), ("nanomaggies", 3.631e-6),
        ("maggies", 3631), ("Jy per pixel", 1), ("W/m^2/Hz", 1e26), ("erg s-1 cm-2 Hz-1", 1e23),
    ],
)  # fmt: skip
def test_flux_per_frequency(text, jansky):
    unit = read_unit(text)
    assert unit.kind == "flux"
    assert unit.size == pytest.approx(jansky, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("erg/s/cm2/Angstrom", 1), ("erg/s/cm^2/A", 1), ("ergs cm-2 s-1 A-1", 1),
        ("ERG/CM2/S/A", 1), ("1E-17 erg/s/cm^2/Ang", 1e-17), ("W m-2 um-1", 0.1),
        ("10**(-20)*erg/s/cm**2/Angstrom", 1e-20),
    ],
)  # fmt: skip
def test_flux_per_wavelength(text, size):
    unit = read_unit(text)
    assert unit.kind == "flux_wavelength"
    assert unit.size == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("surface", "MJy/sr MJY/SR MJy.sr-1 kJy/sr Jy/arcsec2 nJy/arcsec^2"),
        ("beam", "Jy/beam JY/BEAM"),
        ("rate", "ELECTRONS/S electron/s e-/s e/s cps CPS c/s cts/sec COUNTS/S DN/s ADU/SEC"),
        ("count", "ELECTRONS electron e- E- ADU adu dn counts COUNTS photons"),
        ("magnitude", "mag mag/arcsec2 ABmag dex"),
        ("other", "K erg/s photon/s/cm2"),
        ("unknown", "unknown flux ?! (( MJY"),
    ],
)
def test_kinds(kind, texts):
    assert [(t, read_unit(t).kind) for t in texts.split()] == [(t, kind) for t in texts.split()]


def test_words_and_nothing():
    assert read_unit("electrons per second").kind == "rate"
    assert read_unit("counts s^-1").kind == "rate"
    assert read_unit("nano Jy").kind == "flux"
    assert [read_unit(x).kind for x in ("", "  ", None, True, 3)] == ["none"] * 5
    assert read_unit("10**999 Jy").kind == "unknown"


def test_conversions():
    assert conversion("mJy", "uJy") == pytest.approx(1000)
    assert conversion("nanomaggy", "Jy") == pytest.approx(3.631e-6)
    assert conversion("electron", "electron/s") is None
    assert conversion("unknown", "Jy") is None
