"""MkDocs hooks: README files from elsewhere in the repository as pages, and links that leave docs/.

A page of docs/ may link to any file of the repository by its relative path, so that the link also works where the
repository is browsed. In the site such a link leads to the page that the file became, or to the file in the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
METHODS = Path("lib/medclipad/methods")
PAGES = {
    **{
        f"explanation/methods/{readme.parent.name}.md": (METHODS / readme.parent.name / readme.name).as_posix()
        for readme in sorted((ROOT / METHODS).glob("*/README.md"))
    },
    "explanation/sample-study.md": "sample_data/README.md",
}
"""Pages of the site that are files of the repository, by their place in the site."""

_LINK = re.compile(r"(\]\()([^)\s#]+)?(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files from elsewhere in the repository."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links to files outside docs/ changed to pages of the site, or to the repository."""
    here = page.file.src_uri
    source = ROOT / PAGES.get(here, f"docs/{here}")

    def follow(link: re.Match[str]) -> str:
        target, anchor = link[2], link[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        place = Path(os.path.normpath(source.parent / target))
        if not place.exists() or not place.is_relative_to(ROOT):
            return link[0]  # MkDocs warns of it
        path = place.relative_to(ROOT).as_posix()
        inside = next((site for site, file in PAGES.items() if file == path), None)
        if inside is None and path.startswith("docs/"):
            inside = path.removeprefix("docs/")
        if inside is not None:
            return f"{link[1]}{os.path.relpath(inside, os.path.dirname(here) or '.')}{anchor}{link[4]}"
        return f"{link[1]}{config.repo_url}/blob/main/{path}{anchor}{link[4]}"

    return _LINK.sub(follow, markdown)
