"""Writing a run back: outputs, claims and stamp into the notebook, and the judgement that comes before.

A recorded claim must be able to fail. So its bound is compared with the spread over five smoke repeats (and over the run's
own repeats), and the negative control of every result must fail the bound that the method passes.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import os
import re
from pathlib import Path

from scprimer.publish import book, stamp
from scprimer.publish.rules.common import glued_again
from scprimer.run import Repeats, bound_holds

SMOKE_SEEDS = (0, 1, 2, 3, 4)
DISTANCE = 2.0  # standard deviations between a bound and the mean
LARGEST = 1_000_000  # bytes of a notebook
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class Refused(book.BookError):
    """A run that cannot be recorded; ``reasons`` says why, each with what to do."""

    def __init__(self, reasons: list[str]):
        super().__init__("\n".join(reasons))
        self.reasons = reasons


# ---- the judgement of claims -----------------------------------------------------------------------------------------
def judge_smoke(runs: list[list[dict]], seeds: list[int], not_applicable: dict) -> list[str]:
    """What speaks against recording, from the claims of the smoke repeats.

    Args:
        runs: claims (as :meth:`scprimer.run.Run.record` gives them) of one repeat each.
        seeds: the seed of each repeat.
        not_applicable: the chapter's ``not_applicable``; ``"control"`` or ``"control:<claim id>"`` exempts.

    Returns:
        Reasons in words, empty when there are none.
    """
    ids = [[c["id"] for c in claims] for claims in runs]
    if any(i != ids[0] for i in ids):
        return ["the smoke repeats do not make the same claims: a chapter's claims must not depend on its seed"]
    found = []
    for same in zip(*runs):
        bound = same[0]["bounds"].get("smoke")
        means = [_mean(c["values"]) for c in same]
        name = f"{same[0]['id']} (smoke)"
        if any(m is None or not math.isfinite(m) for m in means):
            found.append(f"{name}: {_listed(means)} is not a number in every repeat")
            continue
        if bound is None:
            continue
        failed = [f"seed {s}: {m:.4g}" for s, m in zip(seeds, means) if not bound_holds(m, *bound)]
        if failed:
            found.append(f"{name}: does not hold ({_sign(bound)}) for {', '.join(failed)}")
        controls = [c.get("control") for c in same]
        control = _mean(controls) if all(_is_number(c) for c in controls) else None
        over = f"the {len(means)} smoke repeats" if len(means) > 1 else "the smoke run"
        found += _bound(name, means, bound, control, over) + _control(name, same[0], control, bound, not_applicable)
    return found


def judge_run(claims: list[dict], profile: str, not_applicable: dict) -> list[str]:
    """What speaks against recording, from the claims of the run itself (its repeats, where there are three or more)."""
    found = []
    for c in claims:
        name, mean, bound = f"{c['id']} ({profile})", _mean(c["values"]), c["bounds"].get(profile)
        if mean is None or not math.isfinite(mean):
            found.append(f"{name}: {mean} is not a number")
            continue
        if bound is None:
            continue
        if not bound_holds(mean, *bound):
            found.append(f"{name}: does not hold: measured {mean:.4g}, {_sign(bound)}")
        control = c.get("control") if _is_number(c.get("control")) else None
        if len(c["values"]) >= 3:
            over = f"its {len(c['values'])} repeats ({c['resample'] or 'nothing said about what was resampled'})"
            found += _bound(name, c["values"], bound, control, over)
        found += _control(name, c, control, bound, not_applicable)
    return found


def _bound(name: str, values: list[float], bound: list, control: float | None, over: str) -> list[str]:
    """The bound must lie at least two standard deviations from the mean, or a sound method would fail by chance."""
    direction, number = bound
    repeats = Repeats(tuple(values))
    sign = 1 if direction == "at_least" else -1
    distance = sign * (repeats.mean - number)
    if distance >= DISTANCE * repeats.sd or distance < 0:  # below zero the claim fails, which is said elsewhere
        return []
    honest = _outwards(repeats.mean - sign * 3 * repeats.sd, direction)
    advice = f"these repeats would carry {_sign([direction, honest])} (three standard deviations)"
    if control is not None and bound_holds(control, direction, honest):
        advice = f"no bound is honest here: the control, {control:.4g}, lies within three standard deviations"
    return [
        f"{name}: the bound is too near. Mean {repeats.mean:.4g}, sd {repeats.sd:.2g} over {over}; {_sign(bound)} is "
        f"{distance / repeats.sd:.1f} standard deviations away, {DISTANCE:g} are needed; {advice}"
    ]


def _control(name: str, claim: dict, control: float | None, bound: list, not_applicable: dict) -> list[str]:
    """The control of a result must fail the bound, or the claim would hold of a broken method, too."""
    if claim["kind"] != "result" or not_applicable.get("control") or not_applicable.get(f"control:{claim['id']}"):
        return []
    if control is None:
        return [
            f"{name}: a result needs a negative control: run.claim(..., control=value); where none makes sense, the "
            f'notebook\'s metadata says why in not_applicable["control:{claim["id"]}"]'
        ]
    if bound_holds(control, *bound):
        return [
            f"{name}: the negative control, {control:.4g}, passes the bound ({_sign(bound)}): the claim would hold "
            "if the method were broken. Tighten the bound, or find a measure that tells the two apart"
        ]
    return []


def _sign(bound: list) -> str:
    return f"{bound[0].replace('_', ' ')} {bound[1]:.4g}"


def _outwards(number: float, direction: str) -> float:
    """Two significant digits, rounded to the lenient side."""
    if number == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(number))) - 1)
    steps = math.floor(number / unit) if direction == "at_least" else math.ceil(number / unit)
    return float(f"{steps * unit:.6g}")


def _mean(values: list) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _listed(values: list) -> str:
    return ", ".join("nothing" if v is None else f"{v:.4g}" for v in values)


# ---- what the book keeps ---------------------------------------------------------------------------------------------
def write_back(chapter: book.Chapter, result: dict, force: bool = False) -> str:
    """Put a run's outputs, claims and stamp into the chapter's notebook, as far as they say something new.

    Outputs are replaced when the code has changed since they were recorded, when a cell has lost its outputs, when a claim
    moved beyond its spread, or by ``force``. An aged chapter whose claims stand gets a new stamp only.

    Args:
        chapter: the chapter as it was when it ran.
        result: what :func:`scprimer.publish.job.run_job` returned.
        force: replace the outputs in any case (for a new look of the figures).

    Returns:
        What was done, in words.

    Raises:
        Refused: the notebook's code changed during the run, the outputs hold what a book must not (stderr, warnings,
            paths of this machine), or the notebook would grow too large. Nothing is written then.
    """
    now = book.Chapter(chapter.slug, chapter.part, chapter.path)
    if [_cell_key(c) for c in now.notebook["cells"]] != [_cell_key(c) for c in chapter.notebook["cells"]]:
        raise Refused([f"{chapter.path} was edited during the run, so the outputs are not its own: run it again"])
    claims = [_rounded(c) for c in result["record"]["claims"]]
    new_stamp = stamp.make(now, result)
    before = stamp.judge(now)
    notebook = copy.deepcopy(now.notebook)
    meta = notebook["metadata"].setdefault("scprimer", {"chapter": chapter.slug})
    changes = moved(meta.get("claims", []), claims)
    if before.state in ("fresh", "aged") and not changes and not force:
        if before.state == "fresh" and "cells" in meta["stamp"]:  # older stamps do not say what the cells took
            return "as recorded: outputs and stamp stand"
        meta["stamp"] = new_stamp
        book.write_notebook(chapter.path, notebook)
        return "claims stand: a new stamp, the same outputs"
    reasons = output_faults(chapter, result)
    if reasons:
        raise Refused(reasons)
    notebook = merge(notebook, json.loads(result["notebook"]))
    notebook["metadata"]["scprimer"] |= {"stamp": new_stamp, "claims": claims}
    reasons = _too_large(notebook)
    if reasons:
        raise Refused(reasons)
    book.write_notebook(chapter.path, notebook)
    why = "by force" if force else before.reasons[0] if before.state in ("stale", "never run") else changes[0]
    return f"recorded ({why})"


def edition(chapter: book.Chapter, result: dict, changed: bool) -> dict:
    """The executed notebook as a notebook of the book: its outputs, claims and stamp, with parameters that were changed.

    Args:
        chapter: the chapter as it was when it ran.
        result: what :func:`scprimer.publish.job.run_job` returned.
        changed: whether parameters were changed (their cell is kept then).
    """
    notebook = merge(copy.deepcopy(chapter.notebook), json.loads(result["notebook"]), injected=changed)
    meta = notebook["metadata"].setdefault("scprimer", {"chapter": chapter.slug})
    meta["claims"] = result["record"]["claims"] if result["record"] else []
    meta.pop("stamp", None)
    if result["record"]:
        meta["stamp"] = stamp.make(chapter, result)
    return notebook


def smoke_record(chapter: book.Chapter, results: list[dict], seeds: list[int], data: dict) -> dict:
    """The spreads over the smoke repeats, as ``book/records/smoke/<chapter>.json`` keeps them.

    Each claim's ``values`` are the means of the single repeats; what differs between these is the seed and with it the
    simulated data (``resample`` is ``"simulation"``). ``data`` has the names of the data sets that the stand-ins stood for.
    """
    claims = []
    for same in zip(*(r["record"]["claims"] for r in results)):
        repeats = Repeats(tuple(_mean(c["values"]) for c in same), "simulation")
        claims.append(
            {
                "id": same[0]["id"],
                "kind": same[0]["kind"],
                "bound": same[0]["bounds"].get("smoke"),
                "values": [_six(v) for v in repeats.values],
                "resample": "simulation",
                "mean": _six(repeats.mean),
                "sd": _six(repeats.sd),
                "baseline": _six(_pooled(c["baseline"] for c in same)),
                "control": _six(_pooled(c["control"] for c in same)),
            }
        )
    clocked = [stamp.clocked(r) for r in results]
    seconds = [c["seconds"] for c in clocked]
    whole = stamp.make(chapter, results[0])
    whole |= {"seed": seeds, "seconds": round(sum(seconds) / len(seconds), 1)}
    whole["cells"] = _mean_cells([c["cells"] for c in clocked])
    whole |= {"peak_mb": max(r["peak_mb"] for r in results), "surroundings": stamp.surroundings(chapter, data)}
    return {"chapter": chapter.slug, "profile": "smoke", "seconds": seconds, "stamp": whole, "claims": claims}


def full_record(chapter: book.Chapter, result: dict) -> dict:
    """A run of another profile, as ``book/records/<profile>/<chapter>.json`` keeps it."""
    record = result["record"]
    return {
        "chapter": chapter.slug,
        "profile": record["profile"],
        "stamp": stamp.make(chapter, result),
        "claims": [_rounded(c) for c in record["claims"]],
    }


def keep(top: Path, record: dict) -> bool:
    """Write a record to ``book/records/<profile>/<chapter>.json`` if it says something new; returns whether it did."""
    path = top / "book" / "records" / record["profile"] / f"{record['chapter']}.json"
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        before = old.get("stamp", {})
        same = all(before.get(k) == record["stamp"][k] for k in ("hash", "surroundings", "data")) and "cells" in before
        if same and not moved(old.get("claims", []), record["claims"]):
            return False
    book.write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return True


def _mean_cells(runs: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of the cells over several runs; a cell that was too short to be noted in one counts as zero there."""
    means = {id: _mean([run.get(id, 0.0) for run in runs]) for id in dict.fromkeys(id for run in runs for id in run)}
    return {id: round(mean, 1) for id, mean in means.items() if mean >= stamp.SHORTEST}


