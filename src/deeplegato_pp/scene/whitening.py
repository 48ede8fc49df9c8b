r"""Whitening of correlated noise: :math:`P^{-1/2}` for the unmasked pixels of a stamp.

Uses Vecchia's factorisation: pixels are ordered, each is predicted from the unmasked pixels within
5 px that precede it, and the remainder is divided by its standard deviation. The inverse
correlation is then a product of two sparse matrices, positive definite for any mask, and its
determinant is a product of variances. Masked pixels are marginalised, not set to zero.

The order takes every other pixel of every other row first, then their diagonal neighbours, then the
rest. Most pixels are thus predicted from neighbours on all sides, and the result at a given radius
is several times closer to the exact one than in raster order. Compared with dense algebra (a galaxy
on 40 x 40 px, some 5 % of them masked) the standard deviations of seven parameters are within 0.1 %
for drizzled noise with pixfrac/scale up to 1.6 and for the Gaussian family up to a total of 5, and
within 2 % for pixfrac/scale 2 to 2.5 and a total of 10.

References:
    | Estimation and model identification for continuous spatial processes (Vecchia, 1988)
    | A general framework for Vecchia approximations of Gaussian processes
    | (Katzfuss & Guinness, 2021), https://arxiv.org/abs/1708.06302
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from scipy.sparse import csr_matrix, hstack
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.observation.correlation import REACH

RADIUS = 5.1
"""Distance up to which pixels are used for predictions. [px]"""

_CLASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Classes of pixels by parity of row and column, in the order of prediction."""

_TOGETHER = 32
"""Number of images multiplied at a time."""

_PATTERNS = 4096
"""Number of patterns of masked neighbours processed at a time."""


@lru_cache(maxsize=1)
def _offsets() -> list[Int[Array, "k 2"]]:
    """Returns the offsets (y, x) of the preceding pixels for each class."""
    most = int(RADIUS)
    near = [
        (y, x)
        for y in range(-most, most + 1)
        for x in range(-most, most + 1)
        if 0 < y * y + x * x <= RADIUS**2
    ]
    found = []
    for number, (row, column) in enumerate(_CLASSES):

        def before(y: int, x: int, n: int = number, r: int = row, c: int = column) -> bool:
            other = _CLASSES.index(((r + y) % 2, (c + x) % 2))
            return other < n or (other == n and (y, x) < (0, 0))

        found.append(np.array([offset for offset in near if before(*offset)]))
    return found


class _Predictions:
    """Coefficients that predict pixels from others, for one correlation.

    Args:
        lags: Correlation at lags (y, x), with shape (17, 17).
    """

    def __init__(self, lags: Float[Array, "17 17"]) -> None:
        self.lags = lags
        self._known: list[dict[bytes, Array]] = [{} for _ in _CLASSES]

    def of(self, number: int, present: Bool[Array, "m k"]) -> Float[Array, "m k+1"]:
        """Returns the coefficients of whitened pixels: neighbours first, the pixel itself last.

        Args:
            number: Class of the pixels.
            present: True for unmasked neighbours.
        """
        known = self._known[number]
        keys = [bits.tobytes() for bits in np.packbits(present, axis=1)]
        first = {key: i for i, key in enumerate(keys) if key not in known}
        rows = np.array(list(first.values()), dtype=int)
        for part in np.split(rows, range(_PATTERNS, len(rows), _PATTERNS)):
            found = self._solved(number, present[part])
            known.update(zip([keys[i] for i in part], found, strict=True))
        return np.stack([known[key] for key in keys])

    def _solved(self, number: int, present: Bool[Array, "m k"]) -> Float[Array, "m k+1"]:
        offsets = _offsets()[number]
        among = self._at(offsets[:, None] - offsets[None])
        both = present[:, :, None] & present[:, None, :]
        matrix = np.where(both, among, np.eye(len(offsets)))
        to_pixel = np.where(present, self._at(offsets), 0.0)
        weights = np.linalg.solve(matrix, to_pixel[..., None])[..., 0]
        left = np.sqrt(1.0 - (weights * to_pixel).sum(1, keepdims=True))
        return np.concatenate([-weights / left, 1.0 / left], 1)

    def _at(self, distance: Int[Array, "*k 2"]) -> Float[Array, "*k"]:
        inside = (np.abs(distance) <= REACH).all(-1)
        y, x = np.moveaxis(np.clip(distance, -REACH, REACH) + REACH, -1, 0)
        return np.where(inside, self.lags[y, x], 0.0)


