"""One biology of blood cells that all blood stand-ins draw from, so that types, markers and genes agree between them.

It is fixed: a stand-in's seed draws other cells of the same blood.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pandas as pd

from ..populations import MITO_SHARES, profiles

TYPES = ("Naive CD4 T", "Memory CD4 T", "CD8 T", "NK", "B", "CD14+ Mono", "FCGR3A+ Mono", "DC", "Platelet", "HSC")
FAMILIES = {"T": TYPES[:3], "Myeloid": TYPES[5:8]}
TYPE_SIZE = {"CD14+ Mono": 1.1, "FCGR3A+ Mono": 1.5, "DC": 2.2, "B": 0.9, "NK": 0.9, "Platelet": 0.5, "HSC": 1.8}
BIOLOGY_SEED = 2_700
UMIS = 2_000

# Canonical markers: expected UMIs in a cell of 2,000, in the order of TYPES, of the size that 10x blood data show.
_MARKERS = """
         nCD4  mCD4  CD8   NK    B     CD14  CD16  DC    Plt   HSC
CD3D     2.5   2.7   3.3   0.2   0.05  0.05  0.05  0.05  0.02  0.1
CD3E     1.7   1.9   1.8   0.6   0.08  0.08  0.08  0.08  0.05  0.1
IL7R     1.4   1.9   1.3   0.1   0.1   0.08  0.08  0.1   0.05  0.1
CCR7     0.9   0.3   0.05  0.02  0.25  0.01  0.01  0.02  0.01  0.05
LEF1     0.6   0.3   0.06  0.05  0.03  0.03  0.02  0.02  0.02  0.05
TCF7     0.6   0.5   0.2   0.1   0.1   0.05  0.05  0.05  0.02  0.1
S100A4   2.2   6.0   6.6   5.8   0.7   15.8  17.7  7.3   2.0   1.0
IL32     2.4   4.4   5.4   3.1   0.15  0.1   0.1   0.2   0.05  0.1
LTB      4.8   8.0   3.2   0.5   6.3   0.3   0.5   0.5   0.2   0.5
CD8A     0.1   0.06  1.3   0.1   0.02  0.02  0.02  0.02  0.01  0.02
CD8B     0.3   0.1   1.2   0.04  0.02  0.01  0.01  0.02  0.01  0.02
GZMK     0.1   0.3   2.7   0.3   0.04  0.02  0.02  0.02  0.01  0.02
CCL5     0.6   1.4   12.5  7.8   0.1   0.1   0.1   0.1   12    0.1
CST7     0.3   0.4   5.0   6.5   0.1   0.2   0.3   0.2   0.05  0.1
MS4A1    0.03  0.03  0.03  0.03  2.8   0.03  0.03  0.03  0.01  0.05
CD79A    0.03  0.03  0.03  0.03  5.3   0.02  0.02  0.1   0.02  0.1
CD79B    0.1   0.1   0.15  0.3   4.4   0.1   0.6   0.1   0.03  0.2
CD74     1.5   1.7   2.7   2.5   35    9.0   8.7   40    1.0   14
HLA-DRA  0.3   0.4   0.6   0.4   22    8.9   7.2   32    0.5   10
LYZ      0.5   0.5   0.5   0.4   0.5   43    7.0   30    1.0   2.0
CD14     0.02  0.02  0.02  0.02  0.02  1.6   0.15  0.1   0.02  0.05
S100A8   0.1   0.1   0.1   0.1   0.1   18    1.2   0.6   0.3   0.2
S100A9   0.15  0.15  0.15  0.15  0.15  32    3.0   2.7   0.5   0.3
FCN1     0.05  0.05  0.05  0.05  0.05  6.0   3.3   0.8   0.1   0.1
FCGR3A   0.04  0.04  0.3   3.0   0.04  0.15  5.2   0.07  0.1   0.05
MS4A7    0.02  0.02  0.02  0.02  0.06  0.3   1.9   0.1   0.02  0.05
LST1     0.15  0.2   0.15  0.15  0.15  5.2   11.8  2.5   0.3   0.3
AIF1     0.2   0.2   0.1   0.1   0.1   5.9   10.2  2.3   0.3   0.3
FCER1A   0.01  0.01  0.01  0.01  0.01  0.04  0.02  3.5   0.01  0.1
CST3     0.2   0.2   0.2   0.3   0.2   13    12    21    2.0   1.0
CLEC10A  0.01  0.01  0.01  0.01  0.01  0.08  0.01  1.2   0.01  0.02
CD1C     0.01  0.01  0.01  0.01  0.12  0.02  0.01  0.8   0.01  0.02
NKG7     0.2   0.2   10    29    0.1   0.2   0.3   0.1   0.1   0.1
GNLY     0.1   0.1   2.7   26    0.1   0.1   0.1   0.1   0.1   0.1
GZMB     0.03  0.03  1.2   11.8  0.03  0.03  0.05  0.5   0.1   0.05
PRF1     0.05  0.08  1.2   6.5   0.03  0.03  0.04  0.05  0.05  0.05
TYROBP   0.1   0.1   0.3   4.2   0.1   12    9.7   4.8   0.6   0.5
PPBP     0.01  0.01  0.01  0.01  0.01  0.05  0.05  0.02  105   0.05
PF4      0.01  0.01  0.01  0.01  0.01  0.02  0.02  0.02  38    0.02
ISG15    0.4   0.5   0.5   0.6   0.4   0.9   1.5   0.9   0.2   0.3
IFIT1    0.02  0.02  0.02  0.02  0.02  0.03  0.04  0.03  0.01  0.02
IFI6     0.3   0.3   0.3   0.3   0.2   0.4   0.5   0.3   0.1   0.2
IFIT2    0.05  0.05  0.05  0.05  0.05  0.06  0.06  0.06  0.01  0.03
IFIT3    0.06  0.06  0.06  0.06  0.06  0.07  0.08  0.06  0.01  0.03
MX1      0.1   0.1   0.1   0.1   0.08  0.1   0.15  0.1   0.02  0.05
ISG20    0.8   0.8   0.8   0.6   0.6   0.4   0.5   0.5   0.1   0.3
LY6E     0.6   0.7   0.8   0.8   0.5   0.4   0.6   0.4   0.1   0.4
CXCL10   0.01  0.01  0.01  0.01  0.01  0.06  0.06  0.06  0.01  0.01
CD34     0.01  0.01  0.01  0.01  0.01  0.01  0.01  0.01  0.01  2.5
SPINK2   0.01  0.01  0.01  0.01  0.01  0.01  0.01  0.01  0.01  3.5
"""
_RIBOSOMAL = """
RPL10 RPL13 RPL13A RPL11 RPL32 RPL3 RPL19 RPL18A RPL28 RPL21 RPL15 RPL23A RPL27A RPL12 RPL6 RPL26 RPL14 RPL10A RPL9
RPL8 RPL29 RPL30 RPL7 RPL18 RPL5 RPL31 RPL35A RPL36 RPL37 RPL34 RPLP0 RPLP1 RPLP2 RPS2 RPS6 RPS18 RPS3 RPS12 RPS27
RPS19 RPS14 RPS4X RPS3A RPS15A RPS27A RPS8 RPS15 RPS7 RPS9 RPS16 RPS5 RPS23 RPS25 RPS13 RPS28 RPS29 RPS20 RPSA
"""
_HOUSEKEEPING = """
MALAT1 TMSB4X B2M FTL FTH1 ACTB EEF1A1 TMSB10 TPT1 PTMA HLA-A HLA-B HLA-C GAPDH ACTG1 FAU UBA52 NACA PFN1 CFL1
SH3BGRL3 OAZ1 HLA-E BTG1 UBC MYL6 ARPC1B CORO1A EIF1 H3F3B
"""


# Ribosomal genes take up to half of a lymphocyte's molecules and far less of other cells'.
_RIBOSOMAL_LEVEL = dict(zip(TYPES, (1.15, 1.0, 0.85, 0.55, 1.0, 0.65, 0.55, 0.75, 0.3, 1.0)))


def markers() -> pd.DataFrame:
    """Expected UMIs of the canonical markers in a cell of 2,000: genes x types."""
    rows = [line.split() for line in _MARKERS.strip().splitlines()[1:]]
    return pd.DataFrame(
        [[float(v) for v in row[1:]] for row in rows], index=[row[0] for row in rows], columns=list(TYPES)
    )


@lru_cache(maxsize=4)
def biology(n_genes: int = 1500) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The blood's expression profiles (genes x types, columns sum to 1) and what is planted in each gene.

    Canonical markers, ribosomal, housekeeping and mitochondrial genes carry their names; the rest are ``GENE0001``, ...,
    among them twelve unnamed markers a type and a family.
    """
    planted = markers()
    named = [*_HOUSEKEEPING.split(), *_RIBOSOMAL.split()]
    n_rest = n_genes - len(planted) - len(named) - len(MITO_SHARES)
    if n_rest < 500:
        raise ValueError(f"n_genes={n_genes}: a blood stand-in needs at least {n_genes - n_rest + 500} genes")
    rest, rest_genes = profiles(
        n_rest, type_names=TYPES, hierarchy=FAMILIES, markers_per_type=12, marker_log2fc=1.6, type_noise=0.25, family_noise=0.6,
        housekeeping=(0.0, 0.0), log_sd=1.9, mito=False, seed=BIOLOGY_SEED,
    )  # fmt: skip
    rng = np.random.default_rng(BIOLOGY_SEED)
    house = pd.DataFrame(
        np.exp(-0.035 * np.arange(len(named)))[:, None].repeat(len(TYPES), 1), index=named, columns=TYPES
    )
    house.iloc[3:] *= np.exp(rng.normal(0, 0.2, (len(named) - 3, 1)))  # the first three lead in every type
    house *= 2 ** rng.normal(0, 0.2, house.shape)
    house.loc[_RIBOSOMAL.split()] *= list(_RIBOSOMAL_LEVEL.values())
    # Ribosomal and housekeeping genes hold 45 % of blood's molecules; a small set of genes needs more to be about as sparse.
    house *= (0.45 if n_genes >= 5_000 else 0.55) / house.sum()
    canonical = planted / UMIS
    mito_share = 0.02
    rest *= 1 - mito_share - house.sum() - canonical.sum()
    shares = np.array(list(MITO_SHARES.values()))
    mito = pd.DataFrame(
        np.outer(shares / shares.sum(), np.full(len(TYPES), mito_share)), index=list(MITO_SHARES), columns=TYPES
    )
    table = pd.concat([canonical, house, rest, mito])
    best = canonical.idxmax(axis=1)
    others = canonical.apply(lambda row: row.drop(best[row.name]).mean(), axis=1)
    genes = pd.concat(
        [
            pd.DataFrame({"marker_of": best, "log2fc": np.log2(canonical.max(axis=1) / others)}),
            pd.DataFrame({"housekeeping": True}, index=named),
            rest_genes,
            pd.DataFrame({"mito": True}, index=list(MITO_SHARES)),
        ]
    )
    genes["canonical"] = genes.index.isin(planted.index)
    genes = genes.fillna({"marker_of": "", "log2fc": 0.0})
    for flag in ("housekeeping", "mito"):
        genes[flag] = genes[flag].eq(True)
    order = rng.permutation(len(table))  # no reader should find the markers by their place
    table.index.name = genes.index.name = "gene"
    return table.iloc[order], genes.iloc[order]


