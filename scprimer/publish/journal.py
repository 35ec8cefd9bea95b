"""The journal of a run: what was asked for and what is done, so that an interrupted run can be resumed.

One small JSON file a run, replaced as a whole after every event.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from scprimer.publish import book

KEEP = 20


class Journal:
    """What one run was asked for, and the state of each of its chapters.

    Attributes:
        path: its file.
        data: ``{"request", "pid", "host", "started", "finished", "chapters": {slug: {"state", ...}}}`` where ``state``
            is ``"waiting"``, ``"running"``, ``"done"`` or ``"failed"``.
        broken: why the file could not be written, or None. The run goes on without it.
    """

    def __init__(self, path: Path, data: dict):
        self.path = path
        self.data = data
        self.broken: OSError | None = None

    @classmethod
    def begin(cls, folder: Path, request: dict, fingerprints: dict[str, str]) -> Journal:
        """Start a new journal in ``folder`` (old ones beyond the last few are removed)."""
        now = datetime.now(UTC)
        data = {
            "request": request,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": now.isoformat(timespec="seconds"),
            "finished": None,
            "chapters": {slug: {"state": "waiting", "fingerprint": f} for slug, f in fingerprints.items()},
        }
        journal = cls(folder / f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}.json", data)
        journal.save()
        for old in sorted(folder.glob("*.json"))[:-KEEP]:
            old.unlink(missing_ok=True)
        return journal

    def mark(self, slug: str, state: str, **facts) -> None:
        """Note the state of a chapter, with further facts (seconds, peak memory, what went wrong)."""
        self.data["chapters"][slug] |= {"state": state, **facts}
        self.save()

    def finish(self) -> None:
        """Note that the run came to its end, whatever failed in it."""
        self.data["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.save()

    def save(self) -> None:
        """Write the file; a disk that is full does not end the run."""
        try:
            book.write_text(self.path, json.dumps(self.data, indent=1) + "\n")
            self.broken = None
        except OSError as error:
            self.broken = error

    def done(self) -> dict[str, str]:
        """Slug -> fingerprint of the chapters that are done."""
        return {s: e["fingerprint"] for s, e in self.data["chapters"].items() if e["state"] == "done"}

    def left(self) -> list[str]:
        """Slugs of the chapters that are not done."""
        return [slug for slug, entry in self.data["chapters"].items() if entry["state"] != "done"]

    @property
    def alive(self) -> bool:
        """Whether its run is still going on, as far as this machine can tell."""
        import psutil

        return (
            self.data["finished"] is None
            and self.data["host"] == socket.gethostname()
            and self.data["pid"] != os.getpid()
            and psutil.pid_exists(self.data["pid"])
        )


def folder_of(top: Path) -> Path:
    """Where the journals of a clone lie: ``.scprimer/runs`` in it (ignored by git), or the user's state folder."""
    if os.access(top, os.W_OK):
        return top / ".scprimer" / "runs"
    import platformdirs

    return platformdirs.user_state_path("scprimer") / "runs" / str(top.resolve()).strip("/").replace("/", "-")


def past(folder: Path) -> list[Journal]:
    """The journals in a folder, newest first; files that are no journal are passed over."""
    found = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(data, dict) and {"request", "chapters", "pid", "host", "finished"} <= set(data):
            found.append(Journal(path, data))
    return found
