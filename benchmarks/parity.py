"""Run tests/parity; write the largest difference of each array to a CSV file, and their summary to a page.

python -m benchmarks.parity [--long] [--out docs/explanation/parity.md] [--rows benchmarks/results/parity.csv]
                            [--data DIR]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import machine
from benchmarks.pages import markdown_table

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "explanation" / "parity.md"
ROWS = REPOSITORY / "benchmarks" / "results" / "parity.csv"
CLOSEST = 8  # arrays in the page's list of those closest to their tolerance


class Row(NamedTuple):
    """An array that was compared.

    Attributes
    ----------
    file, array
        Where the reference's values are.
    difference
        Largest absolute difference.
    tolerance
        Largest difference that the test allows; 0 where both must be equal.
    """

    file: str
    array: str
    difference: float
    tolerance: float

    @property
    def share(self) -> float:
        """Share of the tolerance that the difference takes."""
        return self.difference / self.tolerance if self.tolerance else 0.0


def main() -> None:
    """Compare with the reference codes from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description="Compare with the reference codes array by array, and write the largest differences.",
    )
    parser.add_argument(
        "--long", action="store_true", help="include the real ViT-L geometry (takes minutes and 8 GB of memory)"
    )
    parser.add_argument(
        "--out", type=Path, default=PAGE, metavar="FILE", help="page; default docs/explanation/parity.md"
    )
    parser.add_argument(
        "--rows",
        type=Path,
        default=ROWS,
        metavar="FILE",
        help="CSV file with a row for each array; default benchmarks/results/parity.csv",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the reference arrays; default $MEDCLIPAD_PARITY"
    )
    options = parser.parse_args()
    environment = dict(os.environ)
    if options.data:
        environment["MEDCLIPAD_PARITY"] = str(options.data.resolve())
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.md"
        environment["MEDCLIPAD_PARITY_TABLE"] = str(table)
        command = [sys.executable, "-m", "pytest", "tests/parity", *([] if options.long else ["-m", "not long"])]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True)
        print(done.stdout)
        if not table.exists():
            sys.exit(done.stderr or "No array was compared: set MEDCLIPAD_PARITY to the folder of reference arrays.")
        rows = [read_row(line) for line in table.read_text().splitlines()[2:]]
    outcome = done.stdout.strip().splitlines()[-1]
    write_rows(options.rows, rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(rows, outcome, options.long), encoding="utf-8")
    print(f"{options.rows}: {len(rows)} arrays; {options.out}: their summary.")
    sys.exit(done.returncode)


def read_row(line: str) -> Row:
    """Return the row of a line of the tests' table."""
    file, array, difference, tolerance = (cell.strip() for cell in line.strip("|").split(" | "))
    return Row(file, array, float(difference), float(tolerance))


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write all rows to a CSV file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row._fields)
        writer.writerows(rows)


def page(rows: list[Row], outcome: str, full_size: bool) -> str:
    """Return the page in Markdown."""
    here = machine()
    lines = [
        "# Parity with the reference codes",
        "",
        "What the reference codes of MVFA, MediCLIP and MadCLIP computed from given weights, images and random",
        "draws, compared array by array with what the classes of this package compute from the same. `make parity`",
        "writes this page, and a row for each array to `benchmarks/results/parity.csv`; do not edit the page.",
        "MVFA's and MediCLIP's arrays are in the folder that `MEDCLIPAD_PARITY` names; any set of the same form can",
        "be tested. MadCLIP's are in `tests/parity`, where `record_madclip.py` wrote them by running its reference",
        "code.",
        "",
        f"{len(rows)} arrays in {len({row.file for row in rows})} files, {sum(row.difference == 0 for row in rows)} of "
        f"them equal to the last bit. pytest: {outcome}.",
        f"{here['date']}, {here['processor']} ({here['capability']}), {here['threads']} thread(s), Python "
        f"{here['python']}, torch {here['torch']}, GPU: {here['gpu']}.",
        "The real ViT-L geometry is included." if full_size else "Without the real ViT-L geometry: that is `--long`.",
        "",
        "## Arrays closest to their tolerance",
        "",
        "These differences are float32 rounding, which depends on the processor's matrix products. For the tapped",
        "tokens of MediCLIP's toy CLIP (values up to 11), both codes differ from float64 by up to 1.4e-5. Computed",
        "here in the reference's own layout (tokens first, torch's attention), the reference equals ours to the last",
        "bit: what is left is the difference between the two machines.",
        "",
        closest_table(rows),
        "",
        "## Summary by file",
        "",
        "Each array has a tolerance of its own. The last columns are of the array that comes closest to its tolerance.",
        "",
        summary_table(rows),
    ]
    return "\n".join(lines) + "\n"


def closest_table(rows: list[Row]) -> str:
    """Return the table of the arrays that come closest to their tolerance."""
    chosen = sorted(rows, key=lambda row: -row.share)[:CLOSEST]
    return markdown_table(["file", "array", "largest difference", "tolerance"], [row_cells(row) for row in chosen])


def summary_table(rows: list[Row]) -> str:
    """Return the table with a row for each file."""
    by_file = defaultdict(list)
    for row in rows:
        by_file[row.file].append(row)
    headings = ["file", "arrays", "equal to the last bit", "closest array", "its largest difference", "its tolerance"]
    return markdown_table(
        headings,
        [
            [file, str(len(own)), str(sum(row.difference == 0 for row in own)), *row_cells(closest(own))[1:]]
            for file, own in by_file.items()
        ],
    )


def closest(rows: list[Row]) -> Row:
    """Return the row that takes the largest share of its tolerance; of several, the one with the largest tolerance."""
    return max(rows, key=lambda row: (row.share, row.tolerance))


def row_cells(row: Row) -> list[str]:
    """Return a row as cells of a Markdown table."""
    return [row.file, row.array, f"{row.difference:.1e}", f"{row.tolerance:.2g}"]


if __name__ == "__main__":
    main()
