"""Report of a calibration, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deeplegato_pp.calibration.document import is_own
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS

Content = Mapping[str, Any]

FILE = "report.md"

SHORT = ("mag", "R_e", "n", "q", "PA", "x", "y")
"""Headings of the parameters' columns."""

CAPTIONS = {
    "coverage.png": "Coverage of central intervals minus nominal.",
    "ranks.png": "Ranks of the truth among the draws.",
    "reliability.png": "The same coverage in deciles of what the posterior says a galaxy is like.",
    "errors.png": "Error against S/N, beside the Cramér–Rao bound.",
    "pulls.png": "Errors in units of the posterior's width.",
    "tarp.png": "Coverage of joint regions.",
}

KNOBS = {
    "neighbours": "up to {:g} unmasked neighbours on every stamp",
    "psf_width": "a PSF {:g} times as wide as the true one",
    "noise_correlation": "noise of adjacent pixels correlated by {:g}",
    "gain_factor": "a gain {:g} times the true one",
    "sky_slope": "a sky that rises by {:g} background sigma from edge to edge",
}
"""Effects of a study's settings on the images."""

STRUCTURES = {
    "arms": "galaxies with spiral arms",
    "bars": "galaxies with bars",
    "rings": "galaxies with rings",
    "bulges": "bulges in discs",
    "nuclei": "galaxies with a point source in their middle",
    "dust_lanes": "galaxies with dust lanes",
    "lopsided": "lopsided galaxies",
    "truncated": "galaxies with a break in their profile",
    "clumps": "galaxies with clumps",
    "twisted": "galaxies whose isophotes turn",
    "boxy": "boxy and discy galaxies",
    "modulated": "galaxies with random modulation",
}
"""Effects of each kind of structure on galaxies; the truth is the best-fitting profile."""


def report(content: Content, figures: Sequence[str], baseline: Content | None = None) -> str:
    """Returns the report.

    Args:
        content: Contents of ``calibration.json``.
        figures: Names of the figures in the same folder.
        baseline: Headline figures of the model's own simulations for comparison with a study, or
            None.
    """
    parts = [
        _head(content),
        _answer(content),
        _parameters(content),
        _both_widths(content),
        _classes(content),
        _cells(content),
        _conditions(content),
    ]
    if not is_own(content):
        parts.append(_study(content, baseline))
    parts += [_verdict(content), _mending(content), _pictures(figures), _reading(content)]
    return "\n\n".join(part for part in parts if part) + "\n"


def percent(value: float | None, digits: int = 1) -> str:
    """Returns a fraction as a percentage.

    Example:
        >>> percent(0.12345), percent(None)
        ('12.3 %', '-')
    """
    return "-" if value is None else f"{100.0 * value:.{digits}f} %"


