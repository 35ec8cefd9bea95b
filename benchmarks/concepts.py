"""Counterfactual attribution by rank-one updates beside one forward pass a gene: seconds on the same cells, in one run on one machine.

    python benchmarks/concepts.py                    # 50 concepts x 200 cells x 2,000 genes; shows the table
    python benchmarks/concepts.py --record           # ... and keeps it in benchmarks/results/concepts.json
    python benchmarks/concepts.py --concepts 5 --cells 20 --naive 100      # does it work here?

The model is an untrained CountVAE of the size that scvi-tools uses (what its weights are costs nothing); the counts are simulated, as sparse as
shallow droplet data. Every concept has cells and counterfactuals of its own. The definition, a forward pass for each gene of each
pair, is timed on so many genes as `--naive` says, drawn at random, in batches as large as a cell, and multiplied up: the whole would take
hours. Genes with equal counts in both cells cost nothing in the fast form and a pass in the other, as the definition says; the row "only genes
that differ" leaves them out there, too. Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

GENES, HIDDEN = 2000, 128
COLUMNS = {  # of the table: key of a row -> heading, format
    "contender": ("Contender", "text"), "moves": ("Genes moved", "count"), "seconds": ("Seconds in all", "seconds"),
    "ratio": ("Times as fast as the definition", "ratio"),
}  # fmt: skip


def setting(job: dict):
    """Model, read-outs of all pairs, counts of their cells and of their counterfactuals."""
    import torch

    from scprimer.data.simulate import populations
    from scprimer.methods.scvi import CountVAE

    pairs = job["concepts"] * job["cells"]
    torch.manual_seed(0)
    model = CountVAE(GENES, n_hidden=HIDDEN).eval()
    cells = populations(
        2 * pairs, GENES, 10, library_size=(300, 0.4), programs=(8, 60, 0.7), mito=None, n_batches=1, seed=0
    ).X
    w = torch.randn(job["concepts"], HIDDEN).repeat_interleave(job["cells"], 0)
    return model, w, torch.full((pairs,), 1.0), cells[:pairs].tocsr(), cells[pairs:].tocsr()


def by_definition(model, w, b, x, y, genes):
    """One forward pass for each of some genes of one pair, in one batch: attribution of these genes."""
    import torch
    import torch.nn.functional as F

    with torch.no_grad():
        rows = x.repeat(len(genes) + 1, 1)
        at = torch.arange(len(genes))
        rows[at, genes] = y[genes]
        layer = model.encoder.layers[0]
        units = layer(torch.log1p(rows), None)
        found = F.relu(units @ w + b)
        return found[-1] - found[:-1]


def measure(job: dict) -> list[dict]:
    """The rows of the table, in this process."""
    import numpy as np
    import torch

    from scprimer.methods.concepts import gene_by_gene

    torch.set_num_threads(job["threads"])
    model, w, b, cells, others = setting(job)
    gene_by_gene(model, w[:20], b[:20], cells[:20], others[:20])  # what the first use loads
    fast, seconds = min(
        (timed(lambda: gene_by_gene(model, w, b, cells, others)) for _ in range(job["repeats"])), key=lambda r: r[1]
    )
    rng, each = np.random.default_rng(0), 100
    naive = 0.0
    for i in rng.integers(cells.shape[0], size=max(1, job["naive"] // each)):
        x, y = (torch.as_tensor(m[i].toarray()[0]) for m in (cells, others))
        genes = torch.as_tensor(rng.permutation(GENES)[:each])
        by_definition(model, w[i], b[i], x, y, genes[:2])
        found, took = timed(lambda w=w[i], b=b[i], x=x, y=y, genes=genes: by_definition(model, w, b, x, y, genes))
        naive += took
        difference = np.abs(found.numpy() - fast[i].toarray()[0][genes.numpy()]).max()
        if difference > 1e-4:
            sys.exit(f"the two differ by {difference:.2g} in pair {i}")
    one = naive / (max(1, job["naive"] // each) * each)
    every, differing = cells.shape[0] * GENES, fast.nnz
    rows = [("rank-one updates", differing, seconds), ("one pass a gene", every, one * every),
            ("one pass a gene, only genes that differ", differing, one * differing)]  # fmt: skip
    return [
        {"contender": n, "moves": int(m), "seconds": round(s, 2), "ratio": round(one * every / s, 1)}
        for n, m, s in rows
    ]


def timed(call):
    """What a call returned, and its seconds (of the processor where one thread does all the work, so that no other program counts)."""
    now = time.process_time if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter
    begun = now()
    value = call()
    return value, now() - begun


def in_process(job: dict) -> list[dict]:
    """Run :func:`measure` in a fresh process that may use so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(job["threads"])), "SCPRIMER_QUIET": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the benchmark failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=50)
    parser.add_argument("--cells", type=int, default=200, help="pairs a concept")
    parser.add_argument("--naive", type=int, default=5000, help="genes that the definition is timed on")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hardware", help="words for the table; default: the number of cores")
    parser.add_argument("--record", action="store_true", help="keep the result for the book and the README")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(measure(json.loads(args.job))))
        return
    job = {k: getattr(args, k) for k in ("concepts", "cells", "naive", "repeats", "threads")}
    rows = in_process(job)
    for row in rows:
        print(
            f"{row['contender']:<42} {row['moves']:>12,} moves {row['seconds']:>10,.2f} s, {row['ratio']:.1f} times as fast"
        )
    if args.record:
        from scprimer.publish import benchmarks

        setting = (
            f"{args.concepts} concepts x {args.cells} cells x {GENES:,} genes, {HIDDEN} hidden units; the definition timed on "
            f"{args.naive:,} moves and multiplied up"
        )
        run = benchmarks.on_cpu(rows, setting, ("torch", "numpy"), args.threads, args.hardware)
        print(benchmarks.record("concepts", COLUMNS, run), "written")


if __name__ == "__main__":
    main()
