"""One run of one chapter: profile, seed, device, data, and the claims that the chapter makes.

A chapter begins with :func:`start` and asks the :class:`Run` that it returns for everything that depends on where it
runs. It ends with :meth:`Run.report`, which fails the notebook when a claim does not hold.
"""

from __future__ import annotations

import html
import json
import math
import os
import platform
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from scprimer import ticker, times
from scprimer.kernel import QUIET_VARIABLE, attended

PROFILES = ("smoke", "standard", "full")
DEVICES = ("auto", "cpu", "cuda", "mps")
KINDS = ("result", "reference", "baseline", "control", "pitfall")
RESAMPLES = ("seed", "cells", "donors", "simulation")

PROFILE_VARIABLE = "SCPRIMER_PROFILE"
DEVICE_VARIABLE = "SCPRIMER_DEVICE"
RECORD_VARIABLE = "SCPRIMER_RECORD"


class ClaimFailed(AssertionError):
    """At least one claim of the chapter does not hold in this run."""


@dataclass(frozen=True)
class Repeats:
    """One measured number, several times.

    Attributes:
        values: one float per repeat.
        resample: what was drawn anew each time: ``"seed"`` (of the algorithm), ``"cells"``, ``"donors"`` or
            ``"simulation"``. Seeds are not data uncertainty, so the two are never pooled.
    """

    values: tuple[float, ...]
    resample: str | None = None

    @property
    def mean(self) -> float:
        """Mean over the repeats."""
        return math.fsum(self.values) / len(self.values)

    @property
    def sd(self) -> float:
        """Sample standard deviation over the repeats, 0.0 for a single value."""
        if len(self.values) < 2:
            return 0.0
        mean = self.mean
        return math.sqrt(math.fsum((v - mean) ** 2 for v in self.values) / (len(self.values) - 1))

    def __float__(self) -> float:
        return self.mean

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __str__(self) -> str:
        return (
            f"{self.mean:.3g} ± {self.sd:.2g} ({len(self)} × {self.resample})" if len(self) > 1 else f"{self.mean:.3g}"
        )

    def _repr_html_(self) -> str:
        return html.escape(str(self))


@dataclass(repr=False)
class Claim:
    """One thing that a chapter says it showed. The fields are those of the record (see the design of the book)."""

    id: str
    text: str
    kind: str
    method: str | None
    values: list[float]
    resample: str | None
    bounds: dict[str, list]
    baseline: float | None
    control: float | None
    source: str | None
    reported: str | None
    holds: bool | None = None  # None: measured, not asserted (another data set than the chapter was written for)

    @property
    def mean(self) -> float | None:
        """Mean of the values; None when the claim could not be measured on this data set."""
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def measured(self) -> str:
        """The measured value with its spread, in words."""
        return str(Repeats(tuple(self.values), self.resample)) if self.values else "not measured here"

    def __repr__(self) -> str:
        mark = {True: "holds", False: "DOES NOT HOLD", None: "not asserted here"}[self.holds]
        beside = [f"{n} {v:.3g}" for n, v in (("baseline", self.baseline), ("control", self.control)) if v is not None]
        return f"{self.text}: {self.measured}{'; ' if beside else ''}{', '.join(beside)} [{self.kind}, {mark}]"

    def _ipython_display_(self) -> None:
        """Nothing: :meth:`Run.claim` has shown it, wherever in the cell it stands."""

    def to_html(self) -> str:
        """The claim as a box for the page."""
        state = {True: "holds", False: "fails", None: "open"}[self.holds]
        beside = [f"{n} {v:.3g}" for n, v in (("baseline", self.baseline), ("control", self.control)) if v is not None]
        detail = html.escape(" · ".join([self.measured, *beside]))
        return (
            f'<div class="scprimer-claim {state}"><span class="kind">{html.escape(self.kind)}</span> '
            f'{html.escape(self.text)} <span class="measured">{detail}</span></div>'
        )


