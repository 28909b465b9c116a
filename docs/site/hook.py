"""MkDocs hooks of the site, used by `./dev docs`.

GitHub shows the same files, so pages link to each other and to the repository with relative links. The hooks add the
linked files from outside docs/ to the site: Markdown as a page, any other file as a page that shows it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from markdown_it import MarkdownIt
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs.checks.pages import ROOT, WITH
from docs.pictures.diagrams import BLOCK, THEMES, drawn_files
from docs.site import expanded, llms

log = get_plugin_logger("agentexec")

AT_TOP = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository that are pages in the navigation."""

FROM_REPOSITORY = "repository"
"""Folder of the site for all other files from outside docs/."""

LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
LANGUAGES = {"py": "python", "yaml": "yaml", "yml": "yaml", "toml": "toml", "json": "json", "sh": "bash"}
SHORT = re.compile(r"<code>(?=[^<\n]{1,32}</code>)")
"""Code within text; the code of a block ends with a line break."""
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
COUNTED = {"list_item_open": "li", "table_open": "table", "fence": "pre", "code_block": "pre"}
COUNTED |= {"heading_open": "h", "blockquote_open": "blockquote"}


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ that pages link to."""
    waiting = [*AT_TOP, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if not name.startswith("docs/"):
            page = File.generated(config, _uri(name), content=_content(name))
            page.inclusion = InclusionLevel.INCLUDED if name in AT_TOP else InclusionLevel.NOT_IN_NAV
            files.append(page)
        if name.endswith(".md"):
            waiting += [target for target in _targets(name) if not target.startswith("docs/")]
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return the page without hidden code, with its generated parts, and with links that work in the site."""
    here = _origin(page.file.src_uri)
    markdown = BLOCK.sub(lambda found: _drawn(found, page), markdown)
    text = LINK.sub(lambda found: _link(found, here), expanded(WITH.sub("", markdown)))
    page.meta["github"] = text
    return text


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Warn about lists and tables that look different on GitHub, which parses some of them differently."""
    source = page.meta.pop("github")
    if ":::" in source:
        return html
    html = SHORT.sub('<code class="short">', html)
    wanted: dict[str, int] = dict.fromkeys(COUNTED.values(), 0)
    for token in MarkdownIt("commonmark").enable("table").parse(source):
        if token.type in COUNTED:
            wanted[COUNTED[token.type]] += 1
    for tag, number in wanted.items():
        pattern = r"<h[1-6]\b" if tag == "h" else rf"<{tag}\b"
        if (found := len(re.findall(pattern, html))) != number:
            log.warning("%s has %s <%s> in the site and %s on GitHub", page.file.src_uri, found, tag, number)
    return html


def on_post_build(config: Any) -> None:
    """Write the index of the pages for language models, and their text in one file."""
    site = Path(config["site_dir"])
    texts = {
        entry.uri: (site / entry.uri).read_text(encoding="utf-8") for entry in llms.entries(config["nav"])
    }
    (site / "llms.txt").write_text(llms.index(config, lambda uri: ROOT / _origin(uri)), encoding="utf-8")
    (site / "llms-full.txt").write_text(llms.full(config, texts), encoding="utf-8")


def on_post_page(output: str, page: Page, config: Any = None, **_: Any) -> str:
    """Write the page as Markdown beside its HTML, and warn about anything that the page would load from another server."""
    for found in LOADED.findall(output):
        if 'rel="canonical"' not in found:
            log.warning("%s loads something from outside: %s", page.file.src_uri, found)
    if config is not None:
        file = Path(config["site_dir"], page.file.src_uri)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page.markdown or "", encoding="utf-8")
    return output


def _drawn(found: re.Match[str], page: Page) -> str:
    """Return the pictures of a diagram: the theme would load the script that draws it from another server."""
    files = drawn_files(found["source"])
    if not all(file.exists() for file in files):
        log.warning(
            "%s has a diagram without a picture: run `./dev docs pictures diagrams`", page.file.src_uri
        )
    here = posixpath.dirname(page.file.src_uri) or "."
    targets = [posixpath.relpath(f"pictures/diagrams/{file.name}", here) for file in files]
    return "\n".join(
        f"![Diagram]({target}#only-{theme})" for target, theme in zip(targets, THEMES, strict=True)
    )


def _uri(name: str) -> str:
    """Return the page of the site for a file of the repository."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name in AT_TOP:
        return AT_TOP[name]
    return f"{FROM_REPOSITORY}/{name}" if name.endswith(".md") else f"{FROM_REPOSITORY}/{name}.md"


def _origin(uri: str) -> str:
    """Return the file of the repository for a page of the site."""
    for name, page in AT_TOP.items():
        if uri == page:
            return name
    if not uri.startswith(f"{FROM_REPOSITORY}/"):
        return f"docs/{uri}"
    name = uri.removeprefix(f"{FROM_REPOSITORY}/")
    return name if (ROOT / name).exists() else name.removesuffix(".md")


def _content(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return text
    language = LANGUAGES.get(PurePosixPath(name).suffix.lstrip("."), "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {name}\n\n`````{language}\n{text}\n`````\n"


def _targets(name: str) -> Iterator[str]:
    """Yield the files of the repository that a page links to."""
    for found in LINK.finditer((ROOT / name).read_text(encoding="utf-8")):
        if target := _target(name, found["target"]):
            yield target


def _target(here: str, link: str) -> str | None:
    """Return the file of the repository that a link leads to; None if it leads out of the repository, or nowhere."""
    if re.match(r"[a-z+]+:|//", link):
        return None
    path = posixpath.normpath(posixpath.join("/", posixpath.dirname(here), link)).lstrip("/")
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    return path if (ROOT / Path(path)).is_file() else None


def _link(found: re.Match[str], here: str) -> str:
    target = _target(here, found["target"])
    if target is None:
        return found[0]
    return posixpath.relpath(_uri(target), posixpath.dirname(_uri(here)) or ".") + (found["anchor"] or "")
