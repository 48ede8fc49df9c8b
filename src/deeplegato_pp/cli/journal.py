"""Journal of finished rows of `deeplegato predict`, from which a stopped run continues."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.io.files import disk_full_named, lock_file

Row = dict[str, Any]


class Journal:
    """Journal with one line per row, in input order; an incomplete last line is ignored.

    Args:
        output: Path of the final table; the journal is a hidden file beside it until then.
        configuration: Settings on which rows depend, as plain values.
        resume: Whether rows of an earlier run are used; otherwise they are deleted.

    Raises:
        ConfigError: If the earlier run had another configuration.
        InputError: If another run is writing the same table.
        DiskFullError: If the disk is full.
    """

    def __init__(self, output: Path, configuration: dict[str, Any], resume: bool) -> None:
        self.path = output.with_name(f".{output.name}.rows")
        self._rows: dict[str, Row] = {}
        configuration = json.loads(json.dumps(configuration, default=str))
        # Unbuffered, because a buffer would be written again when a file on a full disk is closed.
        self._file = self.path.open("a+b", buffering=0)
        try:
            self._begin(configuration, resume)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, configuration: dict[str, Any], resume: bool) -> None:
        try:
            lock_file(self._file)
        except OSError as error:
            raise InputError(
                f"another run keeps its rows in {self.path}. Wait for it, or give another output."
            ) from error
        if resume:
            self._take_up(configuration)
        if not self._rows:
            self._file.truncate(0)
            self._write([configuration])

    def _take_up(self, configuration: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            return
        before = json.loads(lines[0])
        if before != configuration:
            changed = sorted(
                k for k in {**before, **configuration} if before.get(k) != configuration.get(k)
            )
            raise ConfigError(
                f"{self.path} holds rows made with other options ({', '.join(changed)}). Give the "
                "same options, or leave --resume out to start afresh."
            )
        self._rows = {entry["image"]: entry["row"] for entry in map(json.loads, lines[1:])}
        if len(whole) < len(content):
            self._file.truncate(len(whole))

    def row(self, image: str) -> Row | None:
        """Returns the row of an image, identified by its printable name, or None."""
        return self._rows.get(image)

    def add(self, images: list[str], rows: list[Row]) -> None:
        """Writes rows to the disk."""
        new = dict(zip(images, rows, strict=True))
        self._write([{"image": image, "row": row} for image, row in new.items()])
        self._rows |= new

    def _write(self, entries: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        with disk_full_named(self.path):
            left = memoryview(lines.encode("ascii"))
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Removes the journal, after the table was written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
