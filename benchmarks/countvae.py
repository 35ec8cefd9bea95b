"""CountVAE beside scvi-tools: time, memory and held-out ELBO of a training, measured in one run on one machine.

    python benchmarks/countvae.py                       # 5,000, 20,000 and 100,000 cells; shows the table
    python benchmarks/countvae.py --record              # ... and keeps it in benchmarks/results/countvae.json
    python benchmarks/countvae.py --device cuda --record
    python benchmarks/countvae.py --cells 2000 --epochs 2 --repeats 1      # does it work here?

Every training runs in a process of its own, the contenders in turn, on the same simulated counts (2,000 genes, about 7 % of
the entries not zero), the same split, architecture, epochs and threads. Times are those of setting up and training a model,
divided by its epochs, after one epoch on a few cells that loads what the first use loads (processor time where there is one
thread, so that other programs do not count); the fastest of the repeats counts for each contender, and the ratios are of
these: to scvi-tools with its own defaults, and to scvi-tools at the same steps and learning rate. The held-out ELBO is
computed with one function for all, at full weight of the KL term, on cells that no training has seen.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

GENES, TYPES, LIBRARY = 2000, 10, 300
HELD_OUT = 0.1
SIZES = ((5000, 20, 3), (20_000, 6, 2), (math.inf, 3, 1))  # up to so many cells: epochs, repeats
KL_WARMUP = 3  # epochs, in every contender: within the epochs that are trained
COLUMNS = {  # of the table: key of a row -> heading, format
    "cells": ("Cells", "count"), "likelihood": ("Likelihood", "text"), "contender": ("Contender", "text"),
    "batch_size": ("Cells a step", "count"), "seconds": ("Seconds an epoch", "seconds"),
    "cells_per_second": ("Cells a second", "count"), "peak_mb": ("Peak memory", "memory"),
    "elbo": ("Held-out ELBO", "value"), "ratio": ("Times as fast as scvi-tools", "ratio"),
    "ratio_same_steps": ("At the same steps", "ratio"),
}  # fmt: skip
# name -> (package, cells a step, learning rate); scvi-tools' defaults come first. Larger steps are given to both
# programs. Rates of 0.004, 0.008, 0.012 and 0.016 were tried with CountVAE on 5,000 cells (NB; one run each: -482, -471, -467
# and -463 nats): four times the rate, in proportion to the batch, lost 6 nats, since the steps are fewer and the training is
# short. The third was taken, and not the largest.
CONTENDERS = {
    "scvi-tools": ("scvi", 128, 1e-3),
    "CountVAE, same steps": ("scprimer", 128, 1e-3),
    "scvi-tools, larger steps": ("scvi", 512, 1.2e-2),
    "CountVAE, larger steps": ("scprimer", 512, 1.2e-2),
}


def counts(n_cells: int, seed: int = 0):
    """Simulated raw counts, cells x 2,000 genes, as sparse as shallow droplet data; training cells and held-out cells."""
    import numpy as np

    from scprimer.data.simulate import populations

    cells = populations(
        n_cells, GENES, TYPES, library_size=(LIBRARY, 0.4), programs=(8, 60, 0.7), mito=None, n_batches=1, seed=seed
    ).X
    cells = cells[np.diff(cells.indptr) > 0]
    held = np.random.default_rng(seed).permutation(cells.shape[0])[: round(HELD_OUT * n_cells)]
    train = np.setdiff1d(np.arange(cells.shape[0]), held)
    return cells[train].tocsr(), cells[np.sort(held)].tocsr()


# ---- one training, in a process of its own ------------------------------------------------------------------------------
def train(job: dict) -> dict:
    """Seconds an epoch, peak memory and held-out ELBO of one training."""
    import torch

    torch.set_num_threads(job["threads"])
    package, batch_size, learning_rate = CONTENDERS[job["contender"]]
    import numpy as np
    import scipy.sparse as sp

    train, held = (sp.load_npz(Path(job["folder"]) / f"{part}.npz") for part in ("train", "held"))
    run = {"scvi": with_scvi_tools, "scprimer": with_scprimer}[package]
    seconds, elbo = run(train, held, job, batch_size, learning_rate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    gpu = torch.cuda.max_memory_allocated() / 1e6 if job["device"] == "cuda" else None
    return {"seconds": seconds / job["epochs"], "peak_mb": peak if gpu is None else gpu, "elbo": float(np.mean(elbo))}


def clock(job: dict):
    """What tells the time: of the processor where one thread does all the work, so that no other program counts; else the wall's."""
    return time.process_time if job["device"] == "cpu" and job["threads"] == 1 else time.perf_counter


