from __future__ import annotations

import json
from dataclasses import replace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from deeplegato_pp.calibration import card
from deeplegato_pp.calibration import publish as publishing
from deeplegato_pp.calibration.document import (
    document,
    headline,
    read_document,
    write_document,
)
from deeplegato_pp.calibration.figures import draw_figures
from deeplegato_pp.calibration.recalibration_effect import effect, fit_recalibration, mended_ranks
from deeplegato_pp.calibration.report import knobs_in_words, report
from deeplegato_pp.calibration.settings import Settings, Simulations
from deeplegato_pp.config import load_config
from deeplegato_pp.errors import FormatError
from deeplegato_pp.inference.recalibration import Recalibration
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.scene.parameters import NAMES
from tiny_model import TINY


@pytest.fixture(scope="module")
def content(predictor, make_galaxies) -> dict:
    own = Simulations.of(predictor.model, None, 0)
    return document(predictor.model, own, Settings(number=2000), make_galaxies(factor=0.8))


@pytest.fixture(scope="module")
def study(predictor, make_galaxies) -> dict:
    wrong = Simulations.of(predictor.model, "studies/neighbours", 0)
    return document(predictor.model, wrong, Settings(number=640), make_galaxies(640, factor=0.5))


def test_the_document_comes_back(content, tmp_path):
    path = tmp_path / "c.json"
    write_document(content, path)
    assert read_document(path) == json.loads(json.dumps(content))
    path.write_text("[]")
    with pytest.raises(FormatError, match="format 1"):
        read_document(path)


def test_the_page_tells_what_the_figures_say(content):
    text = report(content, ["coverage.png"])
    assert text.startswith("# Calibration of tiny")
    assert "2,000 fresh simulations from the model's own prior" in text
    assert "no parameter" in text
    assert "too narrow by" in text
    covered = content["overall"]["coverage"]["0.68"]["axis_ratio"]
    assert f"| {100 * covered:.1f} % |" in text
    assert "| PSF narrower than 2 px |" in text
    assert "(coverage.png)" in text
    assert "(pulls.png)" not in text
    assert "recalibrated" in text
    assert "nan" not in text.lower()
    assert "None" not in text


def test_correlated_noise_that_is_told_is_nothing_wrong(predictor, make_galaxies):
    drizzled = Simulations.of(predictor.model, "studies/drizzled", 0)
    page = report(document(predictor.model, drizzled, Settings(number=64), make_galaxies(64)), [])
    assert "nothing: noise correlated by 1.5 to 4 on every stamp, and told" in page


def test_a_study_of_structure_replaces_the_models_own(make_galaxies):
    keys = ("structure.share=0.9", "structure.modulated=0.5", "conditions.psf_error=0.03")
    model = DeepLeGAToPP(load_config(TINY, [f"data.{key}" for key in keys]))
    rings = Simulations.of(model, "studies/rings", 0)
    assert rings.data.structure.rings == rings.data.structure.share == 1.0
    assert rings.data.structure.modulated == 0.0
    assert rings.data.conditions.psf_error == 0.03
    words = knobs_in_words(document(model, rings, Settings(number=64), make_galaxies(64)))
    assert words == "galaxies with rings"
    near = Simulations.of(model, "studies/neighbours", 0)
    assert near.data.structure == model.config.data.structure
    words = knobs_in_words(document(model, near, Settings(number=64), make_galaxies(64)))
    assert words == "up to 3 unmasked neighbours on every stamp"


def test_a_study_is_told_beside_the_models_own(content, study):
    alone = report(study, [])
    assert "up to 3 unmasked neighbours on every stamp" in alone
    assert "needs the model's own calibration" in alone
    beside = report(study, [], headline(content))
    fall = study["overall"]["coverage"]["0.95"]["magnitude"]
    fall -= content["overall"]["coverage"]["0.95"]["magnitude"]
    assert f"| {100 * fall:.1f} % |" in beside


