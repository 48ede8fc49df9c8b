"""Flags of the measurement: network, refinement, weights and error bars."""

from deeplegato_pp.flags.about import About

FAILED = About(
    meaning="Not measured: see the reason",
    decision="an error stopped the measurement of this object",
    level="bad",
    remedy="See the reason",
)

TOO_LARGE = About(
    meaning="The image covers too little of the galaxy: its outskirts are extrapolated",
    decision="posterior R_e above 16 px, and the image too small to be binned further",
    level="caution",
    remedy="Give a larger cutout",
)

MASKED_CORE = About(
    meaning="Pixels in the galaxy's core are masked",
    decision="a masked pixel within half the PSF's FWHM (at least 1.5 px) of the mean centre",
    level="caution",
    remedy="Check the mask (--mask, --mask-bits)",
)

EDGE_OF_PRIOR = About(
    meaning="The posterior is truncated by the prior",
    decision=(
        "the mean lies in the outer 8 % of the prior and within 1.5 standard deviations of the "
        "bound, or in the outer 0.13 % at any width; only the lower bound counts for the axis "
        "ratio, none for the position angle"
    ),
    level="caution",
    remedy="Treat the bound as a limit, or widen the prior",
)

OUTSIDE_TRAINING = About(
    meaning="The instrument lies outside the range of the network's training",
    decision=(
        "optical FWHM of the PSF, gain or sky sigma more than 3 % outside the ranges in the model "
        "card, or the visible side below its range; a PSF that is too narrow counts only if R_e is "
        "below four times the narrowest FWHM"
    ),
    level="caution",
)

UNRESOLVED = About(
    meaning=(
        "The galaxy is unresolved: radius, Sérsic index and shape depend on the PSF and the prior"
    ),
    decision="mean R_e below 0.3 of the PSF's FWHM; the flux is reliable",
    level="caution",
    remedy="Treat R_e as an upper limit (its 97.5 % quantile), and look at star_probability",
)

NEIGHBOURS_MASKED = About(
    meaning="Pixels of neighbours were masked before refinement",
    decision="connected pixels more than 5 sigma from the predicted image, outside 1.5 R_e",
)

TENSION = About(
    meaning="The network and the exact posterior disagree",
    decision="their means differ by more than 3 sigma in a parameter",
    level="caution",
    remedy="Use the refined row; look at the residual (--plot)",
)

LOW_ESS = About(
    meaning="Too few effective samples",
    decision="effective sample size below the requested one",
    level="caution",
)

HIGH_KHAT = About(
    meaning="The importance weights are unreliable",
    decision="Pareto k-hat above min(0.7, 1 - 1/log10 S)",
    level="bad",
    remedy="Refine with more effort, or treat the row as approximate",
)

SCENE_KHAT = About(
    meaning=(
        "The importance weights of the best scene are unreliable, and so are its components and "
        "odds"
    ),
    decision="`scene_khat` above 0.7",
    level="caution",
    remedy="Treat its components and odds as approximate; the single profile has its own weights",
)

BUDGET = About(
    meaning="Refinement reached its limit of cost: the row is the best result so far",
    decision=(
        "the pixels that may be rendered for a galaxy were used up, or would not suffice for "
        "sampling, with `low_ess` or `high_khat` left; `method` names the last step"
    ),
    level="caution",
)

STRUCTURE_UNJUDGED = About(
    meaning=(
        "The error bars are those of the noise alone: too little of the galaxy is visible to "
        "measure structure"
    ),
    decision=(
        "honest widths requested, and fewer than 2 blocks of pixels or 10 unmasked pixels per free "
        "parameter, or derivatives that are not finite"
    ),
    level="caution",
    remedy="Give a larger stamp, or mask less of it (--mask)",
)
