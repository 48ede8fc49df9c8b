import numpy as np
import pytest

from deeplegato_pp.observation.mask_planes import (
    hides_galaxy,
    is_damage,
    looks_like_segmentation,
    mask_meaning,
)

LSST = {
    "BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "DETECTED_NEGATIVE": 6,
    "NO_DATA": 8,
}  # fmt: skip


def test_planes_by_their_own_cards():
    meaning = mask_meaning({f"MP_{name}": bit for name, bit in LSST.items()}, {}, "MASK")
    assert meaning.bits == 0b100011111
    assert "DETECTED" in meaning.notes[0].split(", not ")[1]
    assert mask_meaning({"MP_DETECTED": 0, "MP_BAD": 1}, {}, "MASK").bits == 2
    assert mask_meaning({"MP_DETECTED": 0}, {}, "MASK").bits == 0
    legacy = {"BITNM0": "NPRIMARY", "BITNM2": "SATUR_G", "BITNM8": "WISEM1"}
    assert mask_meaning(legacy, {}, "MASKBITS").bits == 4
    assert mask_meaning({"MP_BAD": 99}, {}, "MASK").bits is None


@pytest.mark.parametrize(
    ("header", "name", "damage", "harmless"),
    [
        ({"TELESCOP": "JWST"}, "DQ", [0], [1, 2, 12]),
        ({"TELESCOP": "ROMAN"}, "DQ", [0], [2]),
        ({"TELESCOP": "HST", "INSTRUME": "ACS"}, "DQ", [0, 2, 4, 8, 12, 13], [5, 6]),
        ({"TELESCOP": "HST", "INSTRUME": "WFC3", "DETECTOR": "IR"}, "DQ", [2, 4, 8, 12], [9, 13]),
        ({"TELESCOP": "EUCLID", "INSTRUME": "VIS"}, "3-4.F.FLG", [0, 1, 3, 4, 22], [13, 18, 24]),
        ({"TELESCOP": "EUCLID", "INSTRUME": "NISP"}, "DQ", [0], [1, 24]),
        ({"ORIGIN": "SDSS"}, "MASK", [0, 1, 9], [2, 3, 4, 6]),
        ({"INSTRUME": "DECam"}, "MSK", [0, 1, 2, 4], [5, 13]),
    ],
)
def test_tables_of_instruments(header, name, damage, harmless):
    bits = mask_meaning({}, header, name).bits
    assert [bit for bit in damage if not bits >> bit & 1] == []
    assert [bit for bit in harmless if bits >> bit & 1] == []


def test_any_other_mask_means_what_it_says():
    for header, name in (
        ({}, "MASK"),
        ({"TELESCOP": "JWST"}, "MASK"),
        ({"INSTRUME": "DECam", "PRODTYPE": "dqmask"}, "DQ"),
    ):
        assert mask_meaning({}, header, name).bits is None


def test_names():
    assert [
        n for n in ("BAD", "SAT", "CR", "NO_DATA", "BAD_COLUMN", "HOT") if not is_damage(n)
    ] == []
    history = (
        "DETECTED",
        "JUMP_DET",
        "SENSOR_EDGE",
        "BRIGHT_OBJECT",
        "CLIPPED",
        "WARM",
        "SUBTRACTED",
    )
    assert [n for n in history if is_damage(n)] == []


def labelled(count: int = 6) -> np.ndarray:
    """A map of square sources, one of them at the centre."""
    labels = np.zeros((64, 64), dtype=np.int32)
    labels[29:36, 29:36] = 1
    for i in range(2, count + 1):
        labels[2:6, 8 * i : 8 * i + 4] = i
    return labels


def test_segmentation_maps_are_recognised():
    assert looks_like_segmentation(labelled())
    assert looks_like_segmentation(labelled().astype(float))
    ragged = labelled()
    ragged[38, 32] = 1
    assert looks_like_segmentation(ragged)
    assert looks_like_segmentation(np.zeros((3, 3)), "SEGMENTATION")
    quality = np.zeros((64, 64), dtype=np.int32)
    quality[np.random.default_rng(0).random((64, 64)) < 0.2] = 3
    quality[::7] |= 4
    quality[30:34, 30:34] = 8
    for mask in (labelled() > 0, labelled() == 1, quality, labelled() * (labelled() != 1)):
        assert not looks_like_segmentation(mask)


def test_a_mask_that_hides_the_galaxy():
    y, x = np.indices((41, 41))
    image = 20.0 * np.exp(-np.hypot(x - 20, y - 20) / 3)
    noise, nothing = np.ones_like(image), np.zeros(image.shape, bool)
    near = np.hypot(x - 20, y - 20) < 5
    assert not hides_galaxy(image, noise, nothing, 6)
    assert not hides_galaxy(image, noise, ~near, 4)
    assert hides_galaxy(image, noise, near, 6)
    assert hides_galaxy(image, noise, image > 3, 12)
    for small in (np.s_[:5, :], np.s_[:, :3], np.s_[:2, :2]):
        assert not hides_galaxy(image[small], noise[small], nothing[small], 12)
        assert hides_galaxy(image[small], noise[small], ~nothing[small], 12)
