"""A simulated bundle for the tests of the explorer: four pairs, concepts that belong to cell types, neurons that are active everywhere."""

from __future__ import annotations

import numpy as np

from scprimer.explorer import Bundle

TYPES = ("B cells", "CD14+ Monocytes", "CD8 T", "NK")
HOSTILE = '</script><img src=x onerror="document.title=1">&'


def pair(
    rng: np.random.Generator, *, cells: int, concepts: int, neurons: int, genes: int, conditions: bool, prefix: str
) -> dict:
    """What ``add_pair`` takes. Concept ``i`` is active in a tenth of the cells, all of type ``i % 4``; gene ``i`` drives item ``i``."""
    kind = rng.integers(0, 4, cells)
    centres = np.array([[0, 0], [6, 0], [0, 5], [6, 5]])
    n = concepts + neurons
    activations = np.zeros((cells, n))
    for i in range(concepts):
        inside = (kind == i % 4) & (rng.random(cells) < 0.4)
        activations[inside, i] = rng.gamma(2, 1, inside.sum())
    activations[:, concepts:] = np.maximum(rng.normal(0.3, 1, (cells, neurons)), -0.17)  # dense, and partly negative
    attributions = rng.normal(0, 0.05, (n, genes))
    attributions[np.arange(n), np.arange(n)] = 1.0
    names = [f"{prefix}{j:04d}" for j in range(genes)]
    return {
        "embedding": centres[kind] + rng.normal(size=(cells, 2)),
        "cell_type": np.array(TYPES)[kind],
        "condition": np.array(["control", "stimulated"])[rng.integers(0, 2, cells)] if conditions else None,
        "ids": [f"C{i}" for i in range(concepts)] + [f"N{i}" for i in range(neurons)],
        "kinds": ["concept"] * concepts + ["neuron"] * neurons,
        "activations": activations,
        "genes": names,
        "attributions": attributions,
        "pathways": [[(f"Response to signal {i % 7} in leukocytes", 10.0 ** -(i % 9 + 2))] if i % 3 else [] for i in range(n)],
        "stable": [i % 2 == 0 for i in range(n)],
    }  # fmt: skip


def example_bundle(*, cells: int = 300, concepts: int = 8, neurons: int = 4, genes: int = 60, seed: int = 0) -> Bundle:
    """Two models on two data sets; the second data set has conditions. The first item's gene 2 has a hostile name."""
    rng = np.random.default_rng(seed)
    bundle = Bundle("Concepts of simulated cells")
    for model in ("Count VAE", "Small transformer"):
        for data, conditions in (("simulated A", False), ("simulated B", True)):
            given = pair(
                rng, cells=cells, concepts=concepts, neurons=neurons, genes=genes, conditions=conditions, prefix="GENE"
            )
            given["genes"][2] = HOSTILE
            bundle.add_pair(model, data, **given)
    return bundle
