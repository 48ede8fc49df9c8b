"""Files of simulated galaxies: FITS stamps that `Observation.from_fits` reads, or one archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp.config.schema import DataConfig
from deeplegato_pp.data.conditions import WELL_SAMPLED
from deeplegato_pp.data.sersic_simulator import SersicSimulator, Truth
from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS

BATCH = 64
"""Number of galaxies simulated together; results for a seed depend on it."""


@dataclass(frozen=True)
class SimulatedStamp:
    """One simulated galaxy, in image units.

    Attributes:
        name: File name without suffix.
        params: True parameters, with shape (7,).
        image: Image with shape (N, N); 0 where masked.
        noise: Total noise map, as by a pipeline, with shape (N, N).
        mask: True for pixels to ignore, with shape (N, N).
        psf: PSF with shape (43, 43), one sample per pixel, sum 1.
        snr: Signal-to-noise ratio.
        psf_fwhm: FWHM of the PSF. [px]
    """

    name: str
    params: np.ndarray
    image: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    psf: np.ndarray
    snr: float
    psf_fwhm: float


def file_simulator(
    config: DataConfig, *, clean: bool, truth: Truth | None = None
) -> SersicSimulator:
    """Returns a simulator whose stamps are completely described by their files.

    Noise maps are total and pixels independent (the layout has neither gain nor correlation), and
    PSFs are well sampled with one sample per pixel (FWHM of 2.5 px or more).

    Args:
        config: Data section of a configuration.
        clean: Omit structure, masks, neighbours, partial stamps and uneven noise.
        truth: Function that finds the best-fitting profiles of galaxies with structure, if any.

    Raises:
        RangeError: If the configuration has no well-sampled PSF.
    """
    conditions = config.conditions.clean() if clean else config.conditions
    lower, upper = config.conditions.psf_fwhm
    if upper <= WELL_SAMPLED:
        raise RangeError(
            f"data.conditions.psf_fwhm ends at {upper} px, and files need PSFs wider than "
            f"{WELL_SAMPLED} px. Widen it."
        )
    conditions = replace(
        conditions,
        fixed_variance=1.0,
        correlated_noise=0.0,
        source_in_map=config.conditions.source_in_map,
        psf_fwhm=(max(lower, WELL_SAMPLED), upper),
    )
    simulator = SersicSimulator.from_config(config, clean=clean, truth=truth)
    simulator.conditions = conditions
    return simulator


def simulate_stamps(simulator: SersicSimulator, number: int, seed: int) -> Iterator[SimulatedStamp]:
    """Yields simulated galaxies; the first ones of a seed do not depend on their number.

    Raises:
        RangeError: If `number` is not positive.
    """
    if number < 1:
        raise RangeError(f"the number of galaxies must be at least 1, got {number}.")
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, number, BATCH):
        scene = simulator.sample_scene(BATCH, generator)
        for i in range(min(BATCH, number - start)):
            psf = scene.psf.native[i].numpy()
            yield SimulatedStamp(
                name=f"galaxy_{start + i:06d}",
                params=scene.params[i].numpy(),
                image=scene.stamps.image[i].numpy(),
                noise=scene.stamps.sigma[i].numpy(),
                mask=scene.stamps.mask[i].numpy(),
                psf=psf,
                snr=float(scene.snr[i]),
                psf_fwhm=psf_fwhm(psf),
            )


def check_simulation_output(path: Path) -> None:
    """Checks before any work that an archive or folder can be written.

    Raises:
        InputError: If the archive's folder, or the folder's parent, is missing, or the path exists
            with another type.
    """
    if path.suffix:
        check_output(path, (".npz",), "simulation")
    elif path.exists() and not path.is_dir():
        raise InputError(f"simulation {path} is a file, expected a folder or a name.npz.")
    elif not path.is_dir() and not path.parent.is_dir():
        raise InputError(f"simulation {path}: folder {path.parent} does not exist. Make it first.")


def write_simulation(
    simulator: SersicSimulator,
    number: int,
    seed: int,
    path: Path,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Simulates galaxies into files.

    Args:
        simulator: Result of :func:`file_simulator`.
        number: Number of galaxies.
        seed: Random seed.
        path: A folder, created if necessary, for FITS stamps ``galaxy_000000.fits``, ... in the
            layout of ``astropy.nddata.CCDData`` and ``truth.ecsv``; or a file ``.npz`` with arrays
            ``image``, ``noise``, ``mask`` (B, N, N), ``psf`` (B, 43, 43), ``params`` (B, 7),
            ``parameter`` (7,), ``snr`` and ``psf_fwhm`` (B,), ``pixel_scale`` and ``zero_point``.
        advance: Called with the number of galaxies finished since the last call.
    """
    check_simulation_output(path)
    stamps = simulate_stamps(simulator, number, seed)
    if path.suffix:
        _write_archive(_counted(stamps, advance), path, simulator)
        return
    path.mkdir(exist_ok=True)
    truth = []
    for stamp in _counted(stamps, advance):
        _write_fits(stamp, path / f"{stamp.name}.fits", simulator)
        truth.append(stamp)
    _write_truth(truth, path / "truth.ecsv")


def _counted(
    stamps: Iterator[SimulatedStamp], advance: Callable[[int], None]
) -> Iterator[SimulatedStamp]:
    for stamp in stamps:
        yield stamp
        advance(1)


def _write_archive(
    stamps: Iterator[SimulatedStamp], path: Path, simulator: SersicSimulator
) -> None:
    made = list(stamps)
    names = ("image", "noise", "mask", "psf", "params", "snr", "psf_fwhm")
    arrays: dict[str, Any] = {name: np.stack([getattr(s, name) for s in made]) for name in names}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            parameter=np.array(NAMES),
            pixel_scale=simulator.pixel_scale,
            zero_point=simulator.zero_point,
            **arrays,
        )


def _write_fits(stamp: SimulatedStamp, path: Path, simulator: SersicSimulator) -> None:
    from astropy.io import fits

    primary = fits.PrimaryHDU(stamp.image.astype(np.float32))
    for key, value, comment in (
        ("OBJECT", stamp.name, "simulated"),
        ("BUNIT", "adu", ""),
        ("PIXSCALE", simulator.pixel_scale, "arcsec per pixel"),
        ("MAGZERO", simulator.zero_point, "AB magnitude of one image unit"),
    ):
        primary.header[key] = (value, comment)
    uncertainty = fits.ImageHDU(stamp.noise.astype(np.float32), name="UNCERT")
    uncertainty.header["UTYPE"] = "StdDevUncertainty"
    mask = fits.ImageHDU(stamp.mask.astype(np.uint8), name="MASK")
    psf = fits.ImageHDU(stamp.psf.astype(np.float32), name="PSFIMAGE")
    with written_whole(path) as temporary:
        fits.HDUList([primary, mask, uncertainty, psf]).writeto(temporary, overwrite=True)


def _write_truth(stamps: list[SimulatedStamp], path: Path) -> None:
    from astropy import units as u
    from astropy.table import QTable

    table = QTable({"file": [f"{s.name}.fits" for s in stamps]})
    params = np.stack([s.params for s in stamps])
    for i, p in enumerate(PARAMETERS):
        table[p.name] = u.Quantity(params[:, i], p.unit) if p.unit else params[:, i]
        table[p.name].info.description = p.meaning
    table["snr"] = [s.snr for s in stamps]
    table["psf_fwhm"] = u.Quantity([s.psf_fwhm for s in stamps], "pix")
    with written_whole(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
