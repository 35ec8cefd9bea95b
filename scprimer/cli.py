"""The command ``scprimer``: one subcommand for each thing that one does with the book.

Exit codes: 0 all well; 1 something in the book failed (a chapter, a check); 2 a call that makes no sense; 130 stopped.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

from scprimer import __version__
from scprimer.publish import book

PROFILES = ("smoke", "standard", "full")  # as in scprimer.run, which `scprimer --help` need not import
EPILOG = """\
examples:
  scprimer list                             what there is to read
  scprimer run qc                           execute a chapter; the clone stays as it is
  scprimer run unsupervised -p dataset my.h5ad     the same chapter on your own cells
  scprimer run --all --profile smoke --workers 2   everything, small and simulated, two at a time
  scprimer doctor                           can this machine run the book?
  scprimer course ../autumn --chapters anndata qc normalisation --start 2026-10-05     a course of three sessions
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(argv).parse_args(argv)
    from scprimer.data.errors import DataError

    try:
        return args.command(args)
    except (book.BookError, DataError) as error:
        print(f"scprimer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scprimer: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `scprimer list | head`: end quietly, as other commands do
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or tempfile.gettempdir()
        print(f"scprimer: no space left on the disk of {where}: free some, or set TMPDIR to another", file=sys.stderr)
        return 1


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="scprimer",
        description="A book you can run: AI for single-cell genomics, chapter by chapter.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"scprimer {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function, words: str, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + "." + (f"\n\n{more}" if more else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=function)
        return added

    listing = command("list", _list, "show the parts and chapters, their state, minutes and promise")
    listing.add_argument("--planned", action="store_true", help="also the chapters that are not written yet")

    _run_arguments(command("run", _run, "execute chapters, in fresh kernels", RUN_WORDS))

    status = command(
        "status", _status, "say which chapters' stored outputs are fresh, aged, stale or were never recorded"
    )
    status.add_argument(
        "--stale", action="store_true", help="only those that are stale or never run; exit 1 if there are any"
    )
    status.add_argument("--aged", action="store_true", help="with --stale: count the aged ones, too")

    doctor = command("doctor", _doctor, "say in words whether this machine can run the book (exit 1 if not)")
    doctor.add_argument("--quick", action="store_true", help="do not start a kernel")

    data = command("data", _data, "list, fetch and verify the data sets")
    if argv[:1] == ["data"]:
        from scprimer.data import commands as data_commands

        data_commands.add_arguments(data)

    export = command(
        "export",
        _export,
        "write the methods that chapters define to scprimer/methods/, and what chapters took to scprimer/records/",
    )
    export.add_argument("--check", action="store_true", help="write nothing; exit 1 if something differs")

    new = command("new", _new, "start a chapter from the template")
    new.add_argument("chapter", metavar="CHAPTER", help="a planned chapter (`scprimer list --planned`)")

    build = command("build", _build, "render the book as a web site")
    build.add_argument(
        "--edition", default="standard", choices=PROFILES, help="smoke, full: execute every chapter afresh"
    )
    build.add_argument("--out", type=Path, metavar="DIR", help="where the site goes (default: _build)")
    build.add_argument("--workers", type=_positive, default=1, metavar="N", help="chapters side by side, if executed")

    course = command("course", _course, "make a course of some chapters: notebooks, assignments, slides", COURSE_WORDS)
    course.add_argument("out", type=Path, metavar="OUT", help="folder that receives the course")
    course.add_argument("--chapters", nargs="+", required=True, metavar="CHAPTER", help="one a session, in this order")
    course.add_argument(
        "--start", metavar="DATE", help="day of the first session, such as 2026-10-05; one a week follows"
    )
    course.add_argument(
        "--force", action="store_true", help="replace what an earlier call wrote to OUT, and nothing else"
    )
    return top


RUN_WORDS = """\
Each chapter is executed as a temporary copy, in a process of its own whose time and memory are watched. The clone stays
as it is, unless --record writes the outputs back. What fails is reported at the end (exit code 1), and the rest goes on;
`scprimer run --resume` does what is left of an interrupted run."""


COURSE_WORDS = """\
OUT receives notebooks for students (stubs in place of solutions) and for the teacher, nbgrader assignments whose hidden
tests are the exercises' own checks, slides, a schedule with what each session needs, and a sheet for a JupyterHub.
Nothing is executed and nothing is downloaded. OUT/README.md says what is what."""


def _run_arguments(run: argparse.ArgumentParser) -> None:
    which = run.add_argument_group("which chapters")
    which.add_argument("chapters", nargs="*", metavar="CHAPTER", help="names of chapters, or paths of their notebooks")
    which.add_argument("--all", action="store_true", help="all written chapters")
    which.add_argument(
        "--stale", action="store_true", help="those whose stored outputs are stale or were never recorded"
    )
    which.add_argument("--aged", action="store_true", help="those that have aged (with --stale: both)")
    which.add_argument("--resume", action="store_true", help="leave out what an earlier run has done with the same code and settings; alone: go on with the last run")  # fmt: skip
    how = run.add_argument_group("how")
    how.add_argument("--profile", metavar="PROFILE", help="smoke, standard or full: sizes of data and models (default: SCPRIMER_PROFILE, else standard)")  # fmt: skip
    how.add_argument("--device", metavar="DEVICE", help="cpu, cuda or mps, for chapters that use torch (default: SCPRIMER_DEVICE, else the best that is there)")  # fmt: skip
    how.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="change a parameter; `-p dataset FILE.h5ad` runs on your own cells")  # fmt: skip
    how.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="chapters side by side on this machine (default: 1)"
    )
    how.add_argument("--scheduler", metavar="ADDRESS", help="an existing Dask cluster instead, such as tcp://host:8786; its workers need the same scprimer, and the same paths for -p dataset FILE")  # fmt: skip
    how.add_argument("--threads", type=_positive, metavar="N", help="threads in each chapter (default: 1 side by side, else OMP_NUM_THREADS or all cores)")  # fmt: skip
    how.add_argument("--time-limit", type=_seconds, metavar="TIME", help="for each execution: 90s, 20m, 2h or none (default: 5m at smoke, else 1h)")  # fmt: skip
    how.add_argument("--memory-limit", type=_bytes, metavar="SIZE", help="for each execution: 500MB, 8GB or none (default: a fair share of this machine)")  # fmt: skip
    what = run.add_argument_group("what is kept")
    what.add_argument("--out", metavar="DIR", help="keep the executed notebooks here, as PART/CHAPTER.ipynb")
    what.add_argument("--record", action="store_true", help="write outputs, claims and stamp into the notebooks (standard only), after five smoke repeats have shown that the bounds are sound")  # fmt: skip
    what.add_argument("--force", action="store_true", help="with --record: replace outputs even if nothing moved (a new look of the figures)")  # fmt: skip
    what.add_argument(
        "--keep-record", action="store_true", help="with --profile full: write claims and stamp to book/records/full/"
    )


