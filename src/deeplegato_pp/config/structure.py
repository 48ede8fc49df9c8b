"""The section of a configuration that says which structure simulated galaxies have."""

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
"""Kinds of structure, each with a share."""


@dataclass
class StructureConfig:
    """Structure of galaxies beyond a Sérsic profile; by default there is none.

    A structured galaxy has every kind independently, with the kind's share. Radii are in units of
    the galaxy's R_e, amplitudes are those of the logarithm of the surface brightness unless they
    are shares of the light. `docs/structure.md` compares the ranges with real galaxies.

    Attributes:
        share: Share of the galaxies that are seen (S/N above 5) and resolved (R_e above half the
            PSF's FWHM) that have structure; 0 switches it off.
        arms: Share of structured galaxies with one to four logarithmic spiral arms.
        arm_contrast: Range of the arms' amplitude, log-uniform: 0.1 is a hint of arms, 0.6 grand
            design (arms 3 times as bright as the gaps).
        arm_pitch: Range of the arms' pitch angle, uniform; tight Sa to open Sc and beyond. [deg]
        bars: Share with a bar, flat along its length.
        bar_fraction: Range of the bar's share of the light, log-uniform; a tenth is typical.
        rings: Share with a bright ring and a faint gap inside it.
        ring_contrast: Range of its amplitude, log-uniform.
        ring_radius: Range of its radius, uniform: from inner rings to outer ones.
        bulges: Share with a bulge; the rest of the galaxy is then a disc of n at most 1.5.
        bulge_fraction: Range of bulge over total light, uniform.
        bulge_radius: Range of the bulge's R_e over that of the disc, log-uniform.
        nuclei: Share with a point source in the middle.
        nucleus_fraction: Range of its share of the light, log-uniform; star clusters to AGN.
        dust_lanes: Share with a lane of dust, along the major axis if the disc is inclined
            (q below 0.5).
        dust_depth: Range of the lane's optical depth in its middle, log-uniform.
        lopsided: Share with one side brighter than the other, the more the farther out.
        lopsidedness: Range of the amplitude of that, log-uniform; a third of all discs have more
            than 0.2 in the outskirts.
        truncated: Share of discs with a break beyond which the profile is steeper (two thirds of
            these) or flatter.
        break_radius: Range of the break's radius, uniform; 1.2 R_e is two scale lengths of a disc.
        clumps: Share with 3 to 12 knots of young stars within 2.5 R_e.
        clump_fraction: Range of their share of the light together, log-uniform.
        twisted: Share whose axis ratio and position angle change with radius.
        twist: Largest turn of the major axis per unit of ln(radius). [deg]
        boxy: Share with isophotes that are no ellipses.
        boxiness: Range of c, isophotes being abs(x)^(2 + c) + abs(y/q)^(2 + c) = const, uniform:
            discy below 0, boxy above.
        modulated: Share with a smooth random modulation in ln(radius) and azimuth.
        modulation: Range of its root mean square, log-uniform.
        modulation_slope: Power of its spectrum falls with scale as
            (1 + m^2 + k^2)^(-slope), m being the order in azimuth and k the frequency in
            ln(radius).
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
        """The kinds that occur, in the order of :data:`KINDS`."""
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
"""Smallest and largest value of each knob: the light of all parts that are added stays below the
galaxy's (`data.structure` scales them down together where they would not), and what is modulated
stays a galaxy."""
