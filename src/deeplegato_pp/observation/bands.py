"""Observations of one galaxy in several bands, and their relative alignment."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.sky_frames import icrs_to_pixel, pixel_to_icrs

PER_BAND = ("psf", "psf_fwhm", "noise", "mask", "gain", "pixel_scale", "zero_point", "sky_sigma")
"""Options of ``Observation.from_fits`` that may differ between bands."""

_STEP = 8.0
"""Half-length over which a WCS is linearised. [px]"""

_RESERVED = re.compile(r"(.*_)?(std|noise|q\d+)|p|limit|pix|circ|sky", re.IGNORECASE)
"""Names of bands that would collide with other columns, such as magnitude_std."""


@dataclass(frozen=True)
class Bands:
    """Bands that are fitted together.

    Attributes:
        names: Names of the bands; the first is the frame.
        structure: Dependence of the structure on the band: ``shared``, ``linear`` or ``free``.
        wavelengths: Wavelengths of the bands; None if unknown. [micrometre]

    Raises:
        InputError: If a name is invalid, see :func:`check_bands`.
    """

    names: tuple[str, ...]
    structure: str = "shared"
    wavelengths: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_bands(self.names)

    def check_images(self, number: int) -> None:
        """Raises an error unless there is one image per band.

        Raises:
            InputError: If the number of images differs.
        """
        if number != len(self.names):
            raise InputError(
                f"{len(self.names)} bands ({', '.join(self.names)}) need one file each, got "
                f"{number}. Give them in the order of the bands."
            )


@dataclass(frozen=True, eq=False, repr=False)
class MultiBandObservation:
    """One galaxy in several bands, each with its own image, noise, mask, PSF and calibration.

    The first band is the frame: its pixels, centre and position angle are those of the results.
    The alignment of the other bands (sub-pixel shifts, rotation, mirroring, pixel scale) is taken
    from the WCS. For a band without WCS, or if the first band has none, the stamps' centres are
    assumed to coincide and their axes to be parallel.

    Args:
        observations: Observations by band name, at least two.
        wavelengths: Wavelengths of the bands, in the same order; needed only for a structure linear
            in the wavelength. [micrometre]
        name: Name of the galaxy in tables; that of the first band's observation if empty.

    Attributes:
        aligned: Each band's observation with its alignment to the first band.

    Raises:
        InputError: If there are fewer than two bands, a name is invalid, two names differ only in
            case, the number of wavelengths differs from that of bands, or bands do not overlap.

    Example:
        >>> import numpy as np
        >>> one = Observation.from_array(np.eye(32), noise=1.0, pixel_scale=0.2, zero_point=25.0)
        >>> MultiBandObservation({"g": one, "r": one}).bands
        ('g', 'r')
    """

    observations: Mapping[str, Observation]
    wavelengths: Sequence[float] | None = None
    name: str = ""
    aligned: tuple["AlignedBand", ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "observations", dict(self.observations))
        check_bands(self.bands)
        waves = self.wavelengths
        if waves is not None and len(waves) != len(self.bands):
            raise InputError(
                f"{len(waves)} wavelengths for {len(self.bands)} bands. Give one for each, in "
                "their order."
            )
        for band, item in self.observations.items():
            if not isinstance(item, Observation):
                raise InputError(
                    f"band {band} must be an Observation, got a {type(item).__name__}. Build it "
                    "with Observation.from_fits or from_array."
                )
        if not self.name:
            object.__setattr__(self, "name", self.first.name)
        object.__setattr__(self, "aligned", self._aligned())

    @classmethod
    def from_fits(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        bands: Sequence[str],
        wavelengths: Sequence[float] | None = None,
        name: str = "",
        **options: Any,
    ) -> "MultiBandObservation":
        """Reads one file per band.

        Args:
            paths: FITS files, in the order of the bands.
            bands: Names of the bands.
            wavelengths: Wavelengths of the bands. [micrometre]
            name: Name of the galaxy.
            options: Options of ``Observation.from_fits``; those in :data:`PER_BAND` take a list
                with one value per band, or one value for all.

        Raises:
            InputError: If the number of files, or of an option's values, differs from that of
                bands, or a file cannot be used; the message names the band.
        """
        Bands(tuple(bands)).check_images(len(paths))
        per_band = [{name: _of_band(name, value, k, bands) for name, value in options.items()}
                    for k in range(len(bands))]  # fmt: skip
        found = {}
        for band, path, own in zip(bands, paths, per_band, strict=True):
            try:
                found[band] = Observation.from_fits(path, **own)
            except InputError as error:
                raise type(error)(f"band {band}: {error}") from error
        return cls(found, wavelengths, name)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.observations)

    @property
    def first(self) -> Observation:
        """Observation of the first band, which is the frame."""
        return next(iter(self.observations.values()))

    @property
    def notes(self) -> list[str]:
        """Assumptions about the bands' alignment, as text."""
        first, *others = self.bands
        aligned = self.aligned[1:]
        apart = [band for band, a in zip(others, aligned, strict=True) if not a.by_wcs]
        assumed = [
            f"without WCS, the centres of the stamps of {', '.join([first, *apart])} are assumed "
            "to coincide"
        ]
        return [*(assumed if apart else []), *(note for a in aligned for note in a.notes)]

    def _aligned(self) -> tuple["AlignedBand", ...]:
        first, *others = self.observations.items()
        return (
            AlignedBand(first[1]),
            *(align(first[0], first[1], band, other) for band, other in others),
        )

    def __repr__(self) -> str:
        """Returns the bands, one line each."""
        lines = [f"  {band}: {observation!r}" for band, observation in self.observations.items()]
        return "\n".join([f"MultiBandObservation({self.name or 'unnamed'})", *lines])


