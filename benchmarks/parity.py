"""Parity with the reference codes: run tests/parity, and write each array and its largest difference to a page.

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
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="also the real ViT-L geometry (minutes, 8 GB of memory)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "parity.md", metavar="FILE")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the arrays; default MEDCLIPAD_PARITY")
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
    """(file, array, largest difference, tolerance) of a line of the tests' table."""
    file, array, found, tolerance = (cell.strip() for cell in line.strip("|").split(" | "))
    return file, array, float(found), float(tolerance)


def page(rows: list[tuple[str, str, float, float]], outcome: str, full_size: bool) -> str:
    """The page in Markdown."""
    here = machine()
    exact = sum(found == 0 for _, _, found, _ in rows)
    share = {(file, array): found / tolerance for file, array, found, tolerance in rows if tolerance}
    close = sorted(rows, key=lambda row: -share.get(row[:2], 0))[:8]
    files = defaultdict(list)
    for row in rows:
        files[row[0]].append(row)
    lines = [
        "# Parity with the reference codes",
        "",
        "What MVFA's and MediCLIP's reference codes computed from given weights, images and random draws, array by",
        "array, against what the classes compute that detectors, server and command line use. Written by",
        "`make parity`; do not edit. The arrays are in the folder that `MEDCLIPAD_PARITY` names; any set of the same",
        "form can be tested.",
        "",
        f"{len(rows)} arrays in {len(files)} files, {exact} of them equal to the last bit. pytest: {outcome}.",
        f"{here['date']}, {here['processor']} ({here['capability']}), {here['threads']} thread(s), Python "
        f"{here['python']}, torch {here['torch']}, GPU: {here['gpu']}.",
        "The real ViT-L geometry is included." if full_size else "Without the real ViT-L geometry: that is `--long`.",
        "",
        "## Nearest to their tolerance",
        "",
        "Float32 rounding, which depends on the processor's matrix products. Of the tapped tokens of MediCLIP's toy",
        "CLIP (values up to 11) both are up to 1.4e-5 from what float64 gives. Computed here in the reference's own",
        "layout (tokens first, torch's attention) they are equal to ours to the last bit: what is left is between the",
        "two machines.",
        "",
        *table(close),
    ]
    for file, own in files.items():
        lines += ["", f"## {file}", "", *table(own, with_file=False)]
    return "\n".join(lines) + "\n"


def table(rows: list[tuple[str, str, float, float]], with_file: bool = True) -> list[str]:
    """Rows as lines of Markdown."""
    lines = ["| file | array | largest difference | tolerance |", "|---|---|---|---|"]
    lines += [f"| {file} | {array} | {found:.1e} | {tolerance:.2g} |" for file, array, found, tolerance in rows]
    return lines if with_file else ["|" + line.split("|", 2)[2] for line in lines]


if __name__ == "__main__":
    main()