@lru_cache(maxsize=32)
def _predictions(content: bytes) -> _Predictions:
    return _Predictions(np.frombuffer(content).reshape(2 * REACH + 1, 2 * REACH + 1))


class _Rows:
    """Some rows of the whitening matrix W.

    Args:
        predictions: Predictions for the noise's correlation.
        good: True for unmasked pixels.
        rows: Flat indices of the rows' pixels, with shape (M,).

    Attributes:
        log_scale: Logarithms of the standard deviations of the remainders, with shape (M,).
    """

    def __init__(
        self, predictions: _Predictions, good: Bool[Array, "n n"], rows: Int[Array, " m"]
    ) -> None:
        size, reach = good.shape[0], int(RADIUS)
        around = np.pad(good, reach)
        y, x = np.divmod(rows, size)
        entries: list[tuple[Array, Array, Array]] = []
        self.log_scale = np.zeros(len(rows))
        for number, ((odd_y, odd_x), offsets) in enumerate(zip(_CLASSES, _offsets(), strict=True)):
            at = np.flatnonzero((y % 2 == odd_y) & (x % 2 == odd_x))
            if not len(at):
                continue
            near_y, near_x = y[at, None] + offsets[:, 0], x[at, None] + offsets[:, 1]
            present = around[near_y + reach, near_x + reach]
            weights = predictions.of(number, present)
            self.log_scale[at] = -np.log(weights[:, -1])
            present = np.column_stack([present, np.ones(len(at), bool)])
            column = np.column_stack([near_y * size + near_x, rows[at]])
            row = np.broadcast_to(at[:, None], column.shape)
            entries.append((row[present], column[present], weights[present]))
        row, column, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        shape = len(rows), size**2
        self._matrix = {_KEY: _sparse(row, column, weights, shape)}
        self._transpose = {_KEY: _sparse(column, row, weights, shape[::-1])}

    def times(self, images: Float[Tensor, "s p"]) -> Float[Tensor, "s m"]:
        """Returns images multiplied by these rows."""
        return _product(self._matrix, images)

    def transpose_times(self, white: Float[Tensor, "s m"]) -> Float[Tensor, "s p"]:
        """Returns images multiplied by the rows' transpose."""
        return _product(self._transpose, white)

    def columns(self, pixels: Int[Array, " e"]) -> csr_matrix:
        """Returns columns of these rows, transposed, with shape (E, M)."""
        kept = self._transpose[_KEY]
        parts = kept.values().numpy(), kept.col_indices().numpy(), kept.crow_indices().numpy()
        return csr_matrix(parts, shape=kept.shape)[pixels]


_KEY = (torch.float64, torch.device("cpu"))


def _product(kept: dict[tuple[torch.dtype, torch.device], Tensor], images: Tensor) -> Tensor:
    """Multiplies a sparse matrix with dense images, in the images' precision and device."""
    key = images.dtype, images.device
    if key not in kept:
        kept[key] = kept[_KEY].to(images)
    found = images.new_empty(len(images), kept[key].shape[0])
    for part, place in zip(images.split(_TOGETHER), found.split(_TOGETHER), strict=True):
        # In rows of pixels, each coefficient multiplies adjacent numbers.
        place.copy_((kept[key] @ part.T.contiguous()).T)
    return found


