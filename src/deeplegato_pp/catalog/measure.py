"""One chunk of sources: cut, measured, refined where it helps, and made into rows."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.catalog.blends import holds_another
from deeplegato_pp.catalog.columns import DRAWS, draws_of
from deeplegato_pp.catalog.cutouts import Cutout, Scene, open_scene
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.positions import find_places
from deeplegato_pp.catalog.sources import SourceList
from deeplegato_pp.checks import check_choice, check_positive_integer
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.isolation import isolated, reason_of
from deeplegato_pp.observation.binning import GOAL_RADIUS
from deeplegato_pp.observation.sky_frames import pixel_to_icrs
from deeplegato_pp.scene.parameters import RADIUS

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator
    from deeplegato_pp.inference.refine.policy import Refining

LARGEST_CUTOUT = 8
"""Side of the largest cutout, in stamps: what a galaxy too large for one is measured on."""


@dataclass(frozen=True)
class Options:
    """How sources are measured.

    Attributes:
        samples: Draws of the network per source.
        seed: Random seed, with each source's id and position.
        refining: How sources are refined, or None for the bare network.
        draws: Equally weighted draws kept per source in the table; 0 for none.
        batch: Sources that go through the network together.
        widths: Of what is not refined, ``honest`` or ``noise``.
    """

    samples: int = 1000
    seed: int = 0
    refining: Refining | None = None
    draws: int = 0
    batch: int = 64
    widths: str = "honest"

    def __post_init__(self) -> None:
        check_positive_integer(self.samples, "samples")
        check_positive_integer(self.batch, "batch")
        check_choice(self.widths, WIDTHS, "widths")


@dataclass(frozen=True, eq=False)
class Chunk:
    """Sources that are cut, measured and written together.

    Attributes:
        number: Of the chunk in the list.
        sources: Its sources.
    """

    number: int
    sources: SourceList


@dataclass(frozen=True, eq=False)
class Measurer:
    """Measures chunks of one scene with one network.

    Attributes:
        predictor: The network.
        scene: The images.
        options: How.
        seconds: What has been spent on what.
    """

    predictor: Estimator
    scene: Scene
    options: Options
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        if self.options.refining is not None:
            self.options.refining.check(self.predictor.prior)

    def rows(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Returns the rows of a chunk, one per source, in order.

        Where something breaks that was not foreseen, each source is measured alone, and one that
        breaks alone is a failed row.
        """

        def together(rows: Sequence[int]) -> list[dict[str, Any]]:
            part = chunk
            if len(rows) < len(chunk.sources):
                part = replace(chunk, sources=chunk.sources[list(rows)])
            cut = self.cut(part)
            return self.finish(part, cut, self.infer(part, cut))

        def failed(i: int, error: Exception) -> dict[str, Any]:
            single = replace(chunk, sources=chunk.sources[[i]])
            return as_failed(single, reason_of(error), self.predictor.name)[0]

        return isolated(range(len(chunk.sources)), together, failed)

    def cut(self, chunk: Chunk) -> list[Cutout]:
        """Reads the cutouts of a chunk."""
        with _timed(self.seconds, "cut"):
            places = find_places(self.scene.mosaics, chunk.sources)
            side = self.predictor.image_size
            return [
                self.scene.cutout(chunk.sources, i, place, side) for i, place in enumerate(places)
            ]

    def infer(self, chunk: Chunk, cutouts: list[Cutout]) -> Posterior:
        """Returns the posteriors of a chunk; sources without cutout are failed ones.

        A galaxy too large for the stamp is cut out again, wider, and put in `cutouts`.
        """
        with _timed(self.seconds, "network"):
            found = self._posteriors(chunk, list(range(len(cutouts))), cutouts)
            wide = self._recut(chunk, cutouts, found)
            if wide:
                again = self._posteriors(chunk, wide, cutouts)
                for i, row in zip(wide, again, strict=True):
                    found[i] = row
            posterior = Posterior.concatenate(found)
        refining = self.options.refining
        if refining is None:
            return posterior
        with _timed(self.seconds, "refine"):
            seeds = [chunk.sources.seed(i, self.options.seed) for i in range(len(cutouts))]
            return refining.apply(self.predictor, posterior, seeds)

    def finish(
        self, chunk: Chunk, cutouts: list[Cutout], posterior: Posterior
    ) -> list[dict[str, Any]]:
        """Returns the rows of measured sources."""
        with _timed(self.seconds, "rows"):
            rows = posterior.rows()
            kept = self._kept_draws(chunk, posterior)
            return [
                self._row(chunk.sources, i, cutouts[i], row) | ({DRAWS: kept[i]} if kept else {})
                for i, row in enumerate(rows)
            ]

    # --- measuring ----------------------------------------------------------------------------

    def _posteriors(
        self, chunk: Chunk, chosen: list[int], cutouts: list[Cutout]
    ) -> list[Posterior]:
        """One posterior per chosen source, each a batch of one."""
        seen = [i for i in chosen if cutouts[i].observation is not None]
        found: dict[int, Posterior] = {}
        if seen:
            measured = self.predictor.posterior(
                [cutouts[i].observation for i in seen],  # type: ignore[misc]
                self.options.samples,
                [chunk.sources.seed(i, self.options.seed) for i in seen],
                self.options.batch,
                # Refining starts from the network's own draws.
                self.options.widths if self.options.refining is None else "noise",
            )
            found = {i: measured[[k]] for k, i in enumerate(seen)}
        for i in chosen:
            if i not in found:
                found[i] = self._failed(chunk.sources, i, cutouts[i].reason)
        return [found[i] for i in chosen]

    def _failed(self, sources: SourceList, i: int, reason: str) -> Posterior:
        measurement = Measurement(name=sources.label(i), reason=reason, model=self.predictor.name)
        return Posterior.failed(measurement, self.options.samples, self.predictor.image_size)

    def _recut(self, chunk: Chunk, cutouts: list[Cutout], found: list[Posterior]) -> list[int]:
        """Cuts out again, wider, the galaxies that were too large; returns which."""
        if chunk.sources.file is not None:
            return []
        stamp, wide = self.predictor.image_size, []
        for i, row in enumerate(found):
            m = row.measurements[0]
            if m.observation is None or not m.flags & (Flag.BINNED | Flag.TOO_LARGE):
                continue
            radius = float(row.batch_samples[0, :, RADIUS].median()) / m.observation.pixel_scale
            factor = min(max(2, math.ceil(radius / GOAL_RADIUS)), LARGEST_CUTOUT)
            wider = self.scene.cutout(chunk.sources, i, cutouts[i].place, factor * stamp)
            if wider.observation is not None:
                cutouts[i] = wider
                wide.append(i)
        return wide

    # --- rows ---------------------------------------------------------------------------------

    def _kept_draws(self, chunk: Chunk, posterior: Posterior) -> list[Any] | None:
        number = self.options.draws
        if number == 0:
            return None
        kept: list[Any] = []
        for i, m in enumerate(posterior.measurements):
            if not m.measured:
                kept.append(None)
                continue
            seed = chunk.sources.seed(i, self.options.seed)
            kept.append(draws_of(posterior[[i]].draws(number, seed)[0].numpy()))
        return kept

    def _row(
        self, sources: SourceList, i: int, cutout: Cutout, row: dict[str, Any]
    ) -> dict[str, Any]:
        """Puts a row of results into its place in the mosaic."""
        place = cutout.place
        own: dict[str, Any] = {
            "id": _plain_id(sources.ids[i]),
            **self._sky(sources, i, place),
            "x_source": _number(place.x),
            "y_source": _number(place.y),
            "image": None if sources.file is None else str(sources.file[i]),
        }
        if place.image >= 0:
            own["image"] = self.scene.mosaics[place.image].name
        for name, shift in (("x", cutout.left), ("y", cutout.bottom)):
            if row[name] is not None:
                row[name] += shift
        flags = int(row["flags"])
        if place.image >= 0:
            flags &= ~int(Flag.CROPPED)  # a wide cutout is ours, not the user's image
        if sources.duplicate is not None and bool(sources.duplicate[i]):
            flags |= Flag.DUPLICATE
        if _holds_another(sources, i, row):
            flags |= Flag.SAME_OBJECT
            if row["quality"] == "good":
                row["quality"] = Flag.SAME_OBJECT.level
        row |= {"flags": int(flags), "flag_names": ",".join(Flag.names(flags))}
        refined = int(row["method"] not in (None, "amortized"))
        return own | row | {"refined": refined}

    def _sky(self, sources: SourceList, i: int, place: Any) -> dict[str, Any]:
        ra, dec = _number(sources.ra[i]), _number(sources.dec[i])
        if (ra is None or dec is None) and place.image >= 0:
            wcs = self.scene.mosaics[place.image].wcs
            if wcs is not None:
                sky = pixel_to_icrs(wcs, place.x, place.y)
                ra, dec = _number(sky[0][0]), _number(sky[1][0])
        return {"ra": ra, "dec": dec}


