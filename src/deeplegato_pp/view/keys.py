"""Keyboard events of the browser, sent to Python."""

from __future__ import annotations

import json
from typing import Any

KEYS = {"g": "good", "c": "caution", "b": "bad", "u": ""}
"""Keys that mark the current galaxy, or remove its mark."""

STEPS = {"ArrowLeft": -1, "ArrowRight": 1}
"""Keys that move to the previous and next galaxy."""

_LISTEN = """
export function render({ model }) {
  const keys = KEYS;
  function pressed(event) {
    const target = event.composedPath()[0];
    const writes = target.tagName === "TEXTAREA" || target.tagName === "SELECT" ||
      (target.tagName === "INPUT" && target.type !== "checkbox");
    if (writes || event.ctrlKey || event.altKey || event.metaKey) { return; }
    if (keys.includes(event.key)) {
      event.preventDefault();
      model.send_msg(event.key);
    }
  }
  document.addEventListener("keydown", pressed);
  model.on("remove", () => document.removeEventListener("keydown", pressed));
  return document.createElement("span");
}
"""


def keyboard() -> Any:
    """Returns a Panel component that sends the keys of :data:`KEYS` and :data:`STEPS` as messages.

    Keys typed into input fields are ignored.
    """
    from panel.custom import JSComponent

    class Keyboard(JSComponent):
        _esm = _LISTEN.replace("KEYS", json.dumps([*KEYS, *STEPS]))

    return Keyboard(width=1, height=1, margin=0)
