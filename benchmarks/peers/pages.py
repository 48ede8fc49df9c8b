"""The report: one Markdown page and its figures."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

mpl.use("Agg")
import matplotlib.pyplot as plt
import merit
from programs import PROGRAMS

HEAD = """# The peers on the same galaxies

{date}, {machine}; one thread per program, times are CPU
seconds of the process. Every program gets the same image, PSF, noise, mask and start, and the
settings that its documentation recommends; programs that integrate the profile over the pixel
themselves get the simulated PSF without the pixel. Reproduce it with `make peers`, or
`python benchmarks/peers run WORK [--data FOLDER]` and `python benchmarks/peers report WORK -o
docs`.

Errors are medians of the absolute difference from the truth; an outlier is off by half a magnitude
or a factor of two in radius. Programs with fewer galaxies were given every second, fourth or so.

{not_run}
"""


def write(work: Path, output: Path) -> None:
    """Writes ``peers.md``, and its figures in ``figures``.

    Args:
        work: Folder of the run.
        output: Folder of the page.
    """
    figures = output / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(work / "answers.parquet").to_pandas()
    rows = table[table["id"] == ""]
    missing = dict(zip(rows["program"], rows.get("not_run", ""), strict=True))
    lines = "\n".join(f"Not run: {name}: {why}." for name, why in missing.items())
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    page = HEAD.format(date=date, machine=machine(), not_run=lines)
    simulated = merit.load(work, "sersic")
    if simulated is not None:
        page += "\n## Sérsic profiles, simulated by GalSim\n\n" + markdown(merit.errors(simulated))
        beside = merit.beside(simulated)
        if len(beside):
            page += "\nThe same over the errors of exact posteriors with honest widths, on the "
            page += "galaxies that both answered, with 68 % bootstrap intervals:\n\n"
            page += markdown(beside)
        page += "\nShares within one and two stated sigmas (0.68 and 0.95 are right):\n\n"
        page += markdown(merit.honesty(simulated))
        page += "\n![Errors by signal-to-noise](figures/peers_errors.png)\n"
        draw_errors(merit.errors(simulated), figures / "peers_errors.png")
        costs = merit.cost(simulated)
        page += "\n## Cost\n\n" + markdown(costs)
        if len(beside):
            page += "\n![Error against time](figures/peers_time.png)\n"
            draw_time(beside, costs, figures / "peers_time.png")
    structured = merit.load(work, "structured")
    if structured is not None:
        page += "\n## Bulges in discs, half of them with arms, simulated by GalSim\n\n"
        page += "The truth is the total magnitude and the half-light radius of the whole.\n\n"
        columns = ["program", "S/N", "galaxies", "failed", "outliers", "magnitude", "ln R_e", "q"]
        page += markdown(merit.errors(structured)[columns]) + "\n"
        page += markdown(merit.honesty(structured).drop(columns=["ln n"], errors="ignore"))
    found = merit.load(work, "real")
    if found is not None and len(found.table):
        page += "\n## Real galaxies: pulls between two images of one galaxy\n\n"
        page += "Right is 1; in brackets the scatter of the differences.\n\n"
        page += markdown(merit.pulls(found))
        page += "\n![Pulls between two images](figures/peers_pulls.png)\n"
        draw_pulls(merit.pulls(found), figures / "peers_pulls.png")
        page += "\n## Real galaxies: published fits\n\n"
        page += "Share within two sigmas, floors of the published values added; scatter.\n\n"
        page += markdown(merit.published(found))
    renderers = work / "renderers.md"
    if renderers.exists():
        page += "\n## The renderers alone\n\n" + renderers.read_text(encoding="utf-8")
    (output / "peers.md").write_text(page, encoding="utf-8")
    print(f"{output / 'peers.md'}")


def machine() -> str:
    """Returns the processor and the Python."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        models = [x for x in cpu.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, Python {platform.python_version()}"


