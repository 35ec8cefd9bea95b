"""What ``scprimer data list | pull | verify`` does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from scprimer.data.download import cache_folder, damaged, fetch_files, mirror_folder, whereabouts
from scprimer.data.errors import DataError
from scprimer.data.registry import DataSet, describe, names

Print = Callable[[str], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``list``, ``pull`` and ``verify`` to the parser of ``scprimer data``."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | pull | verify")
    show = verbs.add_parser(
        "list", help="the registered data sets: size, licence, what they are, whether they are here"
    )
    show.add_argument("names", nargs="*", metavar="NAME", help="tell all about these")
    pull_ = verbs.add_parser("pull", help="fetch data sets ahead of time")
    pull_.add_argument("names", nargs="*", metavar="NAME", help="data sets (see `scprimer data list`)")
    pull_.add_argument("--part", help="only the files that this part needs")
    pull_.add_argument("--all", action="store_true", help="every data set of the registry")
    verify_ = verbs.add_parser("verify", help="hash the files that are here and compare with the registry")
    verify_.add_argument("names", nargs="*", metavar="NAME", help="data sets; default: all that are here")


def main(args: argparse.Namespace) -> int:
    """Run the parsed command; 0 when all went well, 1 when something is wrong, 2 for a wrong call."""
    if args.verb == "list":
        for name in args.names:
            describe_dataset(describe(name))
        if not args.names:
            list_datasets()
        return 0
    if args.verb == "verify":
        return 0 if verify(args.names) else 1
    if bool(args.names) == args.all:
        print("name the data sets to pull, or --all (`scprimer data list` shows them)")
        return 2
    return 0 if pull(names() if args.all else args.names, part=args.part) else 1


def list_datasets(print: Print = print) -> None:
    """Print one line a data set, and where files are looked for."""
    entries = [describe(name) for name in names()]
    rows = [("name", "MB", "here", "licence", "what it is")]
    rows += [(e.name, f"{e.bytes / 1e6:.1f}", whereabouts(e), e.licence, e.title) for e in entries]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, size, here, licence, title in rows:
        print(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {here:<{widths[2]}}  {licence:<{widths[3]}}  {title}")
    print(f"\n{len(entries)} data sets, {sum(e.bytes for e in entries) / 1e6:.0f} MB. Cache: {cache_folder()}")
    mirror = mirror_folder()
    print(f"Mirror: {mirror}" if mirror else "No mirror (SCPRIMER_MIRROR is not set).")


def describe_dataset(entry: DataSet, print: Print = print) -> None:
    """Print all that the registry knows about one data set."""
    print(f"{entry.name}: {entry.title}")
    rows = {
        "organism": entry.organism,
        "values": entry.x,
        "labels": entry.labels,
        "remark": entry.remark,
        "licence": f"{entry.licence} ({entry.licence_note})" if entry.licence_note else entry.licence,
        "citation": entry.citation,
        "parts": ", ".join(entry.parts),
        "here": whereabouts(entry),
        "files": f"{len(entry.files)}, {entry.bytes / 1e6:.1f} MB, from {_host(entry)}",
    }
    for key, value in rows.items():
        if value:
            print(f"  {key:<9} {value}")


def pull(wanted: Sequence[str], *, part: str | None = None, print: Print = print) -> bool:
    """Fetch data sets, going on after one that fails; whether all are here now.

    Raises:
        DataError: a name or part is unknown (nothing is fetched then).
    """
    entries = [describe(name) for name in wanted]
    for entry in entries:
        if part is not None:
            entry.check_part(part)
    failed = 0
    for entry in entries:
        try:
            folder = fetch_files(entry, part)
        except DataError as error:
            failed += 1
            print(f"{entry.name}: FAILED: {error}")
        else:
            size = sum(f.bytes for f in entry.files_for(part))
            print(f"{entry.name}: {size / 1e6:.1f} MB in {folder}")
    if failed:
        print(f"{failed} of {len(entries)} could not be had")
    return not failed


def verify(wanted: Sequence[str] = (), *, print: Print = print) -> bool:
    """Hash every file that is here and compare with the registry; whether all is well.

    Args:
        wanted: data sets that must be here and right; with none: all, of which those that are not here are passed over.
        print: where lines go.
    """
    well = True
    for entry in [describe(name) for name in (wanted or names())]:
        here = whereabouts(entry)
        bad = damaged(entry)
        for path in bad:
            print(f"{entry.name}: DAMAGED {path}: remove it; `scprimer data pull {entry.name}` fetches it again")
        if here in ("absent", "partly") and not bad and wanted:
            print(f"{entry.name}: {here}: `scprimer data pull {entry.name}` fetches it")
        elif not bad and here != "absent":
            print(f"{entry.name}: {'right' if here != 'partly' else 'right as far as it is here'} ({here})")
        well = well and not bad and not (wanted and here in ("absent", "partly"))
    return well


def _host(entry: DataSet) -> str:
    """``host/owner/repository`` of the first file."""
    return "/".join(entry.files[0].url.split("://")[-1].split("/")[:3])