def _sparse(row: Array, column: Array, values: Array, shape: tuple[int, int]) -> Tensor:
    order = np.lexsort((column, row))
    starts = np.searchsorted(row[order], np.arange(shape[0] + 1)).astype(np.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts),
            torch.from_numpy(column[order].astype(np.int32)),
            torch.from_numpy(values[order]),
            shape,
            check_invariants=True,
        )


@lru_cache(maxsize=16)
def _complete(content: bytes, size: int) -> _Rows:
    """Returns all rows of W for a stamp without masked pixels."""
    everything = np.ones((size, size), bool)
    return _Rows(_predictions(content), everything, np.arange(size**2))


class StampWhitening:
    r"""Whitening of one stamp: a sparse W with :math:`W^T W \approx P^{-1}`.

    Rows of pixels without masked neighbours are those of an unmasked stamp, which galaxies share.

    Args:
        lags: Correlation at lags (y, x), as `NoiseCorrelation.padded_lags`.
        good: True for unmasked pixels.

    Attributes:
        whole: Rows of W for an unmasked stamp.
        at: Pixels whose rows differ, with shape (M,).
        special: Rows of those pixels; None if there are none.
        good: True for unmasked pixels.
        complete: Whether all pixels are unmasked.
        log_det: Logarithm of the determinant of P.
    """

    def __init__(self, lags: Float[Array, "17 17"], good: Bool[Array, "n n"]) -> None:
        self.complete = bool(good.all())
        content = np.ascontiguousarray(lags, dtype=np.float64).tobytes()
        self.good = torch.from_numpy(good.copy())
        self.whole = _complete(content, good.shape[0])
        reach = 2 * int(RADIUS) + 1
        near = maximum_filter(~good, reach, mode="constant", cval=0)
        special = np.flatnonzero(good & near)
        self.at = torch.from_numpy(special)
        self.special: _Rows | None = None
        log_scale = self.whole.log_scale[np.flatnonzero(good & ~near)].sum()
        if len(special):
            self.special = _Rows(_predictions(content), good, special)
            log_scale += self.special.log_scale.sum()
        self.log_det = 2.0 * float(log_scale)

    def columns(self, pixels: Int[Tensor, " e"]) -> Float[Tensor, "m e"]:
        """Returns the columns of W for the given pixels, sparse, without rows that are zero.

        Args:
            pixels: Flat indices of unmasked pixels, with shape (E,).
        """
        chosen = pixels.cpu().numpy()
        regular = self.good.flatten().numpy().astype(float)
        regular[self.at.numpy()] = 0.0
        parts = [self.whole.columns(chosen).multiply(regular[None])]
        if self.special is not None:
            parts.append(self.special.columns(chosen))
        found = hstack(parts).tocoo()
        found.eliminate_zeros()
        _, row = np.unique(found.col, return_inverse=True)
        shape = int(row.max(initial=-1)) + 1, len(chosen)
        return _sparse(row, found.row, found.data, shape).to(pixels.device)


