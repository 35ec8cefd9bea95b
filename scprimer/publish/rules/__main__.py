"""``python -m scprimer.publish.rules [CHAPTER ...]``: print every violation, in all written chapters by default."""

from __future__ import annotations

import sys

from scprimer.publish import book
from scprimer.publish.rules import check


def main(names: list[str]) -> int:
    """Print the violations of the named chapters; 1 when there are any, 2 when a chapter cannot be read."""
    try:
        chapters = [book.find(name) for name in names] if names else book.chapters()
        found = [(chapter.slug, violation) for chapter in chapters for violation in check(chapter)]
    except book.BookError as error:
        print(error, file=sys.stderr)
        return 2
    for slug, violation in found:
        print(f"{slug}: {violation}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
