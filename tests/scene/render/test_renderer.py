"""The renderer's contract, through every plan."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.render.renderer import (
    COMPACT,
    EXTENDED,
    FARTHEST,
    HUGE,
    WIDE,
    Bands,
    choose_plans,
    period_length,
    render_sersic,
)
from deeplegato_pp.scene.render.wings import Galaxies, Plan
from scene.render.galsim_reference import AnalyticPSF

SIZE = 64
PSF = AnalyticPSF("gaussian", 4.0).samples(1, 15)
POINT = torch.ones(1, 1, dtype=torch.float64)
PLANS = {"compact": COMPACT, "extended": EXTENDED, "wide": WIDE, "huge": HUGE, "chosen": None}


def galaxies(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Galaxies:
    return Galaxies(*torch.tensor(rows, dtype=dtype).T)


def render(
    rows: Galaxies, psf: torch.Tensor = PSF, size: int = SIZE, **options: object
) -> torch.Tensor:
    return render_sersic(*rows, psf, size, **options)


def difference(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest difference over the peak."""
    return float((one - two).abs().max() / two.max())


def check_renderer(plan: Plan | None, row: tuple[float, ...], tolerance: float) -> None:
    """What every way of rendering must do for a galaxy (flux, R_e, n, q, angle, x, y)."""
    base = galaxies(row)
    image = render(base, plan=plan)
    assert image.shape == (1, SIZE, SIZE)
    assert float(image.min()) > -tolerance * float(image.max())
    check_symmetries(plan, base, image, tolerance)
    check_batches_and_dtypes(plan, base, image)
    check_gradients(plan, base)
    psf = torch.nn.functional.pad(PSF, (60, 60, 60, 60))
    assert difference(render(base, psf, plan=plan), image) < tolerance, "a large PSF"
    assert difference(render(base, PSF[:, 4:-4], plan=plan), image) < 2e-4, "a rectangular PSF"
    assert difference(render(base, 2.5 * PSF, plan=plan), 2.5 * image) < 1e-12, "PSF as given"


def check_symmetries(plan: Plan | None, base: Galaxies, image: torch.Tensor, tol: float) -> None:
    quarter = base._replace(position_angle=base.position_angle + 90, x=-base.y, y=base.x)
    # Rows grow upwards: counter-clockwise in x and y is clockwise for rot90.
    turned = torch.rot90(image, -1, (1, 2))
    assert difference(render(quarter, plan=plan), turned) < 2e-7, "a quarter turn"
    half = base._replace(position_angle=base.position_angle + 180)
    assert difference(render(half, plan=plan), image) < 1e-9, "PA + 180"
    shifted = render(base._replace(x=base.x + 3, y=base.y - 2), plan=plan)
    part, moved = image[:, 2:, :-3], shifted[:, :-2, 3:]
    assert float((part - moved).abs().max() / image.max()) < tol, "a shift by whole pixels"
    circle = base._replace(axis_ratio=torch.ones_like(base.axis_ratio))
    other = circle._replace(position_angle=circle.position_angle + 37.0)
    assert difference(render(other, plan=plan), render(circle, plan=plan)) < 1e-9, "a circle's PA"
    bright = render(base._replace(flux=7 * base.flux), plan=plan)
    assert difference(bright, 7 * image) < 1e-12, "proportional to the flux"


def check_batches_and_dtypes(plan: Plan | None, base: Galaxies, image: torch.Tensor) -> None:
    other = base._replace(radius=0.5 * base.radius, sersic_index=0.9 * base.sersic_index)
    rows = Galaxies(*(torch.cat(c) for c in zip(base, other, base, strict=True)))
    psfs = torch.stack([PSF, 0.5 * PSF, PSF.T])
    loop = torch.cat([render(rows.at(slice(i, i + 1)), psfs[i], plan=plan) for i in range(3)])
    assert difference(render(rows, psfs, plan=plan), loop) < 1e-12, "batch = loop"
    single = render(base.float(), plan=plan)
    assert single.dtype == torch.float32
    assert difference(single.double(), image) < 2e-5, "float32 = float64"


def check_gradients(plan: Plan | None, base: Galaxies) -> None:
    """Autograd's slopes of a weighted sum against central differences, n and centre included."""
    columns = torch.stack(list(base), 1)
    weights = torch.rand(
        SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )

    def total(values: torch.Tensor) -> torch.Tensor:
        return (render(Galaxies(*values.T), plan=plan or COMPACT) * weights).sum()

    values = columns.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(total(values), values)
    assert bool(slopes.isfinite().all())
    for i in range(7):
        step = torch.zeros_like(columns)
        step[0, i] = 1e-4 * max(float(columns[0, i].abs()), 1.0)
        numeric = (total(columns + step) - total(columns - step)) / (2 * step[0, i])
        scale = float(base.flux) / max(float(columns[0, i].abs()), 1.0)
        assert float((slopes[0, i] - numeric).abs()) < 2e-6 * scale, f"gradient in column {i}"


