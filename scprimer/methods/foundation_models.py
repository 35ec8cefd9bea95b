# Exported by `scprimer export` from notebooks/networks/foundation-models.ipynb. Edit the notebook, not this file.
"""What the chapter "Foundation models" builds."""

from __future__ import annotations

import json
import os
import pickle
import re
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from scprimer.methods.transformers import CELL
from scprimer.methods.transformers import EncoderLayer
from scprimer.methods.transformers import FIRST
from scprimer.methods.transformers import GeneTransformer
from scprimer.methods.transformers import MultiHeadAttention
from scprimer.methods.transformers import PAD
from scprimer.methods.transformers import TransformerEncoder
from scprimer.methods.transformers import Vocabulary
from scprimer.methods.transformers import align
from scprimer.methods.transformers import choose_genes
from scprimer.methods.transformers import expressed_first
from scprimer.methods.transformers import masked_loss
from scprimer.methods.transformers import pool
from scprimer.methods.transformers import pooled
from scprimer.methods.transformers import rank_tokens
from scprimer.methods.transformers import usual
from scprimer.methods.transformers import value_tokens
from scprimer.methods.transformers import warm_then_down
from scprimer.methods.transformers import with_cell_token
from scprimer.train import checkpoint_path
from scprimer.train import fit
from scprimer.train import predict

__all__ = [
    "AfterNormLayer",
    "BERT_NAMES",
    "BLOOD",
    "BytePairs",
    "FORMAT",
    "HARMLESS",
    "LOSS",
    "Mini",
    "MiniScGPT",
    "MiniSentences",
    "NEOX_NAMES",
    "PUBLIC",
    "PlainUnpickler",
    "PublicGeneformer",
    "PublicScGPT",
    "PublicSentences",
    "READ",
    "Response",
    "SCGPT_NAMES",
    "TYPE",
    "UNKNOWN",
    "before_last",
    "blood_pool",
    "byte_names",
    "cell_token",
    "check_files",
    "complete",
    "exam",
    "expressed_order",
    "fill",
    "fit_response",
    "from_sentences",
    "generative_loss",
    "generative_mask",
    "halves",
    "load_mini",
    "mean_word",
    "mini_scgpt",
    "names_of",
    "new_mini",
    "next_word_loss",
    "open_cell2sentence",
    "open_geneformer",
    "open_scgpt",
    "panel_of",
    "plain_dictionary",
    "pretrain_mini",
    "pretrained_mini",
    "public_folder",
    "public_geneformer_vectors",
    "public_scgpt_vectors",
    "public_sentence_vectors",
    "public_tokens",
    "rank_line",
    "ready",
    "renamed",
    "rotated",
    "save_mini",
    "sentence_scores",
    "sentence_tokens",
    "sizes_for",
    "teach_prompts",
    "through",
    "vocabulary_for",
    "write_cells",
]


def ready(adata, n, seed=0):
    """The cells that hold molecules, at most ``n`` of them drawn at random.

    Args:
        adata: AnnData with raw counts.
        n: at most so many cells.
        seed: of the draw.

    Returns:
        A copy, with all molecules of each cell in ``obs["size"]``.
    """
    size = np.asarray(adata.X.sum(1), dtype=float).ravel()
    rows = np.flatnonzero(size > 0)
    if adata.uns.get("scprimer", {}).get("dataset") == "pbmc-chemistries":  # the file holds a part of the genes
        size = adata.obs["n_umi"].to_numpy(dtype=float)
    if len(rows) > n:
        rows = np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))
    cells = adata[rows].copy()
    cells.obs["size"] = size[rows]
    return cells


def names_of(adata):
    """Labels of the column ``cell_type`` as text (cells), an empty one where the label is missing."""
    if "cell_type" not in adata.obs:
        return np.full(adata.n_obs, "")
    column = adata.obs["cell_type"].astype(object)
    return column.where(column.notna(), "").to_numpy(dtype=str)


BLOOD = {  # name -> (registered set, part of it)
    "pbmc3k": ("pbmc3k", {}), "pbmc4k": ("pbmc4k", {}), "pbmc-chemistries": ("pbmc-chemistries", {}),
    "ctcl-citeseq": ("ctcl-citeseq", {}),
}  # fmt: skip


def blood_pool(run):
    """The studies that the miniatures are pretrained on, and the one that is held out.

    Args:
        run: what :func:`scprimer.start` returns.

    Returns:
        ``(studies, held_out)``: name -> AnnData, and the AnnData of ``kang-donors``, of which the pool has no cell.
    """
    n = run.pick(smoke=220, standard=3000, full=20_000)
    names = list(BLOOD)[: run.pick(smoke=3, standard=len(BLOOD))]
    studies = {name: ready(run.load(BLOOD[name][0], **BLOOD[name][1]), n, run.seed) for name in names}
    return studies, ready(run.load("kang-donors"), n, run.seed)


TYPE = {
    "Naive CD4 T": "CD4 T", "Memory CD4 T": "CD4 T", "CD8 T": "CD8 T", "NK": "NK", "B": "B", "DC": "DC", "CD14+ Mono": "CD14+ Mono",
    "FCGR3A+ Mono": "FCGR3A+ Mono", "CD4 T cells": "CD4 T", "CD8 T cells": "CD8 T", "B cells": "B", "CD14+ Monocytes": "CD14+ Mono",
    "FCGR3A+ Monocytes": "FCGR3A+ Mono",
}  # fmt: skip


