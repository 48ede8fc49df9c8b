"""Files that are on the disk whole or not at all, and disks that are full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deeplegato_pp.errors import DeepLegatoError

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(DeepLegatoError, OSError):
    """There is no room for a file; what was finished before it is safe."""


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turns the system's error about a full disk into one that says what to do.

    Args:
        path: The file that is written in the block.

    Raises:
        DiskFullError: If there is no room for it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(
            f"no space is left for {path.name} in {path.parent}. What was finished before it is "
            "safe: free some space and run the same command again with --resume."
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there whole, and on the disk, or not at all.

    Raises:
        DiskFullError: If there is no room for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_full_named(path):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a folder's entries outlive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
