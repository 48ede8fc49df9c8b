"""What ``pytest --check-shapes`` checks calls with: beartype, whole numbers being floats too."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
