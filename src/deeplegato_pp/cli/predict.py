"""Posteriors of galaxies in FITS files, for ``deeplegato predict``."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from deeplegato_pp.cli import options
from deeplegato_pp.cli.bands import EACH, bands_from, measure_bands, per_band
from deeplegato_pp.cli.galfit import (
    check_imgblock,
    galfit_input,
    held_fixed,
    measure_galfit,
    scene_asked_for,
)
from deeplegato_pp.cli.measuring import (
    Measuring,
    Outputs,
    as_number,
    configuration_of,
    measure_files,
    plot_columns_from,
)
from deeplegato_pp.cli.refining import fixed_values, refining_from
from deeplegato_pp.cli.signals import noted_when_stopped
from deeplegato_pp.errors import InputError


def predict(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE...", help="FITS files, one galaxy each.")
    ] = None,
    psf: Annotated[
        list[str] | None,
        typer.Option("--psf", metavar="FILE", help="PSF image, effective and odd-sized." + EACH),
    ] = None,
    psf_fwhm: Annotated[
        list[float] | None,
        typer.Option(
            "--psf-fwhm",
            metavar="PX",
            help="PSF width: FWHM of a Moffat profile, used instead of a PSF." + EACH,
        ),
    ] = None,
    psf_oversampling: options.PSFOversampling = None,
    psf_includes_pixel: options.PSFIncludesPixel = None,
    psf_even: options.PSFEven = options.EvenPSF.refuse,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            "--noise",
            metavar="FILE|NUMBER",
            help="Noise per pixel: an image or a number." + EACH,
        ),
    ] = None,
    noise_type: options.NoiseKind = None,
    gain: Annotated[
        list[float] | None,
        typer.Option(
            "--gain",
            metavar="G",
            help="Gain: electrons per image unit. The noise is then that of the background only."
            + EACH,
        ),
    ] = None,
    sky_sigma: options.SkySigma = None,
    mask: Annotated[
        list[str] | None,
        typer.Option("--mask", metavar="FILE", help="Mask image; non-zero = ignore." + EACH),
    ] = None,
    mask_bits: options.MaskBits = None,
    pixel_scale: Annotated[
        list[float] | None,
        typer.Option("--pixel-scale", metavar="AS", help="Pixel scale: arcsec per pixel." + EACH),
    ] = None,
    zero_point: Annotated[
        list[float] | None,
        typer.Option(
            "--zero-point", metavar="ZP", help="Zero point: AB magnitude of one image unit." + EACH
        ),
    ] = None,
    extension: options.Extension = None,
    plane: options.Plane = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            metavar="N",
            min=1,
            max=1_000_000,
            help="Number of posterior draws per galaxy.",
        ),
    ] = 1000,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Refinement: compute the exact posterior by weighting draws with the likelihood.",
        ),
    ] = True,
    refine_method: options.Method = options.RefineMethod.exact,
    refine_rule: Annotated[
        options.RefineRule,
        typer.Option(
            "--refine-rule",
            help="Galaxies to refine: all, or those above S/N 10 or with a poor fit (auto).",
        ),
    ] = options.RefineRule.all,
    recalibrated: Annotated[
        bool,
        typer.Option(
            "--recalibrated",
            help="Recalibrate the network's draws with quantiles measured on simulations. Requires "
            "--no-refine, and a model with a fit of deeplegato calibrate.",
        ),
    ] = False,
    fix: options.Fix = None,
    star_odds: options.StarOdds = None,
    scene: options.Scene = None,
    bands: options.BandNames = None,
    band_structure: options.BandStructureOption = None,
    wavelengths: options.Wavelengths = None,
    noise_correlation: options.NoiseCorrelation = "1",
    model_error: options.ModelError = None,
    psf_error: options.PsfError = None,
    widths: options.WidthsOption = options.Widths.honest,
    model: options.ModelName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Table of results: .ecsv, .fits, .parquet or .json.",
        ),
    ] = None,
    samples_output: Annotated[
        Path | None,
        typer.Option("--samples-output", metavar="FILE", help="Posterior draws: .npz or .parquet."),
    ] = None,
    covariance: options.Covariance = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Figure: .png, .pdf, .svg or .jpg; for several images one file each, named FILE "
            "with a number and the image's name.",
        ),
    ] = None,
    plot_columns: Annotated[
        str | None,
        typer.Option(
            "--plot-columns",
            metavar="NAME,NAME,...",
            help="Columns of the figure's corner plot, including those of a scene's components.",
            show_default="the seven parameters, or the columns of a scene that fit",
        ),
    ] = None,
    galfit: Annotated[
        Path | None,
        typer.Option(
            "--galfit",
            metavar="FILE",
            help="GALFIT input file, used instead of images: its files, region, zero point, sky "
            "and components (one or two profiles, or a profile and a psf).",
        ),
    ] = None,
    imgblock: Annotated[
        Path | None,
        typer.Option(
            "--imgblock",
            metavar="FILE",
            help="Image block: FITS file of image, model and residual with GALFIT's keywords; for "
            "several images one file each, named as for --plot.",
        ),
    ] = None,
    seed: options.Seed = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume: keep finished rows of an interrupted run of the same command; modified "
            "images are measured again.",
        ),
    ] = False,
) -> int:
    """Measure galaxies: the posterior of seven Sérsic parameters from each image.

    Noise, mask, PSF, pixel scale and zero point are read from the image's file unless given; given
    values apply to all images. A file that cannot be measured is reported on standard error and has
    a row with the reason. With --bands the files are one galaxy in several bands.
    """
    columns = plot_columns_from(plot_columns)
    outputs = Outputs(output, samples_output, plot, imgblock, plot_columns=columns)
    outputs.check()
    if covariance and output is None:
        raise InputError("--covariance adds columns to a table, and none is written. Add -o FILE.")
    check_imgblock(imgblock)
    names = list(images or [str(galfit)])
    options.check_psf_error(psf_error)
    repeated = per_band(
        None if bands is None else bands.split(","),
        psf=psf,
        psf_fwhm=psf_fwhm,
        noise=None if noise is None else [as_number(n) for n in noise],
        gain=gain,
        mask=mask,
        pixel_scale=pixel_scale,
        zero_point=zero_point,
    )
    given = {"image": names, "PSF": psf, "noise map": repeated["noise"], "mask": mask}
    outputs.check_apart([names[0]] if bands is not None else names, given)
    reading: dict[str, Any] = repeated | {
        "psf_oversampling": psf_oversampling,
        "psf_includes_pixel": psf_includes_pixel,
        "psf_even": psf_even.value,
        "noise_type": None if noise_type is None else noise_type.value,
        "sky_sigma": sky_sigma,
        "noise_correlation": as_number(noise_correlation),
        "psf_error": psf_error,
        "mask_bits": mask_bits,
        "extension": options.extension_from(extension),
        "plane": plane,
    }
    options.check_finite_numbers(reading)
    together = bands_from(
        bands,
        None if band_structure is None else band_structure.value,
        wavelengths,
        {
            "--galfit": galfit,
            "--imgblock": imgblock,
            "--resume": resume,
            "--recalibrated": recalibrated,
            "--no-refine": not refine,
            "--refine-rule auto": refine_rule is options.RefineRule.auto,
            "--fix": fix,
            "--scene": scene,
            "--star-odds": star_odds is not None,
        },
    )
    if together is not None:
        together.check_images(len(names))
    feedme = galfit_input(galfit, images, reading)
    if feedme is not None and resume:
        raise InputError("--resume goes on with many images, and --galfit names one. Leave it out.")
    fix = [*(fix or []), *held_fixed(feedme, refine)]
    outputs = replace(outputs, fixed=tuple(fixed_values(fix)))
    refining = refining_from(
        refine,
        refine_method.value,
        refine_rule.value,
        fix,
        star_odds,
        model_error,
        widths.value,
        scene_asked_for(feedme, scene, refine),
    )
    if recalibrated and refine:
        raise InputError(
            "--recalibrated is for the bare network: exact posteriors need none. Add --no-refine."
        )
    from deeplegato_pp.models.storage import find

    folder = find(model)  # before heavy imports, so that a wrong name fails immediately
    outputs.check_apart(names, {"model's file": list(Path(folder).glob("*"))})
    from deeplegato_pp.inference import Predictor

    predictor = Predictor.from_pretrained(folder, recalibrated=recalibrated)
    from deeplegato_pp.catalog.plan import model_mark
    from deeplegato_pp.cli.display import print_rows
    from deeplegato_pp.flags import Flag

    how = Measuring(samples, seed, refining, widths.value, covariance)
    if together is not None:
        rows = measure_bands(predictor, names, reading, together, how, outputs)
    elif feedme is not None:
        posterior, rows = measure_galfit(predictor, feedme, names[0], how)
        outputs.draw(posterior, [0], names, feedme.frame)
        outputs.write([posterior], rows)
    else:
        mark = f"{model_mark(Path(folder), predictor.name)}, recalibrated={recalibrated}"
        journal = outputs.journal(configuration_of(reading, how, mark), resume)
        note = "Nothing was written: give --output to keep rows as they come."
        if journal is not None:
            note = f"Finished rows are safe in {journal.path}; go on with --resume."
        with journal or nullcontext(), noted_when_stopped(note):
            rows = measure_files(predictor, names, reading, how, outputs, journal)
    print_rows(rows)
    return 0 if any(not row["flags"] & Flag.FAILED for row in rows) else 2