@dataclass
class Run:
    """What :func:`start` returns: the only place where a chapter asks which profile, seed, device or data it has.

    Attributes:
        chapter: slug of the chapter, such as ``"qc"``.
        profile: ``"smoke"``, ``"standard"`` or ``"full"``.
        seed: the chapter's seed; repeats derive theirs from it.
        dataset: registered name, or path of the reader's own ``.h5ad``.
        written_for: the registered name whose bounds the claims hold for.
        threads: threads that numerical libraries may use in this process, or None when the environment does not say.
        device_wanted: ``"auto"`` or the device that was asked for; None in a chapter that does without torch.
    """

    chapter: str
    profile: str
    seed: int
    dataset: str | None
    written_for: str | None
    threads: int | None = None
    device_wanted: str | None = None
    claims: list[Claim] = field(default_factory=list)
    data: dict[str, dict] = field(default_factory=dict)
    checkpoints: list[str] = field(default_factory=list)

    # ---- sizes -------------------------------------------------------------------------------------------------
    def pick(self, *, smoke: Any, standard: Any, full: Any = None) -> Any:
        """The value for this run's profile; ``full`` falls back to ``standard``."""
        if self.profile == "full" and full is not None:
            return full
        return smoke if self.profile == "smoke" else standard

    @property
    def own_data(self) -> bool:
        """True when the chapter runs on another data set than it was written for: claims are measured, not asserted."""
        return self.written_for is not None and self.dataset != self.written_for

    @cached_property
    def device(self) -> str:
        """``"cuda"``, ``"mps"`` or ``"cpu"``: what was asked for, or the best that is there."""
        return find_device(self.device_wanted or settle_device())

    # ---- data --------------------------------------------------------------------------------------------------
    def load(self, name: str | None = None, **options) -> Any:
        """Load a data set for this run.

        Args:
            name: a registered name or the path of an ``.h5ad``; default: the chapter's ``dataset`` parameter.
            options: passed to :func:`scprimer.data.load`, such as ``part="sc_10x_5cl"``.

        Returns:
            What :func:`scprimer.data.load` returns for that name (mostly AnnData with raw counts in ``X``). In the
            ``smoke`` profile a registered name gives its simulated stand-in, with the same columns and with the truth
            in ``uns["truth"]``; ``uns["scprimer"]["simulated"]`` says so.

        Raises:
            scprimer.data.DataError: the data set is unknown, cannot be fetched, or does not pass the gate.
        """
        from scprimer import data

        name = name or self.dataset
        if name is None:
            raise ValueError("this chapter has no `dataset` parameter: name the data set to load")
        if data.is_registered(name):
            if self.profile == "smoke":
                from scprimer.data import simulate

                return simulate.standin(name, seed=self.seed, **options)
            entry = data.describe(name)
            self.data[name] = {"sha256": entry.sha256, "bytes": entry.bytes}
        return data.load(name, **options)

    # ---- repeats -----------------------------------------------------------------------------------------------
    def repeat(self, measure: Callable[[int], Any], n: int, *, resample: str = "seed", label: str = "") -> Any:
        """Call ``measure(seed)`` for ``n`` seeds derived from the run's seed.

        Args:
            measure: takes an integer seed; returns a number, or a dict of numbers.
            n: how many repeats.
            resample: what a new seed draws anew: ``"seed"``, ``"cells"``, ``"donors"`` or ``"simulation"``.
            label: words for the progress bar.

        Returns:
            :class:`Repeats`, or a dict of them when ``measure`` returns a dict.
        """
        _one_of("resample", resample, RESAMPLES)
        results = [measure(self.seed * 1000 + i) for i in progress(range(n), label or f"{n} repeats")]
        if isinstance(results[0], Mapping):
            return {key: Repeats(tuple(float(r[key]) for r in results), resample) for key in results[0]}
        return Repeats(tuple(float(r) for r in results), resample)

    # ---- claims ------------------------------------------------------------------------------------------------
    def claim(
        self,
        id: str,
        text: str,
        value: float | Sequence[float] | Repeats | None,
        *,
        at_least: float | Mapping[str, float] | None = None,
        at_most: float | Mapping[str, float] | None = None,
        kind: str = "result",
        method: str | None = None,
        resample: str | None = None,
        baseline: float | Repeats | None = None,
        control: float | Repeats | None = None,
        source: str | None = None,
        reported: str | None = None,
    ) -> Claim:
        """State one thing that the chapter showed, with the bound that makes it a test, and show it.

        The mean over the repeats is compared with the bound. Nothing is raised here: :meth:`report` fails the notebook
        after all claims have been measured, so that one sees every failure at once. The mean and the spread are glued
        under ``<id>`` and ``<id>-sd`` for the prose.

        Args:
            id: short and stable, unique in the chapter, such as ``"leiden-ari"``.
            text: the claim in one plain sentence, without numbers.
            value: what was measured: a number, several, or :class:`Repeats`; None only on the reader's own data, when
                it cannot be measured there (no labels, say).
            at_least: the claim holds when the mean is at least this; a number, or one per profile.
            at_most: the claim holds when the mean is at most this. Give one of the two.
            kind: ``"result"``, ``"reference"`` (equal to a known implementation), ``"baseline"``, ``"control"`` or
                ``"pitfall"``.
            method: id of the method in ``book/methods.csv``.
            resample: what the repeats draw anew, when ``value`` is a plain sequence.
            baseline: the trivial baseline's value of the same measure.
            control: the negative control's value of the same measure; recording requires that it *fails* the bound.
            source: key in ``references.bib``.
            reported: id in ``book/reported.csv`` of the figure that this claim re-measures.
        """
        _one_of("kind", kind, KINDS)
        if any(c.id == id for c in self.claims):
            raise ValueError(f"the claim id {id!r} is used twice in this chapter: ids are unique")
        if (at_least is None) == (at_most is None):
            raise ValueError(f"claim {id!r}: give exactly one of at_least and at_most")
        if isinstance(value, Repeats):
            values, resample = list(value.values), value.resample
        elif value is None:
            if not self.own_data:
                raise ValueError(f"claim {id!r}: a value is required on the data set that the chapter was written for")
            values = []
        else:
            values = [float(v) for v in value] if isinstance(value, Iterable) else [float(value)]
        if resample is not None:
            _one_of("resample", resample, RESAMPLES)
        direction, bound = ("at_least", at_least) if at_least is not None else ("at_most", at_most)
        bounds = {p: [direction, float(b)] for p, b in _per_profile(bound).items()}
        claim = Claim(
            id=id, text=text, kind=kind, method=method, values=values, resample=resample, bounds=bounds,
            baseline=_number(baseline), control=_number(control), source=source, reported=reported,
        )  # fmt: skip
        asserted = (not self.own_data or kind == "reference") and self.profile in bounds and claim.values
        claim.holds = bound_holds(claim.mean, *bounds[self.profile]) if asserted else None
        self.claims.append(claim)
        if claim.values:
            repeats = Repeats(tuple(values), resample)
            self.glue(**{id: repeats.mean, f"{id}-sd": repeats.sd})
            for name, other in (("baseline", claim.baseline), ("control", claim.control)):
                if other is not None:
                    self.glue(**{f"{id}-{name}": other})
        if display := _display():
            display({"text/plain": repr(claim), "text/html": claim.to_html()}, raw=True)
        return claim

    def glue(self, **numbers: Any) -> None:
        """Keep numbers for the prose: ``{glue:text}`key:.2f``` shows them in the rendered book. Shows nothing here."""
        display = _display()
        if display is None:
            return
        for key, value in numbers.items():
            plain = value.mean if isinstance(value, Repeats) else value
            text = repr(plain.item() if hasattr(plain, "item") else plain)
            prefix = "application/papermill.record/"
            display(
                {prefix + "text/plain": text}, raw=True, metadata={"scrapbook": {"name": key, "mime_prefix": prefix}}
            )

    def table(self):
        """The claims so far as a pandas DataFrame: measured value and spread, bound, baseline, control."""
        import pandas as pd

        rows = []
        for c in self.claims:
            direction, bound = c.bounds.get(self.profile, (None, None))
            sign = {"at_least": "≥", "at_most": "≤", None: ""}[direction]
            rows.append(
                {
                    "claim": c.text,
                    "kind": c.kind,
                    "measured": c.measured,
                    "bound": f"{sign} {bound:.3g}" if direction else "",
                    "baseline": "" if c.baseline is None else f"{c.baseline:.3g}",
                    "control": "" if c.control is None else f"{c.control:.3g}",
                }
            )
        return pd.DataFrame(rows, columns=["claim", "kind", "measured", "bound", "baseline", "control"]).set_index(
            "claim"
        )

    def report(self) -> None:
        """Say which claims hold, in the same words in every profile, and fail the notebook if one does not.

        Raises:
            ClaimFailed: at least one claim does not hold; every failed claim is listed with value and bound.
        """
        self._write_record()
        failed = [c for c in self.claims if c.holds is False]
        if failed:
            lines = []
            for c in failed:
                direction, bound = c.bounds[self.profile]
                lines.append(
                    f"  {c.id}: {c.text}\n    measured {c.mean:.4g}, {direction.replace('_', ' ')} {bound:.4g}"
                )
            raise ClaimFailed(
                f"{len(failed)} of {len(self.claims)} claims do not hold ({self.profile}):\n" + "\n".join(lines)
            )
        for c in self.claims:
            mark = "holds" if c.holds else "measured, not asserted on this data set"
            print(f"{mark}: [{c.kind}] {c.text}")
        if self.own_data:
            print(f"The bounds were set on {self.written_for}; on your data the values are shown, not judged.")

    def record(self) -> dict:
        """This run as plain data: what ``SCPRIMER_RECORD`` receives and the notebook's metadata keeps."""
        return {
            "chapter": self.chapter,
            "profile": self.profile,
            "seed": self.seed,
            "dataset": None if self.dataset is None else str(self.dataset),
            "written_for": self.written_for,
            "device": self.__dict__.get("device"),
            "threads": self.threads,
            "data": self.data,
            "checkpoints": sorted(self.checkpoints),
            "claims": [asdict(c) for c in self.claims],
        }

    def _write_record(self) -> None:
        target = os.environ.get(RECORD_VARIABLE)
        if target:
            Path(target).write_text(json.dumps(self.record(), indent=1), encoding="utf-8")

    # ---- the start card ----------------------------------------------------------------------------------------
    def _card(self) -> list[tuple[str, str]]:
        data = "simulated stand-ins with known truth" if self.profile == "smoke" else "real data sets of the registry"
        if self.own_data:
            data = f"your data: {Path(str(self.dataset)).name}"
        rows = [("chapter", self.chapter), ("profile", self.profile), ("data", data), ("seed", str(self.seed))]
        if self.device_wanted:
            rows.append(("device", self.device))
        if attended() and (cost := times.words(self.chapter, self.profile, self.own_data)):
            rows.append(("takes", cost))
        return rows

    def __repr__(self) -> str:
        return "\n".join(f"{name:<8} {value}" for name, value in self._card())

    def _repr_html_(self) -> str:
        cells = "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd>" for n, v in self._card())
        return f'<dl class="scprimer-card">{cells}</dl>'


