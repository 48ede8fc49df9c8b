"""Memory that was freed is kept for the next array, where the C library can be told so.

Images are rendered by the thousand into arrays of some megabytes, which glibc hands back to the
system when they are freed and asks for again: every page is then cleared anew, which on virtual
machines that take freed memory back costs more than the arithmetic. Memory in use at one time is
the same; what stays with the process after its peak is not.
"""

from __future__ import annotations

import ctypes
import os
import platform

SWITCH = "DEEPLEGATO_MALLOC"
"""Environment variable that leaves the C library's own settings, set to ``default``."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Numbers of glibc's parameters, as its ``malloc.h`` has them."""

KEPT = 2**31 - 1
"""Free memory at the heap's end beyond which it goes back to the system. [bytes]"""

TOP_PAD = 2**28
"""Memory by which the heap grows at a time; untouched pages cost nothing. [bytes]"""


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory; returns whether it was told.

    Nothing is changed where another C library is used, where the environment has settings of
    its own (``MALLOC_...``, ``GLIBC_TUNABLES``), or where :data:`SWITCH` says ``default``.
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