def halves(adata, seed=0):
    """Two parts of one study, learnt from and judged: donors or batches stay whole where ``obs`` names more than one."""
    by = next((c for c in ("donor", "batch") if c in adata.obs and len(set(adata.obs[c])) > 1), None)
    group = adata.obs[by].astype(str).to_numpy() if by else np.arange(adata.n_obs).astype(str)
    names = np.random.default_rng(seed).permutation(np.unique(group))
    judged = np.isin(group, names[: len(names) // 2])
    return adata[~judged].copy(), adata[judged].copy()


def vocabulary_for(studies, measured, n):
    """The genes that vary in the most studies of the pool, among those that another study measured.

    Args:
        studies: list of AnnData, raw counts.
        measured: gene names of the other study; its counts are not asked for.
        n: at most so many genes.

    Returns:
        :class:`~scprimer.methods.transformers.Vocabulary`.
    """
    wanted = set(map(str, measured))
    parts = [a[:, a.var_names.isin(wanted)].copy() for a in studies]
    few = [a.n_vars for a in parts if a.n_vars < 50]
    if few:
        raise ValueError(f"a study of the pool shares only {min(few)} genes with the held-out one: do both use the same "
                         "kind of gene name?")  # fmt: skip
    return Vocabulary(choose_genes(parts, n, top=300))


def panel_of(adata, vocabulary):
    """Cells (of :func:`ready`) on the genes of a vocabulary: a :class:`~scprimer.methods.transformers.Panel`."""
    return align(adata.X, adata.var_names, vocabulary, adata.obs["size"], least=0.1)


def generative_mask(known, padding):
    """Which tokens must not look at which, when the values of some are known and the others are to be generated.

    Args:
        known: bool, cells x length, True where the value is given (the cell token too).
        padding: bool, cells x length, True where there is no token.

    Returns:
        bool, cells x 1 x length x length, True where the row must not look at the column: at padding, and at an unknown
        token other than itself.

    Source: Cui et al. (2024), "attention mask for generative pretraining".
    """
    if known.shape != padding.shape:
        raise ValueError(f"known is {tuple(known.shape)} and padding {tuple(padding.shape)}: both are cells x length")
    itself = torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
    return (~(known[:, None, :] | itself) | padding[:, None, :])[:, None]


def through(encoder, x, forbidden):
    """Tokens through a :class:`~scprimer.methods.transformers.TransformerEncoder` under any mask.

    Args:
        encoder: the encoder.
        x: cells x length x width.
        forbidden: bool, cells x 1 x length x length, True where the row must not look at the column.

    Returns:
        cells x length x width.
    """
    for layer in encoder.layers:
        q, k, v = layer.attention.split(layer.norm1(x))
        y = F.scaled_dot_product_attention(q, k, v, ~forbidden)
        x = x + layer.dropout(layer.attention.out(y.transpose(1, 2).reshape(x.shape)))
        x = x + layer.dropout(layer.network(layer.norm2(x)))
    return encoder.norm(x)


class MiniScGPT(GeneTransformer):
    """A gene transformer that guesses unknown values from known ones; arguments as for its parent, without ``kind``."""

    def __init__(self, vocabulary, **sizes):
        super().__init__(vocabulary, "values", **sizes)
        width = self.gene.embedding_dim
        self.of_cell = nn.Linear(width, width)

    def generative(self, gene, value, known):
        """Outputs when only the values of ``known`` (bool, cells x length) can be seen: cells x length x width."""
        known = known | (gene == CELL)
        return through(self.encoder, self.embed_tokens(gene, value, ~known), generative_mask(known, gene == PAD))

    def values_from_cell(self, cell, gene):
        """Values of genes (tokens, cells x length) guessed from one vector a cell (cells x width): cells x length."""
        return (self.of_cell(cell)[:, None] * self.gene(gene)).sum(-1) / cell.shape[-1] ** 0.5


UNKNOWN = (0.25, 0.5, 0.75)  # shares of the genes that are made unknown, one drawn in each step


def generative_loss(model, batch, epoch=0.0, share=None):
    """scGPT's objective in the form that :func:`scprimer.train.fit` wants.

    Args:
        model: :class:`MiniScGPT`.
        batch: ``{"gene", "value"}``, cells x length, of ``value_tokens``.
        share: of the genes that are unknown; default: one of ``UNKNOWN`` drawn at random.

    Returns:
        ``{"loss", "tokens", "cell"}``: the sum, and its parts: mean squared errors of the unknown values, guessed from
        their tokens and from the cell token.
    """
    gene, value = batch["gene"], batch["value"]
    share = UNKNOWN[int(torch.randint(len(UNKNOWN), ()))] if share is None else share
    unknown = (torch.rand(gene.shape, device=gene.device) < share) & (gene >= FIRST)
    x = model.generative(gene, value, ~unknown)
    truth, n = value[unknown], unknown.sum().clamp(min=1)
    tokens = ((model.guess(x[unknown])[:, 0].float() - truth) ** 2).sum() / n
    cell = ((model.values_from_cell(x[:, 0], gene)[unknown].float() - truth) ** 2).sum() / n
    return {"loss": tokens + cell, "tokens": tokens, "cell": cell}


@torch.no_grad()
def complete(model, gene, value, known, rounds=3):
    """Fill in unknown values in rounds; in each, an equal share of those left becomes known, the surest first.

    A guess counts as sure when the token and the cell agree on it (two guesses of one value).

    Returns:
        ``value`` (cells x length) with the unknown places filled.
    """
    value, known, places = value.clone(), known | (gene < FIRST), gene >= FIRST
    for left in range(rounds, 0, -1):
        x = model.generative(gene, value, known)
        guess = model.guess(x)[..., 0].clamp(0, 1)
        doubt = (guess - model.values_from_cell(x[:, 0], gene)).abs().masked_fill(known | ~places, torch.inf)
        n = ((~known & places).sum(1, keepdim=True) / left).ceil().long()
        now = (doubt.argsort(1).argsort(1) < n) & ~known
        value, known = torch.where(now, guess, value), known | now
    return value


def sentence_tokens(panel, length, end, prompt=CELL, seed=0):
    """Cells as sentences: a prompt, then gene tokens in falling order of expression, then an end where there is room.

    Args:
        panel: :class:`~scprimer.methods.transformers.Panel`.
        length: at most so many genes.
        end: token of the end.
        prompt: token of the prompt, one for all cells or one each; ``CELL`` stands for "a cell".
        seed: settles the order of genes with equal counts.

    Returns:
        ``{"gene", "value"}``, int64, cells x (1 + length); the value is the place in the sentence.

    Source: Levine et al. (2024).
    """
    chance = np.random.default_rng(seed).random(panel.counts.shape)  # below one molecule
    gene, _ = expressed_first(panel, panel.counts + chance, length)
    tokens = with_cell_token(gene, np.zeros_like(gene))
    tokens["gene"][:, 0] = prompt
    n = (tokens["gene"] != PAD).sum(1)
    rows = np.flatnonzero(n < tokens["gene"].shape[1])
    tokens["gene"][rows, n[rows]] = end
    tokens["value"] = np.where(tokens["gene"] != PAD, np.arange(tokens["gene"].shape[1]), 0)
    return tokens


class MiniSentences(GeneTransformer):
    """A causal language model over gene names; arguments as for its parent, without ``kind``."""

    def __init__(self, vocabulary, **sizes):
        super().__init__(vocabulary, "ranks", **sizes)

    def forward(self, gene, value, hidden=None, fused=True):
        """Each token has seen itself and what stands before it: cells x length x width."""
        return self.encoder(self.embed_tokens(gene, value), gene == PAD, causal=True, fused=fused)


def next_word_loss(model, batch, epoch=0.0):
    """Mean negative log-probability of the next word, over all words of the batch: ``{"loss", "right"}``."""
    gene, following = batch["gene"], batch["gene"][:, 1:]
    guess = model.guess(model(gene, batch["value"])[:, :-1]).float()  # cells x length x words
    loss = F.cross_entropy(guess.transpose(1, 2), following, ignore_index=PAD)
    there = following != PAD
    return {"loss": loss, "right": (guess.argmax(-1) == following)[there].float().mean()}


def sentence_scores(model, batch):
    """Log-probability of each sentence after its prompt: cells."""
    logits = model.guess(model(batch["gene"], batch["value"])[:, :-1]).float()
    following = batch["gene"][:, 1:]
    there = following != PAD
    return (logits.log_softmax(-1).gather(-1, following[..., None])[..., 0] * there).sum(1)


@dataclass
class Mini:
    """A small foundation model with all that is needed to use it.

    Attributes:
        name: ``"scgpt"``, ``"geneformer"`` or ``"cell2sentence"``.
        model: the network.
        vocabulary: its genes.
        medians: what is usual for each gene, of the pool.
        sizes: width, heads, layers and length (most genes of a cell).
        words: further words of the sentences: the end, then prompts.
        losses: training loss of each pass of its pretraining.
    """

    name: str
    model: nn.Module
    vocabulary: Vocabulary
    medians: np.ndarray
    sizes: dict
    words: tuple = ()
    losses: tuple = ()

    def token(self, word):
        """Token of a further word (int); ValueError for one that the model does not have."""
        if word not in self.words:
            raise ValueError(f"{self.name} has no word {word!r}: it has {', '.join(self.words) or 'genes only'}")
        return FIRST + len(self.vocabulary) + self.words.index(word)

    def tokens(self, panel, prompt=CELL, seed=0):
        """Tokens of cells (a panel on ``vocabulary``), as the model wants them; prompt and seed are for sentences."""
        length = self.sizes["length"]
        if self.name == "scgpt":
            return value_tokens(panel, length)
        if self.name == "geneformer":
            return rank_tokens(panel, self.medians, length)
        return sentence_tokens(panel, length, self.token("<end>"), prompt, seed)

    def vectors(self, panel, batch_size=256):
        """One vector a cell, read as the paper reads it: NumPy, cells x width."""
        read, where = partial(READ[self.name], self.model.eval()), self.model.hidden_value.device
        return predict(read, self.tokens(panel), batch_size=batch_size, device=where)


def cell_token(model, batch):
    """scGPT: the output of the cell token, at unit length."""
    return F.normalize(model(batch["gene"], batch["value"])[:, 0].float(), dim=1)


def before_last(model, batch):
    """Geneformer: the mean over tokens of the last layer but one (of the only one where there is one)."""
    gene = batch["gene"]
    x, layers = model.embed_tokens(gene, batch["value"]), list(model.encoder.layers)
    for layer in layers[: max(1, len(layers) - 1)]:
        x = layer(x, gene == PAD)
    return pooled(x, gene)


def mean_word(model, batch):
    """Cell2Sentence: the mean over the words."""
    return pooled(model(batch["gene"], batch["value"]), batch["gene"])


READ = {"scgpt": cell_token, "geneformer": before_last, "cell2sentence": mean_word}
LOSS = {"scgpt": generative_loss, "geneformer": masked_loss, "cell2sentence": next_word_loss}


def new_mini(name, vocabulary, medians, *, width=64, heads=4, layers=2, length=48, prompts=(), seed=0):
    """An untrained :class:`Mini`; ``prompts`` (words) are for sentences, the random weights follow from ``seed``."""
    if name not in READ:
        raise ValueError(f"name={name!r}: use one of {', '.join(map(repr, READ))}")
    words = ("<end>", *map(str, prompts)) if name == "cell2sentence" else ()
    sizes = {"width": width, "heads": heads, "layers": layers}
    make = {"scgpt": MiniScGPT, "cell2sentence": MiniSentences}.get(
        name, lambda v, **s: GeneTransformer(v, "ranks", **s)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(Vocabulary([*vocabulary.genes, *words]), max_length=length + 1, **sizes)
    return Mini(name, model, vocabulary, np.asarray(medians, dtype=np.float32), {**sizes, "length": length}, words)


def pretrain_mini(mini, panel, *, steps, batch_size=32, learning_rate=2e-3, seed=0, device="auto", label=""):
    """Train a miniature by its own objective, in place.

    Args:
        mini: :class:`Mini`.
        panel: the pool, on its vocabulary.
        steps: about so many optimiser steps (whole passes over the pool).
        batch_size, learning_rate: of Adam, with ``warm_then_down``.
        seed, device, label: as for :func:`scprimer.train.fit`.

    Returns:
        :class:`scprimer.train.History`.
    """
    batch_size = min(batch_size, len(panel))
    history = fit(
        mini.model, mini.tokens(panel, seed=seed), LOSS[mini.name], epochs=max(1, round(steps * batch_size / len(panel))),
        batch_size=batch_size, seed=seed, optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=warm_then_down,
        clip=1.0, device=device, label=label,
    )  # fmt: skip
    mini.losses = tuple(map(float, history.train))
    return history


FORMAT = "scprimer-mini-1"


def save_mini(mini, path):
    """Write a :class:`Mini` to one safetensors file: the weights, and in its header JSON under the key ``scprimer-mini``
    with ``format``, ``name``, ``genes``, ``medians``, ``sizes``, ``words`` and ``losses``. The file appears whole or not at all."""
    path = Path(path)
    about = {"format": FORMAT, "name": mini.name, "genes": mini.vocabulary.genes, "medians": mini.medians.tolist(),
             "sizes": mini.sizes, "words": list(mini.words), "losses": list(mini.losses)}  # fmt: skip
    tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in mini.model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(tensors, part, metadata={"scprimer-mini": json.dumps(about)})
    part.replace(path)


def load_mini(path):
    """Read a :class:`Mini` that :func:`save_mini` wrote, in evaluation mode; ValueError for any other file."""
    try:
        with safe_open(Path(path), framework="pt", device="cpu") as file:
            about = json.loads((file.metadata() or {}).get("scprimer-mini", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it will be made again") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by save_mini: its header has no {FORMAT!r}")
    mini = new_mini(
        about["name"], Vocabulary(about["genes"]), about["medians"], **about["sizes"], prompts=about["words"][1:]
    )
    mini.model.load_state_dict(tensors)
    mini.model.eval()
    mini.losses = tuple(about["losses"])
    return mini


def sizes_for(run):
    """Sizes of the miniatures in a profile: ``(of the network, of the training)``."""
    network = {"width": run.pick(smoke=32, standard=64, full=256), "heads": 4, "layers": run.pick(smoke=1, standard=2, full=6),
               "length": run.pick(smoke=32, standard=48, full=128)}  # fmt: skip
    training = {"steps": run.pick(smoke=110, standard=800, full=6000), "batch_size": run.pick(smoke=32, standard=32, full=128),
                "learning_rate": run.pick(smoke=6e-3, standard=2e-3, full=5e-4)}  # fmt: skip
    return network, training


def pretrained_mini(run, name, vocabulary, panel, *, seed=0, prompts=(), **changed):
    """A pretrained miniature: from the cache where a file of the same code, data and sizes is, else trained and kept there.

    Args:
        run: what :func:`scprimer.start` returns; the smoke profile keeps no files.
        name: ``"scgpt"``, ``"geneformer"`` or ``"cell2sentence"``.
        vocabulary, panel: the genes, and the pool on them.
        seed, prompts: as for :func:`new_mini`.
        changed: sizes that differ from :func:`sizes_for`.

    Returns:
        :class:`Mini`.
    """
    network, training = ({k: changed.get(k, v) for k, v in part.items()} for part in sizes_for(run))
    prompts = tuple(prompts) if name == "cell2sentence" else ()
    code = (GeneTransformer, TransformerEncoder, EncoderLayer, MultiHeadAttention, MiniScGPT, MiniSentences, generative_loss,
            masked_loss, next_word_loss, sentence_tokens, pretrain_mini)  # fmt: skip
    path = checkpoint_path(f"mini-{name}", *code, panel.counts, panel.measured, panel.size, genes=vocabulary.genes, seed=seed,
                           prompts=list(prompts), **network, **training)  # fmt: skip
    if run.profile != "smoke" and path.exists():
        run.checkpoints.append(path.name)
        mini = load_mini(path)
        mini.model.to(run.device)
        return mini
    mini = new_mini(name, vocabulary, usual(panel), seed=seed, prompts=prompts, **network)
    pretrain_mini(mini, panel, seed=seed, device=run.device, label=f"mini {name}", **training)
    if run.profile != "smoke":
        save_mini(mini, path)
    return mini


def mini_scgpt(run):
    """The miniature scGPT of this chapter, pretrained on :func:`blood_pool`: read from the cache, or built again.

    Args:
        run: what :func:`scprimer.start` returns.

    Returns:
        :class:`Mini`.
    """
    studies, held_out = blood_pool(run)
    vocabulary = vocabulary_for(list(studies.values()), held_out.var_names, run.pick(smoke=128, standard=320))
    unlabelled = pool(*(panel_of(a, vocabulary) for a in studies.values()))
    return pretrained_mini(run, "scgpt", vocabulary, unlabelled, seed=1000 * run.seed)


PUBLIC = {  # name -> (where it is published, files of the folder)
    "scgpt": ("the folder `whole-human` that the README of github.com/bowang-lab/scGPT links to",
              ("vocab.json", "args.json", "best_model.pt")),
    "geneformer": ("ctheodoris/Geneformer on the Hugging Face hub",
                   ("config.json", "model.safetensors", "token_dictionary.pkl", "gene_median_dictionary.pkl")),
    "cell2sentence": ("vandijklab/pythia-160m-c2s on the Hugging Face hub",
                      ("config.json", "model.safetensors", "tokenizer.json")),
}  # fmt: skip


def public_folder(name):
    """Where the files of a published model are looked for: ``models/<name>`` in scprimer's cache folder."""
    from scprimer.data.download import cache_folder

    return cache_folder() / "models" / name


def check_files(folder, name):
    """The folder as a path; FileNotFoundError that says where each missing file is published and where to put it."""
    where, files = PUBLIC[name]
    missing = [f for f in files if not (Path(folder) / f).is_file()]
    if missing:
        raise FileNotFoundError(f"{name}: {', '.join(missing)} not found in {folder}. Published as {where}: download "
                                f"{', '.join(files)} and put them into that folder")  # fmt: skip
    return Path(folder)


HARMLESS = {("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


class PlainUnpickler(pickle.Unpickler):
    """Reads pickles of dictionaries, lists, text and numbers (NumPy's too), and refuses whatever could run code."""

    def find_class(self, module, name):
        """The few NumPy names that a number needs; UnpicklingError for any other."""
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is no plain number or text: do not open "
                                         "it; get the dictionary as JSON from somebody you trust")  # fmt: skip
        return super().find_class(module, name)


def plain_dictionary(path):
    """A dictionary from a JSON file, or from a pickle that holds nothing but plain data."""
    path = Path(path)
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with path.open("rb") as file:
        found = PlainUnpickler(file).load()
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds a {type(found).__name__}, and a dictionary was expected")
    return found


def renamed(tensors, table):
    """Tensors under our names: ``table`` maps patterns of whole names to ours; what no pattern matches is left out."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, ours in table.items():
            if match := re.fullmatch(pattern, name):
                found[match.expand(ours)] = tensor.float()
                break
    return found


def fill(model, tensors, what):
    """Load renamed tensors; ValueError that names the first that are missing or of another shape. In evaluation mode."""
    mine = model.state_dict()
    wrong = [k for k in mine if k not in tensors or tensors[k].shape != mine[k].shape]
    if wrong:
        raise ValueError(f"{what}: {len(wrong)} tensors are missing or of another shape than the configuration says, the "
                         f"first of them {', '.join(wrong[:3])}")  # fmt: skip
    model.load_state_dict({k: tensors[k] for k in mine})
    return model.eval()


class AfterNormLayer(nn.Module):
    """A transformer layer that normalises after each addition (as in BERT and scGPT): cells x length x width."""

    def __init__(self, width, heads, hidden, epsilon=1e-5):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, x, padding=None):
        """Tokens in context; ``padding`` (bool, cells x length) is True where there is no token."""
        x = self.norm1(x + self.attention(x, padding))
        return self.norm2(x + self.network(x))


class PublicScGPT(nn.Module):
    """The encoder of a published scGPT; sizes under the names of its ``args.json``."""

    def __init__(self, n_words, embsize, nheads, d_hid, nlayers):
        super().__init__()
        self.gene, self.gene_norm = nn.Embedding(n_words, embsize), nn.LayerNorm(embsize)
        self.value = nn.Sequential(nn.Linear(1, embsize), nn.ReLU(), nn.Linear(embsize, embsize))
        self.value_norm = nn.LayerNorm(embsize)
        self.layers = nn.ModuleList(AfterNormLayer(embsize, nheads, d_hid) for _ in range(nlayers))

    def forward(self, gene, value, padding=None):
        """gene (int64) and value (float: bin of the value), cells x length -> cells x length x width."""
        x = self.gene_norm(self.gene(gene)) + self.value_norm(self.value(value.clamp(max=512)[..., None]))
        for layer in self.layers:
            x = layer(x, padding)
        return x


SCGPT_NAMES = {
    r"encoder\.embedding\.weight": "gene.weight", r"encoder\.enc_norm\.(\w+)": r"gene_norm.\1",
    r"value_encoder\.linear1\.(\w+)": r"value.0.\1", r"value_encoder\.linear2\.(\w+)": r"value.2.\1",
    r"value_encoder\.norm\.(\w+)": r"value_norm.\1",
    r"transformer_encoder\.layers\.(\d+)\.self_attn\.(?:Wqkv\.|in_proj_)(\w+)": r"layers.\1.attention.qkv.\2",
    r"transformer_encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)": r"layers.\1.attention.out.\2",
    r"transformer_encoder\.layers\.(\d+)\.linear1\.(\w+)": r"layers.\1.network.0.\2",
    r"transformer_encoder\.layers\.(\d+)\.linear2\.(\w+)": r"layers.\1.network.2.\2",
    r"transformer_encoder\.layers\.(\d+)\.norm([12])\.(\w+)": r"layers.\1.norm\2.\3",
}  # fmt: skip


def open_scgpt(folder):
    """A published scGPT from its folder (see ``PUBLIC``).

    Returns:
        ``(model, vocabulary)``: :class:`PublicScGPT`, and gene name -> token (with ``<pad>`` and ``<cls>``).

    Raises:
        FileNotFoundError: a file is missing; pickle.UnpicklingError: ``best_model.pt`` holds more than tensors;
        ValueError: a tensor has another shape than ``args.json`` says.
    """
    folder = check_files(folder, "scgpt")
    vocabulary, args = (json.loads((folder / f).read_text(encoding="utf-8")) for f in ("vocab.json", "args.json"))
    tensors = torch.load(folder / "best_model.pt", map_location="cpu", weights_only=True)
    model = PublicScGPT(len(vocabulary), **{k: args[k] for k in ("embsize", "nheads", "d_hid", "nlayers")})
    return fill(model, renamed(tensors, SCGPT_NAMES), "scGPT"), vocabulary


def public_tokens(order, ids, first, length, pad):
    """Tokens of genes in a given order: ids (genes) taken at ``order`` (cells x length, -1 for none) after ``first``."""
    gene = np.where(order >= 0, np.asarray(ids)[order], pad)[:, :length]
    return np.hstack([np.tile(np.asarray(first, dtype=np.int64), (len(gene), 1)), gene])


def expressed_order(score, counts):
    """Columns of the expressed genes of each cell in falling order of score, -1 behind them: cells x genes."""
    order = np.argsort(np.where(counts > 0, -score, np.inf), axis=1, kind="stable")
    return np.where(np.take_along_axis(counts, order, 1) > 0, order, -1)


@torch.no_grad()
def public_scgpt_vectors(model, vocabulary, counts, genes, n_bins=51, length=1200, batch_size=32):
    """Cell vectors of a published scGPT, as its authors make them: the cell token at unit length.

    Args:
        model, vocabulary: of :func:`open_scgpt`.
        counts: cells x genes, dense, raw. genes: their names (symbols); unknown ones are left out.
        n_bins: values are quantiles within the cell's expressed genes, in so many bins.
        length: at most so many genes a cell, the highest. (The authors draw them at random.)

    Returns:
        NumPy, cells x width.
    """
    known = [j for j, g in enumerate(genes) if g in vocabulary]
    counts, ids = np.asarray(counts)[:, known], [vocabulary[genes[j]] for j in known]
    order = expressed_order(counts, counts)[:, :length]
    gene = public_tokens(order, ids, [vocabulary["<cls>"]], length, vocabulary["<pad>"])
    ranks = np.argsort(np.argsort(np.where(counts > 0, counts, np.inf), 1), 1) + 1.0
    bins = np.ceil(ranks / np.maximum((counts > 0).sum(1, keepdims=True), 1) * (n_bins - 1))
    value = np.where(order >= 0, np.take_along_axis(bins, np.maximum(order, 0), 1), -2.0)
    value = np.hstack([np.full((len(gene), 1), -2.0), value])  # -2 is scGPT's value of what has none
    gene, value = torch.as_tensor(gene), torch.as_tensor(value, dtype=torch.float32)
    parts = [
        model(g, v, g == vocabulary["<pad>"])[:, 0] for g, v in zip(gene.split(batch_size), value.split(batch_size))
    ]
    return F.normalize(torch.cat(parts), dim=1).numpy()


class PublicGeneformer(nn.Module):
    """The BERT encoder of a published Geneformer; ``config`` as in its ``config.json``."""

    def __init__(self, config):
        super().__init__()
        width, e = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        if config.get("hidden_act", "relu") != "relu":
            raise ValueError(f"hidden_act={config['hidden_act']!r}: Geneformer has relu")
        self.gene, self.place = (
            nn.Embedding(config["vocab_size"], width),
            nn.Embedding(config["max_position_embeddings"], width),
        )
        self.kind, self.norm = nn.Embedding(config.get("type_vocab_size", 2), width), nn.LayerNorm(width, e)
        sizes = (width, config["num_attention_heads"], config["intermediate_size"], e)
        self.layers = nn.ModuleList(AfterNormLayer(*sizes) for _ in range(config["num_hidden_layers"]))

    def forward(self, gene, padding=None, layers=None):
        """gene (int64, cells x length) -> cells x length x width, after so many layers (default all, -1 for all but one)."""
        place = torch.arange(gene.shape[1], device=gene.device)
        x = self.norm(self.gene(gene) + self.place(place) + self.kind.weight[0])
        for layer in self.layers[:layers]:
            x = layer(x, padding)
        return x


BERT_NAMES = {
    r"bert\.embeddings\.word_embeddings\.weight": "gene.weight", r"bert\.embeddings\.position_embeddings\.weight": "place.weight",
    r"bert\.embeddings\.token_type_embeddings\.weight": "kind.weight", r"bert\.embeddings\.LayerNorm\.(\w+)": r"norm.\1",
    r"bert\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)": r"layers.\1.attention.out.\2",
    r"bert\.encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(\w+)": r"layers.\1.norm1.\2",
    r"bert\.encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)": r"layers.\1.network.0.\2",
    r"bert\.encoder\.layer\.(\d+)\.output\.dense\.(\w+)": r"layers.\1.network.2.\2",
    r"bert\.encoder\.layer\.(\d+)\.output\.LayerNorm\.(\w+)": r"layers.\1.norm2.\2",
}  # fmt: skip


def open_geneformer(folder):
    """A published Geneformer from its folder (see ``PUBLIC``; a dictionary may be JSON instead of a pickle, under its name
    with ``.json``).

    Returns:
        ``(model, tokens, medians)``: :class:`PublicGeneformer`; Ensembl id -> token (with ``<pad>``); Ensembl id -> median.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_scgpt`; pickle.UnpicklingError: a dictionary holds more than plain data.
    """
    folder = Path(folder)
    names = {
        f: (f"{f}.json" if (folder / f"{f}.json").is_file() else f"{f}.pkl")
        for f in ("token_dictionary", "gene_median_dictionary")
    }
    if not any(n.endswith(".json") for n in names.values()):
        check_files(folder, "geneformer")
    tokens, medians = (plain_dictionary(folder / n) for n in names.values())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    found = renamed(theirs, BERT_NAMES)
    for i in range(config["num_hidden_layers"]):  # three matrices there, one below the other here
        for part in ("weight", "bias"):
            three = [theirs.get(f"bert.encoder.layer.{i}.attention.self.{n}.{part}") for n in ("query", "key", "value")]
            if all(t is not None for t in three):
                found[f"layers.{i}.attention.qkv.{part}"] = torch.cat(three).float()
    return fill(PublicGeneformer(config), found, "Geneformer"), tokens, medians


@torch.no_grad()
def public_geneformer_vectors(model, tokens, medians, counts, ensembl, size, length=2048, batch_size=16):
    """Cell vectors of a published Geneformer: the mean over genes of the last layer but one.

    Args:
        model, tokens, medians: of :func:`open_geneformer`.
        counts: cells x genes, dense, raw. ensembl: their Ensembl ids; unknown ones are left out.
        size: all molecules of each cell.
        length: at most so many genes a cell.

    Returns:
        NumPy, cells x width.
    """
    known = [j for j, g in enumerate(ensembl) if g in tokens and g in medians]
    counts = np.asarray(counts)[:, known]
    score = counts / np.asarray(size)[:, None] / np.array([medians[ensembl[j]] for j in known])
    first = [tokens["<cls>"]] if "<cls>" in tokens else []  # the second version has it
    gene = public_tokens(
        expressed_order(score, counts), [tokens[ensembl[j]] for j in known], first, length, tokens["<pad>"]
    )
    parts = []
    for g in torch.as_tensor(gene).split(batch_size):
        there = (g != tokens["<pad>"]) & (g != tokens.get("<cls>", -1))
        x = model(g, g == tokens["<pad>"], layers=-1) * there[..., None]
        parts.append(x.sum(1) / there.sum(1, keepdim=True).clamp(min=1))
    return torch.cat(parts).numpy()


def rotated(x, share, base=10_000.0):
    """Queries or keys (... x length x width of a head) turned by their place; the first ``share`` of the features turns.

    Source: Su et al. (2024), with halves instead of neighbouring pairs, as in GPT-NeoX.
    """
    d = int(x.shape[-1] * share)
    frequency = base ** (-torch.arange(0, d, 2, device=x.device) / d)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * torch.cat([frequency, frequency])  # length x d
    turning, still = x[..., :d], x[..., d:]
    quarter = torch.cat([-turning[..., d // 2 :], turning[..., : d // 2]], -1)
    return torch.cat([turning * angle.cos() + quarter * angle.sin(), still], -1)


class PublicSentences(nn.Module):
    """The language model of a published Cell2Sentence (GPT-NeoX, as Pythia); ``config`` as in its ``config.json``."""

    def __init__(self, config):
        super().__init__()
        width, e = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.share, self.base = config.get("rotary_pct", 0.25), config.get("rotary_emb_base", 10_000)
        self.word = nn.Embedding(config["vocab_size"], width)
        self.out = nn.Linear(width, config["vocab_size"], bias=False)
        sizes = (width, config["num_attention_heads"], config["intermediate_size"])
        self.layers = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.LayerNorm(width, e)
        for layer in self.layers:
            layer.norm1.eps = layer.norm2.eps = e

    def hidden(self, words):
        """words (int64, sentences x length) -> vectors in context, sentences x length x width."""
        x = self.word(words)
        for layer in self.layers:
            q, k, v = layer.attention.split(layer.norm1(x))
            q, k = (rotated(part, self.share, self.base) for part in (q, k))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
            x = x + layer.attention.out(y) + layer.network(layer.norm2(x))  # side by side
        return self.norm(x)

    def forward(self, words):
        """Logits of the next word: sentences x length x words."""
        return self.out(self.hidden(words))


def byte_names():
    """GPT-2's printable name of each byte: list of 256 characters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


class BytePairs:
    """A byte-level tokeniser from a ``tokenizer.json`` of Hugging Face (model BPE, as Pythia and GPT-2 have it).

    Args:
        path: the file.

    Source: Sennrich et al. (2016).
    """

    PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")

    def __init__(self, path):
        model = json.loads(Path(path).read_text(encoding="utf-8"))["model"]
        if model.get("type", "BPE") != "BPE":
            raise ValueError(f"the tokeniser is of the type {model['type']}: byte pairs (BPE) are expected")
        self.ids, self.byte = model["vocab"], byte_names()
        pairs = (tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"])
        self.order = {pair: i for i, pair in enumerate(pairs)}

    def joined(self, piece):
        """Bytes of one piece of text, joined pair by pair, the earliest learnt pair first: a list of words."""
        parts = [self.byte[b] for b in piece.encode("utf-8")]
        while len(parts) > 1:
            i = min(range(len(parts) - 1), key=lambda i: self.order.get((parts[i], parts[i + 1]), np.inf))
            if (parts[i], parts[i + 1]) not in self.order:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return parts

    def encode(self, text):
        """Text -> ids (list of int)."""
        return [self.ids[part] for piece in self.PIECES.findall(text) for part in self.joined(piece)]

    def decode(self, ids):
        """Ids -> text."""
        word, byte = {i: w for w, i in self.ids.items()}, {c: b for b, c in enumerate(self.byte)}
        return bytes(byte[c] for i in ids for c in word[int(i)]).decode("utf-8", "replace")


NEOX_NAMES = {
    r"gpt_neox\.embed_in\.weight": "word.weight", r"embed_out\.weight": "out.weight",
    r"gpt_neox\.final_layer_norm\.(\w+)": r"norm.\1", r"gpt_neox\.layers\.(\d+)\.input_layernorm\.(\w+)": r"layers.\1.norm1.\2",
    r"gpt_neox\.layers\.(\d+)\.post_attention_layernorm\.(\w+)": r"layers.\1.norm2.\2",
    r"gpt_neox\.layers\.(\d+)\.attention\.query_key_value\.(\w+)": r"layers.\1.attention.qkv.\2",
    r"gpt_neox\.layers\.(\d+)\.attention\.dense\.(\w+)": r"layers.\1.attention.out.\2",
    r"gpt_neox\.layers\.(\d+)\.mlp\.dense_h_to_4h\.(\w+)": r"layers.\1.network.0.\2",
    r"gpt_neox\.layers\.(\d+)\.mlp\.dense_4h_to_h\.(\w+)": r"layers.\1.network.2.\2",
}  # fmt: skip


def open_cell2sentence(folder):
    """A published Cell2Sentence from its folder (see ``PUBLIC``).

    Returns:
        ``(model, text)``: :class:`PublicSentences` and :class:`BytePairs`.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_scgpt`.
    """
    folder = check_files(folder, "cell2sentence")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not config.get("use_parallel_residual", True):
        raise ValueError("use_parallel_residual is false: this is no Pythia, on which Cell2Sentence is built")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        found = renamed({n: file.get_tensor(n) for n in file.keys()}, NEOX_NAMES)  # noqa: SIM118 - not a dict
    heads = config["num_attention_heads"]
    for name in [
        n for n in found if ".qkv." in n
    ]:  # there head by head, here queries, keys and values below each other
        tensor = found[name].unflatten(0, (heads, 3, -1))
        found[name] = tensor.transpose(0, 1).flatten(0, 2)
    return fill(PublicSentences(config), found, "Cell2Sentence"), BytePairs(folder / "tokenizer.json")


@torch.no_grad()
def public_sentence_vectors(model, text, counts, genes, length=100, seed=0):
    """Cell vectors of a published Cell2Sentence: the mean over the words of the cell's sentence (gene names in falling order
    of expression, ties at random, at most ``length``); counts dense, cells x genes; NumPy, cells x width."""
    counts = np.asarray(counts)
    order = expressed_order(counts + np.random.default_rng(seed).random(counts.shape), counts)[:, :length]
    words = [text.encode(" ".join(genes[j] for j in row if j >= 0)) for row in order]
    return np.stack([model.hidden(torch.tensor([w]))[0].mean(0).numpy() for w in words])


@torch.no_grad()
def exam(mini, tokens, base, seed=0, share=0.5):
    """How much better than a constant a miniature solves its own exercise on given cells.

    Args:
        mini: :class:`Mini`.
        tokens: of its tokeniser.
        base: tokens of the pool, from which the constant guess is taken.
        seed: draws what is hidden.
        share: of the values that scGPT must guess; the masked names of Geneformer are the usual share.

    Returns:
        scGPT: 1 - squared error / that of the gene's mean value in the pool. Others: nats a gene above the share with which
        the gene occurs in the pool.
    """
    model, words = mini.model.cpu().eval(), FIRST + len(mini.vocabulary) + len(mini.words)
    batch = {k: torch.as_tensor(v) for k, v in tokens.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if mini.name != "scgpt":
            asked = (
                batch["gene"][:, 1:] if mini.name == "cell2sentence" else batch["gene"][batch["gene"] >= FIRST]
            ).flatten()
            often = np.bincount(base["gene"][:, 1:].ravel(), minlength=words) + 1.0
            often[PAD] = 0
            log_share = torch.as_tensor(np.log(np.maximum(often, 1e-9) / often.sum()), dtype=torch.float32)
            return float(-log_share[asked[asked != PAD]].mean() - LOSS[mini.name](model, batch)["loss"])
        unknown = (torch.rand(batch["gene"].shape) < share) & (batch["gene"] >= FIRST)
    gene, value = batch["gene"], batch["value"]
    guess = model.guess(model.generative(gene, value, ~unknown)[unknown])[:, 0]
    total, n = (np.bincount(base["gene"].ravel(), w, words) for w in (base["value"].ravel(), None))
    usual_value = torch.as_tensor(total / np.maximum(n, 1), dtype=torch.float32)[gene[unknown]]
    return float(1 - ((guess - value[unknown]) ** 2).sum() / ((usual_value - value[unknown]) ** 2).sum())


def rank_line(panel, length=48, seed=0):
    """Slope and intercept of log-normalised expression against log10 of the rank in the sentence, and the share of the
    variance that the line explains: ``(slope, intercept, r2)``."""
    gene, order = expressed_first(panel, panel.counts + np.random.default_rng(seed).random(panel.counts.shape), length)
    there = gene != PAD
    rank = np.log10(1.0 + np.broadcast_to(np.arange(gene.shape[1]), gene.shape)[there])
    level = np.take_along_axis(panel.logged(), order, 1)[there]
    slope, intercept = np.polyfit(rank, level, 1)
    return float(slope), float(intercept), float(np.corrcoef(rank, level)[0, 1] ** 2)


def from_sentences(gene, n_genes, slope, intercept):
    """Expression of sentences, read off the line: words (cells x (1 + length), the prompt first) -> cells x genes."""
    levels = np.zeros((len(gene), n_genes))
    for place in range(1, gene.shape[1]):
        word = gene[:, place] - FIRST
        rows = np.flatnonzero((word >= 0) & (word < n_genes))
        levels[rows, word[rows]] = max(slope * np.log10(place) + intercept, 0)
    return levels


class Response(nn.Module):
    """Change of every gene under a treatment, predicted from untreated cells.

    Args:
        body: :class:`~scprimer.methods.transformers.GeneTransformer`; it is copied.
        usual_change: where to start, a number a gene (the mean change of the known types).
    """

    def __init__(self, body, usual_change):
        super().__init__()
        self.body, width = deepcopy(body), body.gene.embedding_dim
        self.usual = nn.Parameter(torch.as_tensor(usual_change, dtype=torch.float32))
        self.query = nn.Linear(width, width)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, batch):
        """Changes in log expression: cells x genes."""
        cell = pooled(self.body(batch["gene"], batch["value"]), batch["gene"])
        genes = self.body.gene.weight[FIRST : FIRST + len(self.usual)]
        return self.usual + self.query(cell) @ genes.T / genes.shape[1] ** 0.5


def fit_response(body, tokens, change, *, steps=40, learning_rate=1e-3, seed=0, device="auto"):
    """Fine-tune a :class:`Response` on untreated cells of known types.

    Args:
        body: :class:`~scprimer.methods.transformers.GeneTransformer`.
        tokens: of the untreated cells. change: the mean change of each cell's type, cells x genes.
        steps, learning_rate, seed, device: of the training.

    Returns:
        :class:`Response`, in evaluation mode.
    """
    model = Response(body, np.unique(change, axis=0).mean(0))
    batch_size = min(32, len(change))
    fit(
        model, {**tokens, "change": change.astype(np.float32)}, lambda m, b, _: ((m(b).float() - b["change"]) ** 2).mean(),
        epochs=max(1, round(steps * batch_size / len(change))), batch_size=batch_size, seed=seed, clip=1.0, device=device,
        optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=warm_then_down,
    )  # fmt: skip
    return model


def teach_prompts(mini, panel, prompts, *, steps=100, learning_rate=1e-3, seed=0, device="auto"):
    """A copy of a mini Cell2Sentence, trained on sentences behind prompts.

    Args:
        mini: :class:`Mini` of sentences.
        panel: cells. prompts: a word for each, one of ``mini.words``.
        steps, learning_rate, seed, device: of the training.

    Returns:
        :class:`Mini`.
    """
    tokens = mini.tokens(panel, prompt=np.array([mini.token(p) for p in prompts]), seed=seed)
    taught, batch_size = replace(mini, model=deepcopy(mini.model)), min(32, len(panel))
    fit(
        taught.model, tokens, next_word_loss, epochs=max(1, round(steps * batch_size / len(panel))), batch_size=batch_size,
        seed=seed, clip=1.0, device=device, optimiser=partial(torch.optim.Adam, lr=learning_rate), schedule=warm_then_down,
    )  # fmt: skip
    return taught


@torch.no_grad()
def write_cells(mini, prompts, *, temperature=1.0, seed=0):
    """Draw sentences word by word. No gene is written twice, and a prompt is never written.

    Args:
        mini: :class:`Mini` of sentences.
        prompts: a word for each cell wanted.
        temperature: logits are divided by it; below 1 the likely genes are preferred.

    Returns:
        Words, NumPy int64, cells x (1 + length), padding behind the end.
    """
    model, length = mini.model.cpu().eval(), mini.sizes["length"]
    gene = torch.full((len(prompts), 1 + length), PAD)
    gene[:, 0] = torch.tensor([mini.token(p) for p in prompts])
    end, place = mini.token("<end>"), torch.arange(1 + length).expand(len(prompts), -1)
    closed = torch.zeros(len(prompts), model.gene.num_embeddings, dtype=torch.bool)
    closed[:, :FIRST] = closed[:, end:] = True  # no special tokens, no prompts; the end only after the first gene
    generator, done = torch.Generator().manual_seed(seed), torch.zeros(len(prompts), dtype=torch.bool)
    for i in range(length):
        logits = model.guess(model(gene[:, : i + 1], place[:, : i + 1])[:, -1]) / temperature
        word = torch.multinomial(logits.masked_fill(closed, -torch.inf).softmax(1), 1, generator=generator)
        gene[:, i + 1] = torch.where(done, PAD, word[:, 0])
        done = done | (word[:, 0] == end)
        closed.scatter_(1, word, True)
        closed[:, end] = False
    return gene.numpy()
