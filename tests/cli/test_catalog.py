from __future__ import annotations

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import QTable

import deeplegato_pp.inference.predictor as predictor_module
from deeplegato_pp.cli.app import main
from deeplegato_pp.models import storage
from small_sky import SIDE, load_fake, make_sky, write_sky

BASE = ["catalog", "mosaic.fits", "--psf", "psf.fits", "--samples", "20", "--chunk", "4"]
LISTED = [*BASE, "--sources", "list.csv"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A mosaic and its list in the working directory; the fake network for the packaged one."""
    monkeypatch.chdir(tmp_path)
    write_sky(tmp_path, make_sky())
    monkeypatch.setattr(storage, "find", lambda name: tmp_path / "default")
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, name=None, device=None: load_fake()),
    )


def test_a_list_becomes_a_catalogue(capsys):
    assert main([*LISTED, "-o", "out.parquet"]) == 0
    assert pq.read_table("out.parquet").column("id").to_pylist() == list(range(100, 106))
    out = capsys.readouterr().out
    assert "6 rows; 0 not measured" in out
    assert out.startswith("mosaic.fits: zero point 30.50 (MAGZERO), 0.25 arcsec/px (WCS), PSF")
    assert re.search(r"^quality: \d good, \d caution, \d bad", out, re.MULTILINE)
    assert main([*LISTED, "-o", "out.parquet", "--resume"]) == 0
    assert "complete already" in capsys.readouterr().out


def test_inputs_are_not_written_over(tmp_path, capsys):
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    (tmp_path / "cutouts").mkdir()
    fits.PrimaryHDU(make_sky().image[48:112, 38:102]).writeto("cutouts/a.fits")
    (tmp_path / "files.csv").write_text("id,file\n1,cutouts/a.fits\n")
    (tmp_path / "link.fits").symlink_to("psf.fits")
    for call, message in (
        (
            [*LISTED, "-o", "mosaic.fits"],
            "output mosaic.fits would write over an input|-o mosaic",
        ),
        ([*LISTED, "-o", "link.fits"], "the psf psf.fits"),
        ([*LISTED, "-o", "out.fits", "--model-image", "mosaic.fits"], "--model-image mosaic.fits"),
        ([*LISTED, "-o", "out.fits", "--residual-image", "./out.fits"], "are the same file"),
        (["catalog", "cutouts", "-o", "cutouts/a.fits"], "the image cutouts/a.fits"),
        (["catalog", "--sources", "files.csv", "-o", "cutouts/a.fits"], "the image cutouts/a.fits"),
        (["catalog", "--compare", "a.fits", "psf.fits", "--plot", "plot.png"], "the catalogue psf"),
    ):
        (tmp_path / "plot.png").unlink(missing_ok=True)
        (tmp_path / "plot.png").symlink_to("psf.fits")
        assert main(call) == 2, call
        assert re.search(message, capsys.readouterr().err), call
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_detection_masks_models_and_residuals(tmp_path):
    pytest.importorskip("photutils")
    call = [*BASE, "--detect", "--detect-threshold", "3", "--subtract-background", "-o", "out.fits"]
    assert main([*call, "--model-image", "model.fits", "--residual-image", "rest.fits"]) == 0
    table = QTable.read("out.fits", mask_invalid=False)
    assert len(table) == 6
    model, rest = fits.getdata("model.fits"), fits.getdata("rest.fits")
    assert model.shape == rest.shape == (SIDE, SIDE)
    flux = sum(10.0 ** (-0.4 * (m - 30.5)) for m in table["magnitude"].value)
    assert model.sum() == pytest.approx(flux, rel=0.1)
    background = fits.getdata(next(tmp_path.glob(".out.fits.work/detected-*/background.fits")))
    with fits.open("mosaic.fits") as hdus:
        np.testing.assert_allclose(rest, hdus[1].data - background - model, atol=1e-3)
        assert hdus[1].header["CRVAL1"] == fits.getheader("rest.fits")["CRVAL1"]


def test_a_folder_of_cutouts(tmp_path, capsys):
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    image = make_sky().image[48:112, 38:102]
    for name in ("a", "b"):
        fits.PrimaryHDU(image).writeto(stamps / f"{name}.fits")
    (stamps / "c.fits").write_text("no FITS at all")
    assert main(["catalog", "stamps", "--psf-fwhm", "3", "--noise", "1", "-o", "out.ecsv"]) == 0
    table = QTable.read("out.ecsv")
    assert list(table["id"]) == ["a", "b", "c"]
    assert "cannot be read" in table["reason"][2]
    assert "1 not measured" in capsys.readouterr().out


def test_how_to_refine_reaches_every_source(monkeypatch):
    seen = []

    def refine(self, posterior, method, **options):
        seen.append((method, len(posterior), options))
        assert {m.observation.noise_correlation for m in posterior.measurements} == {2.5}
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    options = ["--refine", "--refine-method", "laplace", "--fix", "sersic_index=4"]
    options += ["--star-odds", "3", "--noise-correlation", "2.5", "--model-error", "0.05"]
    options += ["--widths", "noise", "--neighbours", "keep"]
    assert main([*LISTED, *options, "-o", "out.parquet"]) == 0
    assert [(method, number) for method, number, _ in seen] == [("laplace", 4), ("laplace", 2)]
    for _, number, given in seen:
        assert len(given.pop("seed")) == number
        assert given == {
            "fixed": {"sersic_index": 4.0},
            "star_odds": 3.0,
            "model_error": 0.05,
            "widths": "noise",
            "scene": "sersic",
            "neighbours": None,
        }


def test_scenes_and_neighbours_reach_every_source(monkeypatch):
    seen = []

    def refine(self, posterior, method, **options):
        seen.append((options["scene"], options["neighbours"]))
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    assert main([*LISTED, "--refine", "--scene", "bulge+disc", "-o", "out.parquet"]) == 0
    assert seen == [("bulge+disc", [None] * 4), ("bulge+disc", [None] * 2)]
    columns = pq.read_schema("out.parquet").names
    assert {"best_scene", "bulge_to_total_std", "log_evidence_bulge_disc"} <= set(columns)
    assert "point_magnitude" not in columns
    assert columns[-2:] == ["refined", "group_size"]


def test_two_catalogues_are_compared(capsys):
    for name, seed in (("old.parquet", "0"), ("new.ecsv", "1")):
        assert main([*LISTED, "-o", name, "--seed", seed]) == 0
    capsys.readouterr()
    assert main(["catalog", "--compare", "old.parquet", "new.ecsv", "--plot", "f.png"]) == 0
    out = capsys.readouterr().out
    assert "6 ids in both" in out
    assert "effective_radius" in out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (LISTED, "no output was given"),
        ([*LISTED, "-o", "gone/out.parquet"], "does not exist"),
        ([*LISTED, "--detect", "-o", "o.fits"], "--sources and --detect"),
        ([*LISTED, "-o", "o", "--shard", "5/2"], "1 <= I <= N"),
        ([*LISTED, "-o", "o.fits", "--shard", "1/2"], "-o FOLDER"),
        ([*LISTED, "-o", "o.fits", "--subtract-background"], "--background"),
        ([*LISTED, "-o", "o.fits", "--plot", "p.png"], "Add --compare"),
        ([*LISTED, "-o", "o.fits", "--neighbours", "fit"], "nothing is refined"),
        ([*LISTED, "-o", "o.fits", "--neighbours", "mask"], "no segmentation was given"),
        ([*LISTED, "-o", "o.fits", "--scene", "auto"], "--scene belongs to"),
        ([*LISTED, "-o", "o.fits", "--refine", "--scene", "disc"], "unknown scene"),
        ([*LISTED, "-o", "o.fits", "--gain", "nan"], "--gain must be finite, got nan"),
        ([*LISTED, "-o", "o.fits", "--zero-point", "inf"], "--zero-point must be finite"),
        ([*LISTED, "-o", "o.fits", "--pixel-scale", "1e300"], "pixel_scale must lie in"),
        ([*LISTED, "-o", "o.fits", "--workers", "1000000"], "--workers must lie in [1, 256]"),
        ([*LISTED, "-o", "o.parquet", "--draws", "1000000000"], "--draws"),
        (["catalog", "-o", "o.fits"], "nothing to measure"),
        (["catalog", "--sources", "list.csv", "-o", "o.fits"], "without an image"),
        (["catalog", "gone.fits", "--sources", "list.csv", "-o", "o.fits"], "gone.fits"),
        (["catalog", "--compare", "a.fits", "b.fits"], "no such file"),
    ],
)
def test_wrong_calls_are_one_plain_line(call, message, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert main(call) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [p for p in sorted(tmp_path.iterdir()) if p not in before] in ([], [tmp_path / "o"])


def test_a_list_of_another_image_is_noticed(tmp_path, capsys):
    (tmp_path / "list.csv").write_text("id,ra,dec\n1,10.0,-60.0\n2,10.1,-60.0\n")
    assert main([*LISTED, "-o", "out.parquet"]) == 2
    assert "is the list or the WCS another's" in capsys.readouterr().err
    assert pq.read_table("out.parquet").num_rows == 2
