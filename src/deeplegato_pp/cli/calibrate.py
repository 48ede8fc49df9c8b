"""Calibration of a model's error bars with simulations, for ``deeplegato calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplegato_pp.cli import options


def calibrate(
    model: options.ModelName = None,
    number: Annotated[
        int, typer.Option("-n", "--number", metavar="N", help="Number of simulated galaxies.")
    ] = 10_000,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Calibrate the refined posterior (about a second per galaxy).",
        ),
    ] = False,
    simulator: Annotated[
        str | None,
        typer.Option(
            "--simulator",
            metavar="CONFIG",
            help="Configuration of the simulations: YAML file, or name of a packaged one, that "
            "modifies the model's own: another prior, other conditions, or a study of a defect "
            "(studies/neighbours, studies/wide_psf, ...).",
            show_default="the model's own",
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", metavar="N", help="Number of posterior draws per galaxy.")
    ] = 300,
    detailed: Annotated[
        int,
        typer.Option(
            "--detailed",
            metavar="N",
            help="Number of galaxies, from the first, with a verdict and a Cramér-Rao bound.",
        ),
    ] = 2000,
    ess: Annotated[
        float,
        typer.Option("--ess", metavar="N", help="Effective sample size of refined galaxies."),
    ] = 400.0,
    widths: options.WidthsOption = options.Widths.honest,
    model_error: options.ModelError = None,
    psf_error: Annotated[
        float | None,
        typer.Option(
            "--psf-error",
            metavar="F",
            help="PSF error: relative standard error of the width of the simulations' PSFs, also "
            "used in the refinement.",
            show_default="the simulator's own, 0",
        ),
    ] = None,
    seed: options.Seed = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Resume: continue from the part files in DIR, or delete them.",
        ),
    ] = True,
    write_card: Annotated[
        bool,
        typer.Option("--write-card", help="Model card: write the headline figures to it."),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for calibration.json, figures and report.md; part files in DIR/parts.",
        ),
    ] = Path("calibration"),
) -> None:
    """Measure a model's calibration with new simulations, with figures and a report.

    Galaxies are drawn from the model's prior and conditions, or from another configuration. A run
    that was stopped is continued, also with a larger N.
    """
    from deeplegato_pp.models.storage import RECALIBRATION, find

    folder = find(model)  # before heavy imports, so that a wrong name fails immediately
    from deeplegato_pp.calibration.document import FILE as DOCUMENT
    from deeplegato_pp.calibration.report import FILE as REPORT
    from deeplegato_pp.calibration.run import check_folder
    from deeplegato_pp.calibration.settings import Settings, Simulations
    from deeplegato_pp.io.overwriting import check_outputs_apart

    if model_error is not None and not refine:
        from deeplegato_pp.errors import ConfigError

        raise ConfigError("--model-error belongs to the refined posterior. Add --refine.")
    from deeplegato_pp.scene.noise import MODEL_ERROR

    error = MODEL_ERROR if model_error is None else model_error
    settings = Settings(number, seed, draws, detailed, refine, ess, widths.value, error)
    options.check_psf_error(psf_error)
    check_folder(output)
    files = [output / name for name in (DOCUMENT, REPORT, RECALIBRATION)]
    check_outputs_apart({"--output": files}, {"configuration": simulator})
    from deeplegato_pp.inference import Predictor

    predictor = Predictor.from_pretrained(folder)
    simulations = Simulations.of(predictor.model, simulator, seed, psf_error)
    from deeplegato_pp.calibration.run import measure
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.cli.signals import noted_when_stopped

    note = "Finished parts are safe; the same command goes on with them."
    with noted_when_stopped(note), progress("calibrating", number) as advance:
        galaxies = measure(predictor, simulations, settings, output, resume=resume, advance=advance)
    from deeplegato_pp.calibration.document import document
    from deeplegato_pp.calibration.publish import publish

    content = document(predictor.model, simulations, settings, galaxies)
    for path in publish(content, galaxies, output, folder, write_card=write_card):
        typer.echo(f"written: {path}")
    _tell(content)


def _tell(content: dict[str, Any]) -> None:
    """Prints the headline figures."""
    from deeplegato_pp.calibration.document import headline
    from deeplegato_pp.calibration.report import percent

    found = headline(content)
    worst, cell = found["largest_difference"], found["worst_cell"]
    typer.echo(
        f"{found['galaxies']:,} galaxies: coverage at most {percent(abs(worst['value']))} from "
        f"nominal at any level ({worst['parameter']}), worst cell {percent(cell['difference'])} "
        f"({cell['parameter']} by {cell['by']}), missed by more than 3 sigma "
        f"{percent(found['gross_failures'], 2)}"
    )
