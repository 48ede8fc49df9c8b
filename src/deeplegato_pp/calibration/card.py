"""Calibration in the model card: ``README.md`` and ``figures.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeplegato_pp.calibration.document import headline, is_own
from deeplegato_pp.calibration.report import (
    SHORT,
    knobs_in_words,
    number,
    percent,
    snr_range,
    table,
)
from deeplegato_pp.errors import FormatError
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.models.card import CALIBRATION, CARD, with_part
from deeplegato_pp.models.storage import FIGURES
from deeplegato_pp.scene.parameters import NAMES

NETWORK, REFINED, STUDIES = "network", "refined", "studies"
REFINED_STUDIES = "refined_studies"
REAL = "real_galaxies"
"""Sections of ``figures.json``: simulations and studies, unrefined and refined; real galaxies."""


def read_figures(folder: Path) -> dict[str, Any]:
    """Returns a model's headline figures; empty if there are none in this format.

    Raises:
        FormatError: If the file is not JSON.
    """
    path = folder / FIGURES
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Delete it or write it anew.") from error
    return content if isinstance(content, dict) else {}


def write_card(folder: Path, content: Mapping[str, Any]) -> list[Path]:
    """Writes a calibration to the model card.

    ``figures.json`` contains the headline figures of the model's own simulations, unrefined and
    refined, and of each study; those of other weights are removed. The section of ``README.md``
    between two markers is rewritten from them, or appended.

    Args:
        folder: Folder of the model.
        content: Contents of ``calibration.json``.

    Returns:
        Paths of the written files.
    """
    figures = _of_weights(read_figures(folder), content["model"]["weights"])
    entry = {**headline(content), "snr_classes": _classes(content)}
    if not is_own(content):
        entry["what"] = knobs_in_words(content)
        section_name = REFINED_STUDIES if entry["refined"] else STUDIES
        figures.setdefault(section_name, {})[content["simulator"]["name"]] = entry
    else:
        figures[REFINED if entry["refined"] else NETWORK] = entry
    return _save(folder, figures)


def write_real_galaxies(
    folder: Path, weights: str, pulls: Mapping[str, Any], published: Mapping[str, Any]
) -> list[Path]:
    """Writes to the model card how error bars hold on real galaxies.

    Args:
        folder: Folder of the model.
        weights: Digest of the weights that measured them.
        pulls: By group of images, ``pairs``, and by kind of error bar the values within which 68 %
            of pulls between two images of one galaxy lie, by parameter.
        published: Number of ``galaxies``, and by kind of error bar the fractions of published fits
            within two standard deviations, by parameter.

    Returns:
        Paths of the written files.
    """
    figures = _of_weights(read_figures(folder), weights)
    figures[REAL] = {"weights": weights, "pulls": dict(pulls), "published": dict(published)}
    return _save(folder, figures)


def _save(folder: Path, figures: Mapping[str, Any]) -> list[Path]:
    """Writes figures, and the section of the card that shows them."""
    path, card = folder / FIGURES, folder / CARD
    with written_whole(path) as temporary:
        text = json.dumps(figures, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    before = (
        card.read_text(encoding="utf-8") if card.is_file() else f"# The model `{folder.name}`\n"
    )
    with written_whole(card) as temporary:
        temporary.write_text(_with_section(before, section(figures)), encoding="utf-8")
    return [path, card]


def section(figures: Mapping[str, Any]) -> str:
    """Returns the section of the card on calibration, in Markdown."""
    parts = ["## Calibration", "Measured by `deeplegato calibrate`; intervals are central ones."]
    for name, title in ((NETWORK, "The network"), (REFINED, "Refined")):
        if name in figures:
            parts.append(_own_section(title, figures[name]))
    if figures.get(STUDIES):
        parts.append(_studies_section(figures))
    if figures.get(REFINED_STUDIES):
        parts.append(_widths_section(figures))
    if REAL in figures:
        parts.append(_real_section(figures[REAL]))
    return "\n\n".join(parts)


def headline_lines(figures: Mapping[str, Any]) -> list[str]:
    """Returns the headline figures for the terminal, one per line."""
    lines = []
    for name, title in ((NETWORK, "network"), (REFINED, "refined")):
        entry = figures.get(name)
        if entry:
            worst, cell = entry["largest_difference"], entry["worst_cell"]
            lines += [
                f"{title}, {entry['galaxies']:,} simulations: coverage at most "
                f"{percent(abs(worst['value']))} off at any level ({worst['parameter']}); worst "
                f"decile cell {percent(cell['difference'])} ({cell['parameter']} by {cell['by']}); "
                f"missed by more than 3 sigma: {percent(entry['gross_failures'], 2)}",
            ]
    if REAL in figures:
        lines += _real_lines(figures[REAL])
    for name, entry in figures.get(REFINED_STUDIES, {}).items():
        noise, honest = _both(entry, "0.95")
        lines.append(
            f"study {name}, refined: 95 % intervals cover {noise} with the stated noise's widths, "
            f"{honest} with honest ones"
        )
    for name, entry in figures.get(STUDIES, {}).items():
        lines.append(
            f"study {name}: 95 % intervals cover {_covers(entry)}; gross failures "
            f"{percent(entry['gross_failures'])}, caught {percent(entry['caught'])}"
        )
    return lines


def _of_weights(figures: dict[str, Any], digest: str) -> dict[str, Any]:
    """Returns the entries of the given weights."""
    kept = {
        name: figures[name]
        for name in (NETWORK, REFINED, REAL)
        if figures.get(name, {}).get("weights") == digest
    }
    for part in (STUDIES, REFINED_STUDIES):
        if part in figures:
            entries = figures[part].items()
            kept[part] = {n: e for n, e in entries if e["weights"] == digest}
    return kept


def _classes(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("snr", "galaxies", "coverage", "rmse_over_prior", "nll_median", "gross_failures")
    return [{name: entry[name] for name in names} for entry in content["snr_classes"]]


def _own_section(title: str, entry: Mapping[str, Any]) -> str:
    worst, cell = entry["largest_difference"], entry["worst_cell"]
    text = (
        f"### {title}\n\n{entry['galaxies']:,} fresh simulations of its own prior and conditions "
        f"(seed {entry['seed']}). Farthest from nominal at any level: {worst['parameter']}, by "
        f"{percent(worst['value'])}; jointly {percent(entry['joint_difference'])}. "
        f"Worst cell (deciles of estimated S/N, R_e/PSF, n, q): the "
        f"{percent(cell['level'], 0)} interval of {cell['parameter']} by {cell['by']}, "
        f"{percent(cell['difference'])}; {percent(entry['cells_meeting_goal'])} of the cells are "
        f"within 3 %. Missed by more than 3 sigma: {percent(entry['gross_failures'], 2)}."
    )
    rows = [
        [
            snr_range(row["snr"]),
            f"{row['galaxies']:,}",
            *(
                " / ".join(f"{100 * row['coverage'][level][name]:.0f}" for name in NAMES)
                for level in ("0.68", "0.95")
            ),
            " / ".join(number(row["rmse_over_prior"][name]) for name in NAMES),
        ]
        for row in entry["snr_classes"]
    ]
    headings = [
        "estimated S/N", "galaxies", f"68 % covers ({' / '.join(SHORT)})", "95 % covers",
        "RMSE / prior's",
    ]  # fmt: skip
    verdict = ""
    if entry["judged"]:
        verdict = (
            f"\n\nWith the noise's widths the verdict called {percent(entry['bad'])} of "
            f"{entry['judged']:,} bad, {percent(entry['false_alarms'])} of those that do not fail "
            "grossly."
        )
    return f"{text}\n\n{table(headings, rows)}{verdict}"


def _studies_section(figures: Mapping[str, Any]) -> str:
    own = figures.get(NETWORK)
    rows = []
    if own:
        rows.append(_study_row("own", "nothing is wrong", own))
    rows += [_study_row(name, entry["what"], entry) for name, entry in figures[STUDIES].items()]
    headings = [
        "simulator", "what is wrong", "95 % covers, lowest to highest", "missed by > 3 sigma",
        "of those called bad or caution", "bad", "bad without failing",
    ]  # fmt: skip
    return "### When the image is not what the network was told\n\n" + table(headings, rows)


def _widths_section(figures: Mapping[str, Any]) -> str:
    """Returns the coverage of refined posteriors with both kinds of widths, by study."""
    rows = []
    entries = figures[REFINED_STUDIES].items()
    if REFINED in figures:
        entries = [("own", {**figures[REFINED], "what": "nothing is wrong"}), *entries]
    for name, entry in entries:
        covered = [text for level in ("0.68", "0.95") for text in _both(entry, level)]
        rows.append([f"`{name}`", entry["what"], f"{entry['galaxies']:,}", *covered])
    headings = [
        "simulator", "what is wrong", "galaxies", f"68 % covers ({' / '.join(SHORT)}), noise",
        "honest", "95 % covers, noise", "honest",
    ]  # fmt: skip
    return "### Refined, with the stated noise's widths and with honest ones\n\n" + table(
        headings, rows
    )


def _real_section(entry: Mapping[str, Any]) -> str:
    """Returns pulls between images of the same galaxies, and the coverage of published fits."""
    rows = [
        [group, str(found["pairs"]), kind, *(f"{v:.2f}" for v in values.values())]
        for group, found in entry["pulls"].items()
        for kind, values in found["kinds"].items()
    ]
    pulls = table(["images", "pairs", "error bars", *_names(entry["pulls"])], rows)
    published = entry["published"]
    text = (
        "### Real galaxies\n\nDifferences between two images of one galaxy over their combined "
        "error: the value within which 68 % of them lie, 1 for right errors.\n\n" + pulls
    )
    if not published.get("galaxies"):
        return text
    rows = [
        [kind, *(f"{v:.2f}" for v in values.values())]
        for kind, values in published["kinds"].items()
    ]
    headings = ["error bars", *next(iter(published["kinds"].values()))]
    return (
        f"{text}\n\nFractions of {published['galaxies']} published fits within two standard "
        f"deviations:\n\n{table(headings, rows)}"
    )


def _names(pulls: Mapping[str, Any]) -> list[str]:
    """Returns the parameters of pulls."""
    return [n for found in list(pulls.values())[:1] for n in next(iter(found["kinds"].values()))]


def _real_lines(entry: Mapping[str, Any]) -> list[str]:
    """Returns the pulls for the terminal, one group and kind of error bar per line."""
    lines = []
    for group, found in entry["pulls"].items():
        for kind, values in found["kinds"].items():
            cells = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
            lines.append(
                f"real galaxies, {group}, {found['pairs']} pairs, {kind}: 68 % of pulls within "
                f"{cells}"
            )
    return lines


def _both(entry: Mapping[str, Any], level: str) -> tuple[str, str]:
    """Returns the coverage of all parameters in per cent, with noise and honest widths."""
    honest = " / ".join(f"{100 * entry['coverage'][level][name]:.0f}" for name in NAMES)
    known = entry.get("noise_widths")
    if known is None:  # refined with noise widths only
        return honest, "-"
    return " / ".join(f"{100 * known['coverage'][level][name]:.0f}" for name in NAMES), honest


def _study_row(name: str, what: str, entry: Mapping[str, Any]) -> list[str]:
    return [
        f"`{name}`",
        what,
        _covers(entry),
        percent(entry["gross_failures"]),
        percent(entry["caught"]),
        percent(entry["caught_as_bad"]),
        percent(entry["false_alarms"]),
    ]


def _covers(entry: Mapping[str, Any]) -> str:
    covered = {name: entry["coverage"]["0.95"][name] for name in NAMES}
    low, high = min(covered, key=lambda n: covered[n]), max(covered, key=lambda n: covered[n])
    return f"{percent(covered[low])} ({low}) to {percent(covered[high])} ({high})"


def _with_section(text: str, new: str) -> str:
    """Returns a card with its section replaced or appended."""
    renewed = with_part(text, CALIBRATION, new)
    if renewed is None:
        begin, end = CALIBRATION
        renewed = f"{text.rstrip()}\n\n{begin}\n{new}\n{end}\n"
    return renewed