def shifted(n_genes: int, strength: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The blood as another experiment sees it: every gene shifted by a factor of sd ``strength`` (log2), the same in all cells.

    Mitochondrial genes are left alone. The factors are in the second table, column ``experiment_log2fc``.
    """
    table, genes = biology(n_genes)
    shift = np.random.default_rng([BIOLOGY_SEED, seed]).normal(0, strength, len(table))
    shift[genes["mito"]] = 0.0
    table = table.mul(2.0**shift, axis=0)
    return table / table.sum(), genes.assign(experiment_log2fc=shift)


def merged(table: pd.DataFrame, groups: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Profiles of coarser types: group -> {type: weight}."""
    return pd.DataFrame(
        {name: sum(w * table[t] for t, w in parts.items()) / sum(parts.values()) for name, parts in groups.items()}
    )


def programs(n_genes: int) -> pd.DataFrame:
    """What varies between cells of one type: a ribosomal programme, and two of forty unnamed genes each (log2 factors)."""
    table, genes = biology(n_genes)
    plain = genes.index[genes.index.str.startswith("GENE") & (genes["marker_of"] == "")]
    plain = table.loc[plain].mean(axis=1).sort_values(ascending=False).index
    loadings = pd.DataFrame(0.0, index=table.index, columns=["ribosomal", "program_1", "program_2"])
    loadings.loc[_RIBOSOMAL.split(), "ribosomal"] = 0.35
    for i in (1, 2):
        loadings.loc[plain[i - 1 : 200 : 5], f"program_{i}"] = 0.6
    return loadings


# Factors by which interferon beta raises (or lowers) genes, of the order seen in stimulated blood.
_INTERFERON = {"ISG15": 50, "IFIT1": 100, "IFIT2": 50, "IFIT3": 80, "IFI6": 20, "MX1": 30, "ISG20": 10, "LY6E": 8}
_INTERFERON_MYELOID = {"CXCL10": 250, "CD14": 0.12}


def with_interferon(table: pd.DataFrame, *, unnamed: int = 30) -> tuple[pd.DataFrame, pd.Series]:
    """The profiles after stimulation with interferon beta, and log2 of each gene's factor (of the myeloid types').

    Beside the known genes ``unnamed`` others respond, by log2 factors of 1 to 3.
    """
    rng = np.random.default_rng([BIOLOGY_SEED, 9])
    factor = pd.DataFrame(1.0, index=table.index, columns=table.columns)
    factor.loc[list(_INTERFERON)] = np.array(list(_INTERFERON.values()))[:, None]
    myeloid = [t for t in FAMILIES["Myeloid"] if t in table]
    factor.loc[list(_INTERFERON_MYELOID), myeloid] = np.array(list(_INTERFERON_MYELOID.values()))[:, None]
    plain = sorted(g for g in table.index if g.startswith("GENE"))
    chosen = rng.choice(plain, unnamed, replace=False)
    factor.loc[chosen] = 2.0 ** rng.uniform(1, 3, (unnamed, 1))
    after = table * factor
    return after / after.sum(), np.log2(factor.max(axis=1).where(factor.max(axis=1) > 1, factor.min(axis=1)))
