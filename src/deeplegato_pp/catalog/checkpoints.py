"""Work folder of a run: part files, each complete or absent, and their manifest."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplegato_pp.catalog.plan import Plan, check_same
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import lock_file, write_atomically


@dataclass(frozen=True)
class WorkFolder:
    """Folder in which a run keeps its parts until they are joined.

    Attributes:
        folder: Path of the folder.
        suffix: Suffix of the shard, which has its own lock and completion file.
    """

    folder: Path
    suffix: str = ""

    @property
    def manifest(self) -> Path:
        """File that describes the inputs of the parts."""
        return self.folder / "manifest.json"

    @property
    def done(self) -> Path:
        """File that marks the parts as joined."""
        return self.folder / f"done{self.suffix}.json"

    def part(self, number: int) -> Path:
        """Returns the file of one chunk."""
        return self.folder / f"part-{number:08d}.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the catalogue against a second run; the lock of a killed run is released.

        Raises:
            InputError: If another run holds the lock.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"lock{self.suffix}").open("w") as file:
            try:
                lock_file(file)
            except OSError as error:
                raise InputError(
                    f"another run is writing to {self.folder}. Wait for it, or give another output."
                ) from error
            yield

    def begin(self, plan: Plan, resume: bool, overwrite: bool) -> set[int]:
        """Prepares the folder for a plan and returns the chunks that are already done.

        Args:
            plan: Plan of the run.
            resume: Continue with existing parts.
            overwrite: Delete existing parts.

        Raises:
            ConfigError: If the parts have another configuration.
            InputError: If there are parts and neither option was given.
        """
        found = None if overwrite else self._read_manifest()
        if found is not None and (resume or plan.shard.number > 1):
            check_same(found["configuration"], plan.configuration, self.folder)
        left = [n for n in plan.numbers if self.part(n).is_file()]
        if found is not None and left and not resume and not self.done.exists():
            raise InputError(
                f"{self.folder} holds {len(left)} finished parts of an earlier run. Add --resume "
                "to go on with them, or --overwrite to throw them away."
            )
        if found is None or not resume:
            self.clear(plan)
            self.done.unlink(missing_ok=True)
        if found is None or plan.shard.number == 1:
            about = {"configuration_hash": plan.hash, "configuration": plan.configuration}
            write_atomically(self.manifest, json.dumps(about, indent=1, default=str).encode())
        return {n for n in plan.numbers if self._whole(plan, n)}

    def clear(self, plan: Plan) -> None:
        """Removes the parts of a plan's shard."""
        for path in self.folder.glob("part-*.parquet"):
            number = int(path.stem.split("-")[1])
            if number % plan.shard.number == plan.shard.index - 1:
                path.unlink()
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def store(self, plan: Plan, number: int, table: Any) -> None:
        """Writes the part of one chunk.

        Raises:
            DiskFullError: If the disk is full.
        """
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        marks = {b"configuration_hash": plan.hash.encode(), b"chunk": str(number).encode()}
        metadata = {**(table.schema.metadata or {}), **marks}
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        write_atomically(self.part(number), buffer.getvalue())

    def finish(self, plan: Plan, about: dict[str, Any]) -> None:
        """Marks the parts as joined, and removes them."""
        write_atomically(self.done, json.dumps(about, indent=1).encode())
        self.clear(plan)

    def finished(self, plan: Plan) -> dict[str, Any] | None:
        """Returns the record of :meth:`finish` for the same configuration, or None."""
        if not self.done.is_file():
            return None
        about: dict[str, Any] = json.loads(self.done.read_text(encoding="utf-8"))
        return about if about.get("configuration_hash") == plan.hash else None

    def _whole(self, plan: Plan, number: int) -> bool:
        """Returns whether a part exists, is readable and has this configuration."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.part(number)
        if not path.is_file():
            return False
        try:
            found = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            return False
        mark = (found.metadata or {}).get(b"configuration_hash", b"").decode()
        return bool(mark == plan.hash and found.num_rows == plan.length(number))

    def _read_manifest(self) -> dict[str, Any] | None:
        if not self.manifest.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{self.manifest} cannot be read ({error}). Add --overwrite to start afresh."
            ) from error
        return found
