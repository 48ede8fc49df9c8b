from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from matplotlib.image import imread

from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.cli.app import main
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.report.details import picture
from deeplegato_pp.report.gallery import check_folder, make_report
from deeplegato_pp.report.panels import Panels, Pixels
from deeplegato_pp.report.profile import interval_svg, profile_svg, radial_profile
from deeplegato_pp.report.rows import Rows
from fake_model import truth_image
from result_tables import make_scene_table, make_table

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fits.writeto("g.fits", truth_image().numpy() + 5.0)
    return tmp_path


def pixels(folder):
    return Pixels((folder,), lambda path: Inputs((path,)))


class Links(HTMLParser):
    """The targets of links, pictures, styles and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("href", "src") and v]


def test_the_pages_hang_together_and_need_no_network(folder):
    table = make_table()
    assert make_report(table, folder / "gallery", pixels(folder)) == 3
    pages = [folder / "gallery/index.html", *sorted((folder / "gallery/galaxies").iterdir())]
    assert len(pages) == 4
    for page in pages:
        links = Links(page.read_text()).found
        assert links
        for link in links:
            assert (page.parent / link).is_file(), link
    text = pages[1].read_text()
    assert "&lt;g0&gt;" in text
    assert "<g0>" not in text
    assert 'class="profile"' in text
    assert text.count('class="interval"') == 7
    assert Flag.POOR_FIT.meaning.split(":")[0] in pages[2].read_text()
    assert "no pixel is left" in pages[3].read_text()


def test_the_data_of_the_table(folder):
    make_report(make_table(), folder / "gallery", pixels(folder))
    text = (folder / "gallery/rows.js").read_text()
    data = json.loads(text.removeprefix("window.GALLERY=").removesuffix(";\n"))
    assert data["quality"] == ["good", "caution", "bad"]
    assert data["flagNames"] == ["failed", "poor_fit"]
    magnitudes = data["columns"]["magnitude"]
    assert magnitudes["values"] == [21.0, 21.1, None]
    assert magnitudes["unit"] == "mag"
    assert "magnitude_q50" not in data["columns"]
    table = QTable.read(folder / "gallery/catalogue.fits")
    assert (folder / "gallery/thumbnails/0001.png").samefile(table["thumbnail"][1])


def test_the_picture_is_image_model_and_residual(folder):
    table = make_table()
    make_report(table, folder / "gallery", pixels(folder))
    strip = imread(folder / "gallery/thumbnails/0000.png")[..., :3].sum(2)
    side = strip.shape[0]
    assert strip.shape == (side, 3 * side)
    image, model, residual = np.split(strip, 3, axis=1)
    middle = slice(side // 2 - 1, side // 2 + 2), slice(side // 2 - 1, side // 2 + 2)
    assert image[middle].mean() > 2.0
    assert model[middle].mean() > 2.0
    assert residual[middle].mean() < 1.0


def test_panels_take_the_sky_off_and_leave_noise(folder):
    table = make_table()
    row = as_row(table, 0)
    panels = pixels(folder).panels(row)
    assert isinstance(panels, Panels)
    assert panels.residual.std() == pytest.approx(1.0, abs=0.1)
    assert abs(np.median(panels.residual)) < 0.1
    rings = np.array(radial_profile(panels, row["axis_ratio"], row["position_angle"]))
    np.testing.assert_array_less(np.abs(rings[:, 1] - rings[:, 3]), 5 * rings[:, 2])
    assert (np.diff(rings[2:, 3]) < 0).all()  # within the PSF's core rings follow the PSF


def as_row(table, index):
    """A row of a table as the pages have it."""
    return Rows(table)[index]


def test_the_model_is_that_of_the_scene_that_won(folder):
    table = make_scene_table()
    panels = [pixels(folder).panels(as_row(table, i)) for i in range(3)]
    assert [list(p.components) for p in panels] == [[], ["bulge", "disc"], ["host", "point"]]
    single, two, nucleus = (p.model for p in panels)
    for model, found in zip((two, nucleus), panels[1:], strict=True):
        np.testing.assert_allclose(model, sum(found.components.values()), rtol=1e-6)
    # The table's sum has the single profile's magnitude and radius, its parts other ones.
    flux = 10 ** (-0.4 * (table["magnitude"].value - 30.5))
    assert two.sum() == pytest.approx(flux[1], rel=0.05)
    assert two.max() > 1.2 * single.max()
    point = panels[2].components["point"]
    assert point.sum() == pytest.approx(0.2 * flux[2], rel=0.01)
    assert point.max() == pytest.approx(point.sum() * moffat_psf(3.0)[0].max(), rel=0.1)
    rings = np.array(radial_profile(panels[1], 0.7, 30.0))
    np.testing.assert_allclose(rings[:, 4] + rings[:, 5], rings[:, 3], rtol=1e-5)


def test_the_page_of_a_scene_names_its_components(folder):
    make_report(make_scene_table(), folder / "gallery", pixels(folder))
    pages = [p.read_text() for p in sorted((folder / "gallery/galaxies").iterdir())]
    plain, two, nucleus, _ = pages
    assert "Components" not in plain
    assert "component0" not in plain
    assert "Components: bulge+disc, odds 12.5 to 1" in two
    assert "<span>bulge</span><span>disc</span>" in two
    assert two.count('class="component component') == 2 * 2  # the profile's lines, and the legend's
    assert two.count("bulge_effective_radius") == 1  # in its table, and not once more
    assert two.count('class="interval"') == 7 + 2
    assert two.count("<td>fixed</td>") == 1
    assert "host and point" in nucleus
    text = (folder / "gallery/rows.js").read_text()
    data = json.loads(text.removeprefix("window.GALLERY=").removesuffix(";\n"))
    assert data["scenes"] == ["bulge+disc", "sersic", "sersic+point"]
    assert data["columns"]["bulge_effective_radius"]["unit"] == "arcsec"


def test_a_small_file_is_shown_without_margins(folder):
    fits.writeto(folder / "small.fits", truth_image().numpy()[44:84, 44:84])
    table = make_table()
    table["file"] = ["small.fits"] * len(table)
    table["x"], table["y"] = 20.0, 18.5
    table["effective_radius_pix"] *= 3.0
    row = as_row(table, 0)
    assert pixels(folder).panels(row).image.shape == (48, 48)


def test_what_has_no_picture_says_why(folder):
    table = make_table()
    table["file"][0] = "gone"
    assert make_report(table, folder / "gallery", pixels(folder)) == 2
    assert "gone is not there any more" in (folder / "gallery/galaxies/0000.html").read_text()


def test_masked_pixels_are_grey():
    image = np.zeros((8, 8))
    mask = image == 0
    mask[4:] = False
    strip, peak = picture(Panels(image, image + 1.0, mask, 1.0, (3.5, 3.5), 0.2))
    assert peak == 5.0
    assert (strip[:4, :8] == 255).all()
    assert (strip[:, 8:16] < 255).all()


def test_the_radii_of_a_profile_are_labelled_within_a_decade():
    y, x = np.indices((64, 64)) - 31.5
    image = 100.0 * np.exp(-np.hypot(x, y) / 6.0)
    drawing = profile_svg(Panels(image, image, image < 0, 1.0, (31.5, 31.5), 0.1), 1.0, 0.0)
    found = re.findall(r'text-anchor="middle">([\d.]+)<', drawing)
    assert found == ["0.1", "0.2", "0.5", "1", "2"]


def test_a_faint_galaxys_errors_stay_in_the_drawing_and_its_brightness_is_labelled():
    noise = np.random.default_rng(1).normal(size=(64, 64))
    faint = Panels(noise, 0.0 * noise, noise > np.inf, 1.0, (31.5, 31.5), 0.1)
    drawing = profile_svg(faint, 1.0, 0.0)
    inner = re.search(r'<svg width="(\d+)" height="(\d+)">(.*?)</svg>', drawing)
    outside = drawing.replace(inner[0], "")
    assert 'class="bar"' in inner[3]
    assert 'class="bar"' not in outside
    assert int(inner[2]) < 240  # above the labels of the radii
    assert {"0", "0.1"} <= set(re.findall(r'text-anchor="end">([\d.]+)<', drawing))


def test_an_angle_that_wraps_is_drawn_about_its_median():
    names = [f"position_angle_{q}" for q in ("q025", "q16", "q50", "q84", "q975")]
    drawing = interval_svg(
        dict(zip(names, (176, 178, 0.5, 2, 4), strict=True)), "position_angle", 180.0
    )
    found = re.search(r'wide" x="([\d.]+)" y="8" width="([\d.]+)"', drawing)
    left, width = (float(v) for v in found.groups())
    assert width == pytest.approx(200 / 3, abs=0.2)
    assert left < 100 < left + width


def test_wrong_folders_and_tables_are_refused(folder):
    (folder / "other").mkdir()
    (folder / "other/file").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        check_folder(folder / "other")
    with pytest.raises(InputError, match="does not exist"):
        check_folder(folder / "none/gallery")
    with pytest.raises(InputError, match="is a file"):
        check_folder(folder / "g.fits")
    with pytest.raises(InputError, match="no column quality"):
        make_report(QTable({"magnitude": [1.0]}), folder / "gallery", pixels(folder))


def test_the_command(folder, capsys):
    make_table().write("t.ecsv")
    assert main(["report", "t.ecsv", "-o", "gallery", "--title", "Field"]) == 0
    assert "3 galaxies, 3 with a picture" in capsys.readouterr().out
    assert "<title>Field</title>" in (folder / "gallery/index.html").read_text()
    assert main(["report", "t.ecsv", "-o", "gallery"]) == 0  # an earlier gallery is replaced
    assert main(["report", "none.ecsv", "-o", "gallery2"]) == 2


ACTIONS = """
<script>
function rows() {
  return Array.from(document.querySelectorAll("#rows tbody tr")).map(function (line) {
    return line.children[1].textContent;
  });
}
function set(id, value, kind) {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event(kind));
}
function press(column) { document.querySelector("th[data-column=" + column + "]").click(); }
var seen = {};
seen.first = rows();
seen.count = document.getElementById("count").textContent;
press("magnitude"); press("magnitude"); seen.faintFirst = rows().slice(0, 3);
set("where", "magnitude > 21.05, magnitude < 21.25", "input"); seen.where = rows();
set("where", "magnitude >", "input");
seen.wrong = document.getElementById("where").classList.contains("wrong");
set("where", "", "input");
set("flag", "poor_fit", "change"); seen.flag = rows(); set("flag", "", "change");
document.querySelector("#qualities input[value=good]").click(); seen.notGood = rows();
document.querySelector("#qualities input[value=good]").click();
press("name"); document.getElementById("next").click(); seen.page = rows();
seen.picture = document.querySelector("#rows img").getAttribute("src");
set("column", "x", "change");
set("scene", "bulge+disc", "change"); seen.scene = rows();
seen.columns = Array.from(document.querySelectorAll("#rows th")).length;
document.body.textContent = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: chromium is not installed")
def test_a_browser_sorts_filters_and_pages(folder):
    table = make_table(60)
    table["best_scene"] = ["bulge+disc" if i in (3, 7) else "sersic" for i in range(60)]
    make_report(table, folder / "gallery", pixels(folder))
    page = folder / "gallery/index.html"
    page.write_text(page.read_text().replace("</body>", f"{ACTIONS}</body>"))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    seen = json.loads(re.search(r"<body>(\{.*\})", done.stdout, re.DOTALL)[1].split("</body>")[0]
                      .replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))  # fmt: skip
    assert seen["count"] == "60 of 60 galaxies"
    assert seen["first"] == [f"<g{i}>" for i in range(50)]
    assert seen["faintFirst"] == ["<g58>", "<g57>", "<g56>"]
    assert sorted(seen["where"]) == ["<g1>", "<g2>"]
    assert seen["wrong"] is True
    assert seen["flag"] == ["<g58>"]
    assert seen["notGood"] == ["<g58>", "<g59>"]
    assert len(seen["page"]) == 10
    assert seen["picture"].startswith("thumbnails/")
    assert seen["scene"] == ["<g3>", "<g7>"]
    assert seen["columns"] == 4 + 5 + 1 + 1
