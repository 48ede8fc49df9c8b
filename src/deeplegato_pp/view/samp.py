"""SAMP: exchange of the catalogue and the current galaxy with TOPCAT, Aladin and others."""

from __future__ import annotations

import math
import tempfile
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeplegato_pp.errors import InputError

HIGHLIGHT = "table.highlight.row"
"""Message type that highlights a row of a table."""


def library() -> Any:
    """Returns ``astropy.samp``, or ``pyvo.samp``, to which it has moved, if astropy lacks it.

    Raises:
        InputError: If neither is installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning that it will move
            from astropy import samp
    except ImportError:
        try:
            from pyvo import samp
        except ImportError as error:
            raise InputError(
                "SAMP needs pyvo beside this astropy. Run pip install pyvo."
            ) from error
    return samp


class Samp:
    """Client of a running SAMP hub.

    It sends the catalogue (``table.load.votable``), then each current row (``table.highlight.row``)
    and its position (``coord.pointAt.sky``, to which Aladin moves), and receives rows that other
    programs highlight in the same table.

    Args:
        table: The catalogue, an astropy table.
        title: Name of the table in other programs.
        on_row: Called, in a separate thread, with the index of a row that another program
            highlights.

    References:
        | Simple Application Messaging Protocol 1.3 (Taylor et al., 2012), arXiv:1110.0528
    """

    def __init__(self, table: Any, title: str, on_row: Callable[[int], None]) -> None:
        self.table = table
        self.title = title
        self.on_row = on_row
        self.table_id = f"deeplegato-{uuid.uuid4().hex[:12]}"
        self._client: Any = None
        self._heard: int | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def connect(self) -> None:
        """Registers with the hub and sends the catalogue.

        Raises:
            InputError: If no hub is running.
        """
        samp = library()
        client = samp.SAMPIntegratedClient("DeepLeGATo++", "looks through a catalogue of galaxies")
        try:
            client.connect()
        except samp.SAMPHubError as error:
            raise InputError(
                "no SAMP hub runs. Start TOPCAT or Aladin, which bring one, and connect again."
            ) from error
        self._client = client
        client.bind_receive_call(HIGHLIGHT, self._called)
        client.bind_receive_notification(HIGHLIGHT, self._told)
        self._folder = tempfile.TemporaryDirectory(prefix="deeplegato-")
        path = Path(self._folder.name) / "catalogue.vot"
        self.table.write(path, format="votable", overwrite=True)
        self._send("table.load.votable", url=path.as_uri(), name=self.title)

    @property
    def connected(self) -> bool:
        """Whether the hub is reachable."""
        return self._client is not None and bool(self._client.is_connected)

    def highlight(self, row: int) -> None:
        """Sends the current row to other programs, unless they have sent it."""
        if not self.connected or row == self._heard:
            return
        self._heard = None
        self._send(HIGHLIGHT, row=str(row))
        if {"ra", "dec"} <= set(self.table.colnames):
            place = self.table["ra", "dec"][row]
            ra, dec = (float(getattr(v, "value", v)) for v in place)
            if math.isfinite(ra + dec):
                self._notify("coord.pointAt.sky", ra=f"{ra:.8f}", dec=f"{dec:.8f}")

    def close(self) -> None:
        """Unregisters from the hub and removes the sent table."""
        if self.connected:
            self._client.disconnect()
        self._client = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _send(self, kind: str, **parameters: str) -> None:
        self._notify(kind, **{"table-id": self.table_id}, **parameters)

    def _notify(self, kind: str, **parameters: str) -> None:
        self._client.notify_all({"samp.mtype": kind, "samp.params": parameters})

    def _called(
        self, key: str, sender: str, identifier: str, kind: str, parameters: Any, extra: Any
    ) -> None:
        self._client.reply(identifier, {"samp.status": "samp.ok", "samp.result": {}})
        self._hear(parameters)

    def _told(self, key: str, sender: str, kind: str, parameters: Any, extra: Any) -> None:
        self._hear(parameters)

    def _hear(self, parameters: dict[str, str]) -> None:
        row = parameters.get("row", "")
        ours = parameters.get("table-id") == self.table_id
        if ours and row.isdigit() and int(row) < len(self.table):
            self._heard = int(row)
            self.on_row(int(row))
