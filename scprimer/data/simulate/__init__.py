"""The laboratory of simulators: data whose truth is known, and small stand-ins for the real data sets.

:func:`populations` draws cells; the layers (:func:`damage`, :func:`add_doublets`, :func:`add_ambient`, :func:`add_jackpots`,
:func:`add_hashtags`, :func:`add_spike_ins`, :func:`null_split`) do to them what an experiment does; :func:`mixtures` mixes RNA.
All return raw counts in ``X`` and the truth in ``uns["truth"]``. :func:`statistics` and :func:`draw_realism` hold them against
data. :func:`standin` gives a registered data set's stand-in.

>>> cells = populations(500, n_types=4, n_batches=2, batch_strength=0.5, seed=1)
>>> droplets = add_ambient(add_doublets(cells, 0.08), 0.1, n_empty=2000)
"""

from .layers import (
    add_ambient,
    add_doublets,
    add_hashtags,
    add_jackpots,
    add_spike_ins,
    damage,
    empty_droplets,
    null_split,
    spike_mix,
    with_empty_droplets,
)
from .mixtures import antibody_counts, mixtures
from .populations import populations, profiles
from .realism import draw_realism, statistics
from .standins import STANDINS, standin

__all__ = [
    "STANDINS",
    "add_ambient",
    "add_doublets",
    "add_hashtags",
    "add_jackpots",
    "add_spike_ins",
    "antibody_counts",
    "damage",
    "draw_realism",
    "empty_droplets",
    "mixtures",
    "null_split",
    "populations",
    "profiles",
    "spike_mix",
    "standin",
    "statistics",
    "with_empty_droplets",
]
