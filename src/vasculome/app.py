"""The command line: ``vasculome demo | resume | doctor | plan | simulate | schemas``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from vasculome.config import RunConfig, Sample, parse_config, parse_sample
from vasculome.doctor import check_installation, verify_store
from vasculome.errors import UserError
from vasculome.resume import settle_orphans

DEMO_CONFIG = "config/demo/config.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's fault ends in one line on stderr and exit status 2."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except UserError as error:
        print(f"vasculome: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vasculome: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vasculome", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="simulate raw data and run the whole workflow on it")
    demo.set_defaults(command=_demo)

    resume = commands.add_parser(
        "resume", help="carry on after a crash: wait for orphans, unlock, rerun what is incomplete"
    )
    resume.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    resume.add_argument(
        "--end-orphans", action="store_true", help="end orphaned stages instead of waiting"
    )
    resume.add_argument(
        "snakemake",
        nargs="*",
        help="targets and options of the run that crashed, after --, e.g. -- --cores 8 maps",
    )
    resume.set_defaults(command=_resume)

    doctor = commands.add_parser("doctor", help="check the installation, or a store's shards")
    doctor.add_argument(
        "--verify",
        type=Path,
        metavar="STORE",
        help="compare the files of a store, or of all stores in a folder, with their ledgers; "
        "damaged tiles are redone by the next run",
    )
    doctor.set_defaults(command=_doctor)

    simulate = commands.add_parser("simulate", help="write the demonstration's raw data")
    simulate.add_argument("folder", type=Path)
    simulate.add_argument("--seed", type=int, default=0)
    simulate.set_defaults(command=_simulate)

    plan = commands.add_parser(
        "plan", help="tell tiles, shards, memory and time of stitching, before there are any data"
    )
    plan.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    plan.add_argument("--grid", required=True, help="rows x columns of tiles, e.g. 20x20")
    plan.add_argument("--voxels", required=True, help="of a tile, e.g. 2000x2048x2048")
    plan.add_argument("--spacing-um", required=True, help="z,y,x, e.g. 4,2,2")
    plan.add_argument("--overlap-percent", default="10", help="along y,x or one number for both")
    plan.add_argument("--dtype", choices=("uint8", "uint16", "float32"), default="uint16")
    plan.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    plan.set_defaults(command=_plan)

    schemas = commands.add_parser("schemas", help="write the JSON Schemas of config and samples")
    schemas.add_argument("folder", type=Path)
    schemas.set_defaults(command=_schemas)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    config = read_config(Path(DEMO_CONFIG))
    _simulate_raw(Path("demo/raw"), seed=0)
    # An earlier demonstration may have been interrupted.
    status = _carry_on(Path(DEMO_CONFIG), ["--quiet", "rules"], end_orphans=False)
    if status == 0:
        print("\nThe demonstration is done. Open in a browser:")
        for page in sorted(Path(config.results).glob("*/report.html")):
            print(f"  {page.resolve()}")
        print("Maps (OME-Zarr, for napari or neuroglancer):")
        for folder in sorted(Path(config.results).glob("*/maps/*.ome.zarr")):
            print(f"  {folder.resolve()}")
    return status


def _resume(arguments: argparse.Namespace) -> int:
    return _carry_on(arguments.configfile, arguments.snakemake, end_orphans=arguments.end_orphans)


def _carry_on(configfile: Path, options: list[str], *, end_orphans: bool) -> int:
    """Run Snakemake where an earlier run may have died; return its exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--directory", "-d", type=Path, default=Path())
    limits = ("--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile")
    parser.add_argument(*limits, nargs="?", const="all", dest="limit")
    known, _ = parser.parse_known_args(options)
    directory = known.directory.resolve()
    results = directory / read_config(configfile).results
    settle_orphans(results, directory=directory, end=end_orphans)
    cores = [] if known.limit else ["--cores", "all"]
    # A config file last: followed by a target, it would take it for one more config file.
    command = [*cores, *options, "--configfile", str(configfile)]
    if any((directory / ".snakemake/locks").glob("*")):
        status = _snakemake(*command, "--unlock")
        if status:
            return status
    return _snakemake(*command, "--rerun-incomplete")


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.verify is None:
        return check_installation()
    return verify_store(arguments.verify)


def _simulate(arguments: argparse.Namespace) -> int:
    _simulate_raw(arguments.folder, seed=arguments.seed)
    return 0


def _simulate_raw(folder: Path, *, seed: int) -> None:
    # The simulators take seconds to import, which no other command needs.
    from vasculome.demo import simulate_raw  # noqa: PLC0415

    simulate_raw(folder, seed=seed)


def _plan(arguments: argparse.Namespace) -> int:
    from vasculome.stages.stitch_plan import plan_stitching  # noqa: PLC0415

    row = {
        "sample": "plan",
        "modality": "microscopy",
        "path": ".",
        "format": "tiff_grid",
        "spacing_um": arguments.spacing_um,
        "grid": arguments.grid,
        "order": "raster-rows",
        "overlap_percent": arguments.overlap_percent,
    }
    plan = plan_stitching(
        read_config(arguments.configfile),
        parse_sample(row, where="vasculome plan"),
        tile_shape=_voxels(arguments.voxels),
        dtype=arguments.dtype,
        threads=arguments.cores,
    )
    print("\n".join(plan.lines()))
    return 0


def _voxels(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.split("x"))
        if min(z, y, x) < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{text!r} is not a shape", where="--voxels", fix="give it like 2000x2048x2048"
        ) from None
    return z, y, x


def _schemas(arguments: argparse.Namespace) -> int:
    for name, model in (("config", RunConfig), ("sample", Sample)):
        text = json.dumps(model.model_json_schema(), indent=2) + "\n"
        (arguments.folder / f"{name}.schema.json").write_text(text)
    return 0


def read_config(path: Path) -> RunConfig:
    """Return the configuration in a YAML file.

    Raises
    ------
    UserError
        Where the file is missing, no YAML, or holds a bad key.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            " ".join(f"cannot read the configuration: {error}".split()),
            where=path,
            fix="give the path of a YAML file with --configfile",
        ) from None
    return parse_config(content or {}, where=str(path))


def _snakemake(*options: str) -> int:
    """Run Snakemake to its end, which is its own matter also when we are asked to stop."""
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *options])
    before = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal has sent it to Snakemake as well, which ends its jobs first.
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
