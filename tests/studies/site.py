"""Faults of the built documentation, as a browser shows them.

    uv run python docs/build.py
    uv run python -m tests.studies.site                            # all pages and the search, 2 min
    uv run python -m tests.studies.site --axe path/to/axe.min.js   # and accessibility of ten pages

Each page is loaded at the width of a phone and of a desktop. The table counts pages that are wider
than the window, images that are missing or have no text, formulas left in LaTeX, links and anchors
that lead nowhere, error messages, and requests to other machines. Each term of the glossary is then
typed into the search: the glossary or the term itself must be among the first five results. Needs
Chromium. The script axe is in the npm package axe-core.
"""

import argparse
import re
import shutil
from collections import defaultdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Browser, sync_playwright

from . import ROOT
from .pages import table

SITE = ROOT / "site"
WIDTHS = {"phone": 390, "desktop": 1280}
SEEN = r"""() => {
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), raw = [];
  while (words.nextNode()) {
    const {data, parentElement} = words.currentNode;
    if (parentElement.closest("code, pre, script, style")) continue;
    if (/\\[a-zA-Z_([]|\$[^$]+\$/.test(data)) raw.push(data.trim());
  }
  const images = [...document.images], wide = document.documentElement.scrollWidth;
  return {
    "wider than the window": wide > innerWidth ? [`${wide} pixels`] : [],
    "formula left in LaTeX": raw,
    "image without text": images.filter(i => !i.alt.trim()).map(i => i.src),
    "missing image": images.filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    anchors: [...document.querySelectorAll("[id]")].map(e => e.id),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
  };
}"""
COUNTED = (
    *re.findall(r'^    "(.+?)":', SEEN, re.M),
    "dead link or anchor",
    "error message",
    "request to another machine",
    "term that is not found",
    "fault of accessibility",
)
type Faults = defaultdict[tuple[str, str], list[str]]
"""What is wrong, by kind and by width or colours."""


def look(browser: Browser, base: str, paths: list[str], width: str, faults: Faults) -> set[str]:
    """Note the faults of all pages at a width; return the links to other sites."""
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 844})
    said, asked = faults["error message", width], faults["request to another machine", width]
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    pages = {}
    for path in paths:
        page.goto(base + path, wait_until="load")
        page.wait_for_timeout(100)
        pages[path] = page.evaluate(SEEN)
        for kind in COUNTED[:4]:
            faults[kind, width] += [f"{path or 'home'}: {what}" for what in pages[path][kind]]
    asked[:] = [url for url in asked if not url.startswith((base, "data:", "blob:"))]
    links = {(path, link) for path, seen in pages.items() for link in seen["links"]}
    for path, link in sorted(links):
        target, anchor = (unquote(part) for part in urldefrag(link.removeprefix(base)))
        if target in pages:
            found = not anchor or anchor in pages[target]["anchors"]
        else:
            found = not link.startswith(base) or (SITE / target).is_file()
        faults["dead link or anchor", width] += [f"{path or 'home'}: {link}"] * (not found)
    page.close()
    return {link for _, link in links if not link.startswith(base)}


def terms() -> list[str]:
    """The terms of the glossary; those that share an entry one by one."""
    text = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8")
    entries = re.sub(r" \(.*?\)", "", "\n".join(re.findall(r"^## (.+)$", text, re.M)))
    return re.split(", |\n", entries)


def search(browser: Browser, base: str, faults: Faults) -> None:
    page = browser.new_page(viewport={"width": WIDTHS["desktop"], "height": 844})
    page.goto(base)
    page.click(".md-search__button")
    for term in terms():
        for typed in ("", term):  # no result of the term before stays
            page.get_by_role("combobox").fill(typed)
            page.wait_for_timeout(300)
        results = page.get_by_role("option").all_inner_texts()[:5]
        if not any(re.search(f"Glossary|{re.escape(term)}", text, re.I) for text in results):
            faults["term that is not found", "desktop"].append(f"{term}: {results}")
    page.close()


def accessibility(browser: Browser, address: str, script: str, faults: Faults) -> None:
    for colours in ("light", "dark"):
        page = browser.new_page(color_scheme=colours)
        page.goto(address, wait_until="load")
        page.wait_for_timeout(300)
        page.evaluate(script)
        for fault in page.evaluate("axe.run()")["violations"]:
            places = [f"{address}: {fault['id']}: {node['target']}" for node in fault["nodes"]]
            faults["fault of accessibility", colours] += places
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axe", type=Path, help="the script axe.min.js")
    script = parser.parse_args().axe
    pages = (str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))
    paths = sorted(page.removesuffix("index.html") for page in pages)
    faults: Faults = defaultdict(list)
    SimpleHTTPRequestHandler.log_message = lambda *_: None
    handler = partial(SimpleHTTPRequestHandler, directory=str(SITE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        outer = set().union(*(look(browser, base, paths, width, faults) for width in WIDTHS))
        search(browser, base, faults)
        for path in paths[::9] if script else ():
            accessibility(browser, base + path, script.read_text(encoding="utf-8"), faults)
    columns = (*WIDTHS, "light", "dark")
    counts = [[kind, *(len(faults[kind, column]) for column in columns)] for kind in COUNTED]
    print(f"{len(paths)} pages, {len(terms())} terms. Links to other sites: {sorted(outer)}\n")
    print(table([["fault", *columns], *counts]))
    for (kind, column), found in faults.items():
        for what in found:
            print(f"{kind}, {column}: {what}")


if __name__ == "__main__":
    main()
