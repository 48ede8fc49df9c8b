"""Section of a configuration for the structure of simulated galaxies."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]

KINDS = (
    "arms",
    "bars",
    "rings",
    "bulges",
    "nuclei",
    "dust_lanes",
    "lopsided",
    "truncated",
    "clumps",
    "twisted",
    "boxy",
    "modulated",
)
"""Kinds of structure, each with a fraction of galaxies."""


@dataclass
class StructureConfig:
    """Structure of galaxies beyond a Sérsic profile; by default there is none.

    A structured galaxy has each kind independently, with the kind's fraction. Radii are in units of
    the galaxy's R_e, and amplitudes refer to the logarithm of the surface brightness unless they
    are fractions of the light. `docs/structure.md` compares the ranges with real galaxies.

    Attributes:
        share: Fraction of detected (S/N above 5) and resolved (R_e above half the PSF's FWHM)
            galaxies with structure; 0 for none.
        arms: Fraction of structured galaxies with one to four logarithmic spiral arms.
        arm_contrast: Range of the arms' amplitude, log-uniform: 0.1 for faint arms, 0.6 for
            grand-design spirals (arms 3 times as bright as the gaps).
        arm_pitch: Range of the arms' pitch angle, uniform, from tight Sa to beyond open Sc. [deg]
        bars: Fraction with a bar, flat along its length.
        bar_fraction: Range of the bar's fraction of the light, log-uniform; 0.1 is typical.
        rings: Fraction with a bright ring and a faint gap inside it.
        ring_contrast: Range of its amplitude, log-uniform.
        ring_radius: Range of its radius, uniform, from inner to outer rings.
        bulges: Fraction with a bulge; the rest of the galaxy is then a disc with n of at most 1.5.
        bulge_fraction: Range of the bulge-to-total ratio, uniform.
        bulge_radius: Range of the ratio of the bulge's R_e to the disc's, log-uniform.
        nuclei: Fraction with a central point source.
        nucleus_fraction: Range of its fraction of the light, log-uniform, from star clusters to
            AGN.
        dust_lanes: Fraction with a dust lane, along the major axis if the disc is inclined (q below
            0.5).
        dust_depth: Range of the lane's central optical depth, log-uniform.
        lopsided: Fraction with one brighter side, with an amplitude that increases outwards.
        lopsidedness: Range of that amplitude, log-uniform; a third of all discs have more than 0.2
            in the outskirts.
        truncated: Fraction of discs with a break beyond which the profile is steeper (two thirds of
            these) or flatter.
        break_radius: Range of the break radius, uniform; 1.2 R_e is two scale lengths of a disc.
        clumps: Fraction with 3 to 12 star-forming clumps within 2.5 R_e.
        clump_fraction: Range of the clumps' total fraction of the light, log-uniform.
        twisted: Fraction whose axis ratio and position angle vary with radius.
        twist: Maximum rotation of the major axis per unit of ln(radius). [deg]
        boxy: Fraction with isophotes that are not ellipses.
        boxiness: Range of c, for isophotes abs(x)^(2 + c) + abs(y/q)^(2 + c) = const, uniform:
            discy below 0, boxy above.
        modulated: Fraction with a smooth random modulation in ln(radius) and azimuth.
        modulation: Range of its root mean square, log-uniform.
        modulation_slope: Slope of its power spectrum (1 + m^2 + k^2)^(-slope), with azimuthal order
            m and frequency k in ln(radius).
    """

    share: float = 0.0
    arms: float = 0.0
    arm_contrast: Range = (0.1, 0.6)
    arm_pitch: Range = (10.0, 40.0)
    bars: float = 0.0
    bar_fraction: Range = (0.02, 0.25)
    rings: float = 0.0
    ring_contrast: Range = (0.1, 0.8)
    ring_radius: Range = (0.5, 2.5)
    bulges: float = 0.0
    bulge_fraction: Range = (0.05, 0.5)
    bulge_radius: Range = (0.1, 0.5)
    nuclei: float = 0.0
    nucleus_fraction: Range = (0.002, 0.05)
    dust_lanes: float = 0.0
    dust_depth: Range = (0.1, 1.0)
    lopsided: float = 0.0
    lopsidedness: Range = (0.05, 0.4)
    truncated: float = 0.0
    break_radius: Range = (1.2, 3.0)
    clumps: float = 0.0
    clump_fraction: Range = (0.01, 0.15)
    twisted: float = 0.0
    twist: float = 20.0
    boxy: float = 0.0
    boxiness: Range = (-0.4, 0.6)
    modulated: float = 0.0
    modulation: Range = (0.03, 0.25)
    modulation_slope: float = 1.5

    @property
    def kinds(self) -> list[str]:
        """Kinds that occur, in the order of :data:`KINDS`."""
        return [kind for kind in KINDS if getattr(self, kind) > 0]


STRUCTURE_RANGES: dict[str, tuple[float, float]] = {
    **{f"data.structure.{name}": (0.0, 1.0) for name in ("share", *KINDS)},
    "data.structure.arm_contrast": (1e-3, 1.5),
    "data.structure.arm_pitch": (5.0, 85.0),
    "data.structure.bar_fraction": (1e-4, 0.5),
    "data.structure.ring_contrast": (1e-3, 2.0),
    "data.structure.ring_radius": (0.1, 5.0),
    "data.structure.bulge_fraction": (0.0, 0.9),
    "data.structure.bulge_radius": (0.01, 1.0),
    "data.structure.nucleus_fraction": (1e-4, 0.5),
    "data.structure.dust_depth": (1e-3, 3.0),
    "data.structure.lopsidedness": (1e-3, 1.0),
    "data.structure.break_radius": (0.3, 10.0),
    "data.structure.clump_fraction": (1e-4, 0.5),
    "data.structure.twist": (0.0, 45.0),
    "data.structure.boxiness": (-0.9, 2.0),
    "data.structure.modulation": (1e-3, 1.0),
    "data.structure.modulation_slope": (0.0, 5.0),
}
"""Smallest and largest value of each setting: the light of all added components stays below the
galaxy's (`data.structure` rescales them if necessary), and modulations stay moderate."""