def moved(old: list[dict], new: list[dict]) -> list[str]:
    """How the claims of a new run differ from the recorded ones, beyond their spread; empty when they do not."""
    if [c["id"] for c in old] != [c["id"] for c in new]:
        return ["it makes other claims than before"]
    found = []
    for a, b in zip(old, new):
        numbers = ("values", "baseline", "control", "mean", "sd", "holds")
        if {k: v for k, v in a.items() if k not in numbers} != {k: v for k, v in b.items() if k not in numbers}:
            found.append(f"{b['id']}: the claim is another")
            continue
        before, after = Repeats(tuple(a["values"])), Repeats(tuple(b["values"]))
        if len(before) != len(after):
            found.append(f"{b['id']}: it has {len(after)} values, not {len(before)}")
            continue
        spread = max(before.sd, after.sd) if len(before) else 0.0
        pairs = [("", before.mean, after.mean)] if len(before) else []
        pairs += [(f" {k}", a.get(k), b.get(k)) for k in ("baseline", "control")]
        for what, x, y in pairs:
            if (x is None) != (y is None):
                found.append(f"{b['id']}{what}: was {x}, is {y}")
            elif x is not None and abs(y - x) > max(spread, 1e-3 * abs(x)):
                found.append(f"{b['id']}{what}: {x:.4g} became {y:.4g}, the spread is {spread:.2g}")
    return found


