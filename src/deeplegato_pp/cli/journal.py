"""Rows of `deeplegato predict` on the disk as they come, so that a run that was stopped goes on."""

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
    """One line per row, in input order; a line that was cut short does not count.

    Args:
        output: The table to be; the journal stands beside it, hidden, until the table is written.
        configuration: All that rows depend on beside the image, as plain values.
        resume: Take up the rows of an earlier run; else they are thrown away.

    Raises:
        ConfigError: If the earlier run had another configuration.
        InputError: If another run is writing the same table.
        DiskFullError: If there is no room for it.
    """

    def __init__(self, output: Path, configuration: dict[str, Any], resume: bool) -> None:
        self.path = output.with_name(f".{output.name}.rows")
        self._rows: dict[str, Row] = {}
        configuration = json.loads(json.dumps(configuration, default=str))
        # Without a buffer, which would be written again when a file on a full disk is closed.
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
        """Returns the row of an image, named with what tells it from others, or None."""
        return self._rows.get(image)

    def add(self, images: list[str], rows: list[Row]) -> None:
        """Puts rows on the disk."""
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
        """Removes the journal: the table holds its rows."""
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
