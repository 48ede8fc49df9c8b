from __future__ import annotations

import deeplegato_pp
from deeplegato_pp.cli.app import main
from deeplegato_pp.cli.info import flatten
from deeplegato_pp.config.schema import Config
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.scene.parameters import PARAMETERS


def test_info_tells_version_prior_and_card(tmp_path, capsys):
    config = Config()
    config.model.backbone.embed_dim = 16
    config.model.backbone.depths = (1, 1)
    config.model.backbone.num_heads = (1, 2)
    folder = tmp_path / "mine"
    DeepLeGAToPP(config).save_pretrained(folder, {"training": {"images": 123}})
    assert main(["info", "--model", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f"deeplegato-pp {deeplegato_pp.__version__}" in text
    assert "mine" in text
    assert "training.images: 123" in text
    for p in PARAMETERS:
        assert p.name in text
        assert f"{p.upper:g}" in text


def test_flatten_keeps_order_and_leaves():
    assert flatten({"b": {"c": {"d": 1}}, "a": [1]}) == [("b.c.d", 1), ("a", [1])]
