"""The catalogue as a library: rows one after another, from images in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from deeplegato_pp.catalog.columns import schema, to_arrow, to_qtable
from deeplegato_pp.catalog.cutouts import open_scene
from deeplegato_pp.catalog.inputs import PER_IMAGE, Inputs
from deeplegato_pp.catalog.measure import Measurer
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.plan import CHUNK, REFINED_CHUNK, Plan, Shard, crowd_of
from deeplegato_pp.catalog.positions import checked_positions
from deeplegato_pp.catalog.runner import one_process
from deeplegato_pp.catalog.sources import SourceList, as_sources
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.refine.policy import Refining
from deeplegato_pp.observation.bands import Bands
from deeplegato_pp.scene.noise import MODEL_ERROR

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator


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
        crowd = crowd_of(self.measurer.scene, self.measurer.options, self.sources)
        plan = Plan(self.sources, self.chunk, Shard(), {}, crowd)
        for _, rows in one_process(self.measurer)(plan.chunk(n) for n in plan.numbers):
            yield from rows

    def to_table(self) -> Any:
        """Returns all rows as an ``astropy.table.QTable``, draws left out."""
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
        predictor: What measures: a :class:`~deeplegato_pp.inference.Predictor`, or another object
            of the same shape.
        images: FITS file, array (H, W) or ``NDData``; or a tuple of them.
        sources: Table with ``id`` (or ``label``) and ``x``, ``y`` (0-based) or ``ra``, ``dec``:
            a file, an astropy or pandas table, a mapping, or photutils' ``SourceCatalog``.
        refine: ``"exact"``, ``"laplace"``, or None for the bare network.
        refine_rule: Which sources are refined: ``"all"``, or those that gain by it, ``"auto"``.
        fixed: Parameters held at a value for all sources, in the user's units, where refined.
        star_odds: Prior odds of a point source against a galaxy, where refined.
        model_error: Error of the model as a fraction of itself, where refined.
        widths: ``"honest"`` or ``"noise"``, see :meth:`Predictor.refine`.
        samples: Draws of the network per source.
        draws: Equally weighted draws kept in each row.
        seed: Random seed, with each source's id and position.
        batch_size: Sources that go through the network together.
        chunk: Sources cut out together.
        neighbours: What becomes of sources that overlap: ``"fit"`` them together, ``"mask"`` them
            by their segments, or ``"keep"`` them; None: fit where sources are refined, else mask
            where a segmentation is given, else keep.
        scene: What sources are fitted with, where refined, see :meth:`Predictor.refine`.
        bands: The images are these bands of the same sky, the first being the frame, and each
            source is fitted in all of them, see ``docs/bands.md``; refined, with all else as it is.
        covariance: Whether rows hold the covariances of all pairs of parameters, as columns
            ``cov_<p>_<q>``, see :meth:`Posterior.covariance`.
        **inputs: ``psf``, ``noise``, ``mask``, ``segmentation``, ``pixel_scale``,
            ``zero_point``, ``noise_correlation`` and the other fields of
            :class:`~deeplegato_pp.catalog.inputs.Inputs`.

    Returns:
        Rows to be iterated over, with ``to_table()``. A source that cannot be measured is a row
        with its reason.

    Raises:
        ConfigError: If an option is unknown, or is said of refining and nothing is refined.
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
    opened = open_scene(Inputs(found, **inputs))
    measurer = Measurer(predictor, opened, options)
    size = chunk or (CHUNK if refine is None else REFINED_CHUNK)
    listed = as_sources(sources)
    if found:
        listed = checked_positions(options.searched(opened.mosaics), replace(listed, file=None))
    return CatalogueRows(measurer, listed, size)


def _images(images: Any) -> tuple[Any, ...]:
    """The images as a tuple."""
    if images is None:
        return ()
    return tuple(images) if isinstance(images, list | tuple) else (images,)
