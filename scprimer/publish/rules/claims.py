"""Rules about results: what a chapter must claim, and that its stored outputs are those of its code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from scprimer.publish import book
from scprimer.publish.rules.common import Finding, exempt, rule

RESULTS, REPEATS = 5, 3  # result claims with a spread, and repeats that make a spread
PROFILE = "standard"  # the profile that is recorded in notebooks


@rule
def claim_kinds(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """At least five results, a check against a reference, a baseline, a negative control and a pitfall."""
    claims = chapter.meta.get("claims", [])
    if not claims:
        yield None, "no claims are recorded", f"run `scprimer run {chapter.slug} --record`"
        return
    results = [c for c in claims if c["kind"] == "result"]
    if len(results) < RESULTS and not exempt(chapter, "result"):
        yield None, f"{len(results)} result claims", f"a chapter makes {RESULTS} or more"
    for kind in ("reference", "baseline", "control", "pitfall"):
        is_value = kind in ("baseline", "control") and any(c.get(kind) is not None for c in results)
        if not is_value and not any(c["kind"] == kind for c in claims) and not exempt(chapter, kind):
            yield (
                None,
                f"no claim of kind {kind!r}",
                f"add one, or say in not_applicable why {kind!r} makes no sense here",
            )


@rule
def claim_form(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Claims have ids of their own and plain sentences without numbers, and are asserted in the recorded profile."""
    seen: set[str] = set()
    for claim in chapter.meta.get("claims", []):
        id, text = claim["id"], claim["text"]
        if id in seen or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", id):
            yield None, f"the claim id {id!r} is used twice or is not lower-case words and hyphens", "rename it"
        seen.add(id)
        if len(text.split()) < 4:
            yield None, f"claim {id!r} says little: {text!r}", "one plain sentence that can be false"
        if re.search(r"\d\.\d|\d\s?%", text):
            yield (
                None,
                f"the text of claim {id!r} holds a number: {text!r}",
                "numbers are measured; the bound is the test",
            )
        if PROFILE not in claim.get("bounds", {}):
            yield None, f"claim {id!r} has no bound in the profile {PROFILE!r}", "give one: at_least or at_most"


@rule
def claim_holds(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every recorded claim holds: its mean respects its bound."""
    for claim in chapter.meta.get("claims", []):
        bound = claim.get("bounds", {}).get(PROFILE)
        values = claim.get("values") or [math.nan]
        if bound and not _holds(math.fsum(values) / len(values), bound):
            mean = math.fsum(values) / len(values)
            words = f"claim {claim['id']!r} measured {mean:.4g} and its bound is {bound[0].replace('_', ' ')} {bound[1]:.4g}"
            yield None, words, "the claim is wrong, or the chapter is: find out which"


@rule
def claim_spread(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Five results have a spread over repeats, and every claim with several values says what was drawn anew."""
    claims = chapter.meta.get("claims", [])
    for claim in claims:
        if len(claim["values"]) > 1 and not claim.get("resample"):
            yield (
                None,
                f"claim {claim['id']!r} has several values and not what they resample",
                "use run.repeat(..., resample=)",
            )
    spread = [c for c in claims if c["kind"] == "result" and len(c["values"]) >= REPEATS and c.get("resample")]
    if claims and len(spread) < RESULTS and not exempt(chapter, "spread"):
        fix = f"measure {RESULTS} of them {REPEATS} times or more: seeds, cells, donors or simulations"
        yield None, f"{len(spread)} result claims have a spread", fix


@rule
def claim_controls(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every result has a negative control, which fails the bound that the method passes."""
    if exempt(chapter, "control"):
        return
    for claim in chapter.meta.get("claims", []):
        if claim["kind"] != "result" or exempt(chapter, f"control:{claim['id']}"):
            continue
        if claim.get("control") is None:
            yield (
                None,
                f"the result {claim['id']!r} has no negative control",
                f"measure it with shuffled labels or an untrained model: run.claim(..., control=), or say in "
                f"not_applicable['control:{claim['id']}'] why there is none",
            )
        elif PROFILE in claim["bounds"] and _holds(claim["control"], claim["bounds"][PROFILE]):
            direction, bound = claim["bounds"][PROFILE]
            words = f"the control of {claim['id']!r} ({claim['control']:.4g}) passes {direction.replace('_', ' ')} {bound:.4g}"
            yield None, words, "the bound tests nothing: set it so that the control fails, or change the measure"


@rule
def methods(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every row of `methods.csv` for this chapter is in its metadata and has a result claim; claims name no others."""
    rows = {row["id"] for row in book.table("methods", top) if row["chapter"] == chapter.slug}
    listed = chapter.meta.get("methods", [])
    if set(listed) != rows or len(listed) != len(rows):
        fix = f"set scprimer.methods in the notebook's metadata to {sorted(rows)}"
        yield None, f"the metadata lists the methods {sorted(listed)}", fix
    claims = chapter.meta.get("claims", [])
    shown = {c["method"] for c in claims if c["kind"] == "result"}
    for id in sorted(rows - shown) if claims else ():
        yield None, f"no result claim is about the method {id!r}", f'measure it: run.claim(..., method="{id}")'
    for claim in claims:
        if claim["method"] is not None and claim["method"] not in rows:
            words = f"claim {claim['id']!r} is about {claim['method']!r}, which is no method of this chapter"
            yield None, words, "use an id of book/methods.csv whose chapter this is"


@rule
def reported(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """Every reported figure of this chapter is re-measured by a claim, or left out with a reason; claims name no others."""
    rows = {row["id"] for row in book.table("reported", top) if row["chapter"] == chapter.slug}
    claims = chapter.meta.get("claims", [])
    measured = {c["reported"] for c in claims if c.get("reported")}
    for id in sorted(rows - measured) if claims else ():
        if not exempt(chapter, f"reported:{id}"):
            fix = f'run.claim(..., reported="{id}"), or say in not_applicable["reported:{id}"] why it cannot be'
            yield None, f"the reported figure {id!r} is not re-measured", fix
    for id in sorted(measured - rows):
        yield (
            None,
            f"a claim re-measures {id!r}, which is not reported for this chapter",
            "use an id of book/reported.csv",
        )
    for key in chapter.meta.get("not_applicable", {}):
        kind, _, id = key.partition(":")
        if kind == "reported" and (id not in rows or id in measured):
            yield None, f"{key!r} is said not to apply and is no open figure of this chapter", "delete the exemption"


@rule
def stamp(chapter: book.Chapter, top: Path) -> Iterator[Finding]:
    """The stored outputs are those of the code as it stands: a stamp of the profile `standard` that is not stale."""
    from scprimer.publish import stamp as stamps

    again = f"run `scprimer run {chapter.slug} --record`"
    stored = chapter.meta.get("stamp")
    if not stored:
        yield None, "the chapter has no stamp", again
        return
    if stored.get("profile") != PROFILE:
        yield None, f"the stamp is of the profile {stored.get('profile')!r}", again
    state, reasons = stamps.judge(chapter)
    if state in ("stale", "never run"):
        yield None, f"the outputs are {state}: {'; '.join(reasons)}", again


def _holds(value: float, bound: list) -> bool:
    direction, number = bound
    return value >= number if direction == "at_least" else value <= number
