"""Markdown and code as HTML for slides. HTML in the sources is shown, not obeyed; formulas become MathML."""

from __future__ import annotations

from functools import lru_cache
from html import escape

from scprimer.publish import book


def html(text: str) -> str:
    """Blocks of markdown.

    Raises:
        BookError: a formula that cannot be shown, or the packages that render are not installed.
    """
    return _renderer().render(text)


def inline(text: str) -> str:
    """One line of markdown, without a paragraph around it."""
    return _renderer().renderInline(text)


def code(source: str) -> str:
    """Python with classes for its colours."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return f'<pre class="code"><code>{highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))}</code></pre>'


@lru_cache(maxsize=1)
def _renderer():
    try:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.dollarmath import dollarmath_plugin
    except ImportError as error:
        raise book.BookError(
            f"{error.name} is not installed here; `make book` installs what making slides needs"
        ) from None
    made = MarkdownIt("commonmark", {"html": False, "highlight": lambda source, *_: _highlighted(source)}).enable(
        "table"
    )
    made.use(dollarmath_plugin, allow_space=True, renderer=_formula)
    # Slides make no requests: a picture that lies elsewhere is named instead of fetched.
    made.add_render_rule("image", lambda self, tokens, i, *_: f"<i>{escape(tokens[i].content)}</i>")
    return made


def _highlighted(source: str) -> str:
    return code(source).removeprefix('<pre class="code"><code>').removesuffix("</code></pre>")


def _formula(latex: str, options: dict) -> str:
    from docutils.utils.math import MathError

    from scprimer.publish.sphinxext import maths

    try:
        return maths.mathml(latex.strip(), block=options["display_mode"])
    except MathError as error:
        raise book.BookError(f"this equation cannot be shown: {error} In: {' '.join(latex.split())}") from error
