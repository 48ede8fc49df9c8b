"""Measurement of one chunk of sources: cutouts, network, refinement and rows."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.catalog.bands import cutout_in_bands, galaxy_of
from deeplegato_pp.catalog.blends import holds_another
from deeplegato_pp.catalog.chunks import Chunk
from deeplegato_pp.catalog.columns import AFTER, DRAWS, draws_of
from deeplegato_pp.catalog.cutouts import Cutout, OpenedImages, open_images
from deeplegato_pp.catalog.grouping import Found, groups_of, neighbours_from
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.options import Options, check_neighbours
from deeplegato_pp.catalog.positions import Position, find_positions
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.catalog.strays import leaves_segment, nearest_distance, ran_away
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.neighbours import CLOSEST, Neighbours
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.isolation import isolated, reason_of
from deeplegato_pp.observation.binning import GOAL_RADIUS
from deeplegato_pp.observation.sky_frames import pixel_to_icrs
from deeplegato_pp.scene.parameters import RADIUS

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator

LARGEST_CUTOUT = 8
"""Maximum side of a cutout, in stamps, for galaxies too large for one stamp."""


@dataclass(frozen=True, eq=False)
class Measurer:
    """Measures chunks of one scene with one network.

    Attributes:
        predictor: The network.
        scene: The images.
        options: Settings.
        seconds: Time spent, by task.
    """

    predictor: Estimator
    scene: OpenedImages
    options: Options
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        if self.options.refining is not None:
            self.options.refining.check(self.predictor.prior)
        check_neighbours(self.options, self.scene)

    def rows(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Returns the rows of a chunk, one per source, in order.

        If an unexpected error occurs, each source is measured alone, and a source that fails alone
        becomes a failed row.
        """

        def together(rows: Sequence[int]) -> list[dict[str, Any]]:
            part = chunk if len(rows) == len(chunk.sources) else chunk.part(rows)
            cut = self.cut(part)
            return self.finish(part, cut, self.infer(part, cut))

        def failed(i: int, error: Exception) -> dict[str, Any]:
            return as_failed(chunk.part([i]), reason_of(error), self.predictor.name)[0]

        return isolated(range(len(chunk.sources)), together, failed)

    def cut(self, chunk: Chunk) -> list[Cutout]:
        """Reads the cutouts of a chunk."""
        with _timed(self.seconds, "cut"):
            return self._cutouts(chunk.sources)

    def infer(self, chunk: Chunk, cutouts: list[Cutout]) -> Posterior:
        """Returns the posteriors of a chunk; sources without cutout become failed rows.

        A galaxy too large for the stamp is cut out again, wider, and replaced in `cutouts`.
        """
        if self.options.bands is not None:
            with _timed(self.seconds, "refine"):
                return Posterior.concatenate(self._network(chunk.sources, cutouts))
        with _timed(self.seconds, "network"):
            found = self._network(chunk.sources, cutouts)
        refining = self.options.refining
        if refining is None:
            return Posterior.concatenate(found)
        with _timed(self.seconds, "refine"):
            start, neighbours = list(found), None
            if self.options.fits_neighbours:
                neighbours = self._beside(chunk, cutouts, start)
            seeds = [chunk.sources.seed(i, self.options.seed) for i in range(len(cutouts))]
            posterior = Posterior.concatenate(start)
            refined = refining.apply(self.predictor, posterior, seeds, neighbours)
            return self._without_runaways(chunk.sources, cutouts, found, refined)

    def finish(
        self, chunk: Chunk, cutouts: list[Cutout], posterior: Posterior
    ) -> list[dict[str, Any]]:
        """Returns the rows of measured sources."""
        with _timed(self.seconds, "rows"):
            rows = posterior.rows(self.options.covariance)
            kept = self._kept_draws(chunk, posterior)
            finished = []
            for i, row in enumerate(rows):
                single = posterior[[i]]
                found = self._row(chunk.sources, i, cutouts[i], row, single)
                finished.append(found | ({DRAWS: kept[i]} if kept else {}))
            return finished

    # --- measuring ----------------------------------------------------------------------------

    def _cutouts(self, sources: SourceList) -> list[Cutout]:
        positions = find_positions(self.options.searched(self.scene.mosaics), sources)
        side = self.predictor.image_size
        return [self._cutout(sources, i, position, side) for i, position in enumerate(positions)]

    def _cutout(self, sources: SourceList, i: int, position: Position, side: int) -> Cutout:
        masked = self.options.neighbours != "keep"
        if self.options.bands is None:
            return self.scene.cutout(sources, i, position, side, masked=masked)
        return cutout_in_bands(
            self.scene, self.options.bands.names, sources, i, position, side, masked
        )

    def _network(self, sources: SourceList, cutouts: list[Cutout]) -> list[Posterior]:
        """Returns the network's posteriors, each a batch of one; large galaxies are cut again."""
        found = self._posteriors(sources, list(range(len(cutouts))), cutouts)
        wide = self._recut(sources, cutouts, found)
        again = self._posteriors(sources, wide, cutouts)
        for i, row in zip(wide, again, strict=True):
            found[i] = row
        return found

    def _beside(
        self, chunk: Chunk, cutouts: list[Cutout], found: list[Posterior]
    ) -> list[Neighbours | None]:
        """Returns the neighbours that are fitted with each source.

        If a segmentation masks them, the source is cut out and measured again, in `found`.
        """
        around = None
        if chunk.around is not None:
            cut = self._cutouts(chunk.around)
            around = Found(chunk.around, cut, self._network(chunk.around, cut))
        groups = groups_of(Found(chunk.sources, cutouts, found), around)
        neighbours: list[Neighbours | None] = []
        shown = list(cutouts)
        for i, (group, candidates) in enumerate(groups):
            others = [candidates[k] for k in group.others]
            neighbours.append(neighbours_from(cutouts[i], others) if others else None)
            if others and cutouts[i].segment is not None:
                position, side = cutouts[i].position, len(cutouts[i].segment)  # type: ignore[arg-type]
                beside = [(e.x, e.y) for e in others]
                shown[i] = self.scene.cutout(chunk.sources, i, position, side, beside=beside)
        anew = [i for i, cutout in enumerate(shown) if cutout is not cutouts[i]]
        for i, row in zip(anew, self._posteriors(chunk.sources, anew, shown), strict=True):
            found[i] = row
        for i, (group, _) in enumerate(groups):
            if group.cut:
                found[i] = _flagged(found[i], Flag.GROUP_CUT)
        return neighbours

    def _without_runaways(
        self,
        sources: SourceList,
        cutouts: list[Cutout],
        network: list[Posterior],
        refined: Posterior,
    ) -> Posterior:
        """Returns refined rows, or the network's if refinement moved to a neighbour."""
        lost: dict[int, str] = {}
        for i, m in enumerate(refined.measurements):
            if m.measured and m.method != "amortized":
                reason = ran_away(refined[[i]], network[i], cutouts[i], sources, i)
                if reason:
                    lost[i] = reason
        if not lost:
            return refined
        rows = [refined[[i]] for i in range(len(refined))]
        kept = self._posteriors(sources, list(lost), cutouts, self.options.widths)
        for (i, reason), row in zip(lost.items(), kept, strict=True):
            rows[i] = _flagged(row, Flag.RUNAWAY, f"refining ran away: {reason}")
        return Posterior.concatenate(rows)

    def _posteriors(
        self,
        sources: SourceList,
        chosen: list[int],
        cutouts: list[Cutout],
        widths: str | None = None,
    ) -> list[Posterior]:
        """Returns one posterior per selected source, each a batch of one."""
        if widths is None:  # refinement starts from the network's own draws
            widths = self.options.widths if self.options.refining is None else "noise"
        seen = [i for i in chosen if cutouts[i].observation is not None]
        found: dict[int, Posterior] = {}
        if seen and self.options.bands is not None:
            assert self.options.refining is not None  # noqa: S101  # bands are always refined
            measured = self.predictor.fit_bands(
                [galaxy_of(self.options.bands, cutouts[i]) for i in seen],
                self.options.bands.structure,
                seed=[sources.seed(i, self.options.seed) for i in seen],
                model_error=self.options.refining.model_error,
                widths=self.options.widths,
                num_samples=self.options.samples,
                method=self.options.refining.method,
            )
            found = {i: measured[[k]] for k, i in enumerate(seen)}
        elif seen:
            measured = self.predictor.posterior(
                [cutouts[i].observation for i in seen],  # type: ignore[misc]
                self.options.samples,
                [sources.seed(i, self.options.seed) for i in seen],
                self.options.batch,
                widths,
            )
            found = {i: measured[[k]] for k, i in enumerate(seen)}
        for i in chosen:
            if i not in found:
                found[i] = self._failed(sources, i, cutouts[i].reason)
        return [found[i] for i in chosen]

    def _failed(self, sources: SourceList, i: int, reason: str) -> Posterior:
        measurement = Measurement(name=sources.label(i), reason=reason, model=self.predictor.name)
        return Posterior.failed(measurement, self.options.samples, self.predictor.image_size)

    def _recut(
        self, sources: SourceList, cutouts: list[Cutout], found: list[Posterior]
    ) -> list[int]:
        """Cuts out galaxies that were too large again, wider; returns which."""
        if sources.file is not None:
            return []
        stamp, wide = self.predictor.image_size, []
        for i, row in enumerate(found):
            m = row.measurements[0]
            if m.observation is None or not m.flags & (Flag.BINNED | Flag.TOO_LARGE):
                continue
            radius = float(row.batch_samples[0, :, RADIUS].median()) / m.observation.pixel_scale
            factor = min(max(2, math.ceil(radius / GOAL_RADIUS)), LARGEST_CUTOUT)
            wider = self._cutout(sources, i, cutouts[i].position, factor * stamp)
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
        self,
        sources: SourceList,
        i: int,
        cutout: Cutout,
        row: dict[str, Any],
        posterior: Posterior,
    ) -> dict[str, Any]:
        """Builds the catalogue row of a posterior, with positions in the mosaic."""
        position = cutout.position
        own: dict[str, Any] = {
            "id": _plain_id(sources.ids[i]),
            **self._sky(sources, i, position),
            "x_source": _number(position.x),
            "y_source": _number(position.y),
            "image": None if sources.file is None else str(sources.file[i]),
        }
        if position.image >= 0:
            own["image"] = self.scene.mosaics[position.image].name
        for name, shift in (("x", cutout.left), ("y", cutout.bottom)):
            if row[name] is not None:
                row[name] += shift
        flags = int(row["flags"])
        if position.image >= 0:
            flags &= ~int(Flag.CROPPED)  # the wide cutout is not the user's image
        if sources.duplicate is not None and bool(sources.duplicate[i]):
            flags |= Flag.DUPLICATE
        m = posterior.measurements[0]
        together = m.member is not None and m.neighbours is not None
        if _holds_another(sources, i, row, together):
            flags |= Flag.SAME_OBJECT
        reason = leaves_segment(posterior, cutout)
        if reason:
            flags |= Flag.OFF_SEGMENT
            row["notes"] = "; ".join([*([row["notes"]] if row["notes"] else []), reason])
        row |= {"flags": int(flags), "flag_names": ",".join(Flag.names(flags))}
        row["quality"] = replace(m, flags=int(flags)).quality
        refined = int(row["method"] not in (None, "amortized"))
        size = 1 + len(m.neighbours) if together and m.neighbours is not None else 1
        return own | row | {"refined": refined, "group_size": size}

    def _sky(self, sources: SourceList, i: int, position: Any) -> dict[str, Any]:
        ra, dec = _number(sources.ra[i]), _number(sources.dec[i])
        if (ra is None or dec is None) and position.image >= 0:
            wcs = self.scene.mosaics[position.image].wcs
            if wcs is not None:
                sky = pixel_to_icrs(wcs, position.x, position.y)
                ra, dec = _number(sky[0][0]), _number(sky[1][0])
        return {"ra": ra, "dec": dec}


