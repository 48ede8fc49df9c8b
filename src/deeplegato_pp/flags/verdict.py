"""Flags of the verdict: agreement of image, noise and PSF with the model."""

from deeplegato_pp.flags.about import About

POOR_FIT = About(
    meaning="The image is not that of a Sérsic galaxy with this PSF and noise",
    decision=(
        "`chi2_p` below 0.001: the best model within the posterior leaves a significant residual, "
        "allowing for a model error of 1 %"
    ),
    level="caution",
    remedy="Look at the residual (--plot)",
)

GROSS_MISFIT = About(
    meaning="The model misses a large part of the galaxy's light, or there is no galaxy",
    decision=(
        "`poor_fit`, and the residual within 1.5 R_e exceeds 10 % of the model's light by 4 "
        "standard errors, noise subtracted"
    ),
    level="bad",
    remedy="Look at the residual (--plot): a neighbour, or not a Sérsic galaxy",
)

MISFIT_HELD = About(
    meaning="The model misses some of the galaxy's light, as is usual for galaxies with structure",
    decision=(
        "as `gross_misfit`, refined with honest widths, and the residual within 1.5 R_e is below "
        "20 % of the model's light"
    ),
)

MEAN_OFF = About(
    meaning="The posterior mean is inconsistent with the pixels",
    decision=(
        "the best model within the posterior lies more than 4 posterior standard deviations from "
        "the mean in a coordinate (with 50 draws or more)"
    ),
    level="bad",
)

UNFAMILIAR = About(
    meaning="The image is out of distribution for the network",
    decision="`ood_p` below 0.001",
    level="bad",
)

NEIGHBOUR = About(
    meaning="The stamp contains light that is not the galaxy's",
    decision=(
        "two adjacent pixels, or a block of 4 x 4, more than 5 sigma above the best model outside "
        "1.5 R_e"
    ),
    level="caution",
    remedy="Mask the neighbour (--mask, --segmentation)",
)

NEIGHBOUR_HELD = About(
    meaning="The stamp contains light that is not the galaxy's, and that hardly affects it",
    decision=(
        "as `neighbour`, with honest widths, and masking that light would change no parameter by "
        "more than half of its error"
    ),
)

SATURATED = About(
    meaning="The core is saturated: it has a flat top",
    decision=(
        "four or more adjacent pixels of S/N 10 equal the brightest one within a tenth of their "
        "noise, where the model varies by more than 3 sigma"
    ),
    level="bad",
    remedy="Mask the saturated pixels",
)

UNDETECTED = About(
    meaning="No galaxy is detected: the posterior describes what the noise could hide",
    decision=(
        "the model lowers the chi-square of an empty stamp by less than 9; after refinement, the "
        "odds of a source against blank sky are below 100 to 1"
    ),
    level="caution",
)

NO_CONTRAST = About(
    meaning="Most pixels have the same value: the image is not an observation",
    decision="more than half of the unmasked pixels are equal",
    level="bad",
)

NOISE_MISMATCH = About(
    meaning="The noise differs from its map, and all errors scale with it",
    decision=(
        "the robust scatter of the background differs from the map's by more than 5 standard "
        "errors and 10 % in pixels or 30 % in blocks of 4 x 4"
    ),
    level="caution",
    remedy="Check the noise map, its type and its correlation (--noise-type, --noise-correlation)",
)

NOISE_MEASURED = About(
    meaning="The noise differs from its map, and the error bars use the measured noise",
    decision=(
        "as `noise_mismatch`, with honest widths, the background's scatter 0.5 to 3 times the "
        "map's; above that, the widths are those of the background's noise"
    ),
)

NOISE_FROM_DATA_HELD = About(
    meaning="The noise map was computed from the noisy data, and the error bars include the effect",
    decision=(
        "as `noise_from_data`, refined with honest widths, and weights that follow the noise are "
        "expected to change no parameter by more than half of its error"
    ),
)

PSF_WINGS = About(
    meaning="The PSF's array lacks wings that matter at this S/N",
    decision=(
        "the missing light, placed where the PSF's wings continue, is expected to change a "
        "parameter by more than three of the standard deviations that honest widths have without "
        "it (smaller changes are in the error bars); without honest widths, R_e by more than one: "
        "a quarter of the light times the S/N, which is capped where errors stop falling"
    ),
    level="caution",
    remedy="Give the PSF on a larger array (--psf)",
)
