"""What a run shows: a live table on a terminal, one line an event elsewhere. Plain ASCII and four escape codes."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TextIO


class Screen:
    """Lines that stay, and below them (on a terminal only) a block of rows that is redrawn in place."""

    def __init__(self, stream: TextIO | None = None, live: bool | None = None):
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty() if live is None else live
        self._shown: list[str] = []
        self._lock = threading.Lock()  # events of the workers come in a thread of their own

    def line(self, text: str = "") -> None:
        """Print something that stays."""
        with self._lock:
            rows = self._shown
            self._clear()
            self.stream.write(text + "\n")
            self._draw(rows)
            self.stream.flush()

    def table(self, rows: list[str]) -> None:
        """Replace the live rows; nothing happens away from a terminal."""
        with self._lock:
            if self.live and rows != self._shown:
                self._clear()
                self._draw(rows)
                self.stream.flush()

    def _clear(self) -> None:
        if self._shown:
            self.stream.write(f"\x1b[{len(self._shown)}F\x1b[J")  # up to the first row, erase to the end
            self._shown = []

    def _draw(self, rows: list[str]) -> None:
        if not self.live or not rows:
            return
        size = shutil.get_terminal_size()
        rows = rows[-max(size.lines - 2, 1) :]
        self.stream.write("".join(row[: size.columns - 1] + "\n" for row in rows))
        self._shown = rows


def bar(done: float, total: float, width: int = 20) -> str:
    """``[#######.............]``"""
    full = round(width * min(done / total, 1)) if total else 0
    return "[" + "#" * full + "." * (width - full) + "]"


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
