"""Run tests/parity, and write each array and its largest difference from the reference codes to a page.

python -m benchmarks.parity [--long] [--out docs/parity.md] [--data DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.machine import machine

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Compare with the reference codes from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description="Compare with the reference codes array by array, and write the largest differences to a page.",
    )
    parser.add_argument(
        "--long", action="store_true", help="include the real ViT-L geometry (takes minutes and 8 GB of memory)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "docs" / "parity.md",
        metavar="FILE",
        help="page; default docs/parity.md",
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
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(rows, outcome, options.long), encoding="utf-8")
    print(f"{options.out}: {len(rows)} arrays.")
    sys.exit(done.returncode)


def read_row(line: str) -> tuple[str, str, float, float]:
    """Return file, array, largest difference and tolerance of a line of the tests' table."""
    file, array, difference, tolerance = (cell.strip() for cell in line.strip("|").split(" | "))
    return file, array, float(difference), float(tolerance)


def page(rows: list[tuple[str, str, float, float]], outcome: str, full_size: bool) -> str:
    """Return the page in Markdown."""
    here = machine()
    exact = sum(difference == 0 for _, _, difference, _ in rows)
    share = {(file, array): difference / tolerance for file, array, difference, tolerance in rows if tolerance}
    close = sorted(rows, key=lambda row: -share.get(row[:2], 0))[:8]
    files = defaultdict(list)
    for row in rows:
        files[row[0]].append(row)
    lines = [
        "# Parity with the reference codes",
        "",
        "What MVFA's and MediCLIP's reference codes computed from given weights, images and random draws, compared",
        "array by array with what the classes of this package compute from the same. Written by `make parity`; do not",
        "edit. The arrays are in the folder that `MEDCLIPAD_PARITY` names; any set of the same form can be tested.",
        "",
        f"{len(rows)} arrays in {len(files)} files, {exact} of them equal to the last bit. pytest: {outcome}.",
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
        *table(close),
    ]
    for file, own in files.items():
        lines += ["", f"## {file}", "", *table(own, with_file=False)]
    return "\n".join(lines) + "\n"


def table(rows: list[tuple[str, str, float, float]], with_file: bool = True) -> list[str]:
    """Return rows as lines of a Markdown table."""
    lines = ["| file | array | largest difference | tolerance |", "|---|---|---|---|"]
    for file, array, difference, tolerance in rows:
        lines.append(f"| {file} | {array} | {difference:.1e} | {tolerance:.2g} |")
    return lines if with_file else ["|" + line.split("|", 2)[2] for line in lines]


if __name__ == "__main__":
    main()
