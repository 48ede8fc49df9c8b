"""The exported network: onnxruntime gives the numbers that the package gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deeplegato_pp
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.errors import DeepLegatoError, RangeError
from deeplegato_pp.export import export_onnx, onnx_graph, onnx_stamp
from deeplegato_pp.export import onnx as export
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.units import stamp_batch, user_box
from deeplegato_pp.stats import weighted as statistics
from tiny_model import TINY

runtime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

SIZE, DRAWS = 64, 64
EXAMPLE = Path(deeplegato_pp.__file__).with_name("examples") / "hst_galaxy.fits"
SMALLER = [
    "model.backbone.depths=[1]",
    "model.backbone.num_heads=[2]",
    "model.npe.num_flow_layers=1",
]
"""Each layer takes seconds to export."""

CAMERA = {"pixel_scale": 0.1, "zero_point": 26.0}


def galaxy(fwhm: float = 3.0, gain: float | None = None, **changes) -> Observation:
    """A galaxy with uneven noise and some masked pixels, in image units of 0.3 sigma."""
    params = torch.tensor([[21.0, 1.0, 2.0, 0.6, 30.0, 0.5, -1.0]], dtype=torch.float64)
    psf, oversampling = moffat_psf(fwhm)
    image = SersicSimulator(SIZE).render(params, torch.from_numpy(psf), oversampling)[0].numpy()
    rng = np.random.default_rng(1)
    noise = 1.0 + 0.2 * rng.random((SIZE, SIZE))
    image = 0.3 * (image + noise * rng.standard_normal((SIZE, SIZE)))
    mask = rng.random((SIZE, SIZE)) < 0.05
    image[3, 4] = np.nan
    options = {"psf": psf, "noise": 0.3 * noise, "mask": mask, "gain": gain, **CAMERA, **changes}
    return Observation.from_array(image, psf_oversampling=oversampling, **options)


def lively_model() -> DeepLeGAToPP:
    """An untrained network whose posteriors differ from galaxy to galaxy, away from the edges."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DeepLeGAToPP(load_config(TINY, SMALLER)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            model.head.logvar_head.bias -= 1.0
    model.card = {"name": "tiny"}
    return model


@pytest.fixture(scope="module")
def model() -> DeepLeGAToPP:
    return lively_model()


@pytest.fixture(scope="module")
def session(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    assert export_onnx(model, path, galaxy(), num_samples=DRAWS) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path))
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def expected(model: DeepLeGAToPP, observation: Observation) -> np.ndarray:
    """What the package says, by the way that predictions go."""
    # Centres from the stamp's centre, not from that of an image which is larger or smaller.
    prepared = replace(prepare(observation, model.image_size), offset_x=0.0, offset_y=0.0)
    context = model.encode(stamp_batch([prepared]))
    w, _ = model.sample(context, DRAWS, torch.tensor([0]))
    samples = user_box(model.prior, prepared).to_physical(w[0]).numpy()
    summaries = [statistics.summarise(samples[:, i], period=p.period) for i, p in rows()]
    return np.array([[s.value, s.std, *s.quantiles] for s in summaries])


def rows():
    return list(enumerate(PARAMETERS))


def run(session, stamp: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: stamp})[0]


@torch.no_grad()
def test_onnxruntime_gives_the_numbers_of_the_package(model, session):
    for observation in (galaxy(), galaxy(fwhm=2.0)):
        result = run(session, onnx_stamp(observation, SIZE))
        np.testing.assert_allclose(result[0], expected(model, observation), rtol=1e-4, atol=1e-4)
    other = run(session, onnx_stamp(galaxy(), SIZE))
    assert np.abs(result - other).max() > 1e-2  # the PSF in the fourth channel counts