WITHOUT_TORCH: Any = object()  # no value of a parameter: a chapter that uses torch always passes its `device` on


def start(
    chapter: str,
    *,
    profile: str | None = None,
    seed: int = 0,
    dataset: str | None = None,
    written_for: str | None = None,
    device: str | None = WITHOUT_TORCH,
) -> Run:
    """Begin a chapter: settle the profile, seed everything, quieten what would clutter the page, show the start card.

    Args:
        chapter: the chapter's slug.
        profile: ``"smoke"``, ``"standard"`` or ``"full"``; None takes the environment variable ``SCPRIMER_PROFILE``,
            and ``"standard"`` when that is not set.
        seed: non-negative integer for Python, NumPy and torch.
        dataset: registered name, or path of the reader's own ``.h5ad``.
        written_for: registered name that the bounds of the claims were set on.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; ``"auto"`` or None takes the environment variable
            ``SCPRIMER_DEVICE``, and the best device that is there when that is not set. Chapters without torch leave it out.

    Returns:
        The :class:`Run`.

    Raises:
        ValueError: an unknown profile or device, a device that is not there, a negative seed, or a profile or device that
            contradicts ``SCPRIMER_PROFILE`` or ``SCPRIMER_DEVICE``.
    """
    uses_torch = device is not WITHOUT_TORCH
    _pass_threads_on()
    run = Run(
        chapter=chapter,
        profile=settle_profile(profile=profile),
        seed=_checked_seed(seed),
        dataset=dataset,
        written_for=written_for,
        threads=_threads(),
        device_wanted=settle_device(device=device) if uses_torch else None,
    )
    seed_everything(run.seed, torch=uses_torch)
    if uses_torch:
        _ = run.device  # a wrong device is an error here, not an hour later
    from scprimer import plots

    plots.use_style()
    display = _display()
    if display is not None:
        display(run)
    ticker.begin(run)
    return run


