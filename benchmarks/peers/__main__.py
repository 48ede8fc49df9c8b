"""The same galaxies through this program and its peers: errors, error bars, failures, time.

    python benchmarks/peers run WORK             # everything: hours; the same again goes on
    python benchmarks/peers run WORK -n 10 5 --programs pyimfit statmorph deeplegato
    python benchmarks/peers run WORK --data FOLDER      # the real galaxies too
    python benchmarks/peers report WORK -o docs/validation
    python benchmarks/peers renderers WORK                 # the renderers alone, against quadrature

Each peer gets an environment of its own with pinned releases (`uv` makes them), one thread, the
same image, PSF, noise, mask and start, and the settings that its documentation recommends.
Everything is written under WORK: sets, environments, answers (a line per galaxy, so that a run goes
on where it was stopped), and ``answers.parquet``. A peer that cannot be installed or imported is a
row "not run" with the reason; a galaxy that takes too long is a failed one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fit what is left to fit")
    run.add_argument("work", type=Path)
    run.add_argument("-n", "--numbers", type=int, nargs=2, default=(200, 100))
    run.add_argument("--data", type=Path, help="folder of real galaxies with cases.ecsv")
    run.add_argument("--every", type=int, default=1, help="fit every so many of the simulations")
    run.add_argument("--programs", nargs="*", default=[], help="parts of names; all if none")
    run.add_argument("--environments", type=Path, help="WORK/environments if not given")
    report = commands.add_parser("report", help="tables and figures of what was run")
    report.add_argument("work", type=Path)
    report.add_argument("-o", "--output", type=Path, required=True)
    renderers = commands.add_parser("renderers", help="renderers against quadrature")
    renderers.add_argument("work", type=Path)
    renderers.add_argument("--environments", type=Path, help="WORK/environments if not given")
    args = parser.parse_args()
    from programs import PROGRAMS, chosen

    environments = getattr(args, "environments", None) or args.work / "environments"
    if args.command == "run":
        import runner
        import sets

        try:
            programs = chosen(args.programs)
        except ValueError as error:
            parser.error(str(error))
        sets.make(args.work / "sets", tuple(args.numbers), args.data)
        found = {
            home.name: sorted(home.glob("*.npz"))
            for home in sorted((args.work / "sets").iterdir(), reverse=True)
        }
        for program in programs:
            runner.run(program, args.work, found, environments, args.every)
        table = runner.collect(args.work, list(PROGRAMS))
        print(f"{table.num_rows} answers in {args.work / 'answers.parquet'}")
    elif args.command == "report":
        import pages

        pages.write(args.work, args.output)
    else:
        import renderers as images

        images.compare(args.work, environments)


if __name__ == "__main__":
    main()
