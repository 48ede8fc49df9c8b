"""The pipeline behind ``deeplegato catalog``: from a request to a catalogue."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplegato_pp._version import __version__
from deeplegato_pp.catalog.cutouts import OpenedImages, open_images
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.measure import Measurer
from deeplegato_pp.catalog.options import Options, check_neighbours
from deeplegato_pp.catalog.output import (
    check_catalogue_output,
    is_folder,
    read_catalogue,
    work_folder,
)
from deeplegato_pp.catalog.plan import (
    CHUNK,
    REFINED_CHUNK,
    Plan,
    Shard,
    crowd_of,
    describe,
    file_mark,
    fingerprint,
)
from deeplegato_pp.catalog.positions import checked_positions
from deeplegato_pp.catalog.runner import Backend, Report, Run, one_process
from deeplegato_pp.catalog.segmentation import Detection, detect
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.catalog.sources import from_columns, from_files, read_sources
from deeplegato_pp.checks import check_within
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import check_output, write_atomically
from deeplegato_pp.io.overwriting import check_outputs_apart

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """A network that can be loaded in other processes.

    Attributes:
        load: Function that loads it, given a device or None; sent to workers.
        name: Name and version, as written to tables.
        mark: Fingerprint of the network.
    """

    load: Callable[[str | None], Estimator]
    name: str
    mark: str


@dataclass(frozen=True)
class Request:
    """A request for a catalogue.

    Attributes:
        inputs: The images and what is known about them.
        output: Output file or folder.
        options: Settings of the measurement.
        sources: Table of sources, or None.
        detection: Settings of source detection, or None. Without both, each image is a cutout of
            one galaxy.
        subtract_background: Subtract the background estimated by the detection.
        chunk: Sources per chunk; None for a default that depends on the options.
        shard: Part of the chunks to process.
        resume: Continue with existing parts.
        overwrite: Delete existing parts.
        workers: Number of processes on this machine; None for this process.
        scheduler: Address of dask's scheduler.
        model_image: Output FITS file of all models, or None.
        residual_image: Output FITS file of the residual, or None.
    """

    inputs: Inputs
    output: Path
    options: Options = field(default_factory=Options)
    sources: Path | None = None
    detection: Detection | None = None
    subtract_background: bool = False
    chunk: int | None = None
    shard: Shard = field(default_factory=Shard)
    resume: bool = False
    overwrite: bool = False
    workers: int | None = None
    scheduler: str | None = None
    model_image: Path | None = None
    residual_image: Path | None = None

    def check(self) -> None:
        """Raises an error for invalid requests, before any work.

        Raises:
            InputError: If options contradict each other or an output cannot be written.
        """
        check_catalogue_output(self.output, self.options.draws)
        for path in (self.model_image, self.residual_image):
            if path is not None:
                check_output(path, (".fits",), "image")
        if self.sources is not None and self.detection is not None:
            raise InputError("--sources and --detect were both given, expected one of them.")
        if self.options.bands is not None:
            self.options.bands.check_images(len(expand(self.inputs.images)))
            if self.model_image is not None or self.residual_image is not None:
                raise InputError(
                    "images of models are drawn of one band, and there are several. Leave "
                    "--model-image and --residual-image out."
                )
        several = len(self.inputs.images) != 1 and self.options.bands is None
        if self.detection is not None and several:
            raise InputError(
                f"--detect takes one image at a time, got {len(self.inputs.images)}. Run once "
                "per image, or give --sources."
            )
        if self.subtract_background and self.detection is None:
            raise InputError(
                "--subtract-background subtracts what --detect estimates, which was not given. "
                "Add --detect, or give the background's map with --background."
            )
        if self.shard.number > 1 and not is_folder(self.output):
            raise InputError(
                f"a shard writes its part of a folder, got the file {self.output}. Give -o FOLDER, "
                "the same for all shards."
            )
        if self.workers is not None:
            check_within(self.workers, 1, MOST_WORKERS, "--workers")
        if self.workers is not None and self.scheduler is not None:
            raise InputError("--workers and --scheduler were both given, expected one of them.")

    def check_apart(self, images: list[str] | None, psfs: list[str] | None = None) -> None:
        """Raises an error, before any work, if outputs coincide with inputs or each other.

        Args:
            images: Images, with folders expanded, or cutouts of a list.
            psfs: PSFs of a list.

        Raises:
            InputError: If two are the same file.
        """
        read: dict[str, Any] = {"image": images, "PSF of the list": psfs, "list": self.sources}
        for what in ("psf", "noise", "mask", "segmentation", "background"):
            read[what] = getattr(self.inputs, what)
        outputs = {
            "--output": self.output,
            "--model-image": self.model_image,
            "--residual-image": self.residual_image,
        }
        check_outputs_apart(outputs, read)


MOST_WORKERS = 256
"""Worker processes on one machine: each holds libraries and a network, half a gigabyte."""


Progress = Callable[[int, int, bool], None]
"""Called with the total number of sources, rows just finished, and whether those are new."""


Opened = Callable[[str, str, int], None]
"""Called for each mosaic with its name, provenance and flags."""


def make_catalogue(
    request: Request, network: Network, progress: Progress, opened: Opened | None = None
) -> Report:
    """Makes a catalogue; see ``docs/catalogue.md``.

    Args:
        request: The request.
        network: The network.
        progress: Called when rows are finished.
        opened: Called for each mosaic, before any work.

    Raises:
        InputError: If an input cannot be used; nothing has been measured then.
        ConfigError: If parts of another configuration exist, or a library is missing.
        DiskFullError: If the disk is full; finished parts are kept.
    """
    request.check()
    request.check_apart(expand(request.inputs.images))
    inputs, sources = _sources(request)
    if sources.file is not None:
        cutouts, psfs = (None if c is None else list(c) for c in (sources.file, sources.psf))
        request.check_apart(cutouts, psfs)
    scene = open_images(inputs)
    if opened is not None:
        for mosaic in scene.mosaics:
            opened(mosaic.name, mosaic.provenance, mosaic.flags)
    sources = checked_positions(request.options.searched(scene.mosaics), sources)
    size = request.chunk or (CHUNK if request.options.refining is None else REFINED_CHUNK)
    configuration = describe(inputs, request.options, sources, size, network.mark)
    check_neighbours(request.options, scene)
    crowd = crowd_of(scene, request.options, sources)
    plan = Plan(sources, size, request.shard, configuration, crowd)
    total = plan.total
    run = Run(
        plan,
        request.output,
        network.name,
        request.options,
        request.resume,
        request.overwrite,
        lambda rows, new: progress(total, rows, new),
    )
    report = _run(request, run, scene, network)
    if request.model_image is not None or request.residual_image is not None:
        from deeplegato_pp.catalog.model_images import write_images

        write_images(
            scene, read_catalogue(request.output), request.model_image, request.residual_image
        )
    return report


def _run(request: Request, run: Run, scene: OpenedImages, network: Network) -> Report:
    if request.workers is None and request.scheduler is None:

        def here() -> Backend:
            measurer = Measurer(network.load(None), scene, request.options, run.seconds)
            return one_process(measurer)

        return run(here)
    from contextlib import ExitStack

    from deeplegato_pp.catalog.workers import Job, cluster, on_workers

    job = Job(run.plan.hash, network.load, _absolute(scene.inputs), request.options)
    with ExitStack() as stack:

        def there() -> Backend:
            client = stack.enter_context(cluster(request.workers, request.scheduler))
            return on_workers(client, job, network.name)

        return run(there)


def _absolute(inputs: Inputs) -> Inputs:
    """Returns the inputs with absolute paths, since workers may run in another folder."""
    changed: dict[str, Any] = {}
    for what in ("images", "psf", "noise", "mask", "segmentation", "background"):
        given = getattr(inputs, what)
        changed[what] = tuple(
            str(Path(g).resolve()) if isinstance(g, str | Path) else g for g in given
        )
    return replace(inputs, **changed)


def _sources(request: Request) -> tuple[Inputs, SourceList]:
    """Returns the list of sources, and the inputs with its additions."""
    images = expand(request.inputs.images)
    if request.detection is not None:
        return _detected(replace(request.inputs, images=tuple(images)), request)
    if request.sources is not None:
        sources = read_sources(request.sources)
        if sources.file is not None and not images:
            return replace(request.inputs, images=()), sources
        if not images:
            raise InputError(
                "a list of positions was given without an image. Give the image too, or a column "
                "file with ready-made cutouts."
            )
        return replace(request.inputs, images=tuple(images)), replace(sources, file=None)
    if not images:
        raise InputError("there is nothing to measure. Give an image with --sources or --detect.")
    return replace(request.inputs, images=()), from_files([Path(p) for p in images])


def expand(images: tuple[Any, ...]) -> list[str]:
    """Returns files, with each folder replaced by its FITS files in order of name.

    Raises:
        InputError: If a folder contains none.
    """
    found: list[str] = []
    for image in images:
        path = Path(image)
        if not path.is_dir():
            found.append(str(path))
            continue
        names = sorted(
            str(p) for p in path.iterdir() if ".fit" in p.name.lower() and p.name[0] not in "._"
        )
        if not names:
            raise InputError(f"folder {path} holds no FITS files. Give files, or another folder.")
        found += names
    return found


def _detected(inputs: Inputs, request: Request) -> tuple[Inputs, SourceList]:
    """Returns the detected sources; detections are kept for resumed runs."""
    assert request.detection is not None  # noqa: S101  # checked by the caller
    scene = open_images(inputs)
    marks = [file_mark(f) for f in (*inputs.images, *inputs.noise, *inputs.mask)]
    key = fingerprint({"how": vars(request.detection), "files": marks, "ext": inputs.extension,
                       "bits": inputs.mask_bits, "type": inputs.noise_type,
                       "version": __version__})  # fmt: skip
    folder = work_folder(request.output) / f"detected-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    segmentation, background = folder / "segmentation.fits", folder / "background.fits"
    table = folder / "sources.json"
    if not table.is_file():
        noise = inputs.of("noise", 0)
        number = float(noise) if isinstance(noise, int | float) else None
        found = detect(scene.mosaics[0], request.detection, segmentation, background, number)
        columns = {"id": found.ids.tolist(), "x": found.x.tolist(), "y": found.y.tolist()}
        write_atomically(table, json.dumps(columns).encode())
    sources = from_columns(json.loads(table.read_text(encoding="utf-8")), "the detections")
    given: dict[str, Any] = {}
    if not inputs.segmentation:
        shape = scene.mosaics[0].shape  # further bands may have other pixels
        alike = [m.shape == shape for m in scene.mosaics]
        given["segmentation"] = tuple(str(segmentation) if same else None for same in alike)
    if request.subtract_background:
        given["background"] = (str(background),)
    return replace(inputs, **given), sources
