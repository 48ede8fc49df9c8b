"""Allocator settings that keep freed memory for the next array.

Thousands of images are rendered into arrays of some megabytes. By default glibc returns freed
arrays to the system and requests new ones, whose pages must be cleared again; on virtual machines
that reclaim freed memory this takes longer than the arithmetic. Peak memory is unchanged; memory
after the peak stays with the process.
"""

from __future__ import annotations

import ctypes
import os
import platform

SWITCH = "DEEPLEGATO_MALLOC"
"""Environment variable that keeps the C library's own settings if it is ``default``."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameter numbers in glibc's ``malloc.h``."""

KEPT = 2**31 - 1
"""Free memory at the top of the heap above which it is returned to the system. [bytes]"""

TOP_PAD = 2**28
"""Increment by which the heap grows; untouched pages cost nothing. [bytes]"""


def keep_freed_memory() -> bool:
    """Sets glibc to keep freed memory; returns whether this was possible.

    Nothing is changed for other C libraries, if the environment has its own settings
    (``MALLOC_...``, ``GLIBC_TUNABLES``), or if :data:`SWITCH` is ``default``.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or os.environ.get(SWITCH) == "default" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, KEPT), (_M_TOP_PAD, TOP_PAD))
    return all(mallopt(number, value) == 1 for number, value in settings)
