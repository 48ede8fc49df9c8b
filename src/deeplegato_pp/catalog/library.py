"""Catalogues from Python: an iterator of rows, from images in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from deeplegato_pp.catalog.columns import schema, to_arrow, to_qtable
from deeplegato_pp.catalog.cutouts import open_images
from deeplegato_pp.catalog.inputs import PER_IMAGE, Inputs
from deeplegato_pp.catalog.measure import Measurer
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.plan import CHUNK, REFINED_CHUNK, Plan, Shard, crowd_of
from deeplegato_pp.catalog.positions import checked_positions
from deeplegato_pp.catalog.runner import one_process
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.catalog.sources import as_sources
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.refine.policy import Refining
from deeplegato_pp.observation.bands import Bands
from deeplegato_pp.scene.noise import MODEL_ERROR

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator


@dataclass(frozen=True, eq=False)
class CatalogueRows:
    """Rows of a catalogue, measured on iteration.

    Iterating yields one dictionary per source, in the order of the list; each iteration measures
    again.

    Attributes:
        measurer: Measures the sources.
        sources: List of sources.
        chunk: Number of sources measured together.
    """

    measurer: Measurer
    sources: SourceList
    chunk: int

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        crowd = crowd_of(self.measurer.scene, self.measurer.options, self.sources)
        plan = Plan(self.sources, self.chunk, Shard(), {}, crowd)
        for _, rows in one_process(self.measurer)(plan.chunk(n) for n in plan.numbers):
            yield from rows

    def to_table(self) -> Any:
        """Returns all rows as an ``astropy.table.QTable`` without draws."""
        text = self.sources.ids.dtype.kind == "O"
        options = self.measurer.options
        columns = schema(
            bool(text),
            False,
            scene=options.scene,
            bands=options.bands,
            covariances=options.covariance,
        )
        return to_qtable(to_arrow(list(self), columns))


def catalog(
    predictor: Estimator,
    images: Any,
    sources: Any,
    *,
    refine: str | None = None,
    refine_rule: str = "all",
    fixed: Mapping[str, float] | None = None,
    star_odds: float | None = 1.0,
    model_error: float = MODEL_ERROR,
    widths: str = "honest",
    samples: int = 1000,
    draws: int = 0,
    seed: int = 0,
    batch_size: int = 64,
    chunk: int | None = None,
    neighbours: str | None = None,
    scene: str = "sersic",
    bands: Bands | None = None,
    covariance: bool = False,
    **inputs: Any,
) -> CatalogueRows:
    """Measures the sources of a mosaic, one row each, as ``deeplegato catalog`` does.

    Args:
        predictor: A :class:`~deeplegato_pp.inference.Predictor`, or another object with the same
            methods.
        images: FITS file, array (H, W) or ``NDData``; or a tuple of them.
        sources: Table with ``id`` (or ``label``) and ``x``, ``y`` (0-based) or ``ra``, ``dec``:
            a file, an astropy or pandas table, a mapping, or photutils' ``SourceCatalog``.
        refine: ``"exact"``, ``"laplace"``, or None for the network's posterior.
        refine_rule: Sources to refine: ``"all"``, or those that benefit, ``"auto"``.
        fixed: Values of fixed parameters for all sources, in the user's units, if refined.
        star_odds: Prior odds of a point source against a galaxy, if refined.
        model_error: Model error as a fraction of the model image, if refined.
        widths: ``"honest"`` or ``"noise"``, see :meth:`Predictor.refine`.
        samples: Number of the network's draws per source.
        draws: Number of equally weighted draws stored in each row.
        seed: Random seed, combined with each source's id and position.
        batch_size: Number of sources per forward pass.
        chunk: Number of sources cut out together.
        neighbours: Treatment of overlapping sources: ``"fit"`` them together, ``"mask"`` them by
            their segments, or ``"keep"`` them; None: fit if sources are refined, else mask if a
            segmentation is given, else keep.
        scene: Scene fitted to the sources, if refined, see :meth:`Predictor.refine`.
        bands: Names of the bands of the images, the first being the frame, if each source is to be
            fitted in all of them, see ``docs/bands.md``; requires default refinement.
        covariance: Whether rows contain the covariances of all pairs of parameters, as columns
            ``cov_<p>_<q>``, see :meth:`Posterior.covariance`.
        **inputs: ``psf``, ``noise``, ``mask``, ``segmentation``, ``pixel_scale``,
            ``zero_point``, ``noise_correlation`` and the other fields of
            :class:`~deeplegato_pp.catalog.inputs.Inputs`.

    Returns:
        Iterable of rows, with ``to_table()``. A source that cannot be measured is a row with the
        reason.

    Raises:
        ConfigError: If an option is unknown, or applies to refinement only and nothing is refined.
        InputError: If images or sources cannot be used.
    """
    known = {f.name for f in fields(Inputs)} - {"images"}
    unknown = sorted(set(inputs) - known)
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {sorted(known)}.")
    for name in PER_IMAGE:
        given = inputs.get(name)
        inputs[name] = () if given is None else given if isinstance(given, tuple) else (given,)
    found = _images(images)
    refining = None
    if refine is not None:
        refining = Refining(refine, refine_rule, fixed, star_odds, model_error, widths, scene)
    elif scene != "sersic":
        raise ConfigError(
            f"scene {scene} takes evidences, and nothing is refined. Add refine='exact'."
        )
    elif fixed:
        raise ConfigError(
            "fixed holds parameters while refining, and nothing is refined. Add refine='exact'."
        )
    options = Options(
        samples, seed, refining, draws, batch_size, widths, neighbours, bands, covariance
    )
    if bands is not None:
        bands.check_images(len(found))
    opened = open_images(Inputs(found, **inputs))
    measurer = Measurer(predictor, opened, options)
    size = chunk or (CHUNK if refine is None else REFINED_CHUNK)
    listed = as_sources(sources)
    if found:
        listed = checked_positions(options.searched(opened.mosaics), replace(listed, file=None))
    return CatalogueRows(measurer, listed, size)


def _images(images: Any) -> tuple[Any, ...]:
    """Returns the images as a tuple."""
    if images is None:
        return ()
    return tuple(images) if isinstance(images, list | tuple) else (images,)
