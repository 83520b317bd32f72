"""Writes the SVG of each diagram from its Mermaid source: `render.py path/to/mermaid.min.js`.

Needs Chromium. mermaid.min.js is in the package `mermaid` of npm. The SVGs are checked in, so that neither building nor
viewing the site needs it; each names the hash of its source, which a test compares.
"""

import hashlib
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
CONFIG = """{startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: {htmlLabels: false},
  fontFamily: "system-ui, sans-serif", themeVariables: {fontSize: "15px"}}"""

# An SVG in an <img> must be well-formed XML and have a size of its own.
RENDER = """async ([id, source]) => {
  document.body.innerHTML = (await mermaid.render(id, source)).svg;
  const svg = document.querySelector("svg");
  svg.setAttribute("width", Math.ceil(svg.viewBox.baseVal.width));
  svg.setAttribute("height", Math.ceil(svg.viewBox.baseVal.height));
  svg.id = id; // that the style refers to
  svg.setAttribute("style", "background: white");
  return new XMLSerializer().serializeToString(svg);
}"""


def stamp(source: str) -> str:
    """Return the comment that ties an SVG to its source."""
    return f"<!-- source: {hashlib.sha256(source.encode()).hexdigest()[:16]} -->"


def main(mermaid: str) -> None:
    """Render the diagrams whose source has changed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<html><body></body></html>")
        page.add_script_tag(path=mermaid)
        page.evaluate(f"mermaid.initialize({CONFIG})")
        for path in sorted(HERE.glob("*.mmd")):
            source = path.read_text(encoding="utf-8")
            target = path.with_suffix(".svg")
            if target.is_file() and stamp(source) in target.read_text(encoding="utf-8"):
                continue
            svg = page.evaluate(RENDER, [path.stem, source])
            target.write_text(f"{stamp(source)}\n{svg}\n", encoding="utf-8")
            print(f"wrote {target.name}")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