# ---- the commands ----------------------------------------------------------------------------------------------------
def _list(args: argparse.Namespace) -> int:
    from scprimer.publish import status

    print(status.listing(book.root(), planned=args.planned))
    return 0


def _run(args: argparse.Namespace) -> int:
    from scprimer.publish import runner

    top = book.root()
    signal.signal(signal.SIGTERM, _terminated)
    request = _request(args, top)
    if not request.chapters and (args.stale or args.aged):
        print("nothing is stale")
        return 0
    outcomes = runner.run(request, top, resume=args.resume)
    return 0 if all(o.state == "done" for o in outcomes) else 1


def _request(args: argparse.Namespace, top: Path):
    """What was asked for on the command line, or, for a bare ``--resume``, by the last run."""
    import dataclasses

    from scprimer.publish import runner, status
    from scprimer.run import settle_device, settle_profile

    given = {
        k: v for k in ("time_limit", "memory_limit", "threads", "scheduler") if (v := getattr(args, k)) is not None
    }
    ways = sum([bool(args.chapters), args.all, args.stale or args.aged])
    if ways > 1:
        raise book.BookError("name chapters, or give --all, or --stale: one of them")
    if args.force and not args.record:
        raise book.BookError("--force belongs to --record")
    if ways == 0 and args.resume:
        if args.parameter or args.profile or args.device or args.record or args.out or args.keep_record:
            raise book.BookError(
                "a bare --resume goes on with the last run as it was asked for: name chapters to change that"
            )
        return dataclasses.replace(runner.last_request(top), workers=args.workers, **given)
    chapters = tuple(book.find(name, top).slug for name in args.chapters)
    if args.all:
        chapters = tuple(c.slug for c in book.chapters(top))
    elif args.stale or args.aged:
        wanted = (("stale", "never run") if args.stale else ()) + (("aged",) if args.aged else ())
        chapters = tuple(slug for slug, found in status.stale(top, aged=True) if found.state in wanted)
    parameters = runner.parse_parameters(args.parameter)
    profile = _settled(settle_profile, "profile", args.profile, parameters.pop("profile", None))
    device = _settled(settle_device, "device", args.device, parameters.pop("device", None))
    return runner.Request(
        chapters=tuple(dict.fromkeys(chapters)),
        profile=profile,
        device=device,
        parameters=parameters,
        record=args.record,
        force=args.force,
        keep_record=args.keep_record,
        out=str(Path(args.out).resolve()) if args.out else None,
        workers=args.workers,
        **given,
    )


