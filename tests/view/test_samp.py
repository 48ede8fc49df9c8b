from __future__ import annotations

import sys
import time

import astropy
import pytest
from astropy.table import Table

from deeplegato_pp.errors import InputError
from deeplegato_pp.view.samp import Samp, library
from result_tables import make_table


@pytest.fixture
def hub(tmp_path, monkeypatch):
    lock = tmp_path / "samp"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
    server = library().SAMPHubServer(web_profile=False, lockfile=str(lock), mode="single")
    server.start()
    yield server
    server.stop()


class Other:
    """Another program: keeps the messages it gets."""

    def __init__(self) -> None:
        self.client = library().SAMPIntegratedClient("other")
        self.client.connect()
        self.heard: list[tuple[str, dict[str, str]]] = []
        for kind in ("table.load.votable", "table.highlight.row", "coord.pointAt.sky"):
            self.client.bind_receive_notification(kind, self._hear)

    def _hear(self, key, sender, kind, parameters, extra) -> None:
        self.heard.append((kind, parameters))


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "no message came"
        time.sleep(0.02)


def test_table_row_and_position_go_to_others_and_rows_come_back(hub):
    table = make_table(3)
    table["ra"], table["dec"] = [10.0, 20.0, 30.0], [-1.0, 2.0, float("nan")]
    rows: list[int] = []
    other, samp = Other(), Samp(table, "Field", rows.append)
    samp.connect()
    try:
        until(lambda: other.heard)
        kind, sent = other.heard.pop()
        assert kind == "table.load.votable"
        assert sent["name"] == "Field"
        received = Table.read(sent["url"].removeprefix("file://"), format="votable")
        assert list(received["name"]) == list(table["name"])
        assert received["effective_radius"].unit == "arcsec"
        samp.highlight(1)
        until(lambda: len(other.heard) == 2)
        heard = dict(other.heard)
        assert heard["table.highlight.row"]["row"] == "1"
        assert heard["coord.pointAt.sky"] == {"ra": "20.00000000", "dec": "2.00000000"}

        message = {"samp.mtype": "table.highlight.row",
                   "samp.params": {"table-id": sent["table-id"], "row": "2"}}  # fmt: skip
        other.client.notify_all(message)
        until(lambda: rows == [2])
        samp.highlight(2)  # what was heard is not said again
        strange = {**message, "samp.params": {"table-id": "another", "row": "0"}}
        other.client.notify_all(strange)
        answer = other.client.call_and_wait(samp._client.get_public_id(), message, "10")
        assert answer["samp.status"] == "samp.ok"
        assert rows == [2, 2]
        samp.highlight(0)
        until(lambda: len(other.heard) == 4)
        assert [p.get("row") for k, p in other.heard if k == "table.highlight.row"] == ["1", "0"]
    finally:
        samp.close()
        other.client.disconnect()
    assert not samp.connected
    samp.highlight(0)  # says nothing, and does not fail


def forget_astropys(monkeypatch) -> None:
    """Makes an astropy without SAMP."""
    vars(astropy).pop("samp", None)
    monkeypatch.setitem(sys.modules, "astropy.samp", None)


def test_pyvos_serves_where_astropy_is_without(monkeypatch):
    pytest.importorskip("pyvo.samp")
    forget_astropys(monkeypatch)
    found = library()
    assert found.__name__ == "pyvo.samp"
    assert issubclass(found.SAMPHubError, Exception)
    assert callable(found.SAMPIntegratedClient)
    assert callable(found.SAMPHubServer)


def test_without_any_library_the_remedy_is_named(monkeypatch):
    forget_astropys(monkeypatch)
    monkeypatch.setitem(sys.modules, "pyvo", None)
    with pytest.raises(InputError, match="pip install pyvo"):
        library()


def test_without_a_hub_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'none').as_uri()}")
    with pytest.raises(InputError, match="Start TOPCAT or Aladin"):
        Samp(make_table(3), "Field", print).connect()