GALAXIES = {
    "disc": (1000.0, 4.0, 1.0, 0.5, 30.0, 0.3, -0.4),
    "cusp at the centre of a pixel": (50.0, 3.0, 4.0, 0.8, 100.0, 0.5, 0.5),
    "box": (50.0, 5.0, 0.35, 0.7, 170.0, -2.0, 1.5),
    "unresolved": (10.0, 0.4, 2.0, 0.3, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("row", GALAXIES.values(), ids=GALAXIES.keys())
def test_contract(row, plan):
    check_renderer(plan, row, 2e-5)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_total_flux_of_galaxies_that_fit(plan):
    rows = galaxies((1000.0, 4.0, 1.0, 0.5, 30.0, 0.3, -0.4), (3.0, 2.0, 0.5, 0.2, 90.0, 4.0, -5.0))
    total = render(rows, plan=plan).sum((1, 2)) / rows.flux
    assert (total - 1).abs().max() < 2e-5


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0])
def test_half_of_the_light_lies_inside_the_effective_radius(n):
    """On fine pixels, with a PSF of no width to speak of: counted over the ellipse."""
    size, radius, q = 256, 30.0, 0.6
    psf = AnalyticPSF("gaussian", 2.0).samples(1, 8)
    image = render(galaxies((1.0, radius, n, q, 0.0, 0.0, 0.0)), psf, size)[0]
    a = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    inside = (a[:, None] / radius) ** 2 + (a / (q * radius)) ** 2 < 1
    assert float(image[inside].sum()) == pytest.approx(0.5, abs=4e-3)


def test_a_gaussian_galaxy_through_a_gaussian_psf_is_a_gaussian():
    sigma2_galaxy = 5.0**2 / (2 * math.log(2))
    sigma2_psf = 4.0**2 / (8 * math.log(2))
    image = render(galaxies((2.0, 5.0, 0.5, 1.0, 0.0, 1.3, -0.6)))[0]
    a = torch.arange(SIZE, dtype=torch.float64) - (SIZE - 1) / 2
    total = sigma2_galaxy + sigma2_psf
    r2 = (a - 1.3) ** 2 + (a[:, None] + 0.6) ** 2
    expected = 2.0 * (-0.5 * r2 / total).exp() / (2 * math.pi * total)
    assert difference(image, expected) < 2e-5


def test_pixel_left_out_of_the_psf_is_convolved_in():
    """A fine PSF without the pixel gives what one with it does."""
    row = galaxies((1.0, 3.0, 1.0, 0.7, 20.0, 0.1, 0.2))
    fine = AnalyticPSF("gaussian", 3.0).samples(8, 10)
    a = torch.arange(-4, 5, dtype=torch.float64)
    box = torch.where(a.abs() == 4, 0.5, 1.0).double() / 8  # trapezium rule over one pixel
    psf = torch.nn.functional.conv2d(fine[None, None], (box[:, None] * box)[None, None], padding=4)
    within = render(row, psf[0, 0], oversampling=8)
    asked = render(row, fine, oversampling=8, psf_includes_pixel=False)
    without = render(row, fine, oversampling=8)
    assert difference(asked, within) < 2e-3
    assert difference(without, within) > 0.01


def test_samplings_of_one_psf_agree():
    row = galaxies((1.0, 3.0, 2.0, 0.4, 20.0, 0.1, 0.2))
    images = [
        render(row, AnalyticPSF("gaussian", 3.0).samples(s, 12), oversampling=s) for s in (2, 3, 4)
    ]
    assert difference(images[1], images[0]) < 1e-6
    assert difference(images[2], images[0]) < 1e-6


def test_psf_off_its_centre_shifts_the_galaxy():
    row = galaxies((1.0, 15.0, 1.0, 0.6, 20.0, 0.0, 0.0))
    off = torch.nn.functional.pad(PSF, (2, 0, 0, 0))
    shifted = row._replace(x=row.x + 1)  # two more columns on the left put the middle one left
    assert difference(render(row, off), render(shifted)) < 1e-5


def test_psf_wider_than_the_stamp_is_served():
    row = galaxies((1.0, 3.0, 1.0, 0.6, 20.0, 0.0, 0.0))
    psf = torch.nn.functional.pad(PSF, (120, 120, 10, 10))
    assert difference(render(row, psf), render(row)) < 1e-6


