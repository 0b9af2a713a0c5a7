"""No reference dangles: every relative link, and every file that a page names, is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = (
    "benchmarks/results/",
    "demo/",
    "site/",
    "sample_data/study",
    "models/",
    "studies/",
    "results/",
    "build/",
    "MedCLIPAD/unsent",
)
PAGES = sorted(
    file for file in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    if (ROOT / file).is_file()
)  # fmt: skip
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"`([\w.-]+(?:/[\w.-]+)+/?)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TOPS = {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")}


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and code hosts make them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dangling(page: Path, text: str) -> list[str]:
    """Return the links and file names of a page that lead nowhere."""
    prose, found = FENCE.sub("", text), []
    for link in LINK.findall(prose):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists():
            found.append(link)
        elif anchor and file.suffix == ".md" and file.exists():
            content = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in anchors(content) and f"::: {anchor.rpartition('.')[0]}" not in content:
                found.append(link)
    for name in NAME.findall(prose):
        if name.partition("/")[0] in TOPS and not name.startswith(MADE) and not (ROOT / name).exists():
            found.append(name)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_nothing_dangles(page):
    file = ROOT / page
    assert not dangling(file, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", [
    "[x](no-such-page.md)", "[x](README.md#no-such-heading)", "[x](#none)", "see `lib/medclipad/detector.py`",
])  # fmt: skip
def test_a_dangling_reference_is_seen(text):
    assert dangling(ROOT / "page.md", text)
