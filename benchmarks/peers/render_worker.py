"""Renders the profiles of the comparison by one renderer, in its own environment.

Each function returns a function that draws one profile of flux 1; `whole` is the PSF with the
pixel, `bare` the one without, for renderers that integrate over the pixel themselves.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from galaxy import sersic_flux

Draw = Callable[[dict[str, float]], np.ndarray]


def ours(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
    import torch

    from deeplegato_pp.data import SersicSimulator

    simulator = SersicSimulator(size, pixel_scale=1.0, zero_point=0.0)
    psf = torch.from_numpy(whole)

    def draw(p: dict[str, float]) -> np.ndarray:
        row = [0.0, p["radius"], p["index"], p["axis_ratio"], p["angle"], p["x"], p["y"]]
        return simulator.render(torch.tensor([row], dtype=torch.float64), psf)[0].numpy()

    return draw


def galsim(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
    import galsim as gs

    def draw(p: dict[str, float]) -> np.ndarray:
        q = p["axis_ratio"]
        profile = gs.Sersic(p["index"], half_light_radius=p["radius"] * math.sqrt(q))
        profile = profile.shear(q=q, beta=(p["angle"] + 90.0) * gs.degrees)
        seen = gs.Convolve(profile.shift(p["x"], p["y"]), gs.Gaussian(fwhm=fwhm))
        return seen.drawImage(nx=size, ny=size, scale=1.0, dtype=float).array

    return draw


def _pysersic(name: str) -> Callable[..., Draw]:
    def make(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
        import jax
        from pysersic import rendering

        psf = bare if name == "PixelRenderer" else whole
        renderer = getattr(rendering, name)((size, size), jax.numpy.array(psf))
        middle = (size - 1) / 2

        @jax.jit
        def image(params: dict[str, float]) -> jax.Array:
            return renderer.render_source(params, "sersic")

        def draw(p: dict[str, float]) -> np.ndarray:
            params = {
                "xc": middle + p["x"],
                "yc": middle + p["y"],
                "flux": 1.0,
                "r_eff": p["radius"],
                "n": p["index"],
                "ellip": 1.0 - p["axis_ratio"],
                "theta": math.radians(p["angle"]),
            }
            return np.asarray(image(params), dtype=float)

        return draw

    return make


def astrophot(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
    import astrophot as ap

    target = ap.TargetImage(data=np.zeros((size, size)), psf=ap.PSFImage(data=bare), zeropoint=0.0)
    middle = (size - 1) / 2

    def draw(p: dict[str, float]) -> np.ndarray:
        model = ap.Model(
            model_type="sersic galaxy model",
            target=target,
            center=[middle + p["x"], middle + p["y"]],
            q=p["axis_ratio"],
            PA=math.radians(p["angle"]),
            n=p["index"],
            Re=p["radius"],
            Ie=1.0 / sersic_flux(1.0, p["radius"], p["index"], p["axis_ratio"]),
            psf_convolve=True,
        )
        return model().data.detach().numpy()

    return draw


def pyimfit(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
    import pyimfit as imfit

    middle = (size + 1) / 2

    def draw(p: dict[str, float]) -> np.ndarray:
        sersic = imfit.make_imfit_function("Sersic")
        unit = sersic_flux(1.0, p["radius"], p["index"], p["axis_ratio"])
        for name, value in (
            ("PA", p["angle"]),
            ("ell", 1.0 - p["axis_ratio"]),
            ("n", p["index"]),
            ("I_e", 1.0 / unit),
            ("r_e", p["radius"]),
        ):
            getattr(sersic, name).setValue(value)
        model = imfit.SimpleModelDescription()
        model.x0.setValue(middle + p["x"])
        model.y0.setValue(middle + p["y"])
        model.addFunction(sersic)
        fitter = imfit.Imfit(model, psf=bare, maxThreads=1)
        return fitter.getModelImage(shape=(size, size))

    return draw


def lenstronomy(size: int, fwhm: float, whole: np.ndarray, bare: np.ndarray) -> Draw:
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LightModel.light_model import LightModel

    middle = (size - 1) / 2
    grid = PixelGrid(size, size, np.eye(2), -middle, -middle)
    light = LightModel(["SERSIC_ELLIPSE"], sersic_major_axis=True)
    psf = PSF("PIXEL", kernel_point_source=bare)
    numerics = {"supersampling_factor": 3}
    model = ImageModel(grid, psf, lens_light_model_class=light, kwargs_numerics=numerics)

    def draw(p: dict[str, float]) -> np.ndarray:
        e = (1.0 - p["axis_ratio"]) / (1.0 + p["axis_ratio"])
        turn = 2.0 * math.radians(p["angle"] + 90.0)
        settings = {
            "amp": 1.0 / sersic_flux(1.0, p["radius"], p["index"], p["axis_ratio"]),
            "R_sersic": p["radius"],
            "n_sersic": p["index"],
            "e1": e * math.cos(turn),
            "e2": e * math.sin(turn),
            "center_x": p["x"],
            "center_y": p["y"],
        }
        return model.image(kwargs_lens_light=[settings])

    return draw


MAKERS: dict[str, Callable[..., Draw]] = {
    "ours": ours,
    "galsim": galsim,
    "pysersic_pixel": _pysersic("PixelRenderer"),
    "pysersic_fourier": _pysersic("FourierRenderer"),
    "pysersic_hybrid": _pysersic("HybridRenderer"),
    "astrophot": astrophot,
    "pyimfit": pyimfit,
    "lenstronomy": lenstronomy,
}


def ours_in_one_call(cases: list[dict[str, float]], size: int, psf: np.ndarray) -> tuple:
    """Returns all images from one call in float32, and its CPU seconds."""
    import torch

    from deeplegato_pp.data import SersicSimulator

    simulator = SersicSimulator(size, pixel_scale=1.0, zero_point=0.0)
    names = ("radius", "index", "axis_ratio", "angle", "x", "y")
    rows = [[0.0, *(p[k] for k in names)] for p in cases]
    params, kernel = torch.tensor(rows), torch.from_numpy(psf).float()
    simulator.render(params, kernel)
    started = time.process_time()
    images = simulator.render(params, kernel)
    return images.double().numpy(), time.process_time() - started


def main() -> None:
    function, folder = sys.argv[1], Path(sys.argv[2])
    content = json.loads((folder / "profiles.json").read_text())
    cases, size = content["cases"], content["size"]
    with np.load(folder / "psf.npz") as file:
        whole, bare = file["whole"], file["bare"]
    if function == "ours32":
        images, seconds = ours_in_one_call(cases, size, whole)
    else:
        draw = MAKERS[function](size, content["fwhm"], whole, bare)
        draw(cases[0])
        started = time.process_time()
        images = np.stack([draw(p) for p in cases])
        seconds = time.process_time() - started
    np.savez(folder / f"{function}.npz", images=images, seconds=seconds / len(cases))


if __name__ == "__main__":
    main()
