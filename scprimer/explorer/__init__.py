"""The concept explorer: look at what a model's concepts and neurons respond to, name them, and rate them blind.

Three steps::

    from scprimer import explorer

    bundle = explorer.Bundle("What has the model learned?")
    bundle.add_pair("scVI", "pbmc3k", embedding=xy, cell_type=labels, ids=ids, kinds=kinds, activations=a,
                    genes=genes, attributions=g)      # once for every pair of a model and a data set
    view = explorer.explore(bundle)
    view                                              # the last line of a cell shows it

In JupyterLab, Notebook and Colab this is a live widget: ``view.sheet`` holds what was written and rated as a pandas
table, ``view.save(path)`` and ``view.load(path)`` keep it as CSV. When a notebook is executed for the book, the same
explorer is written into the cell's output as one piece of HTML that needs no kernel and asks no other host for anything.

Several raters each save a sheet of their own; :func:`agreement` reads them all and says how far they agree.
"""

from scprimer.explorer.agreement import Agreement, agreement, cohen_kappa, fleiss_kappa
from scprimer.explorer.bundle import Bundle
from scprimer.explorer.sheet import COLUMNS, read_sheet
from scprimer.explorer.view import Explorer, explore

__all__ = [
    "COLUMNS",
    "Agreement",
    "Bundle",
    "Explorer",
    "agreement",
    "cohen_kappa",
    "explore",
    "fleiss_kappa",
    "read_sheet",
]