def test_wide_wings_of_a_psf_do_not_fold():
    """A halo is in the image once: twice the period changes nothing."""
    psf = AnalyticPSF("moffat", 4.0, 2.5).samples(1, 40)
    row = galaxies((1.0, 2.0, 1.0, 0.6, 20.0, 4.0, -4.0))
    assert difference(render(row, psf), render(row, psf, plan=Plan(6.0, 33, 3))) < 5e-6


@pytest.mark.parametrize("shape", [(10, 11), (11, 10), (10, 10)])
def test_even_psfs_are_refused(shape):
    with pytest.raises(ShapeError, match=r"odd-sided.*got \(1\d, 1\d\).*psf_even"):
        render(galaxies(GALAXIES["disc"]), torch.ones(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(11,), (2, 11, 11), (1, 1, 11, 11)])
def test_psfs_that_do_not_match_the_batch_are_refused(shape):
    with pytest.raises(ShapeError, match=r"\(Py, Px\) or \(1, Py, Px\), or"):
        render(galaxies(GALAXIES["disc"]), torch.ones(shape, dtype=torch.float64))


def test_centres_far_outside_are_refused():
    far = (*GALAXIES["disc"][:5], 0.0, FARTHEST * SIZE + 1)
    with pytest.raises(RangeError, match=r"within 0\.61 stamp sides.*got \(0, 40.*row 1"):
        render(galaxies(GALAXIES["disc"], far))


def test_centres_outside_the_stamp_shed_only_their_wings():
    row = galaxies((1.0, 3.0, 1.0, 0.8, 20.0, 0.6 * SIZE, 0.0))
    near, far = render(row), render(row, plan=Plan(6.0, 49, 3))
    assert difference(near, far) < 1e-4
    assert float(near.sum()) < 0.1


def test_indices_outside_the_tables_are_refused():
    with pytest.raises(RangeError, match="sersic_index"):
        render(galaxies((1.0, 3.0, 11.0, 0.8, 20.0, 0.0, 0.0)))


def test_a_mixed_batch_keeps_its_order():
    rows = galaxies(
        (1.0, 40.0, 1.0, 0.9, 20.0, 0.0, 0.0),
        (1.0, 2.0, 1.0, 0.9, 20.0, 0.0, 0.0),
        (1.0, 15.0, 1.0, 0.15, 20.0, 0.0, 0.0),
        (1.0, 3.0, 4.0, 0.9, 20.0, 0.0, 0.0),
        (1.0, 6.0, 1.0, 0.2, 0.0, 0.0, 0.0),
    )
    assert len(choose_plans(rows.radius, rows.axis_ratio, SIZE).unique()) == 4
    alone = torch.cat([render(rows.at(slice(i, i + 1))) for i in range(5)])
    assert difference(render(rows), alone) < 1e-12


def test_periods_hold_the_psf_and_factor_into_small_primes():
    for plan in (COMPACT, HUGE):
        length = period_length(64, (301, 11), 2, plan)
        assert length >= 64 * plan.period
        assert 2 * length >= 301
        for prime in (2, 3, 5):
            while length % prime == 0:
                length //= prime
        assert length == 1


def test_gradients_are_finite_for_a_batch_on_pixel_centres():
    rows = galaxies(*((*row[:5], 0.5, -0.5) for row in GALAXIES.values()))
    columns = Galaxies(*(c.float().requires_grad_() for c in rows))
    render(columns).pow(2).sum().backward()
    for name, column in zip(Galaxies._fields, columns, strict=True):
        assert bool(column.grad.isfinite().all()), name


def test_galaxies_may_share_psfs():
    rows = galaxies(*GALAXIES.values())
    psfs = torch.stack([AnalyticPSF("moffat", fwhm, 2.5).samples(1, 40) for fwhm in (2.0, 4.0)])
    index = torch.arange(len(rows.radius)) % 2
    shared = render(rows, psfs, psf_index=index)
    assert difference(shared, render(rows, psfs[index])) < 1e-12
    bands: Bands = {}
    for _ in range(2):  # the second time with the transforms of the first
        assert difference(shared, render(rows, psfs, psf_index=index, bands=bands)) < 1e-12
    assert bands
    assert all(len(band.transfer) == 2 for band in bands.values())


@pytest.mark.parametrize("number", [1, 3])
def test_an_index_that_does_not_match_the_batch_is_refused(number):
    psfs, index = torch.ones(2, 11, 11).double(), torch.zeros(number).long()
    with pytest.raises(ShapeError, match=r"psf_index has shape \(2,\)"):
        render(galaxies(GALAXIES["disc"], GALAXIES["disc"]), psfs, psf_index=index)
