"""Check the workflow with `snakemake --lint`, but for what is allowed here and why."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

PLACE = re.compile(r"Lints for (?:rule (?P<rule>\S+) \(|snakefile (?P<file>.+):$)")
FINDING = re.compile(r"    \* (?P<title>.+):$")


@dataclass(frozen=True)
class Allowed:
    """A finding that stands: its title, the rules or files it may be in, and the reason."""

    title: str
    where: str
    reason: str


ALLOWED = [
    Allowed(
        title="Specify a conda environment or container for each rule.",
        where="*",
        reason="all rules call one package, installed once (envs/vasculome.yaml); an environment "
        "for each rule would be the same environment many times",
    ),
]


def findings() -> list[tuple[str, str]]:
    """Return the title and the place (rule name or file) of all that Snakemake finds."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = smallest_sheet(Path(folder))
        # The text form: Snakemake 9.27 prints it even if `--lint json` is asked for.
        answer = subprocess.run(
            [sys.executable, "-m", "snakemake", "--lint", "--config", f"samples={sheet}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    found = []
    place = ""
    for line in answer.stdout.splitlines():
        if heading := PLACE.match(line):
            place = heading["rule"] or Path(heading["file"]).name
        elif finding := FINDING.match(line):
            found.append((finding["title"], place))
    if answer.returncode and not found:
        sys.exit(f"snakemake --lint could not read the workflow:\n{answer.stdout}")
    return found


def smallest_sheet(folder: Path) -> Path:
    """Write a sample sheet and its raw data: the workflow refuses to start without a sample."""
    raw = folder / "iq.npy"
    np.save(raw, np.zeros((16, 4, 4), np.complex64))
    row = {
        "sample": "one",
        "modality": "ultrasound",
        "path": str(raw),
        "format": "iq",
        "spacing_um": "50,50",
        "axes": "tzx",
        "frame_rate_hz": "1000",
        "wavelength_um": "100",
    }
    sheet = folder / "samples.tsv"
    sheet.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    return sheet


def main() -> int:
    """Print what is neither clean nor allowed, and what is allowed but no longer found."""
    used = set()
    faults = []
    for title, where in findings():
        matching = [
            allowed
            for allowed in ALLOWED
            if fnmatchcase(title, allowed.title) and fnmatchcase(where, allowed.where)
        ]
        used.update(matching)
        if not matching:
            faults.append(f"{where}: {title}")
    faults += [f"allowed but not found: {a.title} ({a.where})" for a in ALLOWED if a not in used]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"snakemake --lint: {len(faults)} faults, {len(used)} of {len(ALLOWED)} allowances used")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