def _rounded(claim: dict) -> dict:
    """A claim with its measured numbers at six significant digits: what is behind them is noise in the history."""
    numbers = {key: _six(claim[key]) for key in ("baseline", "control")}
    return claim | numbers | {"values": [_six(v) for v in claim["values"]]}


def _six(value: float | None) -> float | None:
    return value if value is None else float(f"{value:.6g}")


def _pooled(values) -> float | None:
    values = list(values)
    return _mean(values) if all(_is_number(v) for v in values) else None


def _cell_key(cell: dict) -> tuple:
    return (cell["cell_type"], cell.get("id"), book.source(cell) if cell["cell_type"] == "code" else "")


# ---- outputs ---------------------------------------------------------------------------------------------------------
def merge(notebook: dict, executed: dict, injected: bool = False) -> dict:
    """A notebook with the outputs of its execution: by cell id, cleaned, with execution counts from 1 on.

    Args:
        notebook: the source (changed in place).
        executed: what papermill wrote.
        injected: keep papermill's cell of changed parameters.
    """
    if injected:
        ours = {c.get("id") for c in notebook["cells"]}
        for at, cell in enumerate(executed["cells"]):
            if cell.get("id") not in ours:
                kept = {k: cell[k] for k in ("cell_type", "id", "source", "outputs", "execution_count")}
                notebook["cells"].insert(at, kept | {"metadata": {"tags": ["injected-parameters"]}})
    outputs = {c.get("id"): c["outputs"] for c in executed["cells"] if c["cell_type"] == "code"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["outputs"], cell["execution_count"] = [], None
        if book.source(cell).strip():
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = clean(outputs[cell.get("id")], count)
    notebook["metadata"].pop("widgets", None)
    states = executed["metadata"].get("widgets", {}).get(_WIDGET_STATE)
    return _with_widgets(notebook, states) if states else notebook


def clean(outputs: list[dict], count: int) -> list[dict]:
    """Outputs of one cell without what changes from run to run: split streams, counts, tracebacks, times, heavy pictures."""
    found: list[dict] = []
    for output in copy.deepcopy(outputs):
        kind = output["output_type"]
        if kind == "stream":
            text = _text(output["text"])
            if found and found[-1]["output_type"] == "stream" and found[-1]["name"] == output["name"]:
                text = _text(found.pop()["text"]) + text
            output["text"] = text.splitlines(keepends=True)
        elif kind == "error":  # only where the cell's tag allows it; frames name files of this machine
            output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
        else:
            data = output["data"]
            if "image/png" in data:
                data["image/png"] = smaller_png(_text(data["image/png"]))
            if "image/svg+xml" in data:
                svg = re.sub(r"\s*<metadata>.*?</metadata>", "", _text(data["image/svg+xml"]), flags=re.DOTALL)
                data["image/svg+xml"] = svg.splitlines(keepends=True)
            if kind == "execute_result":
                output["execution_count"] = count
        found.append(output)
    return found


def smaller_png(encoded: str) -> str:
    """A base64 PNG, as small as it gets without a visible difference; unchanged when Pillow is not installed.

    First without loss; then with a palette of 256 colours, if no pixel channel moves by more than 1.5 of 255 on average.
    """
    try:
        from PIL import Image, ImageChops, ImageStat
    except ImportError:
        return encoded
    raw = base64.b64decode(encoded)
    with Image.open(io.BytesIO(raw)) as opened:
        resolution = opened.info.get("dpi")
        image = opened.convert("RGBA")
    image = image.convert("RGB") if image.getextrema()[3] == (255, 255) else image
    more = {"dpi": resolution} if resolution else {}

    def packed(picture) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True, **more)
        return buffer.getvalue()

    candidates = [raw, packed(image)]
    palette = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    loss = ImageStat.Stat(ImageChops.difference(image, palette.convert(image.mode))).mean
    if max(loss) <= 1.5:
        candidates.append(packed(palette))
    return base64.b64encode(min(candidates, key=len)).decode("ascii")


