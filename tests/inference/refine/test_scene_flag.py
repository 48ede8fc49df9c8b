"""Scenes whose weights are not to be believed."""

from __future__ import annotations

import math

import pytest

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.inference.refine.rows import with_scene


@pytest.mark.parametrize(
    ("khat", "quality"), [(0.69, "good"), (0.71, "caution"), (math.nan, "good")]
)
def test_poor_weights_of_a_scene_are_flagged(khat, quality):
    record = SceneRecord(
        ("sersic", "bulge+disc"), "bulge+disc", {}, {}, {}, {}, {}, None, khat=khat
    )
    m = with_scene(Measurement(method="adapted"), record)
    assert m.scene is record
    assert bool(m.flags & Flag.SCENE_KHAT) == (quality == "caution")
    assert m.quality == quality


def test_without_a_scene_nothing_is_flagged():
    assert with_scene(Measurement(method="adapted"), None).flags == 0