@torch.no_grad()
def test_channels_left_at_zero_are_filled_in(model, session):
    bare = galaxy(noise=None, mask=None)
    stamp = onnx_stamp(bare, SIZE)
    stamp[:, 1:] = 0.0
    np.testing.assert_allclose(run(session, stamp)[0], expected(model, bare), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_beyond_the_edge_of_an_image_are_zeros(model, session):
    whole = galaxy(noise=None, mask=None)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[:, 50:] = True
    cut = galaxy(noise=None, mask=mask)
    stamp = onnx_stamp(whole, SIZE)
    stamp[:, 1:] = 0.0
    stamp[0, 0, :, 50:] = 0.0
    np.testing.assert_allclose(run(session, stamp)[0], expected(model, cut), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("correlation", [1.0, 3.0])
def test_the_graph_with_a_gain_and_correlated_noise(model, correlation):
    observation = galaxy(gain=50.0, noise_correlation=correlation)
    prepared = prepare(observation, SIZE)
    graph = onnx_graph.StampMeasurer(
        model,
        stamp_batch([prepared]).psf[0],
        torch.randn(DRAWS, 7, generator=torch.Generator().manual_seed(0)),
        **CAMERA,
        gain=50.0,
        sky_sigma=prepared.sky_sigma,
        noise_correlation=correlation,
    )
    result = graph(torch.from_numpy(onnx_stamp(observation, SIZE)))[0].numpy()
    np.testing.assert_allclose(result, expected(model, observation), rtol=1e-4, atol=1e-4)


def test_the_file_is_what_sourcextractor_reads_and_says_what_it_takes(session):
    (stamp,), (output,) = session.get_inputs(), session.get_outputs()
    assert (stamp.type, stamp.shape) == ("tensor(float)", [1, 4, SIZE, SIZE])
    assert (output.type, output.shape, output.name) == ("tensor(float)", [1, 7, 7], "posterior")
    about = session.get_modelmeta()
    assert (about.domain, about.graph_name) == ("deeplegato", "tiny")
    said = about.custom_metadata_map
    assert json.loads(said["channels"]) == ["image", "noise", "mask", "psf"]
    assert json.loads(said["parameters"]) == list(NAMES)
    assert json.loads(said["columns"])[:3] == ["mean", "std", "q025"]
    assert (said["zero_point"], said["pixel_scale"], said["gain"]) == ("26.0", "0.1", "none")


def test_physical_values_are_those_of_the_prior_box():
    box = PriorBox.from_mapping({"effective_radius": [0.2, 3.0], "axis_ratio": [0.2, 1.0]})
    w = 1.5 * torch.randn(200, 7, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        onnx_graph.to_physical(box, w), box.to_physical(w).float(), rtol=1e-5, atol=2e-4
    )


@pytest.mark.parametrize("centre", [1.0, 90.0, 179.5])
def test_summaries_are_those_of_the_tables(centre):
    draws = torch.randn(101, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draws[:, 4] = (centre + 5.0 * draws[:, 4]) % 180.0
    for i, p in rows():
        s = statistics.summarise(draws[:, i].numpy(), period=p.period)
        ours = onnx_graph.summaries(draws)[i].numpy()
        np.testing.assert_allclose(ours, [s.value, s.std, *s.quantiles], rtol=1e-9, atol=1e-9)


def test_what_cannot_be_exported(model, tmp_path, monkeypatch):
    with pytest.raises(RangeError, match="at least 2 draws, got 64 px and 1"):
        export_onnx(model, tmp_path / "m.onnx", galaxy(), num_samples=1)
    with pytest.raises(RangeError, match="image_size must be at least 43, got 32"):
        onnx_stamp(galaxy(), 32)
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(DeepLegatoError, match=r"onnx and onnxscript.*deeplegato-pp\[export\]"):
        export_onnx(model, tmp_path / "m.onnx", galaxy())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@torch.no_grad()
def test_the_packaged_network(tmp_path):
    model = DeepLeGAToPP.from_pretrained()
    observation = Observation.from_fits(EXAMPLE)
    path = export_onnx(model, tmp_path / "default.onnx", observation, num_samples=DRAWS)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result = run(session, onnx_stamp(observation, model.image_size))[0]
    np.testing.assert_allclose(result, expected(model, observation), rtol=1e-4, atol=1e-4)
