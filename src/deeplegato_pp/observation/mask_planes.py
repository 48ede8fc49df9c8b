"""Meaning of mask bits, from the mask's own cards or the instrument; only damage is masked."""

import math
import re
from dataclasses import dataclass

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.io.header_keywords import Header, header_number, header_text

DAMAGE = re.compile(
    r"(^|_)(BAD|BADPIX|BPM|BADAMP|DEAD|HOT|COLD|CR|CRAY|COSMIC\w*|SAT|SATUR\w*|ATODSAT|ADCMAX|"
    r"NO_?DATA|INVALID|DEFECT\w*|INTRP|INTERP\w*|BLEED\w*|EDGEBLEED|XTALK|SSXTALK|CROSSTALK|"
    r"NAN|UNMASKEDNAN|SUSPECT|NONLINEAR|DROPOUT|DO_NOT_USE|LOST|FILL\w*|REPLACED|UNSTABLE|TRAP|"
    r"SINK|STREAK|TRAIL|SPIKE|VIGNETTED|EDGE|ALLMASK|OVRCOL|BADREF|MASKED|GHOST)(_|$)"
)
"""Names of planes in which a pixel's value is not that of the sky."""

HISTORY = (
    "DETECTED", "DETECTED_NEGATIVE", "NOT_DEBLENDED", "SENSOR_EDGE", "INEXACT_PSF", "REJECTED",
    "CLIPPED", "BRIGHT_OBJECT", "CR_REGION", "PARTLY_VIGNETTED", "NOTCHECKED", "SUBTRACTED",
)  # fmt: skip
"""Names that describe a pixel's history or content and are never damage."""

ACS = (
    "LOST", "FILL", "BADPIX", "MASKED", "HOT", "CTE", "WARM", "BAD_COLUMN", "SAT", "BADREF",
    "TRAP", "ATODSAT", "COSMIC", "CR", "", "",
)  # fmt: skip
WFC3_IR = (
    "LOST", "FILL", "BADPIX", "BAD", "HOT", "UNSTABLE", "WARM", "BADREF", "SAT", "BLOB",
    "PERSISTENCE", "", "COSMIC", "CORRECTED_RAMP", "", "",
)  # fmt: skip
EUCLID_VIS = (
    "INVALID", "HOT", "COLD", "SAT", "COSMIC", "GHOST", "QUADEDGE", "BAD_COLUMN", "BAD_CLUSTER",
    "CR_REGION", "", "", "OVRCOL", "EXTOBJ", "SCATLIGHT", "CHARINJ", "", "SATXTALKGHOST",
    "STARSIGNAL", "SATURATEDSTAR", "CTICORRECTION", "ADCMAX", "NO_DATA", "STITCHBLOCK", "OBJECTS",
)  # fmt: skip
SDSS = (
    "INTERP", "SATUR", "NOTCHECKED", "OBJECT", "BRIGHTOBJECT", "BINOBJECT", "CATOBJECT",
    "SUBTRACTED", "GHOST", "CR",
)  # fmt: skip
DES = (
    "BPM", "SATUR", "INTERP", "BADAMP", "CRAY", "STAR", "TRAIL", "EDGEBLEED", "SSXTALK", "EDGE",
    "STREAK", "SUSPECT", "FIXED", "NEAREDGE", "TAPEBUMP",
)  # fmt: skip
"""Names of the bits, lowest first, as in each instrument's handbook."""

VERDICT = ("DO_NOT_USE",)
"""Bit 0 of JWST, Roman and Euclid NISP masks says whether a pixel can be used."""

SEGMENTATION_NAMES = ("SEG", "SEGM", "SEGMAP", "SEGMENTATION", "SEGMENTATION_MAP")


@dataclass(frozen=True)
class MaskMeaning:
    """Bits of a mask that mean *ignore*.

    Attributes:
        bits: Sum of the bits; None for any non-zero value.
        source: Source of this meaning, or empty.
        notes: Planes that are used and planes that are not.
    """

    bits: int | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


def mask_meaning(mask_header: Header, image_header: Header, name: str) -> MaskMeaning:
    """Returns which bits of a mask mean damage.

    Planes named by the mask's own cards (MP_* of LSST and HSC, BITNM* of the Legacy Surveys) are
    selected by name; data quality of HST, JWST, Roman, Euclid, SDSS and DES by the instrument's
    table. Planes that describe history (DETECTED, JUMP_DET, warm pixels) are not damage. In all
    other masks every non-zero value means *ignore*.

    Args:
        mask_header: Header of the mask.
        image_header: Header of the image.
        name: Name of the mask's extension.
    """
    planes = _named_planes(mask_header)
    if planes:
        return _by_names(planes, "the mask's own cards")
    table, source = _table(mask_header, image_header, name.upper())
    if table:
        return _by_names({plane: bit for bit, plane in enumerate(table) if plane}, source)
    return MaskMeaning()


def is_damage(plane: str) -> bool:
    """Returns whether a plane of this name marks pixels whose value is not that of the sky.

    Example:
        >>> is_damage("SAT"), is_damage("DETECTED"), is_damage("MP_CR"), is_damage("SENSOR_EDGE")
        (True, False, True, False)
    """
    plane = plane.upper()
    return plane not in HISTORY and DAMAGE.search(plane) is not None


