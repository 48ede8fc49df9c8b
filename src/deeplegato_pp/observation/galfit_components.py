"""Components of a GALFIT input file: the corresponding scene, and settings that are not kept."""

from __future__ import annotations

import re
from pathlib import Path

from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.io.feedme import Component, Feedme

POINT = "psf"
"""Type of a point source."""

SCALE_LENGTH = 1.67834699
"""Half-light radius of an exponential disc divided by its scale length."""

PROFILES: dict[str, tuple[float | None, float]] = {
    "sersic": (None, 1.0),
    "devauc": (4.0, 1.0),
    "expdisk": (1.0, SCALE_LENGTH),
    "gaussian": (0.5, 0.5),
}
"""Sérsic index of each profile (None: parameter 5), and half-light radius over parameter 4."""

BULGE_INDEX, DISC_INDEX = 4.0, 1.0
"""Fixed Sérsic indices for which two profiles are a classical bulge and disc."""


def components_of(feedme: Feedme) -> tuple[list[Component], Component | None]:
    """Returns the profiles, with a point source last, and the sky; refuses unsupported files."""
    profiles = [c for c in feedme.components if c.kind != "sky"]
    skies = [c for c in feedme.components if c.kind == "sky"]
    profiles.sort(key=lambda c: c.kind == POINT)
    points = sum(c.kind == POINT for c in profiles)
    listed = ", ".join(f"{c.kind} (line {c.line})" for c in profiles) or "none"
    if not 1 <= len(profiles) <= 2 or len(skies) > 1 or points == len(profiles):
        raise InputError(
            f"{feedme.path}: expected one or two profiles, or one and a psf, and at most one sky; "
            f"got {listed} and {len(skies)} sky. Leave one galaxy in the file, and mask what "
            "belongs to others with F)."
        )
    for profile in profiles:
        _check_component(profile, feedme)
    return profiles, skies[0] if skies else None


def _check_component(profile: Component, feedme: Feedme) -> None:
    if profile.kind not in (*PROFILES, POINT):
        raise InputError(
            f"{feedme.path}: a {profile.kind} (line {profile.line}) cannot be measured, expected "
            f"one of {', '.join((*PROFILES, POINT))}. Choose a profile among these."
        )
    if profile.modifiers:
        raise InputError(
            f"{feedme.path}: the {profile.kind} of line {profile.line} has "
            f"{', '.join(profile.modifiers)}) (Fourier modes, bending, truncation or rotation), "
            "which a plain Sérsic profile does not support. Remove these lines."
        )
    shape = [key for key in ("6", "7", "8") if any(profile.values.get(key, ()))]
    if shape:
        raise InputError(
            f"{feedme.path}: parameter {shape[0]}) of the {profile.kind} is not 0. GALFIT 3 keeps "
            "the axis ratio in 9) and the position angle in 10): write them there."
        )


def scene_of(profiles: list[Component], feedme: Feedme) -> str:
    """Returns the scene that corresponds to the profiles."""
    if len(profiles) == 1:
        return "sersic"
    if profiles[1].kind == POINT:
        return "sersic+point"
    held = {_held_index(profile, feedme) for profile in profiles}
    return "bulge+disc" if held == {BULGE_INDEX, DISC_INDEX} else "sersic+sersic"


def _held_index(profile: Component, feedme: Feedme) -> float | None:
    """Returns the fixed Sérsic index of a profile; None if it is fitted."""
    index = PROFILES[profile.kind][0]
    if index is not None:
        return index
    value = profile.value("5", feedme.path)
    return None if profile.free["5"][0] else value


def remarks_of(
    feedme: Feedme, profiles: list[Component], sky: Component | None, scene: str
) -> list[str]:
    """Describes the settings of a feedme that could not be kept."""
    notes = []
    if scene == "sersic":
        index = PROFILES[profiles[0].kind][0]
        if index is not None:
            notes.append(f"{profiles[0].kind}: a Sérsic profile of index {index:g}")
    else:
        notes.append(f"fitted as the scene {scene}, whose parts have one centre")
        notes += _fitted_all_the_same(feedme, profiles, scene)
    ties = _ties(feedme)
    lost = [tie for tie in ties if scene == "sersic" or not _ties_centres(tie)]
    if lost:
        notes.append(
            f"constraints of {feedme.word('G')} that are not applied ({'; '.join(lost)}): the "
            "prior box bounds the parameters"
        )
    if feedme.word("D", 1):
        notes.append(f"the diffusion kernel {feedme.word('D', 1)} is not applied")
    if sky is not None and any(sky.free.get(key, (False,))[0] for key in ("2", "3")):
        notes.append("the sky's gradient is held at its start value")
    if sky is None:
        notes.append("no sky component: the sky is taken as exactly 0")
    return notes


def _fitted_all_the_same(feedme: Feedme, profiles: list[Component], scene: str) -> list[str]:
    """Lists parameters that a feedme holds fixed and a scene fits."""
    notes = []
    for profile in profiles:
        keys = [key for key, flags in profile.free.items() if not all(flags)]
        kept = {"6", "7", "8"}  # unused in GALFIT 3
        if scene == "bulge+disc":
            kept.add("5")
        if scene == "sersic+sersic" and PROFILES[profile.kind][0] is not None:
            keys.append(f"the index of the {profile.kind}")
        held = [f"{key})" if key.isdigit() else key for key in keys if key not in kept]
        if held:
            notes.append(
                f"fitted though held fixed by the {profile.kind} of line {profile.line}: "
                f"{', '.join(held)}"
            )
    return notes


def _ties(feedme: Feedme) -> list[str]:
    """Returns the lines of the constraints file, without comments."""
    name = feedme.word("G")
    if not name:
        return []
    text = find_file(name, feedme).read_text(encoding="utf-8", errors="replace")
    lines = (" ".join(line.split("#")[0].split()) for line in text.splitlines())
    return [line for line in lines if line]


def _ties_centres(tie: str) -> bool:
    """Returns whether a constraint ties parts' centres together, as ``1_2 x offset`` does."""
    return re.fullmatch(r"\d+(_\d+)+ [xy12] offset", tie.lower()) is not None


def find_file(name: str, feedme: Feedme) -> Path:
    """Returns a file named by a feedme, in the working directory or beside the feedme."""
    for path in (Path(name), feedme.path.parent / name):
        if path.is_file():
            return path
    raise FormatError(
        f"{feedme.path} names {name}, which is neither in the working directory nor beside it. "
        "Correct the name."
    )
