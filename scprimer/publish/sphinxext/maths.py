"""LaTeX to MathML at build time: equations need no script, no other host, and weigh nothing on a phone.

docutils brings the converter. It is strict: a command that it does not know is an error, and so a warning of the build,
never a page with a raw backslash. :func:`prepare` first rewrites the commands that writers of chapters use and docutils
does not know into ones that it does.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml, tex_token_or_group

# One command for another; a name ends where its letters end.
_RENAMED = {
    r"\boldsymbol": r"\mathbfit",
    r"\pmb": r"\mathbfit",
    r"\bm": r"\mathbfit",
    r"\dots": r"\ldots",
    r"\stackrel": r"\overset",
    r"\hphantom": r"\phantom",
    r"\vphantom": r"\phantom",
    r"\textbf": r"\text",
    r"\textit": r"\text",
    r"\texttt": r"\text",
    r"\textsf": r"\text",
    r"\mathds": r"\mathbb",
    r"\implies": r"\Rightarrow",
    r"\iff": r"\Leftrightarrow",
    r"\argmax": r"\operatorname*{arg\,max}",
    r"\argmin": r"\operatorname*{arg\,min}",
}
_CHARACTERS = {
    "×": r"\times ", "·": r"\cdot ", "≤": r"\leq ", "≥": r"\geq ", "−": "-", "…": r"\ldots ", "≈": r"\approx ",
    "±": r"\pm ", "∈": r"\in ", "∞": r"\infty ", "→": r"\to ",
}  # fmt: skip
_ALIGNED = ("align", "align*", "gather", "gather*", "equation", "equation*", "split", "eqnarray", "eqnarray*")
_FUNCTIONS = "arg|cos|det|dim|exp|inf|lim|ln|log|max|min|Pr|sin|sup|tan|tanh"
_SPACE = "\u2009"  # thin space, as plain text


def mathml(latex: str, *, block: bool = False) -> str:
    """The equation as a ``<math>`` element, with the LaTeX kept as its ``alttext``.

    Args:
        latex: the equation's source, without dollars.
        block: a displayed equation (on its own line, with large operators).

    Raises:
        MathError: a command or an environment that is not known (the message names it), or braces that do not match.
    """
    bare = re.sub(r"\\.", "", latex)
    if bare.count("{") != bare.count("}"):
        raise MathError("Braces do not match.")
    element = tex2mathml(prepare(latex), as_block=block).replace("&ApplyFunction;", "\u2061")
    left = re.search(r"\\[A-Za-z]+", re.sub(r"<[^>]*>", "", element))
    if left:
        raise MathError(f'Unknown LaTeX command "{left[0]}".')
    return element.replace("<math ", f'<math alttext="{html.escape(" ".join(latex.split()))}" ', 1)


def prepare(latex: str) -> str:
    r"""Rewrite what docutils's converter does not know.

    Raises:
        MathError: ``\tag``: equations are numbered through labels in this book.
    """
    if re.search(r"\\tag\b", latex):
        raise MathError(r"\tag is not used in this book: number the equation with a label, $$ ... $$ (eq-name)")
    latex = re.sub(r"(?<!\\)%.*", "", latex)  # comments
    for character, command in _CHARACTERS.items():
        latex = latex.replace(character, command)
    latex = re.sub(r"\\(?:label|nonumber|notag)\b\s*(?:\{[^}]*\})?", "", latex)
    for name, other in _RENAMED.items():
        latex = re.sub(re.escape(name) + r"(?![A-Za-z])", lambda _, new=other: new, latex)
    latex = _fences(_environments(latex))
    # TeX takes one digit where docutils takes the whole number: x^23 is x squared, times three.
    latex = re.sub(r"([_^])\s*(\d)(?=\d)", r"\1{\2}", latex)
    for command in ("frac", "dfrac", "tfrac", "binom", "dbinom", "tbinom"):
        latex = _braces(latex, "\\" + command)
    # A thin space stands between a function's name and an argument without brackets.
    latex = re.sub(
        rf"\\({_FUNCTIONS})(?![A-Za-z])\s*(?=[A-Za-z0-9]|\\(?!left|[bB]ig|limits|[,;:! ]|\w*math(?:rm|bb)))",
        r"\\\1\\,",
        latex,
    )
    for command, rewrite, script in _REWRITES:
        latex = _rewrite(latex, command, rewrite, script)
    return latex


def _environments(latex: str) -> str:
    """``align`` and its relatives become ``aligned``, ``array`` a matrix without fences."""
    for name in _ALIGNED:
        latex = latex.replace(rf"\begin{{{name}}}", r"\begin{aligned}").replace(rf"\end{{{name}}}", r"\end{aligned}")
    latex = re.sub(r"\\begin\{array\}\s*\{[^}]*\}", lambda _: r"\begin{matrix}", latex)
    return latex.replace(r"\end{array}", r"\end{matrix}")


def _fences(latex: str) -> str:
    r"""``\left<``, ``\middle|`` and the sizes that are neither left nor right (``\big|``)."""
    latex = re.sub(r"\\(left|right)\s*<", r"\\\1\\langle ", latex)
    latex = re.sub(r"\\(left|right)\s*>", r"\\\1\\rangle ", latex)
    latex = re.sub(r"\\middle\s*\|", r"\\vert ", latex).replace(r"\middle", "")
    fence = r"(\\[A-Za-z]+|\\[{}|]|[()\[\]|/])"
    return re.sub(rf"\\([bB]igg?)m?(?![A-Za-z])\s*{fence}", r"\\\1l\2\\\1r.", latex)


def _braces(latex: str, command: str) -> str:
    r"""``\frac12`` with its braces."""
    done, rest = "", latex
    while (at := _next(rest, command)) is not None:
        done, rest = done + rest[:at], rest[at + len(command) :].lstrip()
        first, rest = tex_token_or_group(rest)
        second, rest = tex_token_or_group(rest.lstrip())
        done += f"{command}{{{_braces(first, command)}}}{{{_braces(second, command)}}}"
    return done + rest


def _rewrite(latex: str, command: str, rewrite: Callable[[str], str], script: str) -> str:
    """Replace each ``command{argument}`` by ``rewrite(argument)``, with a following script (``_`` or ``^``) under or over it."""
    done, rest = "", latex
    while (at := _next(rest, command)) is not None:
        done, rest = done + rest[:at], rest[at + len(command) :].lstrip()
        argument, rest = tex_token_or_group(rest)
        new = rewrite(_rewrite(argument, command, rewrite, script))
        following = re.match(rf"\s*(?:\\limits)?\s*{re.escape(script)}\s*", rest) if script else None
        if following:
            limit, rest = tex_token_or_group(rest[following.end() :])
            new = rf"\{'underset' if script == '_' else 'overset'}{{{limit}}}{{{new}}}"
            if re.match(r"\s*[A-Za-z]", rest) and "operatorname" in new:
                new += r"\,"
        done += new
    return done + rest


def _next(text: str, command: str) -> int | None:
    match = re.search(re.escape(command) + r"(?![A-Za-z*])", text)
    return match.start() if match else None


def _name(name: str) -> str:
    """A function's name as plain characters: docutils would show the spacing commands in it."""
    return re.sub(r"\\[,;: ]|~", _SPACE, re.sub(r"\\(?:text|mathrm)\{([^}]*)\}", r"\1", name).replace(r"\!", ""))


_REWRITES: tuple[tuple[str, Callable[[str], str], str], ...] = (
    # (command, new text of its argument, the script that goes under or over it)
    (r"\operatorname*", lambda name: rf"\operatorname{{{_name(name)}}}", "_"),
    (r"\operatorname", lambda name: rf"\operatorname{{{_name(name)}}}", ""),
    (r"\mathop", lambda body: body, "_"),
    (r"\substack", lambda body: rf"\begin{{smallmatrix}}{body}\end{{smallmatrix}}", ""),
    (r"\underbrace", lambda body: rf"\underbrace{{{body}}}", "_"),
    (r"\overbrace", lambda body: rf"\overbrace{{{body}}}", "^"),
    (r"\text", lambda words: r"\text{" + re.sub(r"\\([_%&#$ ])", r"\1", words) + "}", ""),
)
