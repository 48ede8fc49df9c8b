from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp import Observation
from deeplegato_pp.cli.app import main
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data.chunks import DriveDataset
from deeplegato_pp.data.simulated_files import file_simulator, simulate_stamps
from deeplegato_pp.errors import RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.render.renderer import render_sersic


def test_stamps_are_read_back_whole(tmp_path, capsys):
    folder = tmp_path / "sims"
    assert main(["simulate", "-n", "3", "-o", str(folder), "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"3 galaxies in {folder}\n"
    truth = QTable.read(folder / "truth.ecsv")
    assert truth["file"].tolist() == [f"galaxy_00000{i}.fits" for i in range(3)]
    assert truth["effective_radius"].unit == u.arcsec
    for row in truth:
        obs = Observation.from_fits(folder / row["file"])
        assert obs.pixel_scale == 0.25
        assert obs.zero_point == 30.5
        assert not obs.flags & ~(Flag.PSF_OFF_CENTRE | Flag.PSF_TRUNCATED)
        assert obs.psf_fwhm == pytest.approx(row["psf_fwhm"].value, rel=0.05)
    assert sorted(p.name for p in folder.iterdir())[-1] == "truth.ecsv"
    assert len(list(folder.iterdir())) == 4


def test_the_image_is_the_truths(tmp_path):
    import torch

    simulator = file_simulator(load_config(None).data, clean=True)
    stamp = max(simulate_stamps(simulator, 5, seed=1), key=lambda s: s.snr)
    p = torch.from_numpy(stamp.params)
    columns = [10 ** (-0.4 * (p[:1] - 30.5)), p[1:2] / 0.25, *(p[i : i + 1] for i in range(2, 7))]
    model = render_sersic(*columns, torch.from_numpy(stamp.psf).double(), 128)[0].numpy()
    residual = (stamp.image - model) / stamp.noise
    assert np.abs(np.median(residual)) < 0.3
    assert residual.std() == pytest.approx(1.0, abs=0.1)


def test_an_archive_holds_the_same_galaxies(tmp_path):
    path = tmp_path / "sims.npz"
    assert main(["simulate", "-n", "2", "-o", str(path), "--conditions"]) == 0
    with np.load(path) as f:
        assert f["image"].shape == f["noise"].shape == f["mask"].shape == (2, 128, 128)
        assert f["psf"].shape == (2, 43, 43)
        assert f["params"].shape == (2, 7)
        assert tuple(f["parameter"]) == NAMES
        first = f["image"]
    assert main(["simulate", "-n", "1", "-o", str(path), "--conditions"]) == 0
    with np.load(path) as f:
        np.testing.assert_array_equal(f["image"][0], first[0])
    assert main(["simulate", "-n", "1", "-o", str(path), "--conditions", "--seed", "1"]) == 0
    with np.load(path) as f:
        assert not np.array_equal(f["image"][0], first[0])


def test_sharp_psfs_only_are_refused():
    config = load_config(None, ["data.conditions.psf_fwhm=[1.5,2.0]"])
    with pytest.raises(RangeError, match="psf_fwhm"):
        file_simulator(config.data, clean=True)


def test_chunks_hold_the_conditions_of_training(tmp_path, capsys):
    small = tmp_path / "small.yaml"
    small.write_text("data: {image_size: 32, conditions: {smallest_stamp: 16}}")
    folder = tmp_path / "chunks"
    command = ["simulate", "--chunks", "-n", "5", "--chunk-size", "3", "-o", str(folder)]
    assert main([*command, "--config", str(small)]) == 0
    assert capsys.readouterr().out == f"5 galaxies in {folder}\n"
    dataset = DriveDataset(folder, 2)
    assert [c["size"] for c in dataset.index["chunks"]] == [3, 2]
    assert not dataset.index["clean"]
    assert dataset[0][0].image.shape == (2, 32, 32)
    assert main([*command, "--config", str(small), "--isolated"]) == 2
    assert "chunks of another clean" in capsys.readouterr().err
    assert main(["simulate", "--chunks", "-o", str(tmp_path / "a.npz")]) == 2
    assert "chunks go into a folder" in capsys.readouterr().err


def test_its_configuration_is_not_written_over(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("data: {image_size: 32}\n")
    (tmp_path / "sims").mkdir()
    for name in ("out.npz", "sims/truth.ecsv"):
        (tmp_path / name).symlink_to(tmp_path / "config.yaml")
    for output in ("out.npz", "sims"):
        call = ["simulate", "-n", "1", "--config", str(tmp_path / "config.yaml")]
        assert main([*call, "-o", str(tmp_path / output)]) == 2
        assert "would write over an input, the configuration" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "data: {image_size: 32}\n"