def test_every_figure_is_drawn_from_the_document(content, tmp_path):
    before, figures = dict(matplotlib.rcParams), plt.get_fignums()
    names = draw_figures(json.loads(json.dumps(content)), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert len(names) == 6
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == before


def test_the_card_gets_one_section(content, study, tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n\nKept.\n")
    (tmp_path / "figures.json").write_text("[]")
    for page in (content, study, content):
        card.write_card(tmp_path, page)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Mine\n\nKept.\n")
    assert text.count("## Calibration") == text.count(card.CALIBRATION[0]) == 1
    assert "`neighbours`" in text
    figures = card.read_figures(tmp_path)
    assert set(figures) == {"network", "studies"}
    assert figures["network"]["galaxies"] == 2000
    lines = card.headline_lines(figures)
    assert len(lines) == 2
    assert "2,000 simulations" in lines[0]
    other = {**content, "model": {**content["model"], "weights": "others"}}
    card.write_card(tmp_path, other)
    assert not card.read_figures(tmp_path)["studies"]


def test_both_widths_of_refined_studies_are_told_side_by_side(predictor, make_galaxies, tmp_path):
    rings = Simulations.of(predictor.model, "studies/rings", 0)
    narrow, wide = make_galaxies(640, factor=0.4), make_galaxies(640)
    galaxies = replace(wide, noise_ranks=narrow.ranks, noise_width=narrow.width)
    content = document(predictor.model, rings, Settings(number=640, refine=True), galaxies)
    noise = content["overall"]["noise_widths"]
    assert noise["coverage"]["0.95"]["axis_ratio"] < 0.7
    assert noise["inflation"]["axis_ratio"] == pytest.approx(2.5)
    page = report(content, [])
    covered = [100 * c["coverage"]["0.68"]["axis_ratio"] for c in (noise, content["overall"])]
    assert f"| {covered[0]:.1f} % | {covered[1]:.1f} % |" in page
    assert "galaxies with rings" in page
    card.write_card(tmp_path, content)
    figures = card.read_figures(tmp_path)
    assert "studies" not in figures
    section = (tmp_path / "README.md").read_text()
    assert "### Refined, with the stated noise's widths and with honest ones" in section
    assert f"/ {covered[0]:.0f} /" in section
    assert "with honest ones" in card.headline_lines(figures)[0]


def test_recalibration_mends_widths_on_galaxies_it_has_not_seen(make_galaxies):
    galaxies = make_galaxies(4000, factor=0.7, seed=1)
    found = effect(galaxies, 300, (0.5, 0.68, 0.95))
    assert all(found["before"][name] < -0.1 for name in NAMES)
    assert all(abs(found["after"][name]) < 0.05 for name in NAMES)
    assert effect(galaxies[:500], 300, (0.5,)) is None
    fitted = fit_recalibration(galaxies, 300)
    moved = mended_ranks(fitted, galaxies.ranks, galaxies.estimates[:, 0])
    assert ((moved > 0) & (moved < 1)).all()
    faint = galaxies.estimates[:, 0] < 3.0  # one class: the order of its ranks stays
    order = np.argsort(galaxies.ranks[faint, 0])
    assert (np.diff(moved[faint, 0][order]) >= 0).all()


def test_everything_is_published(content, make_galaxies, tmp_path, monkeypatch):
    # Drawing is tested above.
    monkeypatch.setattr(publishing, "draw_figures", lambda content, folder: [])
    output, folder = tmp_path / "out", tmp_path / "model"
    output.mkdir()
    folder.mkdir()
    galaxies = make_galaxies(factor=0.8)
    written = publishing.publish(content, galaxies, output, folder)
    assert list(folder.iterdir()) == []
    assert {p.name for p in written} == {p.name for p in output.iterdir()}
    publishing.publish(content, galaxies, output, folder, write_card=True)
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "figures.json", "recalibration.json",
    }  # fmt: skip
    assert Recalibration.load(folder / "recalibration.json").covariate == "snr"


def test_the_card_shows_real_galaxies_beside_simulations(content, tmp_path):
    names = ("ln R_e", "ln n", "e1", "e2")
    pulls = {
        "two telescopes": {
            "pairs": 25,
            "kinds": {"network, honest": dict(zip(names, (1.25, 0.71, 0.89, 0.87), strict=True))},
        }
    }
    published = {"galaxies": 29, "kinds": {"network, honest": {"ln R_e": 1.0, "q": 0.97}}}
    weights = content["model"]["weights"]
    card.write_card(tmp_path, content)
    card.write_real_galaxies(tmp_path, weights, pulls, published)
    text = (tmp_path / "README.md").read_text()
    assert "2,000 fresh simulations" in text
    assert "| two telescopes | 25 | network, honest | 1.25 | 0.71 | 0.89 | 0.87 |" in text
    assert "29 published fits" in text
    assert "| network, honest | 1.00 | 0.97 |" in text
    lines = card.headline_lines(card.read_figures(tmp_path))
    assert lines[1] == (
        "real galaxies, two telescopes, 25 pairs, network, honest: 68 % of pulls within "
        "ln R_e 1.25, ln n 0.71, e1 0.89, e2 0.87"
    )
    card.write_real_galaxies(tmp_path, "of other weights", pulls, {"galaxies": 0, "kinds": {}})
    text = (tmp_path / "README.md").read_text()
    assert "fresh simulations" not in text
    assert "published" not in text
