"""GaLight (Ding et al. 2021, arXiv:2111.08721), which drives lenstronomy: two particle swarms.

Its walkers would take minutes more per galaxy; without them it states no errors.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from galaxy import Fit, Galaxy
from galight.data_process import DataProcess
from galight.fitting_process import FittingProcess
from galight.fitting_specify import FittingSpecify


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Fits one Sérsic profile with the documented `norm` setting."""
    side = min(galaxy.image.shape) // 2 * 2 - 1  # it wants an odd square
    top, left = ((s - side) // 2 for s in galaxy.image.shape)
    cut = (slice(top, top + side), slice(left, left + side))
    middle = (side - 1) / 2
    start = galaxy.start
    with contextlib.redirect_stdout(io.StringIO()):
        data = DataProcess(
            fov_image=galaxy.image[cut],
            target_pos=[side // 2, side // 2],
            fov_noise_map=galaxy.sigma[cut],
            zp=0.0,
        )
        data.deltaPix = 1.0
        data.generate_target_materials(radius="nocut", skip=True)
        data.target_mask = (~galaxy.mask[cut]).astype(float)
        data.PSF_list = [galaxy.psf_bare]
        lower = {"e1": -0.5, "e2": -0.5, "R_sersic": 0.1, "n_sersic": 0.3}
        upper = {"e1": 0.5, "e2": 0.5, "R_sersic": side / 2, "n_sersic": 9.0}
        ellipticity = (1.0 - start.axis_ratio) / (1.0 + start.axis_ratio)
        turn = 2.0 * np.radians(start.angle + 90.0)  # from +x, and x runs to the left
        first = {
            "R_sersic": start.radius,
            "n_sersic": start.index,
            "e1": ellipticity * np.cos(turn),
            "e2": -ellipticity * np.sin(turn),
            "center_x": -(start.x - left - middle),
            "center_y": start.y - top - middle,
        }
        spread = {"R_sersic": 0.3 * start.radius, "n_sersic": 0.5, "e1": 0.1, "e2": 0.1}
        for name in ("center_x", "center_y"):
            spread[name] = 0.5
            lower[name], upper[name] = first[name] - 10.0, first[name] + 10.0
        settings = [[first], [spread], [{}], [lower], [upper]]
        specification = FittingSpecify(data)
        specification.prepare_fitting_seq(point_source_num=0, source_params=settings)
        process = FittingProcess(specification)
        process.run(algorithm_list=["PSO", "PSO"], fitting_level=["norm", "norm"])
    found = process.final_result_galaxy[0]
    return Fit(
        {
            "flux": float(np.sum(process.image_host_list[0])),
            "radius": float(found["R_sersic"]),
            "index": float(found["n_sersic"]),
            "axis_ratio": float(found["q"]),
            "angle": (90.0 - np.degrees(found["phi_G"])) % 180.0,
            "x": left + middle - float(found["center_x"]),
            "y": top + middle + float(found["center_y"]),
        }
    )