def _holds_another(
    sources: SourceList, i: int, row: dict[str, Any], together: bool = False
) -> bool:
    """Returns whether a row's fit includes another source of the list.

    If sources were fitted together, this is only possible for sources at the same position.
    """
    radius, scale, fwhm = (row[k] for k in ("effective_radius_pix", "pixel_scale", "psf_fwhm"))
    if radius is None or scale is None or fwhm is None:
        return False
    distance = nearest_distance(sources, i, scale)
    return distance < CLOSEST if together else holds_another(distance, radius, fwhm)


def _flagged(posterior: Posterior, flag: Flag, note: str = "") -> Posterior:
    """Returns a posterior of one source with an additional flag and note."""
    m = posterior.measurements[0]
    notes = (*m.notes, note) if note else m.notes
    return replace(posterior, measurements=[replace(m, flags=int(m.flags | flag), notes=notes)])


def open_measurer(load: Callable[[], Estimator], inputs: Inputs, options: Options) -> Measurer:
    """Builds a measurer, loading the network and opening the images.

    Args:
        load: Function that loads the network.
        inputs: The images.
        options: Settings of the measurement.
    """
    return Measurer(load(), open_images(inputs), options)


def _plain_id(value: Any) -> int | str:
    return int(value) if isinstance(value, np.integer) else str(value)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


class _timed:
    """Context manager that adds the duration of a block to a counter."""

    def __init__(self, seconds: defaultdict[str, float], what: str) -> None:
        self.seconds, self.what = seconds, what

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.what] += time.perf_counter() - self.started


def as_failed(chunk: Chunk, reason: str, model: str) -> list[dict[str, Any]]:
    """Returns failed rows for a chunk, with the reason."""
    rows = []
    for i in range(len(chunk.sources)):
        measurement = Measurement(name=chunk.sources.label(i), reason=reason, model=model)
        row = Posterior.failed(measurement, 1, 1).rows()[0]
        own: dict[str, Any] = {"id": _plain_id(chunk.sources.ids[i]), **dict.fromkeys(AFTER, 0)}
        own |= {name: _number(getattr(chunk.sources, name)[i]) for name in ("ra", "dec")}
        rows.append(own | row)
    return rows
