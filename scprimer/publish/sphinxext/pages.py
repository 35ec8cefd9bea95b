"""What every built page carries in its head and its bar: previews, launch links, and nothing that it does not need."""

from __future__ import annotations

import re
import shutil
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from docutils import nodes
from sphinx.application import Sphinx

# Pages whose tables need the whole width.
WIDE = (
    "book/index",
    "book/methods",
    "book/ledger",
    "book/failures",
    "book/status",
    "book/benchmarks",
    "book/reproducibility",
)
HUB_PAGE = "book/how-to-run"
HUB_ANCHOR = "on-a-jupyterhub"
_UNUSED_SCRIPTS = ("thebe", "require", "design-tabs")
_UNUSED_STYLES = ("thebe", "sphinx-design")  # no page has tabs, grids or cards of sphinx-design
# Docutils writes a role that ARIA has deprecated, in a list that then has no items; sources are plain text with links.
_OLD_ROLES = re.compile(
    r' role="doc-biblioentry"|(?<=<div) role="list"(?= class="citation-list")|(?<=class="citation-list") role="list"'
)
# Names, punctuation and blanks in highlighted code have the colour of plain text: their marks are a third of a chapter's weight.
_PLAIN_CODE = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')
# Files of the theme that no page of this book asks for: icon fonts, source maps, thebe.
_UNUSED_FILES = (
    "vendor/fontawesome",
    "sphinx-thebe.js",
    "sphinx-thebe.css",
    "webpack-macros.html",
    "sbt-webpack-macros.html",
)


def context(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Adjust what the theme has put together for one page."""
    context["script_files"] = [s for s in context["script_files"] if not _unused(s)]
    context["css_files"] = [
        c for c in context["css_files"] if not any(n in str(getattr(c, "filename", c)) for n in _UNUSED_STYLES)
    ]
    if "body" in context:
        context["body"] = _OLD_ROLES.sub("", _PLAIN_CODE.sub(r"\1", context["body"]))
    context["use_thebe"] = False
    if "pagetitle" in context:
        context["pagetitle"] = escape(context["pagetitle"])  # the theme puts it into the page as it is
    is_chapter = pagename.startswith("notebooks/")
    if is_chapter:
        _add_hub(app, pagename, context)
    elif "header_buttons" in context:
        context["header_buttons"] = [b for b in context["header_buttons"] if b.get("label") != "download-buttons"]
    if pagename in WIDE:
        context["meta"] = dict(context.get("meta") or {}) | {"html_theme.sidebar_secondary.remove": "true"}
    context["metatags"] = context.get("metatags", "") + _previews(app, pagename, context, doctree)


def _unused(script: Any) -> bool:
    name, body = (
        str(getattr(script, "filename", script) or ""),
        str(getattr(script, "attributes", {}).get("body") or ""),
    )
    return any(word in name for word in _UNUSED_SCRIPTS) or "THEBE_JS_URL" in body or "thebe_selector" in body


def _add_hub(app: Sphinx, pagename: str, context: dict[str, Any]) -> None:
    """JupyterHub through nbgitpuller: every class has its own hub, so the link is completed in the reader's browser.

    The button leads to the page where a reader names their hub; ``scprimer.js`` remembers it and then opens the chapter there.
    """
    options = app.config.html_theme_options
    repository, branch = options.get("repository_url", "").rstrip("/"), options.get("repository_branch") or "main"
    for button in context.get("header_buttons", []):
        if button.get("label") != "launch-buttons" or any(b["text"] == "JupyterHub" for b in button["buttons"]):
            continue
        button["buttons"].append(
            {
                "type": "link",
                "text": "JupyterHub",
                "tooltip": "Open on your JupyterHub",
                "icon": "_static/images/logo_jupyterhub.svg",
                "url": f"{context['pathto'](HUB_PAGE)}?{hub_query(repository, branch, pagename)}#{HUB_ANCHOR}",
                "label": "launch-hub",
            }
        )


def hub_query(repository: str, branch: str, pagename: str) -> str:
    """What nbgitpuller is told: clone this repository, and open this page's notebook in it."""
    path = f"lab/tree/{repository.rsplit('/', 1)[-1]}/{pagename}.ipynb"
    return urlencode({"repo": repository, "branch": branch, "urlpath": path}, safe="/:")


def _previews(app: Sphinx, pagename: str, context: dict[str, Any], doctree: nodes.document | None) -> str:
    """Open Graph tags: what a link to this page shows elsewhere."""
    base = (app.config.html_baseurl or "").rstrip("/")
    title = nodes.Text(context.get("title") or app.config.project).astext()
    words = _first_words(doctree) if doctree is not None else ""
    tags = {
        "og:type": "article" if pagename.startswith("notebooks/") else "website",
        "og:site_name": app.config.project,
        "og:title": _plain(title),
        "og:description": words,
    }
    if base:
        tags["og:url"] = f"{base}/{pagename}.html"
        tags["og:image"] = f"{base}/_static/preview.png"
        tags["og:image:alt"] = "scprimer: a book you can run. AI for single-cell genomics."
    lines = [f'<meta property="{name}" content="{escape(value)}" />' for name, value in tags.items() if value]
    if words:
        lines.append(f'<meta name="description" content="{escape(words)}" />')
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    return "\n" + "\n".join(lines)


def _plain(title: str) -> str:
    """A title without the markup that Sphinx has put into it."""
    from html import unescape

    return unescape(re.sub(r"<[^>]+>", "", title))


def _first_words(doctree: nodes.document, limit: int = 200) -> str:
    for paragraph in doctree.findall(nodes.paragraph):
        words = " ".join(paragraph.astext().split())
        if len(words) > 40:
            return words if len(words) <= limit else words[:limit].rsplit(" ", 1)[0] + " …"
    return ""


def box_further(app: Sphinx, doctree: nodes.document) -> None:
    """Mark what a chapter proposes to do next, a section or a paragraph called "Take it further", for the style sheet."""
    for node in doctree.findall(lambda n: isinstance(n, nodes.section | nodes.paragraph)):
        head = next((child for child in node.children if child.astext()), None)
        if isinstance(head, nodes.title | nodes.strong) and head.astext().startswith("Take it further"):
            node["classes"].append("scp-further")


def drop_unused(app: Sphinx, error: Exception | None) -> None:
    """Remove what the theme copied and no page asks for."""
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for name in _UNUSED_FILES:
        path = static / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for source_map in static.rglob("*.map"):
        source_map.unlink()