def with_scprimer(train, held, job: dict, batch_size: int, learning_rate: float):
    """Train a CountVAE; seconds and the held-out ELBO of each cell."""
    import torch

    from scprimer.methods.scvi import CountVAE, elbo, train_count_vae

    def fitted(cells, epochs: int):
        torch.manual_seed(job["seed"])
        model = CountVAE(cells.shape[1], likelihood=job["likelihood"])
        train_count_vae(
            model, cells, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, warmup=KL_WARMUP,
            validation=None, seed=job["seed"], device=job["device"],
        )  # fmt: skip
        return model

    model, seconds = timed(fitted, train, job)
    return seconds, elbo(model, held)["elbo"]


def with_scvi_tools(train, held, job: dict, batch_size: int, learning_rate: float):
    """Train scvi-tools' SCVI; seconds and the held-out ELBO of each cell, by the function that judges CountVAE."""
    import logging
    import warnings

    import anndata as ad

    warnings.simplefilter("ignore")  # of Lightning, about workers and devices: they concern its own advice on speed
    import scvi

    from scprimer.methods.scvi import elbo, from_scvi_tools

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR

    def fitted(counts, epochs: int):
        scvi.settings.seed = job["seed"]
        cells = ad.AnnData(counts)
        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells, gene_likelihood=job["likelihood"])
        model.train(
            max_epochs=epochs, batch_size=batch_size, train_size=1.0,
            accelerator={"cuda": "gpu"}.get(job["device"], "cpu"),
            plan_kwargs={"lr": learning_rate, "n_epochs_kl_warmup": KL_WARMUP}, logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        return model

    model, seconds = timed(fitted, train, job)
    return seconds, elbo(from_scvi_tools(model), held)["elbo"]


def timed(fitted, train, job: dict):
    """A model trained by ``fitted(counts, epochs)``, and the seconds it took; what the first use alone costs is paid before."""
    fitted(train[:512], 1)
    now = clock(job)
    begun = now()
    model = fitted(train, job["epochs"])
    return model, now() - begun


# ---- the run -------------------------------------------------------------------------------------------------------------
def measure(args: argparse.Namespace) -> dict:
    """All trainings, one after the other, the contenders in turn; a run for the result file."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for n_cells in args.cells:
            share = write_counts(n_cells, Path(folder))
            for likelihood in args.likelihood:
                rows += compare(n_cells, likelihood, folder, args)
    return {
        "hardware": args.hardware or hardware(args.device),
        "device": args.device,
        "threads": args.threads,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "setting": f"{share:.1%} of the entries not zero; {trainings(args)}",
        "versions": {
            "scvi-tools": version("scvi-tools"),
            "torch": version("torch"),
            "Python": platform.python_version(),
        },
        "rows": rows,
    }


def compare(n_cells: int, likelihood: str, folder: str, args: argparse.Namespace) -> list[dict]:
    """The rows of one data set and likelihood."""
    epochs, repeats = effort(n_cells, args)
    found = {name: [] for name in CONTENDERS}
    for seed in range(repeats):
        for name in CONTENDERS:
            job = {
                "contender": name, "likelihood": likelihood, "folder": folder, "epochs": epochs, "seed": seed,
                "device": args.device, "threads": args.threads,
            }  # fmt: skip
            found[name].append(in_process(job))
            last = found[name][-1]
            print(
                f"{n_cells:>7,} cells, {likelihood}, {name}: {last['seconds']:.2f} s an epoch, ELBO {last['elbo']:.2f}"
            )
    fastest = {name: min(r["seconds"] for r in results) for name, results in found.items()}
    of_scvi = {CONTENDERS[name][1:]: fastest[name] for name in found if CONTENDERS[name][0] == "scvi"}
    rows = []
    for name, results in found.items():
        elbos = [r["elbo"] for r in results]
        mean = math.fsum(elbos) / len(elbos)
        spread = math.sqrt(math.fsum((e - mean) ** 2 for e in elbos) / (len(elbos) - 1)) if len(elbos) > 1 else None
        rows.append(
            {
                "cells": n_cells,
                "likelihood": likelihood.upper(),
                "contender": name,
                "batch_size": CONTENDERS[name][1],
                "epochs": epochs,
                "seconds": round(fastest[name], 4),
                "cells_per_second": round((1 - HELD_OUT) * n_cells / fastest[name]),
                "peak_mb": round(max(r["peak_mb"] for r in results)),
                "elbo": round(mean, 2),
                "elbo_sd": None if spread is None else round(spread, 2),
                "ratio": round(fastest["scvi-tools"] / fastest[name], 2),
                "ratio_same_steps": round(of_scvi[CONTENDERS[name][1:]] / fastest[name], 2),
            }
        )
    return rows


def effort(n_cells: int, args: argparse.Namespace) -> tuple[int, int]:
    """Epochs and repeats for a data set of this size."""
    epochs, repeats = next(size for most, *size in SIZES if n_cells <= most)
    return args.epochs or epochs, args.repeats or repeats


def trainings(args: argparse.Namespace) -> str:
    """How long and how often each size was trained, in words."""
    words = []
    for n_cells in args.cells:
        epochs, repeats = effort(n_cells, args)
        words.append(f"{n_cells:,} cells {repeats} x {epochs} epochs")
    time_of = "processor time" if args.device == "cpu" and args.threads == 1 else "wall time"
    return ", ".join(words) + f", fastest of each, {time_of}"


def write_counts(n_cells: int, folder: Path) -> float:
    """Put training and held-out counts into files; the share of entries that are not zero."""
    import scipy.sparse as sp

    parts = counts(n_cells)
    for part, name in zip(parts, ("train", "held")):
        sp.save_npz(folder / f"{name}.npz", part)
    return parts[0].nnz / (parts[0].shape[0] * parts[0].shape[1])


def in_process(job: dict) -> dict:
    """Run :func:`train` in a fresh process with the wanted number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(job["threads"])), "SCPRIMER_QUIET": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"the training of {job['contender']} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def hardware(device: str) -> str:
    """What a reader needs to know of the machine."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPU cores"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[5000, 20_000, 100_000])
    parser.add_argument("--likelihood", nargs="+", choices=("nb", "zinb"), default=["nb", "zinb"])
    parser.add_argument("--epochs", type=int, help="default: 20, 6 above 5,000 cells, 3 above 20,000")
    parser.add_argument("--repeats", type=int, help="default: 3, 2 above 5,000 cells, 1 above 20,000")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--threads", type=int, default=1, help="of each training; on few cores more only wait for each other"
    )
    parser.add_argument("--hardware", help="words for the table; default: the number of cores, or the GPU's name")
    parser.add_argument("--record", action="store_true", help="keep the result for the book and the README")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(train(json.loads(args.job))))
        return
    run = measure(args)
    if args.record:
        from scprimer.publish import benchmarks

        print(
            benchmarks.record("countvae", COLUMNS, run),
            "written; python -m scprimer.publish.benchmarks updates the README",
        )


if __name__ == "__main__":
    main()