class Whitening:
    """Whitening of the stamps of many galaxies, one row each.

    Args:
        stamps: One entry per row, the same object for rows with the same correlation and mask; None
            for independent pixels.
    """

    def __init__(self, stamps: Sequence[StampWhitening | None]) -> None:
        self.stamps = tuple(stamps)

    @classmethod
    def of(cls, lags: Float[Tensor, "b 17 17"], good: Bool[Tensor, "b n n"]) -> Whitening:
        """Builds the whitening of correlated noise.

        Args:
            lags: Correlation at lags (y, x); 0 except at lag 0 for independent pixels.
            good: True for unmasked pixels.
        """
        made: dict[tuple[bytes, bytes], StampWhitening | None] = {}
        rows = []
        for one, seen in zip(lags.double().cpu().numpy(), good.cpu().numpy(), strict=True):
            key = one.tobytes(), np.packbits(seen).tobytes()
            if key not in made:
                made[key] = StampWhitening(one, seen) if np.count_nonzero(one) > 1 else None
            rows.append(made[key])
        return cls(rows)

    def __len__(self) -> int:
        return len(self.stamps)

    def at(self, rows: Sequence[int]) -> Whitening:
        """Returns the selected rows, in the given order; they may repeat."""
        return Whitening([self.stamps[i] for i in rows])

    @property
    def trivial(self) -> bool:
        """Whether the pixels of all rows are independent."""
        return all(stamp is None for stamp in self.stamps)

    @property
    def log_det(self) -> Float[Tensor, " b"]:
        """Logarithms of the determinants of P, float64."""
        found = [0.0 if s is None else s.log_det for s in self.stamps]
        return torch.tensor(found, dtype=torch.float64)

    def __call__(self, images: Float[Tensor, "b *s n n"]) -> Float[Tensor, "b *s n n"]:
        """Returns whitened images, with masked pixels 0.

        Args:
            images: One or more images for each row, 0 where masked, divided by the standard
                deviation of the noise, so that their noise has the correlation P.
        """
        white: Tensor = images if self.trivial else _Product.apply(images, self, False)
        return white

    def transposed(self, white: Float[Tensor, "b *s n n"]) -> Float[Tensor, "b *s n n"]:
        """Returns images multiplied by the transposed whitening, 0 where masked."""
        images: Tensor = white if self.trivial else _Product.apply(white, self, True)
        return images

    def multiply(self, images: Tensor, transposed: bool) -> Tensor:
        """Returns images multiplied by W or its transpose, without tracking gradients."""
        flat = images.reshape(len(self), -1, images.shape[-1] ** 2)
        multiply = _multiply_transposed if transposed else _multiply
        groups: dict[int, list[int]] = {}
        for i, stamp in enumerate(self.stamps):
            groups.setdefault(0 if stamp is None else id(stamp.whole), []).append(i)
        found = flat if len(groups) == 1 else flat.clone()
        for members in groups.values():
            stamps = [s for s in (self.stamps[i] for i in members) if s is not None]
            if not stamps:
                continue
            if len(groups) == 1:
                found = multiply(stamps, flat)
            else:
                found[members] = multiply(stamps, flat[members])
        return found.view(images.shape)


class _Product(torch.autograd.Function):
    """W times images for autograd: linear, so its derivative is the transpose."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, whitening: Whitening, transposed: bool) -> Tensor:
        ctx.whitening, ctx.transposed = whitening, transposed
        return whitening.multiply(images, transposed)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.whitening.multiply(gradient[0], not ctx.transposed), None, None


def _multiply(stamps: list[StampWhitening], images: Float[Tensor, "b k p"]) -> Tensor:
    images = _without_masked(stamps, images)
    white = stamps[0].whole.times(images.flatten(0, 1)).view(images.shape)
    for stamp, row, image in zip(stamps, white, images, strict=True):
        if stamp.special is not None:
            row[:, stamp.at.to(row.device)] = stamp.special.times(image)
    return _without_masked(stamps, white)


def _multiply_transposed(stamps: list[StampWhitening], white: Float[Tensor, "b k p"]) -> Tensor:
    white = _without_masked(stamps, white)
    regular = white
    if any(stamp.special is not None for stamp in stamps):
        regular = white.clone()
        for stamp, row in zip(stamps, regular, strict=True):
            row[:, stamp.at.to(row.device)] = 0.0
    images = stamps[0].whole.transpose_times(regular.flatten(0, 1)).view(white.shape)
    for stamp, row, image in zip(stamps, white, images, strict=True):
        if stamp.special is not None:
            image += stamp.special.transpose_times(row[:, stamp.at.to(row.device)])
    return _without_masked(stamps, images)


def _without_masked(stamps: list[StampWhitening], images: Float[Tensor, "b k p"]) -> Tensor:
    """Returns images with masked pixels set to 0."""
    if all(stamp.complete for stamp in stamps):
        return images
    good = torch.stack([stamp.good.flatten() for stamp in stamps])[:, None].to(images.device)
    return torch.where(good, images, 0.0)
