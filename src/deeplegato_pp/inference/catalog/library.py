"""The catalogue as a library: rows one after another, from images in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.catalog.columns import schema, to_arrow, to_qtable
from deeplegato_pp.inference.catalog.inputs import Inputs
from deeplegato_pp.inference.catalog.measure import Measurer, Options
from deeplegato_pp.inference.catalog.plan import CHUNK, REFINED_CHUNK, Plan, Shard
from deeplegato_pp.inference.catalog.runner import one_process
from deeplegato_pp.inference.catalog.scene import open_scene
from deeplegato_pp.inference.catalog.sources import SourceList, as_sources
from deeplegato_pp.inference.refining import Refining

if TYPE_CHECKING:
    from deeplegato_pp.inference.predictor import Predictor

PLURAL = ("psf", "noise", "mask", "segmentation", "background")


@dataclass(frozen=True, eq=False)
class CatalogueRows:
    """The rows of a catalogue, measured while they are asked for.

    Iterating yields one dictionary per source, in the order of the list; each iteration measures
    anew.

    Attributes:
        measurer: What measures.
        sources: The list.
        chunk: Sources measured together.
    """

    measurer: Measurer
    sources: SourceList
    chunk: int

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        plan = Plan(self.sources, self.chunk, Shard(), {})
        for _, rows in one_process(self.measurer)(plan.chunk(n) for n in plan.numbers):
            yield from rows

    def to_table(self) -> Any:
        """Returns all rows as an ``astropy.table.QTable``, draws left out."""
        text = self.sources.ids.dtype.kind == "O"
        return to_qtable(to_arrow(list(self), schema(bool(text), False)))


def catalogue_rows(
    predictor: Predictor,
    images: Any,
    sources: Any,
    *,
    refine: str | None = None,
    refine_rule: str = "all",
    model_error: float = 0.0,
    samples: int = 1000,
    draws: int = 0,
    seed: int = 0,
    batch_size: int = 64,
    chunk: int | None = None,
    **inputs: Any,
) -> CatalogueRows:
    """Returns the rows of a catalogue; see :meth:`Predictor.catalog`."""
    known = {f.name for f in fields(Inputs)} - {"images"}
    unknown = sorted(set(inputs) - known)
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {sorted(known)}.")
    for name in PLURAL:
        given = inputs.get(name)
        inputs[name] = () if given is None else given if isinstance(given, tuple) else (given,)
    found, taken = _images(images)
    for name, value in taken.items():
        if not inputs.get(name):
            inputs[name] = value
    refining = None
    if refine is not None:
        refining = Refining(refine, refine_rule, model_error=model_error)
    options = Options(samples, seed, refining, draws, batch_size)
    measurer = Measurer(predictor, open_scene(Inputs(found, **inputs)), options)
    size = chunk or (CHUNK if refine is None else REFINED_CHUNK)
    listed = as_sources(sources)
    if found:
        listed = replace(listed, file=None)
    return CatalogueRows(measurer, listed, size)


def _images(images: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The images as a tuple, and what an astropy ``NDData`` brings along."""
    if images is None:
        return (), {}
    if isinstance(images, list | tuple):
        return tuple(images), {}
    if not hasattr(images, "uncertainty"):
        return (images,), {}
    taken: dict[str, Any] = {"wcs": images.wcs}
    if images.mask is not None:
        taken["mask"] = (np.asarray(images.mask),)
    if images.uncertainty is not None:
        from deeplegato_pp.fits_extensions import UNCERTAINTY_TYPES

        kind = type(images.uncertainty).__name__
        taken["noise"] = (np.asarray(images.uncertainty.array),)
        taken["noise_type"] = UNCERTAINTY_TYPES.get(kind, "sigma")
    return (np.asarray(images.data),), taken