def seed_everything(seed: int, *, torch: bool = True) -> None:
    """Seed Python, NumPy and (unless ``torch=False``) torch on every device."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries of the field still read the global state
    if torch:
        import torch as th

        th.manual_seed(seed)


def find_device(wanted: str = "auto") -> str:
    """``"cuda"``, ``"mps"`` or ``"cpu"``. ``"auto"`` takes the first of these that is there.

    Raises:
        ValueError: the wanted device is unknown or not there.
    """
    _one_of("device", wanted, DEVICES)
    if wanted == "cpu":
        return "cpu"
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, found in there.items() if found)
    if not there[wanted]:
        raise ValueError(f"device={wanted!r} was asked for, and torch sees none here: use device='auto' or 'cpu'")
    return wanted


def progress(items: Iterable, label: str = ""):
    """A progress bar around ``items`` that leaves no trace; silent when ``SCPRIMER_QUIET`` is set."""
    from tqdm.auto import tqdm

    return tqdm(items, desc=label, leave=False, disable=bool(os.environ.get(QUIET_VARIABLE)))


def bound_holds(value: float | None, direction: str, bound: float) -> bool:
    """Whether ``value`` respects ``[direction, bound]``; a NaN never does."""
    if value is None or math.isnan(value):
        return False
    return value >= bound if direction == "at_least" else value <= bound


def settle_profile(**said: str | None) -> str:
    """The profile that is wished for: see :func:`settle`. Where nobody says one it is ``"standard"``."""
    return settle("profile", said, PROFILE_VARIABLE, PROFILES, unsaid=None) or "standard"


def settle_device(**said: str | None) -> str:
    """The device that is wished for, ``"auto"`` where nobody says one: see :func:`settle`."""
    return settle("device", said, DEVICE_VARIABLE, DEVICES, unsaid="auto") or "auto"


def settle(
    name: str, said: Mapping[str, str | None], variable: str, allowed: Sequence[str], unsaid: str | None
) -> str | None:
    """What is wished for, here and in the environment.

    Args:
        name: of the parameter.
        said: where it is said here, in words -> what is said there.
        variable: environment variable that may say it, too.
        allowed: values that exist.
        unsaid: the value that wishes nothing, as None and an unset variable do.

    Returns:
        The one wish, or None where there is none.

    Raises:
        ValueError: a value that does not exist, or two wishes that differ.
    """
    said = {**said, variable: os.environ.get(variable) or None}
    for where, value in said.items():
        if value is not None:
            _one_of(where, value, allowed)
    wishes = {f"{where}={value!r}": value for where, value in said.items() if value not in (None, unsaid)}
    if len(set(wishes.values())) > 1:
        raise ValueError(
            f"{' contradicts '.join(wishes)}: say it in one place "
            f"({name} = {unsaid!r} in the parameters cell and an unset variable wish nothing)"
        )
    return next(iter(wishes.values()), None)


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed={seed!r}: use a non-negative whole number")
    return int(seed)


def _threads() -> int | None:
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() else None


def _pass_threads_on() -> None:
    """Give Numba the number of threads that OpenMP was given.

    Numba does not read ``OMP_NUM_THREADS``. Where it starts as many threads as there are cores, torch uses as many from then
    on, and on a busy machine they wait for each other: one softmax took thirteen times as long. Once Numba has been imported
    its own setting cannot change any more.
    """
    threads = _threads()
    if threads and "numba" not in sys.modules:
        os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))


def _per_profile(bound: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(bound, Mapping):
        for profile in bound:
            _one_of("profile of a bound", profile, PROFILES)
        given = dict(bound)
        if "standard" in given:
            given.setdefault("full", given["standard"])
        return given
    return dict.fromkeys(PROFILES, float(bound))


def _number(value: float | Repeats | None) -> float | None:
    return None if value is None else float(value)


def _one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        import difflib

        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{what}={value!r} is not one of {', '.join(map(repr, allowed))}{hint}")


def _display():
    """IPython's display, or None outside a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    if get_ipython() is None:
        return None
    from IPython.display import display

    return display


def environment() -> dict[str, str]:
    """Versions that matter to a result, as plain text: Python, platform and the main libraries that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in ("anndata", "scanpy", "numpy", "scipy", "scikit-learn", "torch", "pyro-ppl", "scprimer"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
