"""The programs of the comparison: what to install, how to call, how long to wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One way to fit a galaxy.

    Attributes:
        name: As the table shows it.
        adapter: Module of `adapters`.
        method: What the adapter is told.
        packages: Pinned requirements of its environment; none: this interpreter.
        limit: Time that one galaxy may take. [s]
        share: Every how many simulated galaxies are fitted; 1 for all.
        real: Whether the real galaxies are fitted too.
        user_lines: Lines that a user writes for one galaxy, imports and reading of files left
            out: statements of the adapter's fit that deal with the program itself.
        python: Version that its newest release asks for, if not this one.
    """

    name: str
    adapter: str
    method: str = ""
    packages: tuple[str, ...] = ()
    limit: float = 120.0
    share: int = 1
    real: bool = True
    user_lines: int = 0
    python: str = ""

    @property
    def environment(self) -> str:
        """Name of the environment: programs of the same packages share one."""
        return self.packages[0].partition("==")[0] if self.packages else "this"


PYSERSIC = ("pysersic==0.1.5",)
ASTROPHOT = ("astrophot==0.18.0", "torch==2.13.0")

PROGRAMS = (
    Program("DeepLeGATo++ network", "deeplegato", "network", user_lines=3),
    Program("DeepLeGATo++ Laplace", "deeplegato", "laplace", user_lines=4),
    Program("DeepLeGATo++ exact, noise widths", "deeplegato", "exact", user_lines=4),
    Program("DeepLeGATo++ exact, honest widths", "deeplegato", "honest", user_lines=4),
    Program("pyimfit LM", "imfit", "LM", ("pyimfit==1.1",), user_lines=15),
    Program("pysersic MAP", "pysersic_", "map", PYSERSIC, share=2, real=False, user_lines=4),
    Program("pysersic Laplace", "pysersic_", "laplace", PYSERSIC, share=2, user_lines=4),
    Program("pysersic SVI", "pysersic_", "svi-mvn", PYSERSIC, share=5, real=False, user_lines=4),
    Program(
        "pysersic NUTS", "pysersic_", "nuts", PYSERSIC, 300.0, share=10, real=False, user_lines=4
    ),
    Program("AstroPhot LM", "astrophot_", "lm", ASTROPHOT, user_lines=9),
    Program("AstroPhot BatchLM", "astrophot_", "batch", ASTROPHOT, user_lines=12),
    Program("statmorph", "statmorph_", packages=("statmorph==0.7.2",), user_lines=4),
    Program("PetroFit", "petrofit_", packages=("petrofit==0.5.0",), user_lines=8),
    Program(
        "GaLight PSO",
        "galight_",
        packages=("galight==0.2.1", "lenstronomy==1.12.0"),
        share=5,
        real=False,
        user_lines=9,
    ),
    Program(
        "PyAutoGalaxy",
        "autogalaxy_",
        packages=("autogalaxy==2026.7.29.1.post1", "autofit==2026.7.29.1.post1"),
        limit=300.0,
        share=20,
        real=False,
        user_lines=8,
        python="3.12",
    ),
)


def chosen(names: list[str]) -> list[Program]:
    """Returns programs whose names contain one of the words, in any case; all if there is none.

    Raises:
        ValueError: If a word fits no program.
    """
    if not names:
        return list(PROGRAMS)
    for word in names:
        if not any(word.lower() in p.name.lower() for p in PROGRAMS):
            known = ", ".join(p.name for p in PROGRAMS)
            raise ValueError(f"No program is called {word!r}; there are: {known}.")
    return [p for p in PROGRAMS if any(w.lower() in p.name.lower() for w in names)]
