"""The kernel that a chapter runs in: whether there is one, and whether somebody sits at it."""

from __future__ import annotations

import os
import sys

QUIET_VARIABLE = "SCPRIMER_QUIET"


def attended() -> bool:
    """Whether somebody sits at this kernel.

    ``SCPRIMER_QUIET`` says no. Otherwise the request that is being executed tells: a front end with a person behind it
    offers to ask that person for input, and papermill, nbclient and nbval do not.
    """
    if os.environ.get(QUIET_VARIABLE):
        return False
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    if "google.colab" in sys.modules:  # asks its user in a way of its own
        return True
    return bool(kernel.get_parent().get("content", {}).get("allow_stdin"))
