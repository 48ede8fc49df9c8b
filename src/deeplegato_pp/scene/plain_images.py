"""Plain images, tensors or arrays in their own units, as the network takes and answers them.

What a stamp needs beside the pixels is assumed and flagged: noise from the image's border, the
reference PSF, pixel scale and zero point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_plain
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.parameters import MAGNITUDE
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.scene.units import stamp_batch, user_box

PlainImages = Tensor | Array | Sequence[Tensor] | Sequence[Array]
"""One image (H, W), or several: (B, H, W), (B, 1, H, W), or a list of (H, W)."""


def plane(image: Tensor | Array) -> Array:
    """Returns a tensor or array as an array, without the axis of its one channel.

    Args:
        image: With shape (H, W) or (1, H, W).
    """
    array = np.asanyarray(as_plain(image))
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def planes(images: PlainImages) -> tuple[list[Array], bool]:
    """Returns images one by one, each (H, W), and whether it was a single one.

    Raises:
        ShapeError: If they are not shaped like images of one channel.

    Example:
        >>> found, single = planes(torch.zeros(2, 1, 5, 6))
        >>> [image.shape for image in found], single
        ([(5, 6), (5, 6)], False)
    """
    if isinstance(images, Tensor | np.ndarray):
        shape = tuple(images.shape)
        if len(shape) == 4 and shape[1] != 1:
            raise ShapeError(
                f"images have one channel, (B, 1, H, W), got shape {shape}. Select one band: "
                "images[:, :1]."
            )
        if len(shape) not in (2, 3, 4):
            raise ShapeError(
                f"images have shape (H, W), (B, H, W) or (B, 1, H, W), got {shape}. Reshape them."
            )
        if len(shape) == 2:
            return [plane(images)], True
    found = [plane(image) for image in images]
    if not found:
        raise InputError("there is nothing to measure: got no images. Give at least one.")
    return found, False


NOISE_ERROR = 0.5
"""How far a noise taken from an image's border may carry the prior's edges in magnitude. [mag]

As far beyond an edge, a magnitude is put `INSIDE` of it; farther, it is refused.
"""

INSIDE = 0.01
"""[mag]"""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """What a network is asked about: its stamps, and the units in which it has to answer.

    Attributes:
        stamps: Stamps in detector units.
        boxes: The prior's box in each image's units; one box for all if there were only stamps,
            which are at the reference instrument.
        flags: Names of what was assumed or found, by image; None if there were only stamps.
        single: Whether this was one image, without an axis for several.
    """

    stamps: StampBatch
    boxes: Sequence[PriorBox]
    flags: list[list[str]] | None = None
    single: bool = False

    @classmethod
    def of(
        cls,
        images: StampBatch | PlainImages,
        size: int,
        prior: PriorBox,
        device: torch.device | str = "cpu",
    ) -> ImageBatch:
        """Takes stamps as they are, and makes some of plain images.

        Args:
            images: Stamps, or images in any unit: one (H, W), or several, (B, H, W), (B, 1, H, W)
                or a list. Cut or padded to the stamps' side about their middle, if need be.
            size: Side of the stamps. [px]
            prior: The box at the reference instrument.
            device: Where stamps made of images are wanted.

        Raises:
            InputError: If an image cannot be used; the message says which one.
        """
        if isinstance(images, StampBatch):
            return cls(images, [prior])
        found, single = planes(images)
        prepared = []
        for i, image in enumerate(found):
            try:
                prepared.append(prepare(Observation.from_array(image), size))
            except InputError as error:
                raise type(error)(str(error) if single else f"image {i}: {error}") from error
        return cls(
            stamp_batch(prepared).to(device),
            [user_box(prior, p) for p in prepared],
            [Flag.names(p.flags) for p in prepared],
            single,
        )

    def to_physical(self, w: Float[Tensor, "b s 7"]) -> Float[Tensor, "b s 7"]:
        """Returns physical parameters, in the images' units, of coordinates w."""
        if self.flags is None:
            return self.boxes[0].to_physical(w)
        return torch.stack([box.to_physical(row) for box, row in zip(self.boxes, w, strict=True)])

    def to_normal(self, params: Float[Tensor, "b 7"]) -> Float[Tensor, "b 7"]:
        """Returns the coordinates w of physical parameters in the images' units.

        The box goes with each image's noise, which of plain images is known roughly: a magnitude
        just beyond its edge is put inside, see :data:`NOISE_ERROR`.

        Raises:
            ShapeError: If there are not seven parameters for each image.
            RangeError: If one lies outside the prior's box.
        """
        params = params[None] if self.single and params.dim() == 1 else params
        if tuple(params.shape) != (len(self.stamps), 7):
            raise ShapeError(
                f"params have shape ({len(self.stamps)}, 7), got {tuple(params.shape)}. Give the "
                "seven parameters of each image, in the table's order."
            )
        if self.flags is None:
            return self.boxes[0].to_normal(params)
        rows = []
        for i, box in enumerate(self.boxes):
            try:
                rows.append(box.to_normal(_inside(params[i : i + 1], box)))
            except RangeError as error:
                raise RangeError(f"image {i}: {error}") from error
        return torch.cat(rows)

    def answer(self, found: dict[str, Tensor]) -> dict[str, Tensor | list[str] | list[list[str]]]:
        """Returns what was found as it was asked for: of one image without the first axis.

        Flags are added where something was assumed.
        """
        result: dict[str, Tensor | list[str] | list[list[str]]] = {
            name: value[0] if self.single else value for name, value in found.items()
        }
        if self.flags is not None:
            result["flags"] = self.flags[0] if self.single else self.flags
        return result


def _inside(params: Tensor, box: PriorBox) -> Tensor:
    """Returns parameters with magnitudes just beyond the box's edge put inside."""
    lower, upper = box.magnitude
    magnitude = params[:, MAGNITUDE]
    near = (magnitude > lower - NOISE_ERROR) & (magnitude < upper + NOISE_ERROR)
    moved = params.clone()
    moved[near, MAGNITUDE] = magnitude[near].clamp(lower + INSIDE, upper - INSIDE)
    return moved
