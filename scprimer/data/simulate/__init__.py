"""The laboratory of simulators: data whose truth is known, and small stand-ins for the real data sets.

:func:`populations` draws cells; the layers (:func:`damage`, :func:`add_doublets`, :func:`add_ambient`, :func:`add_hashtags`,
:func:`add_spike_ins`, :func:`null_split`) do to them what an experiment does. All return raw counts in ``X`` and the truth
in ``uns["truth"]``. :func:`standin` gives a registered data set's stand-in.

>>> cells = populations(500, n_types=4, n_batches=2, batch_strength=0.5, seed=1)
>>> droplets = add_ambient(add_doublets(cells, 0.08), 0.1, n_empty=2000)
"""

from .layers import (
    add_ambient,
    add_doublets,
    add_hashtags,
    add_spike_ins,
    damage,
    empty_droplets,
    null_split,
    spike_mix,
    with_empty_droplets,
)
from .populations import populations, profiles
from .standins import STANDINS, standin

__all__ = [
    "STANDINS",
    "add_ambient",
    "add_doublets",
    "add_hashtags",
    "add_spike_ins",
    "damage",
    "empty_droplets",
    "null_split",
    "populations",
    "profiles",
    "spike_mix",
    "standin",
    "with_empty_droplets",
]
