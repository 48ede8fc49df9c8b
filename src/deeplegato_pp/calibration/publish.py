"""Output of a calibration: JSON, figures, report, and model card if requested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deeplegato_pp.calibration import card, document, report
from deeplegato_pp.calibration.figures import draw_figures
from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.calibration.recalibration_effect import fit_recalibration
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.models.storage import RECALIBRATION


def publish(
    content: dict[str, Any],
    galaxies: MeasuredGalaxies,
    output: Path,
    folder: Path,
    *,
    write_card: bool = False,
) -> list[Path]:
    """Writes all results of a calibration.

    Args:
        content: Result of :func:`~deeplegato_pp.calibration.document.document`.
        galaxies: Measured galaxies; if recalibration is assessed, the map is fitted to all of them.
        output: Output folder.
        folder: Folder of the model, with whose card a study is compared.
        write_card: Whether figures are written to that card.

    Returns:
        Paths of the written files.
    """
    path = output / document.FILE
    document.write_document(content, path)
    names = draw_figures(content, output)
    figures = card.read_figures(folder)
    baseline = figures.get(card.REFINED if content["settings"]["refine"] else card.NETWORK)
    if baseline and baseline["weights"] != content["model"]["weights"]:
        baseline = None
    page = output / report.FILE
    with written_whole(page) as temporary:
        temporary.write_text(report.report(content, names, baseline), encoding="utf-8")
    written = [path, page, *(output / name for name in names)]
    places = [output, folder] if write_card else [output]
    if content["recalibration"]:
        fitted = fit_recalibration(galaxies, content["settings"]["draws"])
        weights = content["model"]["weights"]
        written += [fitted.save(place / RECALIBRATION, weights) for place in places]
    return written + (card.write_card(folder, content) if write_card else [])