def _with_widgets(notebook: dict, states: dict) -> dict:
    """Keep the state of the widgets that outputs show, with ids by order of appearance instead of random ones."""
    outputs = json.dumps([c.get("outputs", []) for c in notebook["cells"]])
    models = states["state"]
    order: list[str] = []
    waiting = [i for i in re.findall(r'"model_id": "([0-9a-f]+)"', outputs) if i in models]
    while waiting:
        model = waiting.pop(0)
        if model not in order:
            order.append(model)
            inner = re.findall(r"IPY_MODEL_([0-9a-f]+)", json.dumps(models[model], sort_keys=True))
            waiting += [i for i in inner if i in models]
    if not order:
        return notebook
    notebook["metadata"]["widgets"] = {_WIDGET_STATE: {**states, "state": {m: models[m] for m in order}}}
    numbers = {model: f"{n:032x}" for n, model in enumerate(order, 1)}
    pattern = re.compile("|".join(map(re.escape, order)))
    text = json.dumps({"cells": notebook["cells"], "widgets": notebook["metadata"]["widgets"]})
    renamed = json.loads(pattern.sub(lambda m: numbers[m[0]], text))
    notebook["cells"] = renamed["cells"]
    notebook["metadata"]["widgets"] = renamed["widgets"]
    return notebook


