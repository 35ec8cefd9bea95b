"""The book's scores beside scib-metrics: seconds of one call on the same cells, measured in one run on one machine.

    python benchmarks/metrics.py                    # 10,000 cells in 50 dimensions; shows the table
    python benchmarks/metrics.py --record           # ... and keeps it in benchmarks/results/metrics.json
    python benchmarks/metrics.py --cells 1000 --repeats 1      # does it work here?

Both get the same simulated embedding (eight types, three batches) and, where a score works on neighbours, the same neighbours. The search for neighbours has
a row of its own: exact on our side; on theirs the approximate one that its benchmark uses. scib-metrics compiles its code with JAX when it first sees an
array of some shape: that call is timed apart, and a data set is usually scored once. Of the later calls the fastest of the repeats counts, for both. Batch scores
within types compile once for each size of a type.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

DIMENSIONS, TYPES, BATCHES, NEIGHBOURS = 50, 8, 3, 90
COLUMNS = {  # of the table: key of a row -> heading, format
    "score": ("Score", "text"), "cells": ("Cells", "count"), "seconds": ("Seconds, ours", "seconds"),
    "reference": ("Seconds, scib-metrics", "seconds"), "first": ("its first call", "seconds"),
    "ratio": ("Times as fast", "ratio"), "ratio_first": ("against its first call", "ratio"),
}  # fmt: skip


def embedding(n_cells: int, seed: int = 0):
    """Simulated embedding (cells x 50), batch and type of each cell."""
    import numpy as np

    rng = np.random.default_rng(seed)
    label, batch = rng.integers(TYPES, size=n_cells), rng.integers(BATCHES, size=n_cells)
    centres, shifts = rng.normal(size=(TYPES, DIMENSIONS)), 0.3 * rng.normal(size=(BATCHES, DIMENSIONS))
    return centres[label] + shifts[batch] + rng.normal(size=(n_cells, DIMENSIONS)), batch, label


def contenders(n_cells: int) -> dict:
    """Score -> (our call, scib-metrics' call, whether the two give the same number)."""
    import numpy as np
    import scib_metrics as scib
    from scib_metrics.nearest_neighbors import NeighborsResults, pynndescent
    from scib_metrics.utils import principal_component_regression

    from scprimer.methods import metrics as ours

    X, batch, label = embedding(n_cells)
    index, distance = near = ours.knn(X, NEIGHBOURS)
    itself = np.arange(n_cells)[:, None]

    def theirs(k):
        return NeighborsResults(
            indices=np.hstack([itself, index[:, : k - 1]]), distances=np.hstack([0.0 * itself, distance[:, : k - 1]])
        )

    at = {k: theirs(k) for k in (15, 50, 90)}
    return {
        "neighbours": (lambda: ours.knn(X, 90), lambda: pynndescent(X, 90), False),
        "iLISI": (lambda: ours.ilisi(X, batch, neighbours=near), lambda: scib.ilisi_knn(at[90], batch), True),
        "cLISI": (lambda: ours.clisi(X, label, neighbours=near), lambda: scib.clisi_knn(at[90], label), True),
        "kBET": (lambda: ours.kbet(X, batch, neighbours=near), lambda: scib.kbet(at[50], batch)[0], True),
        "kBET within types": (lambda: ours.kbet(X, batch, label), lambda: scib.kbet_per_label(at[50], batch, label), False),
        "cell-type silhouette": (lambda: ours.silhouette_label(X, label), lambda: scib.silhouette_label(X, label), True),
        "batch silhouette": (
            lambda: ours.silhouette_batch(X, batch, label), lambda: scib.silhouette_batch(X, label, batch), True,
        ),
        "batch variance": (
            lambda: ours.batch_variance(X, batch),
            lambda: principal_component_regression(X, batch, categorical=True), True,
        ),
        "graph connectivity": (
            lambda: ours.graph_connectivity(X, label, neighbours=near), lambda: scib.graph_connectivity(at[15], label), True,
        ),
    }  # fmt: skip


def measure(job: dict) -> list[dict]:
    """The rows of one size, in this process."""
    rows = []
    for score, (ours, theirs, equal) in contenders(job["cells"]).items():
        first, their_value = timed(theirs)
        _, our_value = timed(ours)  # a first call for ours, too: nothing is compiled, memory is touched
        if equal and abs(float(our_value) - float(their_value)) > 1e-3:
            sys.exit(f"{score} differs: {float(our_value):.6f} here, {float(their_value):.6f} in scib-metrics")
        mine, reference = (min(timed(call)[0] for _ in range(job["repeats"])) for call in (ours, theirs))
        rows.append(
            {
                "score": score,
                "cells": job["cells"],
                "seconds": round(mine, 5),
                "reference": round(reference, 5),
                "first": round(first, 4),
                "ratio": round(reference / mine, 2),
                "ratio_first": round(first / mine, 1),
            }
        )
    return rows


def timed(call) -> tuple[float, object]:
    """Seconds of one call, and what it returned."""
    begun = time.perf_counter()
    value = call()
    return time.perf_counter() - begun, value


def in_process(job: dict) -> list[dict]:
    """Run :func:`measure` in a fresh process that may use so many cores and threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {
        **os.environ,
        **dict.fromkeys(names, str(job["threads"])),
        "JAX_PLATFORMS": "cpu",
        "SCPRIMER_QUIET": "1",
    }
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the benchmark failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pin(threads: int) -> None:
    """Bind this process to so many cores, where the system can: JAX asks for all it sees."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hardware", help="words for the table; default: the number of cores")
    parser.add_argument("--record", action="store_true", help="keep the result for the book and the README")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        job = json.loads(args.job)
        pin(job["threads"])
        print(json.dumps(measure(job)))
        return
    rows = []
    for cells in args.cells:
        rows += in_process({"cells": cells, "repeats": args.repeats, "threads": args.threads})
    for row in rows:
        print(f"{row['cells']:>7,} cells, {row['score']:<20} {row['seconds']:.4f} s, scib-metrics {row['reference']:.4f} s "
              f"(first {row['first']:.2f} s): {row['ratio']:.1f} times as fast")  # fmt: skip
    if args.record:
        from scprimer.publish import benchmarks

        setting = (
            f"{DIMENSIONS} dimensions, {TYPES} types, {BATCHES} batches, neighbourhoods of {NEIGHBOURS}, 50 and 15 cells; "
            f"fastest of {args.repeats} calls"
        )
        run = benchmarks.on_cpu(rows, setting, ("scib-metrics", "jax", "numpy"), args.threads, args.hardware)
        print(benchmarks.record("metrics", COLUMNS, run), "written")


if __name__ == "__main__":
    main()
