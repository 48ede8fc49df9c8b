"""Real galaxies: folders and tables, partial references, mirrors."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from astropy import units as u
from astropy.table import QTable, Table

from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data.galaxies import GalaxyDataset, find_cutouts
from deeplegato_pp.data.mirroring import mirrored
from deeplegato_pp.data.simulated_files import file_simulator, write_simulation
from deeplegato_pp.errors import FormatError, InputError, RangeError
from deeplegato_pp.scene.parameters import AXIS_RATIO, CENTER_X, NAMES, POSITION_ANGLE, RADIUS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.stamps import StampBatch

BOX = PriorBox()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("galaxies") / "stamps"
    data = load_config(None, ["data.image_size=64", "data.priors.effective_radius=[0.1,3.0]"]).data
    write_simulation(file_simulator(data, clean=True), 4, 1, path)
    return path


def dataset(source, **options) -> GalaxyDataset:
    return GalaxyDataset(source, BOX, 3, 5, image_size=64, **options)


def test_a_folder_with_its_truths(folder):
    made = dataset(folder, augment=False)
    truth = QTable.read(folder / "truth.ecsv")
    assert made.stamps.image.shape == (4, 64, 64)
    params = BOX.to_physical(made.w)
    for i, p in enumerate(NAMES):
        got = params[:, i]
        if p == "magnitude":  # in units of each stamp's own noise
            continue
        expected = torch.tensor(u.Quantity(truth[p]).value)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4, check_dtype=False)
    stamps, w = made[2]
    assert (len(stamps), w.shape) == (3, (3, 7))
    assert torch.equal(made[2][1], w)
    assert not torch.equal(made[3][0].image, stamps.image)


def test_a_table_in_other_units_with_gaps(folder, tmp_path):
    truth = QTable.read(folder / "truth.ecsv")
    table = Table({"file": [str(folder / f) for f in truth["file"]]})
    table["effective_radius"] = truth["effective_radius"].to_value("arcmin") * u.arcmin
    table["sersic_index"] = [1.0, math.nan, 1.0, 1.0]
    table["axis_ratio"] = truth["axis_ratio"]  # without an angle, it says nothing
    table.write(tmp_path / "t.ecsv")
    made = dataset(tmp_path / "t.ecsv", augment=False)
    known = ~torch.isnan(made.w)
    assert known[:, RADIUS].all()
    assert known[:, 2].tolist() == [True, False, True, True]
    assert not known[:, [0, AXIS_RATIO, POSITION_ANGLE, CENTER_X]].any()
    full = dataset(folder, augment=False)
    torch.testing.assert_close(made.w[:, RADIUS], full.w[:, RADIUS], atol=1e-6, rtol=0)


def test_what_cannot_be_used_is_left_out_and_said(folder, tmp_path, caplog):
    table = Table(
        {
            "file": [str(folder / "galaxy_000000.fits"), str(folder / "galaxy_000001.fits"), "no"],
            "sersic_index": [2.0, 70.0, 1.0],
        }
    )
    table.write(tmp_path / "t.ecsv")
    with caplog.at_level(logging.WARNING):
        made = dataset(tmp_path / "t.ecsv")
    assert len(made.w) == 1
    assert "sersic_index must lie in" in caplog.text
    assert len(caplog.records) == 2


def test_unlabelled_galaxies_serve_where_no_label_is_needed(folder, tmp_path):
    for name in ("galaxy_000000.fits", "galaxy_000001.fits"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert torch.isnan(dataset(tmp_path, labelled=False)[0][1]).all()
    with pytest.raises(InputError, match="No usable galaxy with reference parameters"):
        dataset(tmp_path)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(FormatError, match="neither a folder of FITS files nor a table"):
        find_cutouts(tmp_path / "nowhere")
    Table({"name": ["a"]}).write(tmp_path / "t.ecsv")
    with pytest.raises(FormatError, match="no column file, but name"):
        find_cutouts(tmp_path / "t.ecsv")


def test_mirrored_images_belong_to_mirrored_parameters():
    """The renderer knows nothing of the mirrors."""
    truth = torch.tensor([[21.0, 1.0, 1.5, 0.4, 25.0, 1.5, -2.5]], dtype=torch.float64)
    axis = torch.arange(-10, 11, dtype=torch.float64)
    psf = torch.exp(-0.5 * (axis[:, None] ** 2 + (axis - 1.0 - 0.3 * axis[:, None]) ** 2) / 1.5**2)
    psf = psf[None] / psf.sum()

    def render(w: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        p = BOX.to_physical(w)
        flux, radius = 10 ** (-0.4 * (p[:, 0] - 30.5)), p[:, 1] / 0.25
        return render_sersic(flux, radius, *p[:, 2:].unbind(1), kernel, 32)

    w = BOX.to_normal(truth)
    image = render(w, psf)
    ones = torch.ones(1, dtype=torch.float64)
    for case in range(8):
        flags = [torch.tensor([bool(case & bit)]) for bit in (1, 2, 4)]
        stamps = StampBatch(image, image + 1, image > 1e9, psf, ones, ones, ones)
        turned, turned_w = mirrored(stamps, w, *flags)
        torch.testing.assert_close(
            turned.image, render(turned_w, turned.psf), atol=1e-6 * float(image.max()), rtol=0
        )
        assert torch.equal(turned.sigma, turned.image + 1)


def test_the_folder_alone_is_enough(folder):
    made = GalaxyDataset(folder, image_size=64)
    assert (made.batch_size, len(made)) == (64, 1)
    assert made[0][1].shape == (64, 7)
    assert len(GalaxyDataset(folder, batch_size=3, image_size=64)) == 2
    with pytest.raises(RangeError, match="num_batches"):
        GalaxyDataset(folder, num_batches=0, image_size=64)
