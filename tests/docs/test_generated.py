"""The pages that follow from the code are up to date: `make docs` would not change them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECK = """
import sys
sys.path.insert(0, "docs/tools")
from generate import pages
for file, text in pages().items():
    if file.read_text(encoding="utf-8") != text:
        print(file)
"""


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stdout.strip(), f"run `make docs` and commit what it changes: {done.stdout}"