def number(value: float | None) -> str:
    """Returns a number with three significant digits, without an exponent.

    Example:
        >>> number(0.012345), number(123456.0), number(None)
        ('0.0123', '123000', '-')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):.10f}".rstrip("0").rstrip(".")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table.

    Example:
        >>> print(table(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def knobs_in_words(content: Content) -> str:
    """Returns a description of a study's, and its prior's, effects on the images."""
    study = content["simulator"]["study"]
    neutral = {"psf_width": 1.0, "gain_factor": 1.0}
    found = [
        text.format(study[name])
        for name, text in KNOBS.items()
        if study[name] != neutral.get(name, 0)
    ]
    own = content["model"].get("data", {})
    structure = content["simulator"]["data"].get("structure", {})
    if structure.get("share") and structure != own.get("structure"):
        found += [words for kind, words in STRUCTURES.items() if structure[kind]]
    conditions = content["simulator"]["data"]["conditions"]
    if conditions.get("correlated_noise") == 1.0:
        low, high = conditions["noise_correlation"]
        found.append(f"nothing: noise correlated by {low:g} to {high:g} on every stamp, and told")
    psf_error = conditions.get("psf_error")
    if psf_error and psf_error != own.get("conditions", {}).get("psf_error"):
        found.append(
            f"PSFs wider or narrower than told by {conditions['psf_error']:.0%}, one sigma"
        )
    for name, (low, high) in content["simulator"]["prior"].items():
        if [low, high] != content["model"]["prior"][name]:
            found.append(f"{name} drawn between {low:g} and {high:g}")
    return "; ".join(found) or "other conditions, nothing spoilt"


def _head(content: Content) -> str:
    model, settings = content["model"], content["settings"]
    title = f"# Calibration of {model['name']} {model['version']}".rstrip()
    source = (
        "the model's own prior and instruments"
        if is_own(content)
        else f"the simulator `{content['simulator']['name']}`: {knobs_in_words(content)}"
    )
    how = "refined with the exact engine" if settings["refine"] else "as the network gives them"
    return (
        f"{title}\n\n{content['overall']['galaxies']:,} fresh simulations from {source}; "
        f"posteriors {how}, {settings['draws']} draws each; seed {settings['seed']}."
    )


def _answer(content: Content) -> str:
    """Returns a summary in two sentences."""
    coverage, overall = content["coverage"], content["overall"]
    goal = content["goals"]["overall"]
    met = [s for s, n in zip(SHORT, NAMES, strict=True) if coverage["meets_goal"][n]]
    allowed = [s for s, n in zip(SHORT, NAMES, strict=True) if coverage["within_goal_and_band"][n]]
    band = max(
        upper - level
        for upper, level in zip(coverage["band"]["upper"], coverage["levels"], strict=True)
    )
    worst = max(NAMES, key=lambda name: abs(overall["largest_difference"][name]))
    difference = overall["largest_difference"][worst]
    sense = "wide" if difference > 0 else "narrow"
    return (
        f"**Coverage within {percent(goal, 0)} of nominal at every level:** "
        f"{', '.join(met) or 'no parameter'}. Within goal and chance together (a perfect "
        f"posterior strays by up to {percent(band)} at this number): "
        f"{', '.join(allowed) or 'no parameter'}. Farthest off: {worst}, too {sense} by "
        f"{percent(abs(difference))} at the {percent(overall['at_level'][worst], 0)} level. "
        f"The 95 % interval misses by more than 3 sigma, in any parameter, for "
        f"{percent(overall['gross_failures'], 2)} of the galaxies."
    )


def _parameters(content: Content) -> str:
    overall = content["overall"]
    rows = []
    for name, p in zip(NAMES, PARAMETERS, strict=True):
        unit = "relative" if p.scale == "log" else {"pix": "px"}.get(p.unit, p.unit)
        rows.append(
            [
                f"{name}" + (f" [{unit}]" if unit else ""),
                *(percent(overall["coverage"][str(level)][name]) for level in (0.5, 0.68, 0.95)),
                percent(overall["largest_difference"][name]),
                number(overall["rank_p_value"][name]),
                number(overall["pull_std"][name]),
                number(overall["rmse"][name]),
                number(overall["crps"][name]),
                number(overall["rmse_over_prior"][name]),
                number(overall["width_over_bound"][name]),
            ]
        )
    for name, label in (("joint", "all, highest density"), ("tarp", "all, TARP")):
        covered = [percent(overall["coverage"][str(level)][name]) for level in (0.5, 0.68, 0.95)]
        difference = percent(overall["largest_difference"][name])
        rows.append([label, *covered, difference, *("" for _ in range(6))])
    headings = [
        "", "50 %", "68 %", "95 %", "farthest off", "rank p", "pull width", "RMSE", "CRPS",
        "RMSE / prior", "width / bound",
    ]  # fmt: skip
    return "## Parameter by parameter\n\n" + table(headings, rows)


def _both_widths(content: Content) -> str:
    """Returns the coverage with the widths of the stated noise, and with honest ones."""
    overall = content["overall"]
    if overall["noise_widths"] is None:
        return ""
    rows = [
        [
            name,
            *(
                percent(widths["coverage"][level][name])
                for level in ("0.5", "0.68", "0.95")
                for widths in (overall["noise_widths"], overall)
            ),
            number(overall["noise_widths"]["inflation"][name]),
        ]
        for name in NAMES
    ]
    headings = ["", *(f"{level}, {kind}" for level in ("50 %", "68 %", "95 %")
                      for kind in ("noise", "honest")), "honest / noise width"]  # fmt: skip
    return "## Widths of the stated noise and honest ones\n\n" + table(headings, rows)


def _covered(entry: Content) -> list[str]:
    """Returns the cells of a class: coverage of the parameters' 68 % intervals, and of 95 %."""
    return [
        " / ".join(f"{100 * entry['coverage'][level][name]:.0f}" for name in NAMES)
        for level in ("0.68", "0.95")
    ]


def _classes(content: Content) -> str:
    rows = []
    for entry in content["snr_classes"]:
        sharp = " / ".join(number(entry["rmse_over_prior"][name]) for name in NAMES)
        rows.append(
            [
                snr_range(entry["snr"]),
                f"{entry['galaxies']:,}",
                *_covered(entry),
                sharp,
                number(entry["nll_median"]),
                percent(entry["gross_failures"], 2),
            ]
        )
    columns = " / ".join(SHORT)
    headings = [
        "S/N", "galaxies", f"68 % covers ({columns})", "95 % covers", "RMSE / prior",
        "NLL, median", "missed by > 3 sigma",
    ]  # fmt: skip
    return "## By signal-to-noise ratio\n\n" + table(headings, rows)


def snr_range(edges: Sequence[float | None]) -> str:
    """Returns the name of an S/N class.

    Example:
        >>> snr_range([0.0, 3.0]), snr_range([3.0, 10.0]), snr_range([500.0, None])
        ('< 3', '3-10', '> 500')
    """
    low, high = edges
    if not low:
        return f"< {high:g}"
    return f"> {low:g}" if high is None else f"{low:g}-{high:g}"