def _settled(settle, name: str, option: str | None, parameter: object) -> str:
    """What ``--name``, ``-p name`` and the environment wish together."""
    try:
        return settle(**{f"--{name}": option, f"-p {name}": parameter})
    except ValueError as error:
        raise book.BookError(str(error)) from None


def _status(args: argparse.Namespace) -> int:
    from scprimer.publish import status

    if not args.stale:
        print(status.table(book.root()))
        return 0
    found = status.stale(book.root(), aged=args.aged)
    for slug, judged in found:
        print(f"{slug}: {judged.state}: {'; '.join(judged.reasons)}")
    return 1 if found else 0


def _doctor(args: argparse.Namespace) -> int:
    from scprimer.publish import doctor

    text, able = doctor.report(doctor.examine(kernel=not args.quick))
    print(text)
    return 0 if able else 1


def _data(args: argparse.Namespace) -> int:
    from scprimer.data import commands

    return commands.main(args)


def _export(args: argparse.Namespace) -> int:
    from scprimer.publish import export, timing

    top = book.root()
    changes = export.export(top, check=args.check) + timing.write_all(top, check=args.check)
    for change in changes:
        print(f"{change.what}: {change.path.relative_to(top)}")
        if args.check:
            print(change.diff)
    if args.check and changes:
        print("run `scprimer export` and commit what it writes")
        return 1
    return 0


def _new(args: argparse.Namespace) -> int:
    from scprimer.publish import template

    print(template.new(args.chapter, book.root()))
    return 0


def _build(args: argparse.Namespace) -> int:
    from scprimer.publish import build

    more = {"out": args.out} if args.out else {}
    print(build.build(book.root(), edition=args.edition, strict=True, workers=args.workers, **more))
    return 0


def _course(args: argparse.Namespace) -> int:
    from scprimer.publish import course

    sessions = course.make(book.root(), args.out, args.chapters, start=args.start, force=args.force)
    for s in sessions:
        when = f"  {s.day.isoformat()}" if s.day else ""
        print(f"{s.number:>2}{when}  {s.chapter.slug:<18} {len(s.exercises)} exercises, {s.points} points")
    print(f"written to {args.out}: begin with {args.out / 'README.md'}")
    return 0


# ---- values ----------------------------------------------------------------------------------------------------------
def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    """``90``, ``90s``, ``20m``, ``2h`` or ``none`` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", text.lower())
    if text.lower() == "none":
        return float("inf")
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 20m, 2h or none")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]


def _bytes(text: str) -> float:
    """``500MB``, ``8GB`` or ``none`` as bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|g)b?", text.lower())
    if text.lower() == "none":
        return float("inf")
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB, 8GB or none")
    return float(found[1]) * {"m": 1e6, "g": 1e9}[found[2]]


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
