"""Plain images (tensors or arrays in their own units) as input of networks.

Missing information is assumed and flagged: noise from the image's border, the reference PSF, the
reference pixel scale and zero point.
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
    """Converts a tensor or array to a 2-D array, dropping a channel axis of length one.

    Args:
        image: With shape (H, W) or (1, H, W).
    """
    array = np.asanyarray(as_plain(image))
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def planes(images: PlainImages) -> tuple[list[Array], bool]:
    """Splits the input into images of shape (H, W), and says whether it was a single image.

    Raises:
        ShapeError: If the input is not shaped like images of one channel.

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
"""Tolerance for magnitudes beyond the prior's edge, because noise estimated from an image's border
is uncertain. [mag]

Magnitudes within this tolerance are moved `INSIDE` of the edge; others are refused.
"""

INSIDE = 0.01
"""[mag]"""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Stamps for a network, and the units in which results are returned.

    Attributes:
        stamps: Stamps in detector units.
        boxes: Prior box in each image's units; a single box if stamps were given, which are at the
            reference instrument.
        flags: Names of the flags of each image; None if stamps were given.
        single: Whether the input was one image without a batch axis.
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
        """Builds the batch from stamps, used as they are, or from plain images.

        Args:
            images: Stamps, or images in any unit: one (H, W), or several, (B, H, W), (B, 1, H, W)
                or a list. They are cropped or padded to the stamps' side about their centre.
            size: Side of the stamps. [px]
            prior: Prior box at the reference instrument.
            device: Device of stamps made from images.

        Raises:
            InputError: If an image cannot be used; the message names it.
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
        """Returns physical parameters, in the images' units, for coordinates w."""
        if self.flags is None:
            return self.boxes[0].to_physical(w)
        return torch.stack([box.to_physical(row) for box, row in zip(self.boxes, w, strict=True)])

    def to_normal(self, params: Float[Tensor, "b 7"]) -> Float[Tensor, "b 7"]:
        """Returns coordinates w for physical parameters in the images' units.

        The prior box depends on each image's noise, which is only estimated for plain images; a
        magnitude slightly beyond its edge is moved inside, see :data:`NOISE_ERROR`.

        Raises:
            ShapeError: If there are not seven parameters for each image.
            RangeError: If a value lies outside the prior box.
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
        """Returns results in the shape of the input: without the batch axis for a single image.

        Flags are included if something was assumed.
        """
        result: dict[str, Tensor | list[str] | list[list[str]]] = {
            name: value[0] if self.single else value for name, value in found.items()
        }
        if self.flags is not None:
            result["flags"] = self.flags[0] if self.single else self.flags
        return result


def _inside(params: Tensor, box: PriorBox) -> Tensor:
    """Moves magnitudes slightly beyond the box's edge inside."""
    lower, upper = box.magnitude
    magnitude = params[:, MAGNITUDE]
    near = (magnitude > lower - NOISE_ERROR) & (magnitude < upper + NOISE_ERROR)
    moved = params.clone()
    moved[near, MAGNITUDE] = magnitude[near].clamp(lower + INSIDE, upper - INSIDE)
    return moved
