"""Help of the commands, with options in groups."""

from __future__ import annotations

from typing import Any

import typer.core

GROUPS: dict[str, tuple[str, ...]] = {
    "Input": (
        "images",
        "sources",
        "galfit",
        "extension",
        "plane",
        "pixel_scale",
        "zero_point",
        "mask",
        "mask_bits",
        "segmentation",
        "background",
        "subtract_background",
        "bands",
        "band_structure",
        "wavelengths",
        "compare",
    ),
    "Detection": (
        "detect",
        "detect_threshold",
        "detect_pixels",
        "detect_kernel",
        "detect_box",
        "detect_contrast",
    ),
    "PSF": (
        "psf",
        "psf_fwhm",
        "psf_oversampling",
        "psf_includes_pixel",
        "psf_even",
        "psf_error",
    ),
    "Noise and sky": (
        "noise",
        "noise_type",
        "gain",
        "noise_correlation",
        "sky_sigma",
    ),
    "Posterior": (
        "model",
        "samples",
        "widths",
        "recalibrated",
        "seed",
    ),
    "Refinement": (
        "refine",
        "refine_method",
        "refine_rule",
        "scene",
        "neighbours",
        "fix",
        "star_odds",
        "model_error",
    ),
    "Output": (
        "output",
        "samples_output",
        "draws",
        "covariance",
        "plot",
        "plot_columns",
        "imgblock",
        "model_image",
        "residual_image",
        "marks",
        "title",
        "port",
        "browser",
    ),
    "Running": (
        "resume",
        "overwrite",
        "chunk",
        "workers",
        "scheduler",
        "shard",
    ),
}
"""Headings and their parameters, in order."""

FEW = 14
"""Maximum number of options for help without headings."""


class GroupedCommand(typer.core.TyperCommand):
    """Command whose help shows options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, the options of each group, and the remaining options."""
        left = {p.name: p for p in self.get_params(ctx)}
        arguments = [n for n, p in left.items() if p.param_type_name == "argument"]
        _write("Arguments", [left.pop(n) for n in arguments], ctx, formatter)
        if len(left) > FEW:
            for heading, names in GROUPS.items():
                found = [left.pop(name) for name in names if name in left]
                _write(heading, found, ctx, formatter)
        _write("Options", list(left.values()), ctx, formatter)


def _write(heading: str, parameters: list[Any], ctx: Any, formatter: Any) -> None:
    records = [r for r in (p.get_help_record(ctx) for p in parameters) if r is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)
