"""Catalogue of the sources in mosaics, for ``deeplegato catalog``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deeplegato_pp.cli import options
from deeplegato_pp.cli.bands import bands_from
from deeplegato_pp.cli.measuring import as_number
from deeplegato_pp.cli.refining import refining_from

if TYPE_CHECKING:
    from deeplegato_pp.inference import Predictor


def catalog(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            help="Mosaics, with --sources or --detect; otherwise cutouts, or folders of cutouts.",
        ),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            metavar="TABLE",
            help="Source list (.fits, .ecsv, .csv, .parquet, .vot) with id and x, y (0-based) or "
            "ra, dec; or with file, for cutouts.",
        ),
    ] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="Detect the sources with photutils.")
    ] = False,
    extension: options.Extension = None,
    plane: options.Plane = None,
    psf: Annotated[
        list[str] | None,
        typer.Option(
            "--psf",
            metavar="FILE",
            help="PSF: an image, a cube with positions, or a PSFEx model; one, or one per image.",
        ),
    ] = None,
    psf_fwhm: options.PSFWidth = None,
    psf_oversampling: options.PSFOversampling = None,
    psf_includes_pixel: options.PSFIncludesPixel = None,
    psf_even: options.PSFEven = options.EvenPSF.refuse,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise", metavar="FILE|NUMBER", help="Noise per pixel; one, or one per image."
        ),
    ] = None,
    noise_type: options.NoiseKind = None,
    gain: options.Gain = None,
    sky_sigma: options.SkySigma = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask", metavar="FILE", help="Mask image; non-zero = ignore. One, or one per image."
        ),
    ] = None,
    mask_bits: options.MaskBits = None,
    segmentation: Annotated[
        list[str] | None,
        typer.Option(
            "--segmentation",
            metavar="FILE",
            help="Segmentation map, by which neighbours are masked.",
        ),
    ] = None,
    background: Annotated[
        list[str] | None,
        typer.Option(
            "--background", metavar="FILE", help="Background map to subtract from the image."
        ),
    ] = None,
    subtract_background: Annotated[
        bool,
        typer.Option(
            "--subtract-background", help="Subtract the background that --detect estimates."
        ),
    ] = False,
    detect_threshold: Annotated[
        float,
        typer.Option(
            "--detect-threshold", metavar="SIGMA", help="Detection threshold in the smoothed image."
        ),
    ] = 1.5,
    detect_pixels: Annotated[
        int,
        typer.Option("--detect-pixels", metavar="N", help="Minimum source size: connected pixels."),
    ] = 8,
    detect_kernel: Annotated[
        float,
        typer.Option("--detect-kernel", metavar="PX", help="Smoothing before detection: FWHM."),
    ] = 3.0,
    detect_box: Annotated[
        int, typer.Option("--detect-box", metavar="PX", help="Background meshes: side.")
    ] = 128,
    detect_contrast: Annotated[
        float,
        typer.Option(
            "--detect-contrast", metavar="C", help="Deblending contrast; 1 for no deblending."
        ),
    ] = 0.005,
    pixel_scale: Annotated[
        list[float] | None,
        typer.Option(
            "--pixel-scale",
            metavar="AS",
            help="Pixel scale: arcsec per pixel; one, or one per image.",
        ),
    ] = None,
    zero_point: Annotated[
        list[float] | None,
        typer.Option(
            "--zero-point",
            metavar="ZP",
            help="Zero point: AB magnitude of one image unit; one, or one per image.",
        ),
    ] = None,
    bands: options.BandNames = None,
    band_structure: options.BandStructureOption = None,
    wavelengths: options.Wavelengths = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            max=100_000,
            help="Number of posterior draws per source.",
        ),
    ] = 1000,
    draws: Annotated[
        int,
        typer.Option(
            "--draws",
            metavar="N",
            min=0,
            max=100_000,
            help="Posterior draws stored per source (Parquet only).",
        ),
    ] = 0,
    covariance: options.Covariance = False,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Refinement: compute the exact posterior by weighting draws with the likelihood.",
        ),
    ] = False,
    refine_method: options.Method = options.RefineMethod.exact,
    refine_rule: Annotated[
        options.RefineRule,
        typer.Option(
            "--refine-rule", help="Sources to refine: all, or those that benefit from it (auto)."
        ),
    ] = options.RefineRule.all,
    fix: options.Fix = None,
    star_odds: options.StarOdds = None,
    noise_correlation: options.NoiseCorrelation = "1",
    model_error: options.ModelError = None,
    psf_error: options.PsfError = None,
    widths: options.WidthsOption = options.Widths.honest,
    scene: options.Scene = None,
    neighbours: Annotated[
        options.Neighbours | None,
        typer.Option(
            "--neighbours",
            help="Overlapping sources: fitted together, masked by their segments, or kept.",
            show_default="fit if refined, else mask with a segmentation, else keep",
        ),
    ] = None,
    model: options.ModelName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="Catalogue: .parquet, .fits, .ecsv, or a folder of Parquet files.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume: continue an earlier run.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Overwrite: discard an unfinished earlier run."),
    ] = False,
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            metavar="N",
            min=1,
            help="Sources per chunk, the unit of work.",
            show_default="128, 32 if refined",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Worker processes on this machine (dask)."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="Address of a running dask scheduler."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Part of the list: every N-th chunk, starting with the I-th.",
        ),
    ] = None,
    model_image: Annotated[
        Path | None,
        typer.Option(
            "--model-image", metavar="FILE", help="Model image: FITS image of all models."
        ),
    ] = None,
    residual_image: Annotated[
        Path | None,
        typer.Option(
            "--residual-image", metavar="FILE", help="Residual image: FITS image minus all models."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="OLD NEW",
            help="Comparison of two catalogues; nothing is measured.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Figure of the comparison.")
    ] = None,
    seed: options.Seed = 0,
) -> int:
    """Make a catalogue of posteriors, with one row per source.

    Noise, mask, data quality, WCS, pixel scale and zero point are read from the images' files
    unless given. A run that was stopped continues with --resume. A source that cannot be measured
    has a row with the reason.
    """
    from deeplegato_pp.errors import InputError

    if compare is not None:
        return _compare(*compare, plot)
    if plot is not None:
        raise InputError("--plot draws a comparison, which was not asked for. Add --compare.")
    if output is None:
        raise InputError("no output was given. Add -o FILE.parquet, .fits, .ecsv, or a folder.")
    refining = refining_from(
        refine,
        refine_method.value,
        refine_rule.value,
        fix,
        star_odds,
        model_error,
        widths.value,
        scene,
    )
    how = None if neighbours is None else neighbours.value
    given: dict[str, Any] = {
        "images": tuple(images or ()),
        "extension": options.extension_from(extension),
        "plane": plane,
        "psf": tuple(psf or ()),
        "psf_fwhm": psf_fwhm,
        "psf_oversampling": psf_oversampling,
        "psf_includes_pixel": psf_includes_pixel,
        "psf_even": psf_even.value,
        "noise": tuple(as_number(n) for n in noise or ()),
        "noise_type": None if noise_type is None else noise_type.value,
        "gain": gain,
        "sky_sigma": sky_sigma,
        "noise_correlation": as_number(noise_correlation),
        "psf_error": psf_error,
        "mask": tuple(mask or ()),
        "mask_bits": mask_bits,
        "segmentation": tuple(segmentation or ()),
        "background": tuple(background or ()),
        "pixel_scale": tuple(pixel_scale or ()),
        "zero_point": tuple(zero_point or ()),
    }
    options.check_finite_numbers(given)
    together = bands_from(
        bands,
        None if band_structure is None else band_structure.value,
        wavelengths,
        {"--no-refine": not refine, "--star-odds": star_odds is not None, "--fix": fix},
    )
    from deeplegato_pp.catalog.inputs import Inputs
    from deeplegato_pp.catalog.plan import Shard
    from deeplegato_pp.io.overwriting import check_outputs_apart
    from deeplegato_pp.models.storage import find

    folder = find(model)  # before heavy imports, so that a wrong name fails immediately
    outputs = {"-o": output, "--model-image": model_image, "--residual-image": residual_image}
    check_outputs_apart(outputs, {"model's file": list(Path(folder).glob("*"))})
    from deeplegato_pp.catalog.options import Options
    from deeplegato_pp.catalog.pipeline import Request
    from deeplegato_pp.catalog.segmentation import Detection

    found = None
    if detect:
        found = Detection(
            detect_threshold, detect_pixels, detect_kernel, detect_box, detect_contrast
        )
    request = Request(
        inputs=Inputs(**given),
        output=output,
        options=Options(
            samples,
            seed,
            refining,
            draws,
            widths=widths.value,
            neighbours=how,
            bands=together,
            covariance=covariance,
        ),
        sources=sources,
        detection=found,
        subtract_background=subtract_background,
        chunk=chunk,
        shard=Shard.parse(shard),
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        scheduler=scheduler,
        model_image=model_image,
        residual_image=residual_image,
    )
    return _make(request, Path(folder))


def load_predictor(folder: str, device: str | None) -> Predictor:
    """Loads the network; also called by workers."""
    from deeplegato_pp.inference import Predictor

    return Predictor.from_pretrained(folder, device)


def _make(request: Any, folder: Path) -> int:
    from deeplegato_pp.catalog.pipeline import Network, make_catalogue
    from deeplegato_pp.catalog.plan import model_mark
    from deeplegato_pp.cli.catalog_display import ProgressLines, print_report, warnings_shown
    from deeplegato_pp.cli.display import provenance_line

    name = _model_name(folder)
    network = Network(partial(load_predictor, str(folder)), name, model_mark(folder, name))
    from deeplegato_pp.cli.signals import noted_when_stopped

    def opened(mosaic: str, provenance: str, flags: int) -> None:
        print(provenance_line(mosaic, provenance, flags), flush=True)

    note = "Finished chunks are safe; go on with --resume."
    with warnings_shown(), noted_when_stopped(note), ProgressLines() as lines:
        report = make_catalogue(request, network, lines, opened)
    print_report(report)
    return 0 if report.measured else 2


def _model_name(folder: Path) -> str:
    """Returns name and version of a network from its card."""
    import json

    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder.name
    card = content.get("card", {})
    return f"{card.get('name', folder.name)} {card.get('version', content.get('version', ''))}"


def _compare(old: Path, new: Path, plot: Path | None) -> int:
    from deeplegato_pp.catalog.compare import compare
    from deeplegato_pp.catalog.output import read_catalogue
    from deeplegato_pp.catalog.plots import SUFFIXES, plot_comparison
    from deeplegato_pp.cli.catalog_display import print_comparison
    from deeplegato_pp.io.files import check_output
    from deeplegato_pp.io.overwriting import check_outputs_apart

    if plot is not None:
        check_output(plot, SUFFIXES, "plot")
        check_outputs_apart({"--plot": plot}, {"catalogue": [old, new]})
    comparison = compare(read_catalogue(old), read_catalogue(new))
    print_comparison(comparison)
    if plot is not None:
        plot_comparison(comparison, plot)
    return 0
