"""Export of a network as one ONNX file, from a stamp to point estimates and quantiles.

The file needs neither this package nor PyTorch: it runs with onnxruntime and with programs that
accept ONNX models with one float input (1, C, H, W) and one output, such as SourceXtractor++.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp._version import __version__
from deeplegato_pp.errors import DeepLegatoError, RangeError
from deeplegato_pp.export.onnx_graph import CHANNELS, COLUMNS, StampMeasurer
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp, prepare
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.scene.stamps import PSF_GRID
from deeplegato_pp.scene.units import network_psf

DOMAIN = "deeplegato"
OUTPUT = "posterior"
NEEDED = ("onnx", "onnxscript")


def export_onnx(
    model: DeepLeGAToPP,
    path: str | Path,
    like: Observation,
    *,
    num_samples: int = 512,
    seed: int = 0,
) -> Path:
    """Writes a network with its pre- and post-processing as one ONNX file.

    Input: float32 (1, 4, N, N), image, noise, mask and PSF in the layout of `onnx_stamp`; N is the
        network's `image_size`. Output: float32 (1, 7, 7), a row per parameter in the table's order
        with mean, standard deviation and the quantiles 2.5, 16, 50, 84 and 97.5 %, in the units of
        the table, centres from the stamp's. A channel of zeros means not given: the noise is then
        estimated from the stamp's border (pixels that are exactly zero are outside the image),
        nothing is masked, and the PSF is that of `like`.

    The results are those of the network alone, without binning, refinement and flags.

    Args:
        model: The network.
        path: Output file.
        like: Observation of the survey. Its PSF, pixel scale, zero point, gain, noise correlation,
            and sky sigma in units of the noise apply to every stamp.
        num_samples: Number of posterior draws; their random numbers are in the file, so that the
            same stamp always gives the same results.
        seed: Random seed of the draws, which are those of `DeepLeGAToPP.sample` with this seed.

    Returns:
        Path of the file.

    Raises:
        DeepLegatoError: If the extra ``export`` is not installed.
        RangeError: If the network's stamps are smaller than the PSF's grid, or `num_samples` is
            less than 2.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise DeepLegatoError(
            f"Exporting needs {' and '.join(missing)}, not installed here. "
            "Run pip install 'deeplegato-pp[export]'."
        )
    if model.image_size < PSF_GRID or num_samples < 2:
        raise RangeError(
            f"Exporting takes stamps of at least {PSF_GRID} px and at least 2 draws, got "
            f"{model.image_size} px and {num_samples}."
        )
    prepared = prepare(like, model.image_size)
    noise = torch.randn(num_samples, len(PARAMETERS), generator=torch.Generator().manual_seed(seed))
    graph = StampMeasurer(
        model,
        network_psf(prepared)[0],
        noise,
        pixel_scale=like.pixel_scale,
        zero_point=like.zero_point,
        gain=math.inf if like.gain is None else like.gain,
        sky_sigma=prepared.sky_sigma,
        noise_correlation=prepared.noise_correlation,
        psf_error=prepared.psf_error,
    )
    was_training = model.training
    example = torch.from_numpy(_channels(prepared))
    program = torch.onnx.export(
        graph.eval(),
        (example,),
        input_names=["stamp"],
        output_names=[OUTPUT],
        dynamo=True,
        optimize=False,  # onnxruntime optimises faster when it loads the file
        verbose=False,
    )
    model.train(was_training)
    assert program is not None  # noqa: S101  # it is, with dynamo=True
    program.model.domain = DOMAIN
    program.model.graph.name = str(model.card.get("name", "model"))
    program.model.metadata_props.update(_metadata(model, like, prepared))
    path = Path(path)
    with written_whole(path) as temporary:
        program.save(temporary, external_data=False)
    return path


def onnx_stamp(observation: Observation, image_size: int) -> Float[np.ndarray, "1 4 n n"]:
    """Converts an observation to the input of an exported network.

    Args:
        observation: The observation, which is cut or padded about its centre.
        image_size: Side N of the network's stamps. [px]

    Returns:
        float32: the image [image units]; the noise, 1 sigma per pixel [image units]; the mask, 1
            for pixels to ignore; and the PSF on the networks' grid of 43 x 43, two samples per
            pixel, in the first rows and columns of the fourth channel.

    Raises:
        RangeError: If the stamp is smaller than the PSF's grid.
    """
    if image_size < PSF_GRID:
        raise RangeError(f"image_size must be at least {PSF_GRID}, got {image_size}.")
    return _channels(prepare(observation, image_size))


def _channels(prepared: PreparedStamp) -> Float[np.ndarray, "1 4 n n"]:
    stamp = np.zeros((1, len(CHANNELS), *prepared.image.shape), dtype=np.float32)
    stamp[0, 0] = prepared.image * prepared.scale
    stamp[0, 1] = prepared.noise * prepared.scale
    stamp[0, 2] = prepared.mask
    stamp[0, 3, :PSF_GRID, :PSF_GRID] = network_psf(prepared)[0].numpy()
    return stamp


def _metadata(model: DeepLeGAToPP, like: Observation, prepared: PreparedStamp) -> dict[str, str]:
    """Returns the metadata of the file, as text."""
    return {
        "deeplegato_pp": __version__,
        "model": str(model.card.get("name", "")),
        "channels": json.dumps(CHANNELS),
        "parameters": json.dumps([p.name for p in PARAMETERS]),
        "units": json.dumps([p.unit for p in PARAMETERS]),
        "columns": json.dumps(COLUMNS),
        "pixel_scale": repr(float(like.pixel_scale)),
        "zero_point": repr(float(like.zero_point)),
        "gain": "none" if like.gain is None else repr(float(like.gain)),
        "sky_sigma": f"{prepared.sky_sigma:g} of the noise",
        "noise_correlation": repr(float(like.noise_correlation)),
    }