def _holds_another(sources: SourceList, i: int, row: dict[str, Any]) -> bool:
    """Whether a row's fit takes in another source of the list."""
    radius, scale, fwhm = (row[k] for k in ("effective_radius_pix", "pixel_scale", "psf_fwhm"))
    if radius is None or scale is None or fwhm is None or sources.nearest_px is None:
        return False
    distance = float(sources.nearest_px[i])
    if not math.isfinite(distance) and sources.nearest_arcsec is not None:
        distance = float(sources.nearest_arcsec[i]) / scale
    return holds_another(distance, radius, fwhm)


def open_measurer(load: Callable[[], Estimator], inputs: Inputs, options: Options) -> Measurer:
    """Returns a measurer, with the network loaded and the images open.

    Args:
        load: Loads the network.
        inputs: The images.
        options: How sources are measured.
    """
    return Measurer(load(), open_scene(inputs), options)


def _plain_id(value: Any) -> int | str:
    return int(value) if isinstance(value, np.integer) else str(value)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


class _timed:
    """Adds the seconds of a block to a counter."""

    def __init__(self, seconds: defaultdict[str, float], what: str) -> None:
        self.seconds, self.what = seconds, what

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.what] += time.perf_counter() - self.started


def as_failed(chunk: Chunk, reason: str, model: str) -> list[dict[str, Any]]:
    """Returns the rows of a chunk of which nothing is known but why."""
    rows = []
    for i in range(len(chunk.sources)):
        measurement = Measurement(name=chunk.sources.label(i), reason=reason, model=model)
        row = Posterior.failed(measurement, 1, 1).rows()[0]
        own: dict[str, Any] = {"id": _plain_id(chunk.sources.ids[i]), "refined": 0}
        own |= {name: _number(getattr(chunk.sources, name)[i]) for name in ("ra", "dec")}
        rows.append(own | row)
    return rows