def faults(notebook: dict, private: list[str]) -> list[str]:
    """What outputs hold that a book must not: stderr, warnings, addresses of objects, paths of this machine.

    Args:
        notebook: with its outputs.
        private: paths that no output may name.
    """
    found = []
    for number, cell in enumerate(notebook["cells"], 1):
        for output in cell.get("outputs", []):
            where = f"cell {number} ({cell.get('id')})"
            text = _words(output)
            if output.get("name") == "stderr":
                first = text.strip().splitlines()[0] if text.strip() else ""
                found.append(f"{where} prints to stderr: {first[:200]}\n{_indented(cell)}")
                continue
            warning = re.search(r"^.*\b\w*Warning: .*$", text, re.MULTILINE)
            if warning and output["output_type"] != "error":
                found.append(f"{where} shows a warning: {warning[0].strip()[:200]}\n{_indented(cell)}")
            address = re.search(r"<[^<>\n]* at 0x[0-9a-f]{6,}>", text)
            if address:
                found.append(f"{where} shows the address of an object, which changes with every run: {address[0]}")
            path = next((p for p in private if re.search(re.escape(p) + r"(?![\w.-])", text)), None)
            if path:
                found.append(f"{where} shows a path of this machine: {path}")
    again = [f"cell {id} glues {key!r} a second time: rename one of the two" for id, key in glued_again(notebook)]
    return found + again


def output_faults(chapter: book.Chapter, result: dict) -> list[str]:
    """:func:`faults` of the outputs of one run of ``chapter``; ``result`` is what the job returned."""
    executed = merge(copy.deepcopy(chapter.notebook), json.loads(result["notebook"]))
    return faults(executed, private_paths(chapter, result))


def private_paths(chapter: book.Chapter, result: dict) -> list[str]:
    """Folders whose names outputs must not hold: the run's own, the clone, the home folder, the mirror, the cache."""
    folders = [result.get("folder"), str(chapter.path.parents[2]), os.environ.get("SCPRIMER_MIRROR")]
    folders += [os.environ.get("SCPRIMER_CACHE"), str(Path.home())]
    return [f for f in folders if f and len(f) > 1]


def _too_large(notebook: dict) -> list[str]:
    size = len(json.dumps(notebook, indent=1, ensure_ascii=False).encode())
    if size <= LARGEST:
        return []
    sizes = [(len(json.dumps(c.get("outputs", []))), n, c.get("id")) for n, c in enumerate(notebook["cells"], 1)]
    largest = ", ".join(f"cell {n} ({i}) {s / 1e3:.0f} kB" for s, n, i in sorted(sizes, reverse=True)[:4])
    return [f"the notebook would have {size / 1e6:.2f} MB, {LARGEST / 1e6:g} are allowed. Largest outputs: {largest}"]


def _words(output: dict) -> str:
    """The text that a reader sees of one output."""
    if output["output_type"] == "stream":
        return _text(output["text"])
    if output["output_type"] == "error":
        return "\n".join(output["traceback"])
    return "\n".join(_text(v) for k, v in output["data"].items() if k.startswith("text/") or "papermill.record" in k)


def _indented(cell: dict) -> str:
    lines = book.source(cell).splitlines()
    return "\n".join("    " + line for line in [*lines[:6], *(["..."] if len(lines) > 6 else [])])


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
