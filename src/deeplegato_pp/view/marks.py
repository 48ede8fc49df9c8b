"""Marks of galaxies given by users, stored in a separate table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import check_output, write_atomically

MARKS = ("good", "caution", "bad")
"""Allowed marks."""


def sidecar(catalogue: Path) -> Path:
    """Returns the path of a catalogue's marks.

    Example:
        >>> sidecar(Path("field.parquet")).name
        'field.marks.ecsv'
    """
    return catalogue.with_name(f"{catalogue.stem}.marks.ecsv")


class Marks:
    """Marks of a catalogue's rows, saved after every change.

    The file is an ECSV table with columns ``row`` (counted from 0), ``name``, ``mark`` and ``time``
    (UTC); rows without mark are omitted.

    Args:
        path: The file, ``.ecsv``; it is read if it exists.
        names: Names of the catalogue's rows.

    Raises:
        InputError: If the file cannot be written, or belongs to another catalogue.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path = check_output(path, (".ecsv",), "table of marks")
        self.names = names
        self._marks: dict[int, tuple[str, str]] = {}
        self._lock = Lock()
        if path.exists():
            self._read()

    def _read(self) -> None:
        from astropy.table import Table

        try:
            table = Table.read(self.path, format="ascii.ecsv")
            texts = [[str(v) for v in table[k]] for k in ("name", "mark", "time")]
            lines = list(zip(map(int, table["row"]), *texts, strict=True))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{self.path} is no table of marks ({error}). Give another name with --marks."
            ) from error
        for row, name, mark, time in lines:
            if not 0 <= row < len(self.names) or self.names[row] != name or mark not in MARKS:
                raise InputError(
                    f"{self.path} belongs to another catalogue: its row {row} is {name}, marked "
                    f"{mark}. Move it away, or give another name with --marks."
                )
            self._marks[row] = (mark, time)

    def __getitem__(self, row: int) -> str:
        """Returns the mark of a row; empty if it has none."""
        return self._marks.get(row, ("", ""))[0]

    def __len__(self) -> int:
        return len(self._marks)

    def give(self, row: int, mark: str) -> None:
        """Sets a row's mark, or removes it for an empty string, and saves all marks."""
        with self._lock:
            if mark:
                self._marks[row] = (mark, datetime.now(UTC).isoformat(timespec="seconds"))
            else:
                self._marks.pop(row, None)
            self._save()

    def _save(self) -> None:
        from astropy.table import Table

        rows = sorted(self._marks)
        table = Table(
            {
                "row": rows,
                "name": [self.names[i] for i in rows],
                "mark": [self._marks[i][0] for i in rows],
                "time": [self._marks[i][1] for i in rows],
            },
            dtype=(int, str, str, str),
        )
        text = io.StringIO()
        table.write(text, format="ascii.ecsv")
        write_atomically(self.path, text.getvalue().encode())