def markdown(table: pd.DataFrame) -> str:
    """Returns a table in Markdown; empty cells where nothing is known."""
    rows = [list(table.columns), ["---"] * len(table.columns)]
    rows += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def cell(value: object) -> str:
    """Returns a number with three digits, a text as it is."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return "" if value is None else str(value)


def draw_errors(table: pd.DataFrame, path: Path) -> None:
    """Draws the errors of magnitude, radius and index by class, a line per program.

    Classes in which a program was given fewer than ten galaxies are left out.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), layout="constrained")
    order = list(dict.fromkeys(table["S/N"]))
    table = table[table["galaxies"] >= 10]
    names = [p.name for p in PROGRAMS if p.name in set(table["program"])]
    for axis, error in zip(axes, ("magnitude", "ln R_e", "ln n"), strict=True):
        for i, name in enumerate(names):
            part = table[table["program"] == name].set_index("S/N")[error].reindex(order)
            style = {"lw": 2.2, "marker": "o"} if is_ours(name) else {"marker": "s", "ms": 4}
            axis.plot(order, part.to_numpy(), color=plt.cm.tab20(i % 20), label=name, **style)
        axis.set(yscale="log", xlabel="S/N", title=f"median |error| of {error}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_time(beside: pd.DataFrame, costs: pd.DataFrame, path: Path) -> None:
    """Draws the error of the radius, over ours on the same galaxies, against seconds per galaxy."""
    figure, axis = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    seconds = costs.set_index("program")["then [s]"]
    bright = beside[beside["S/N"] == "100-1000"].set_index("program")["ln R_e"]
    ratios = bright.str.partition(" ")[0].astype(float)
    ratios[merit.REFERENCE] = 1.0
    for i, name in enumerate(sorted(ratios.index, key=lambda n: seconds[n])):
        place = seconds[name], ratios[name]
        axis.plot(*place, "o" if is_ours(name) else "s", color="C3" if is_ours(name) else "C0")
        above = 5 if i % 2 else -10
        axis.annotate(name, place, xytext=(4, above), textcoords="offset points", size=7)
    axis.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    axis.set(xscale="log", yscale="log", xlabel="CPU seconds per galaxy, after the first")
    axis.set_ylabel(f"|error| of ln R_e over that of\n{merit.REFERENCE}, S/N 100-1000", size=8)
    axis.margins(x=0.15)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_pulls(table: pd.DataFrame, path: Path) -> None:
    """Draws the pulls between two images of one real galaxy, a row per program."""
    titles = list(dict.fromkeys(table["pairs of"]))
    figure, axes = plt.subplots(
        1, len(titles), figsize=(1.5 + 4.2 * len(titles), 4.2), layout="constrained", sharey=True
    )
    names = [p.name for p in PROGRAMS if p.name in set(table["program"])][::-1]
    for axis, title in zip(np.atleast_1d(axes), titles, strict=True):
        part = table[table["pairs of"] == title].set_index("program").reindex(names)
        for marker, column in zip("osD^", ("ln R_e", "ln n", "e1", "e2"), strict=True):
            # A cell without a pull begins with the bracket of its scatter.
            pull = pd.to_numeric(part[column].str.partition(" ")[0], errors="coerce")
            axis.plot(pull, range(len(names)), marker, label=column, alpha=0.8)
        axis.axvline(1.0, color="0.6", lw=1, zorder=0)
        axis.set(
            title=title,
            xscale="log",
            xlabel="68 % of |difference| / stated error",
            xlim=(0.4, 14.0),
        )
        axis.set_yticks(range(len(names)), names, size=8)
        axis.set_xticks([0.5, 1.0, 2.0, 5.0, 10.0], ["0.5", "1", "2", "5", "10"])
        axis.minorticks_off()
    handles = np.atleast_1d(axes)[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def is_ours(name: str) -> bool:
    """Returns whether a program of the table is this one."""
    return name.startswith("DeepLeGATo")
