from __future__ import annotations

import sys

import pytest
from astropy.io import fits

from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.cli.app import main
from deeplegato_pp.report.gallery import make_report
from deeplegato_pp.report.panels import Pixels
from deeplegato_pp.view.app import Viewer
from deeplegato_pp.view.marks import Marks
from fake_model import truth_image
from result_tables import make_scene_table, make_table

pytestmark = [  # what Panel and Bokeh use of newer releases of pandas
    pytest.mark.filterwarnings(f"ignore::{kind}Warning")
    for kind in ("Deprecation", "PendingDeprecation", "Future")
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fits.writeto("g.fits", truth_image().numpy() + 5.0)
    return tmp_path


@pytest.fixture
def viewer(folder):
    pytest.importorskip("panel", reason="NO PANEL: the viewer is not tested")
    table = make_table(30)
    marks = Marks(folder / "t.marks.ecsv", list(table["name"]))
    return Viewer(table, Pixels((folder,), lambda path: Inputs((path,))), marks, "Field")


def test_the_command_without_panel(folder, monkeypatch, capsys):
    make_table(3).write("t.ecsv")
    monkeypatch.setitem(sys.modules, "panel", None)
    assert main(["view", "--help"]) == 0
    assert "Example: deeplegato view" in capsys.readouterr().out
    assert main(["view", "t.ecsv"]) == 2
    assert "pip install 'deeplegato-pp[view]'" in capsys.readouterr().err


def test_the_command_serves_the_catalogue(folder, monkeypatch):
    pytest.importorskip("panel", reason="NO PANEL: the viewer is not tested")
    make_table(3).write("t.ecsv")
    called = []
    monkeypatch.setattr("panel.serve", lambda page, **options: called.append((page, options)))
    assert main(["view", "t.ecsv", "--port", "5123", "--no-browser", "--title", "Mine"]) == 0
    ((_, options),) = called
    assert (options["port"], options["show"], options["title"]) == (5123, False, "Mine")
    assert options["address"] == "localhost"


def test_marking_saves_and_goes_on(viewer, folder):
    assert viewer.current == 0
    viewer.mark("good")
    viewer.mark("bad")
    assert viewer.current == 2
    assert [viewer.marks[i] for i in range(3)] == ["good", "bad", ""]
    assert list(viewer.table.value["mark"][:3]) == ["good", "bad", ""]
    viewer.step(-1)
    viewer.mark("")
    assert viewer.current == 1
    assert "<h1>&lt;g1&gt;" in viewer.heading.object
    assert "marked" not in viewer.heading.object
    assert len(Marks(folder / "t.marks.ecsv", viewer.rows.columns["name"])) == 1


def test_steps_follow_the_table_as_it_is_sorted_and_filtered(viewer):
    viewer.widgets["where"].value = "magnitude > 21.45"
    assert viewer.table.value.index[0] == 5
    viewer.table.sorters = [{"field": "magnitude", "dir": "desc"}]
    viewer.look_at(28)
    viewer.step(1)
    assert viewer.current == 27
    viewer.look_at(7)
    assert viewer.table.page == 3  # the 22nd of the sorted rows, ten a page
    assert viewer.table.value.index[viewer.table.selection[0]] == 7
    viewer.step(100)
    viewer.step(1)
    assert viewer.current == 5
    viewer.widgets["where"].value = "magnitude >"
    assert "not understood" in viewer.status.object
    assert len(viewer.chosen) == 24  # as before
    viewer.widgets["where"].value = "magnitude > 99"
    viewer.step(1)
    assert "0 of 30 galaxies" in viewer.status.object


def test_the_plot_shows_what_the_table_does(viewer):
    viewer.widgets["x"].value = "magnitude"
    viewer.widgets["qualities"].value = ["good"]
    assert list(viewer.scatter.source.data["row"]) == list(range(28))
    bars = viewer.scatter.bars.data
    assert bars["x1"][3] - bars["x"][3] == pytest.approx(0.01)
    assert bars["y"][3] - bars["y0"][3] == pytest.approx(0.01)
    viewer.scatter.source.selected.indices = [4]
    assert viewer.current == 4
    assert viewer.scatter.ring.data["x"] == [pytest.approx(21.4)]
    viewer.scatter.cursor.data = {"row": [9]}
    assert viewer.current == 4
    assert "&lt;g9&gt;" in viewer.heading.object
    viewer.scatter.cursor.data = {"row": [-1]}
    assert "&lt;g4&gt;" in viewer.heading.object


def test_only_points_are_tapped(viewer):
    figure = viewer.scatter.figure("effective_radius", "magnitude", False, False)
    (points,) = [r for r in figure.renderers if r.name == "points"]
    (tap,) = [tool for tool in figure.tools if type(tool).__name__ == "TapTool"]
    assert tap.renderers == [points]


def test_scenes_are_shown_and_chosen(viewer, folder):
    assert "scene" not in viewer.widgets  # of single profiles
    table = make_scene_table()
    shown = Viewer(table, viewer.pixels, Marks(folder / "m.ecsv", list(table["name"])), "Field")
    assert list(shown.table.value["scene"]) == ["sersic", "bulge+disc", "sersic+point", ""]
    shown.widgets["scene"].value = "bulge+disc"
    assert list(shown.table.value.index) == [1]
    shown.look_at(1)
    assert "Components: bulge+disc" in shown.galaxy.object


def test_a_gallery_is_shown_by_its_thumbnails(viewer, folder):
    table = make_table(3)
    make_report(table, folder / "gallery", viewer.pixels)
    table["thumbnail"] = [str(folder / f"gallery/thumbnails/000{i}.png") for i in range(3)]
    nowhere = Pixels((), lambda path: Inputs((path,)))
    shown = Viewer(table, nowhere, Marks(folder / "m.ecsv", list(table["name"])), "Field")
    assert "data:image/png" in shown.galaxy.object
    assert "Posterior" in shown.galaxy.object
