"""Files of the registry: from the cache, a mirror or the internet, verified by hash, with nothing half-written left."""

from __future__ import annotations

import os
from pathlib import Path

from scprimer.data.errors import MirrorError
from scprimer.data.registry import DataSet

MIRROR_VARIABLE = "SCPRIMER_MIRROR"


def fetch_files(entry: DataSet, part: str | None = None) -> Path:
    """(first version: the mirror only)"""
    folder = Path(os.environ.get(MIRROR_VARIABLE, "")) / entry.name
    for f in entry.files_for(part):
        if not (folder / f.file).is_file():
            raise MirrorError(f"{folder / f.file} is not there")
    return folder
