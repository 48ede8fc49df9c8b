from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits

import deeplegato_pp.inference.predictor as predictor_module
from deeplegato_pp.cli.app import main
from deeplegato_pp.models import storage
from deeplegato_pp.observation.effective_psf import moffat_psf
from fake_model import TRUTH, FakeModel, truth_image

FEEDME = """
A) gal.fits
C) sigma.fits
D) psf.fits
H) 1 128 1 128
J) 30.5
K) 0.25 0.25
0) sersic
1) 65.0 63.5 1 1
3) 21.0 1
4) 4.0 1
5) 2.5 {index}
9) 0.6 1
10) -1 1
0) sky
1) 12.0 1
"""


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """The working directory: an image, its companions and two input files; the fake network."""
    monkeypatch.chdir(tmp_path)
    fits.writeto("gal.fits", truth_image().numpy() + 12.0)
    fits.writeto("sigma.fits", np.ones((128, 128)))
    fits.writeto("psf.fits", moffat_psf(3.0)[0])
    (tmp_path / "free.feedme").write_text(FEEDME.format(index=1))
    (tmp_path / "fixed.feedme").write_text(FEEDME.format(index=0))
    monkeypatch.setattr(storage, "find", lambda name: name or "default")
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, *_, **__: cls(FakeModel(TRUTH), "cpu")),
    )


def test_a_feedme_is_measured_and_written_as_an_image_block(capsys):
    call = "predict --galfit free.feedme --no-refine --samples 50 -o t.json --imgblock b.fits"
    assert main(call.split()) == 0, capsys.readouterr().err
    with open("t.json") as file:
        (row,) = json.load(file)
    assert row["file"] == "free.feedme"
    # The fake centre is 0.5, -1 from the middle of the 128 px that the network sees; these end half
    # a pixel before the middle of the stamp, the pixel (64, 62) counted from 0.
    assert row["x"] == pytest.approx(64.0, abs=0.3)
    assert row["y"] == pytest.approx(60.5, abs=0.3)
    header = fits.getheader("b.fits", 2)
    assert float(header["1_XC"].split()[0]) == pytest.approx(row["x"] + 1, abs=1e-3)
    assert float(header["2_SKY"].split()[0]) == pytest.approx(12.0, abs=0.1)
    assert header["INITFILE"] == "free.feedme"


def test_what_is_held_fixed_is_refined_so(monkeypatch, capsys):
    held = []

    def refine(self, posterior, method="exact", **options):
        held.append(options["fixed"])
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    assert (
        main(["predict", "--galfit", "fixed.feedme", "--samples", "50", "--imgblock", "b.fits"])
        == 0
    )
    assert held == [{"sersic_index": 2.5}]
    assert fits.getheader("b.fits", 2)["1_N"].startswith("[")


POINT = "0) psf\n1) 65.0 63.5 1 1\n3) 22.0 1\n"


@pytest.mark.parametrize(("option", "scene"), [("", "sersic+point"), ("--scene auto", "auto")])
def test_several_components_are_refined_as_a_scene(tmp_path, monkeypatch, option, scene):
    (tmp_path / "two.feedme").write_text(FEEDME.format(index=0) + POINT)
    asked = []

    def refine(self, posterior, method="exact", **options):
        asked.append((options["scene"], options.get("fixed")))
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    assert main(f"predict --galfit two.feedme --samples 50 {option}".split()) == 0
    assert asked == [(scene, None)]
    assert main(["predict", "--galfit", "two.feedme", "--no-refine"]) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("predict", "no image was given"),
        ("predict gal.fits --galfit free.feedme", "names its own image"),
        ("predict --galfit free.feedme --psf psf.fits", "whose line D) says it"),
        ("predict --galfit fixed.feedme --no-refine", "holds sersic_index fixed"),
        ("predict gal.fits --imgblock b.png", "unknown suffix .png"),
    ],
)
def test_a_wrong_call_is_one_line(call, message, capsys):
    assert main(call.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_several_images_have_an_image_block_each(tmp_path):
    call = "predict gal.fits gal.fits --no-refine --samples 50 --noise 1 --psf psf.fits"
    assert main([*call.split(), "--imgblock", "b.fits"]) == 0
    assert {p.name for p in tmp_path.glob("b*.fits")} == {"b-1-gal.fits", "b-2-gal.fits"}


def test_regions(capsys):
    call = "predict gal.fits --no-refine --samples 50 --noise 1 --psf psf.fits -o t.ecsv"
    assert main(call.split()) == 0
    capsys.readouterr()
    assert main(["regions", "t.ecsv", "-o", "t.reg"]) == 0
    assert capsys.readouterr().out == "1 ellipses in t.reg\n"
    with open("t.reg") as file:
        assert "ellipse(" in file.read()