@dataclass(frozen=True, eq=False)
class AlignedBand:
    """A band's observation with the galaxy near its centre, and its alignment to the first band.

    Attributes:
        observation: Observation, padded with masked pixels so that its centre is near that of the
            first band.
        matrix: Matrix from pixels of the first band's image to this one's, with shape (2, 2).
        offset: Position of the first band's centre relative to this one's. [px]
        by_wcs: Whether the alignment comes from the WCS; if not, the stamps' centres are assumed to
            coincide.
        notes: Remarks, as text.
    """

    observation: Observation
    matrix: Array = field(default_factory=lambda: np.eye(2))
    offset: Array = field(default_factory=lambda: np.zeros(2))
    by_wcs: bool = True
    notes: tuple[str, ...] = ()


def check_bands(bands: Sequence[str]) -> None:
    """Raises an error for band names that cannot be used in column names.

    Raises:
        InputError: If there are fewer than two, one does not consist of letters, digits and
            underscores or is reserved, or two differ only in case.
    """
    if len(bands) < 2:
        raise InputError(f"several bands are at least two, got {len(bands)}.")
    for band in bands:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", band) or _RESERVED.fullmatch(band):
            raise InputError(
                f"{band!r} cannot name a band: columns are called magnitude_{band}. Take a letter "
                "and then letters, digits and underscores, e.g. g or F150W."
            )
    lower = [band.lower() for band in bands]
    twice = sorted({band for band in bands if lower.count(band.lower()) > 1})
    if twice:
        raise InputError(
            f"bands {', '.join(twice)} have one name (columns do not tell case apart). Give each "
            "its own."
        )


def align(first_name: str, first: Observation, name: str, other: Observation) -> AlignedBand:
    """Computes a band's alignment to the first band, linearised about the first band's centre.

    Args:
        first_name: Name of the first band.
        first: Its observation.
        name: Name of the band.
        other: Its observation.

    Raises:
        InputError: If the first band's centre is not on the band's image.
    """
    height, width = first.shape
    scale = first.pixel_scale / other.pixel_scale
    if first.wcs is None or other.wcs is None:
        return AlignedBand(other, scale * np.eye(2), np.zeros(2), by_wcs=False)
    x, y = (width - 1) / 2, (height - 1) / 2
    steps = _STEP * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    sky = pixel_to_icrs(first.wcs, x + steps[:, 0], y + steps[:, 1])
    there = np.stack(icrs_to_pixel(other.wcs, *sky), 1)
    rows, columns = other.shape
    if not (
        np.isfinite(there).all()
        and -0.5 <= there[0, 0] <= columns - 0.5
        and -0.5 <= there[0, 1] <= rows - 0.5
    ):
        raise InputError(
            f"bands {first_name} and {name} do not overlap: by their WCS the centre of "
            f"{first_name} lies at pixel ({there[0, 0]:.1f}, {there[0, 1]:.1f}) of {name}, whose "
            f"image has {columns} x {rows}. Give stamps of one galaxy, or leave out wrong WCS."
        )
    matrix = np.stack([there[1] - there[2], there[3] - there[4]], 1) / (2.0 * _STEP)
    notes = []
    by_wcs = abs(np.linalg.det(matrix)) ** 0.5
    if abs(by_wcs / scale - 1.0) > 0.02:
        notes.append(
            f"{name}: by the WCS a pixel of {first_name} is {by_wcs:.4g} of {name}, by the pixel "
            f"scales {scale:.4g}"
        )
    centred, offset = recentred(other, *there[0])
    return AlignedBand(centred, matrix, offset, notes=tuple(notes))


def recentred(observation: Observation, x: float, y: float) -> tuple[Observation, Array]:
    """Returns an observation centred near a point, and the point's position from its centre.

    Masked pixels are added on one side of each axis; no pixel is lost. Nothing is added for an
    offset of a pixel or less. The WCS is dropped.

    Args:
        observation: The observation.
        x: Column of the point, 0-based. [px]
        y: Row.

    Returns:
        The observation, and (x, y) of the point from its centre. [px]
    """
    height, width = observation.shape
    shift = np.array([x - (width - 1) / 2, y - (height - 1) / 2])
    if np.abs(shift).max() <= 1.0:
        return observation, shift
    added = np.rint(2.0 * shift).astype(int)  # pixels on the high side, if positive
    (left, right), (bottom, top) = ((max(-a, 0), max(a, 0)) for a in added)
    width_of = ((bottom, top), (left, right))

    def padded(array: Array, value: float | bool) -> Array:
        return np.pad(array, width_of, constant_values=value)

    wider = replace(
        observation,
        image=padded(observation.image, 0.0),
        noise=padded(observation.noise, float(np.median(observation.noise))),
        mask=padded(observation.mask, True),
        wcs=None,
    )
    return wider, shift - added / 2.0


def _of_band(name: str, value: Any, band: int, bands: Sequence[str]) -> Any:
    """Returns a band's value of an option, whose list holds one value per band."""
    if not isinstance(value, list | tuple):
        return value
    if name not in PER_BAND:
        raise InputError(f"{name} is the same for all bands: give one value, got {value!r}.")
    if len(value) == 1:
        return value[0]
    if len(value) != len(bands):
        raise InputError(
            f"{name} takes one value for each of the bands {', '.join(bands)}, in their order, or "
            f"one for all, got {len(value)}."
        )
    return value[band]
