"""The guard of conftest.py catches what it is there for."""

from __future__ import annotations

import torch

from conftest import changed_torch_globals, restore_torch_globals, torch_globals


def test_guard_sees_a_change_and_undoes_it():
    before = torch_globals()
    torch.set_default_dtype(torch.float64)
    torch.distributions.Distribution.set_default_validate_args(
        not before["validation of distributions"]
    )
    changed = changed_torch_globals(before)
    restore_torch_globals(before)
    assert [line.split(" was ")[0] for line in changed] == [
        "default dtype",
        "validation of distributions",
    ]
    assert not changed_torch_globals(before)
