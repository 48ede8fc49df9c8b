from __future__ import annotations

import os
from pathlib import Path

import pytest

from deeplegato_pp.errors import InputError
from deeplegato_pp.io.overwriting import check_outputs_apart


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.fits").write_text("precious")
    (tmp_path / "sub").mkdir()
    return tmp_path


SPELLINGS = ["image.fits", "./image.fits", "sub/../image.fits", "ABSOLUTE", "link", "hard", "dir/x"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_input_by_any_other_name_is_not_written_over(folder, spelling):
    os.symlink("image.fits", "link")
    os.link("image.fits", "hard")
    os.symlink(".", "dir")
    spelling = {"ABSOLUTE": str(folder / "image.fits"), "dir/x": "dir/image.fits"}.get(
        spelling, spelling
    )
    for given in (spelling, Path(spelling)):
        with pytest.raises(InputError, match=r"--plot .* write over an input, the image image\.f"):
            check_outputs_apart({"-o": None, "--plot": given}, {"image": ["a", "image.fits"]})
    with pytest.raises(InputError, match="would write over an input, the mask"):
        check_outputs_apart({"-o": "image.fits"}, {"noise": (1.0, None), "mask": spelling})


def test_outputs_are_not_each_other_there_or_not(folder):
    os.symlink("new.fits", "dangling")
    for one, other in (("new.fits", "sub/../new.fits"), ("new.fits", "dangling")):
        with pytest.raises(InputError, match="-o and --model-image are the same file"):
            check_outputs_apart({"-o": one, "--model-image": Path(other)})
    os.link("image.fits", "hard")
    with pytest.raises(InputError, match="are the same file"):
        check_outputs_apart({"-o": "image.fits", "--model-image": "hard"})


def test_a_folder_of_results_holds_no_input(folder):
    (folder / "sub" / "part-0.parquet").write_text("list")
    with pytest.raises(InputError, match="-o sub would write over an input, the list"):
        check_outputs_apart({"-o": "sub"}, {"list": Path("sub/part-0.parquet")})


def test_what_is_apart_passes(folder):
    (folder / "out.fits").write_text("of an earlier run")
    check_outputs_apart(
        {"-o": "out.fits", "--plot": [Path("a.png"), Path("b.png")], "--model-image": "new.fits"},
        {"image": ["image.fits", "gone.fits", "n" * 300], "noise": [1.0], "list": None},
    )
