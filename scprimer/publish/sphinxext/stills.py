"""Controls that need a kernel, as still pictures.

A page has no kernel, and the scripts that draw ipywidgets weigh megabytes and move nothing. In their place the page shows
how the controls stood when the notebook ran, and the picture that they produced: both are in the widget state that the
notebook carries.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
_NOTE = "These controls move in the running notebook; this is how they stood when the page was made."


def outputs(found: list[dict], notebook_metadata: Mapping) -> list[dict]:
    """The outputs of a cell with every widget replaced by its still.

    Args:
        found: the cell's outputs in nbformat's form.
        notebook_metadata: the notebook's metadata, which holds the widget state.
    """
    models = notebook_metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown: list[dict] = []
    for output in found:
        data = output.get("data", {})
        if VIEW not in data:
            shown.append(output)
            continue
        still = _still(str(data[VIEW].get("model_id", "")), models)
        if still:
            shown += still
            continue
        # No state: another picture of the same object will do, its bare text would not.
        rest = {kind: value for kind, value in data.items() if kind not in (VIEW, "text/plain")}
        if rest:
            shown.append({**output, "data": rest})
    return shown


def _still(model_id: str, models: Mapping) -> list[dict]:
    controls, results = [], []
    for model in _walk(model_id, models, set()):
        state, name = model.get("state", {}), model.get("model_name", "")
        if name == "OutputModel":
            results += [dict(output) for output in state.get("outputs", [])]
        elif (value := _value(name, state)) is not None:
            label = str(state.get("description") or "")
            controls.append(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>")
    if controls:
        strip = f'<dl class="scp-controls" title="{_NOTE}">{"".join(controls)}</dl>'
        results.insert(0, {"output_type": "display_data", "metadata": {}, "data": {"text/html": strip}})
    return results


def _walk(model_id: str, models: Mapping, seen: set[str]) -> Iterator[Mapping]:
    """A model and its children, in the order in which they are shown."""
    model = models.get(model_id)
    if model is None or model_id in seen:
        return
    seen.add(model_id)
    yield model
    for child in model.get("state", {}).get("children", []):
        if isinstance(child, str) and child.startswith("IPY_MODEL_"):
            yield from _walk(child.removeprefix("IPY_MODEL_"), models, seen)


def _value(name: str, state: Mapping) -> str | None:
    """How a control stands, in words; None for boxes, buttons and bars that have no value to show."""
    labels = state.get("_options_labels")
    if labels is not None:
        index = state.get("index")
        chosen = index if isinstance(index, list) else [index]
        return ", ".join(str(labels[i]) for i in chosen if isinstance(i, int) and i < len(labels))
    if name.endswith(("ProgressModel", "LayoutModel", "StyleModel", "ButtonModel")) or "value" not in state:
        return None
    value = state["value"]
    if isinstance(value, bool):
        return "on" if value else "off"
    if name in ("HTMLModel", "HTMLMathModel", "LabelModel"):
        return None
    if isinstance(value, list):
        return " to ".join(f"{v:g}" if isinstance(v, int | float) else str(v) for v in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)