def _cells(content: Content) -> str:
    cells = content["reliability"]
    worst = cells["worst"]
    bands = ", ".join(
        f"{percent(cells['band'][str(level)][0])} to {percent(cells['band'][str(level)][1])} at "
        f"{percent(level, 0)}"
        for level in cells["levels"]
    )
    return (
        f"## Cell by cell\n\n{cells['number_of_cells']:,} cells: deciles of S/N, R_e / FWHM, n and "
        f"q as the posterior medians give them, seven parameters and the joint region, at four "
        f"levels; at least {cells['galaxies_per_cell']:,} galaxies each. "
        f"**Within {percent(cells['goal'], 0)} of nominal: "
        f"{percent(cells['share_meeting_goal'])}; within goal and chance: "
        f"{percent(cells['share_within_goal_and_band'])}.** All cells of a perfect posterior "
        f"together lie, with 95 %, in {bands}. Worst: the {percent(worst['level'], 0)} interval "
        f"of {worst['parameter']} is off by {percent(worst['difference'])} for {worst['by']} from "
        f"{number(worst['low'])} to {number(worst['high'])}."
    )


def _conditions(content: Content) -> str:
    if not content["conditions"]:
        return ""
    rows = [
        [
            entry["label"],
            f"{entry['galaxies']:,}",
            *_covered(entry),
            " / ".join(percent(error) for error in entry["binomial_error"].values()),
        ]
        for entry in content["conditions"]
    ]
    headings = [
        "", "galaxies", f"68 % covers ({' / '.join(SHORT)})", "95 % covers", "chance (1 sigma)",
    ]  # fmt: skip
    return "## By what the stamp is like\n\n" + table(headings, rows)


def _study(content: Content, baseline: Content | None) -> str:
    """Returns the loss of coverage relative to the model's own simulations, if known."""
    covered = content["overall"]["coverage"]["0.95"]
    known = baseline["coverage"]["0.95"] if baseline else None
    rows = [
        [
            name,
            percent(covered[name]),
            percent(covered[name] - 0.95),
            percent(None if known is None else covered[name] - known[name]),
        ]
        for name in (*NAMES, "joint")
    ]
    headings = ["95 % interval", "covers", "minus nominal", "minus the model's own simulations"]
    note = (
        ""
        if baseline
        else "\n\nThe last column needs the model's own calibration in its card (`--write-card`)."
    )
    return f"## How far coverage falls\n\n{table(headings, rows)}{note}"


def _verdict(content: Content) -> str:
    verdict = content["verdict"]
    if verdict is None:
        return ""
    quality = ", ".join(f"{name} {percent(share)}" for name, share in verdict["quality"].items())
    flags = sorted(verdict["flags"].items(), key=lambda entry: -entry[1])
    rows = [[f"`{name}`", percent(share)] for name, share in flags]
    caught = (
        f"of the {verdict['gross_failures']:,} whose 95 % interval misses by more than 3 sigma, "
        f"{percent(verdict['caught'])} are called bad or caution, "
        f"{percent(verdict['caught_as_bad'])} bad"
        if verdict["gross_failures"]
        else "no 95 % interval misses by more than 3 sigma"
    )
    text = (
        f"## The verdict\n\n{verdict['galaxies']:,} of the galaxies, measured as a user's would "
        f"be by the network: {quality}. {caught[0].upper()}{caught[1:]}; of the others "
        f"{percent(verdict['false_alarms'])} are called bad."
    )
    return f"{text}\n\n{table(['flag', 'share'], rows)}" if rows else text


def _mending(content: Content) -> str:
    found = content["recalibration"]
    if not found:
        return ""
    rows = [[n, percent(found["before"][n]), percent(found["after"][n])] for n in NAMES]
    return (
        "## What recalibration would change\n\nA map of each parameter's quantiles by class of "
        f"S/N, fitted on {found['fitted_on']:,} of the galaxies and judged on the other "
        f"{found['judged_on']:,}; `recalibration.json` holds the map fitted on all. It is off "
        "unless asked for, and narrows or widens a class as a whole, not a galaxy.\n\n"
        + table(["coverage, farthest from nominal", "as it is", "recalibrated"], rows)
    )


def _pictures(figures: Sequence[str]) -> str:
    shown = [f"![{CAPTIONS[name]}]({name})" for name in CAPTIONS if name in figures]
    return "## Figures\n\n" + "\n\n".join(shown) if shown else ""


def _reading(content: Content) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    return (
        "## How to read this\n\nA truth drawn from the prior and a draw from the right posterior "
        "are exchangeable, so its intervals hold the truth as often as they say. Errors of R_e and "
        "n are those of the natural logarithm. Pull width is that of (mean - truth) / posterior "
        "standard deviation, from the median absolute deviation. RMSE / prior is 1 for somebody "
        "who knows the prior only; width / bound compares with the Cramér–Rao bound, prior "
        f"included, on {content['overall']['bounds']:,} galaxies. Classes and deciles are those of "
        "the posterior's own medians: sorted by the truth, not even a perfect posterior covers "
        f"nominally.\n\nWeights `{content['model']['weights']}`; {versions}."
    )
