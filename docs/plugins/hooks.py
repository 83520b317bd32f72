"""Hooks of MkDocs: add the pages that are written from code, and check the result."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from pages import HEADER, PAGES

# What a browser loads by itself; links that a reader follows may lead anywhere.
_LOADED = re.compile(
    r"<(?:script|img|iframe|link(?=[^>]*(?:stylesheet|preload|icon)))[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from code."""
    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=HEADER + write()))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from another host."""
    for page in Path(config.site_dir).rglob("*.html"):
        if found := _LOADED.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page} loads from another host: {found.group()}")
