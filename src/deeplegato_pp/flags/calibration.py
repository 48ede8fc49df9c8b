"""Flags of the photometric and astrometric calibration, and of its statements in files."""

from deeplegato_pp.flags.about import About

NO_PIXEL_SCALE = About(
    meaning="The pixel scale is unknown: radii in arcsec are arbitrary, radii in pixels are valid",
    decision="not given, no keyword, no WCS; 0.25 arcsec/px is used",
    remedy="Give it (--pixel-scale)",
)

NO_ZERO_POINT = About(
    meaning="The zero point is unknown: magnitudes have an arbitrary offset",
    decision="not given, and no keyword or unit states it; 30.5 is used",
    remedy="Give it (--zero-point)",
)

ZERO_POINT_CONFLICT = About(
    meaning="The file's statements of the zero point disagree or are ambiguous",
    decision=(
        "unit, keywords and exposure time imply zero points more than 0.02 mag apart, or "
        "impossible ones; the unit takes precedence, then the value of two sources that agree; the "
        "notes list all values"
    ),
    level="caution",
    remedy="Compare the values in the notes and give the right one (--zero-point)",
)

PIXEL_SCALE_CONFLICT = About(
    meaning="The file's statements of the pixel scale disagree",
    decision=(
        "WCS and keywords differ by more than 2 %, or state an impossible scale; the WCS takes "
        "precedence"
    ),
    level="caution",
    remedy="Compare the values in the notes and give the right one (--pixel-scale)",
)

NOT_AB = About(
    meaning="The zero point is not in the AB system: magnitudes are in the file's system",
    decision="the only zero point in the file is named Vega or ST",
    level="caution",
    remedy="Give the AB zero point (--zero-point)",
)

NOT_SQUARE = About(
    meaning="The pixels are not square on the sky: axis ratio and angle refer to pixels",
    decision="the WCS's two scales differ by more than 2 %",
    level="caution",
    remedy="Resample the image to square pixels",
)

PSF_SAMPLING_CONFLICT = About(
    meaning="The sampling stated by the PSF file disagrees with the image or with itself",
    decision=(
        "oversampling, pixel scale of the PSF and pixel scale of the image are inconsistent by "
        "more than 2 %"
    ),
    level="caution",
    remedy="Give the right sampling (--psf-oversampling)",
)

NOISE_CONFLICT = About(
    meaning="The file's statements of its noise map disagree: its type or unit may be another",
    decision=(
        "type (UTYPE, name of the extension), unit of the map and unit of the image are "
        "inconsistent"
    ),
    level="caution",
    remedy="State the map's type (--noise-type), or give it in the image's unit",
)
