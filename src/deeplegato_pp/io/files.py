"""Atomic writes, checks of output paths, and disk-full errors."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from deeplegato_pp.errors import DeepLegatoError, InputError

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(DeepLegatoError, OSError):
    """The disk is full; files that were finished before are complete."""


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Converts the system's error of a full disk to one with a remedy.

    Args:
        path: The file written in the block.

    Raises:
        DiskFullError: If the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(
            f"no space is left for {path.name} in {path.parent}. What was finished before it is "
            "safe: free some space and run the same command again (predict and catalog: with "
            "--resume)."
        ) from error


def check_output(path: str | os.PathLike[str], suffixes: Sequence[str], what: str) -> Path:
    """Checks before any work that a path can be written, and returns it.

    Args:
        path: Path of the file.
        suffixes: Allowed suffixes, in lower case, with the dot.
        what: Description of the file, for the message.

    Raises:
        InputError: If the suffix is unknown, the folder is missing or not writable, or the path is
            a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(
            f"{what} {path}: unknown suffix {path.suffix or '(none)'}, expected one of "
            f"{', '.join(suffixes)}. The suffix chooses the format."
        )
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{what} {path}: folder {folder} does not exist. Make it first.")
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder, expected a file. Give a file name.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{what} {path}: folder {folder} cannot be written to. Choose another.")
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file in the same folder that replaces `path` at the end.

    If the block raises an error, the temporary file is removed and an existing file is kept.

    Raises:
        DiskFullError: If the disk is full.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk_full_named(path):
            yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file atomically, and flushes it to the disk.

    Raises:
        DiskFullError: If the disk is full.
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
    """Flushes a folder's entries to the disk, if the system allows it."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(file: IO[Any]) -> None:
    """Locks an open file against other processes until it is closed or the process ends.

    Raises:
        OSError: If another process holds the lock.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
