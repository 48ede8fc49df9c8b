"""Flags of catalogues: the source list, neighbours and segments."""

from deeplegato_pp.flags.about import About

DUPLICATE = About(
    meaning="The source list contains this source more than once",
    decision="same `id`, or same position within 0.1 px, as another row of the list",
)

IMAGE_EDGE = About(
    meaning="Part of the cutout lies outside the image and is masked",
    decision="the stamp around the source extends beyond an edge of the mosaic",
    level="caution",
    remedy="Give a larger image, if one exists",
)

SAME_OBJECT = About(
    meaning="Another listed source lies within this fit, which may contain the light of both",
    decision=(
        "the nearest other source of the list is closer than 1.5 half-light radii, or than the "
        "PSF's FWHM"
    ),
    level="caution",
    remedy="Fit both together (--refine --neighbours fit), or remove one of them",
)

FITTED_TOGETHER = About(
    meaning="Neighbours were fitted together with the galaxy, and marginalised",
    decision=(
        "`neighbours` given, or in a catalogue sources whose ellipses overlap: isophotes at half a "
        "sigma per pixel, between one and four half-light radii"
    ),
)

GROUP_CUT = About(
    meaning="Some sources that overlap this one are not in its fit: there are too many",
    decision="more than four sources overlap it, or overlap its neighbours more closely",
    level="caution",
    remedy="Look at the residual; give a list with fewer entries per object",
)

OFF_SEGMENT = About(
    meaning=(
        "The fit is that of another object: it has left the source's segment, or is much larger"
    ),
    decision=(
        "the centre lies more than 2 px off the source's segment, or the 16 % quantile of the "
        "circularised half-light radius exceeds 4 times the radius of a circle of the segment's "
        "area"
    ),
    level="bad",
    remedy="Look at the residual; mask the neighbour, or fit it too (--refine --neighbours fit)",
)

RUNAWAY = About(
    meaning="Refinement moved to a neighbour: the row is the network's",
    decision=(
        "the refined fit leaves the source's segment where the network's does not; or it is more "
        "than 3 sigma brighter than the network's with another source within 2 half-light radii"
    ),
    level="caution",
    remedy="Fit the neighbour too (--neighbours fit), or mask it (--segmentation)",
)
