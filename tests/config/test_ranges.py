"""Values of the wrong form or out of range are named before any work."""

from __future__ import annotations

import pytest

from deeplegato_pp.config.ranges import RANGES
from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.priors.sersic_index=[3,1]", r"data\.priors\.sersic_index must be two numbers"),
        ("data.priors.magnitude=[3]", r"data\.priors\.magnitude must be two numbers"),
        ("training.betas=[1", r"training\.betas: '\[1' cannot be read"),
        ("include=5", "include names files"),
        ("training.batch_size=0", r"training\.batch_size must be at least 1, got 0"),
        ("training.batch_size=-4", r"training\.batch_size must be at least 1, got -4"),
        ("training.learning_rate=nan", r"training\.learning_rate must be finite, got nan"),
        ("training.ema_decay=2", r"training\.ema_decay must be in \[0, 1\], got 2"),
        ("validation.val_check_interval=2", r"val_check_interval must be in \[0\.001, 1\], got 2"),
        ("data.conditions.psf_fwhm=[6,1]", r"psf_fwhm must run from its lower end"),
        ("data.structure.share=2", r"data\.structure\.share must be in \[0, 1\], got 2"),
        ("data.structure.rings=-1", r"data\.structure\.rings must be in \[0, 1\], got -1"),
        ("data.structure.arm_contrast=[0.1,9]", r"arm_contrast must be in \[0\.001, 1\.5\]"),
        ("data.structure.ring_radius=[2,1]", r"ring_radius must run from its lower end"),
        ("data.structure.share=0.5", "no kind of structure has a share. Give one to some of arms"),
        ("[", "'\\[' is no setting, expected section.key=value"),
        ("a", "'a' is no setting"),
    ],
)
def test_values_that_make_no_sense_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize("text", ["include: 5", "include: [5]", "data: {priors: [1]}", "data: 3"])
def test_files_of_the_wrong_form_are_named(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="Configuration key"):
        load_config(tmp_path / "c.yaml")


def test_every_range_is_of_a_setting_and_holds_its_default():
    for key, (lowest, most) in RANGES.items():
        value = Config()
        for name in key.split("."):
            value = getattr(value, name)
        values = value if isinstance(value, tuple) else (value,)
        assert all(lowest <= number <= most for number in values), key


def test_validation_without_draws_is_allowed():
    config = load_config(None, ["validation.num_posterior_samples=0"])
    assert config.validation.num_posterior_samples == 0