def _by_names(planes: dict[str, int], source: str) -> MaskMeaning:
    damage = [plane for plane in planes if is_damage(plane)]
    harmless = [plane for plane in planes if not is_damage(plane)]
    bits = sum({1 << planes[plane] for plane in damage})
    note = f"mask by {source}: {', '.join(damage) or 'no plane'} ignored"
    if harmless:
        note += f", not {', '.join(harmless)}"
    return MaskMeaning(bits, source, (note,))


def _named_planes(header: Header) -> dict[str, int]:
    """Returns the bits by the names in a mask's cards."""
    planes = {}
    for keyword in header:
        key = str(keyword).upper()
        if key.startswith("MP_") and (bit := header_number(header, keyword)) is not None:
            planes[key[3:]] = int(bit)
        elif found := re.fullmatch(r"(?:BITNM|MBITNM|BITNAME)_?(\d+)", key):
            planes[header_text(header, keyword).upper()] = int(found[1])
    return {name: bit for name, bit in planes.items() if name and 0 <= bit < 64}


def _table(mask: Header, image: Header, name: str) -> tuple[tuple[str, ...], str]:
    """Returns the instrument's table, if the mask is its data quality, and its name."""
    telescope, instrument, survey = (
        (header_text(image, key) or header_text(mask, key)).upper()
        for key in ("TELESCOP", "INSTRUME", "SURVEY")
    )
    detector = (header_text(image, "DETECTOR") or header_text(mask, "DETECTOR")).upper()
    origin = (header_text(image, "ORIGIN") or header_text(mask, "ORIGIN")).upper()
    quality = name in ("DQ", "MASK", "FLG", "FLAG", "FLAGS", "MSK") or name.endswith(
        (".FLG", ".DQ")
    )
    if not quality:
        return (), ""
    if telescope in ("JWST", "ROMAN") and name == "DQ":
        return VERDICT, f"{telescope}'s bit 0"
    if telescope == "HST" and name == "DQ":
        infrared = instrument == "NICMOS" or detector == "IR"
        return (WFC3_IR if infrared else ACS), f"HST's data quality ({instrument})"
    if "EUCLID" in telescope:
        if "VIS" in instrument:
            return EUCLID_VIS, "Euclid's flag map (VIS)"
        return ("INVALID",), "Euclid's bit 0"
    if "SDSS" in (survey, origin, instrument, telescope):
        return SDSS, "SDSS's mask bits"
    if name == "MSK" and ("DES" in (survey, origin) or instrument == "DECAM"):
        return DES, "DES's mask bits"
    return (), ""


def looks_like_segmentation(mask: Array, name: str = "") -> bool:
    """Returns whether a mask is a segmentation map: labels, each one patch, one at the centre.

    Args:
        mask: Mask, with shape (H, W).
        name: Name of its extension, which decides if it says so.
    """
    values = np.asarray(mask)
    if values.dtype.kind == "b" or values.size == 0:
        return False
    if name.upper() in SEGMENTATION_NAMES:
        return True
    middle = values[values.shape[0] // 2, values.shape[1] // 2]
    if not middle > 0:
        return False
    values = np.where(np.isfinite(values), values, 0)
    if values.min() < 0 or not np.array_equal(values, np.rint(values)):
        return False
    labels = np.unique(values[values > 0])
    if len(labels) < 3 or len(labels) > 10_000:
        return False
    from scipy.ndimage import find_objects, label

    whole = values.astype(np.int64)
    if whole.max() > 10_000_000 or np.count_nonzero(whole == middle) < 9:
        return False
    compact = np.searchsorted(labels, whole) + 1
    compact[whole == 0] = 0
    single = 0
    for i, box in enumerate(find_objects(compact)):
        sizes = np.bincount(label(compact[box] == i + 1, np.ones((3, 3)))[0].ravel())[1:]
        single += bool(sizes.max() >= 0.8 * sizes.sum())
    sizes = np.bincount(compact.ravel())[1:]
    return bool(single >= 0.9 * len(labels) and np.median(sizes) >= 5)


def hides_galaxy(image: Array, noise: Array, mask: Array, radius: float) -> bool:
    """Returns whether most of the light about the stamp's centre is masked.

    Args:
        image: With shape (H, W); masked pixels that were not finite hold 0.
        noise: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).
        radius: Radius of the region considered. [px]
    """
    height, width = image.shape
    half = math.ceil(radius) + 1
    rows, columns = (
        slice(max(0, size // 2 - half), min(size, size // 2 + half + 1)) for size in (height, width)
    )
    image, noise, mask = image[rows, columns], noise[rows, columns], mask[rows, columns]
    y, x = np.ogrid[rows, columns]
    near = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) <= radius
    if np.count_nonzero(mask & near) > 0.5 * np.count_nonzero(near):
        return True
    bright = near & (image > 3 * noise)
    seen = int(np.count_nonzero(bright))
    return seen >= 5 and int(np.count_nonzero(bright & mask)) > 0.5 * seen
