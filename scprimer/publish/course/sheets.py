"""The sheets of the kit, as markdown: what is where, the schedule with what each session needs, and the JupyterHub."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from scprimer.publish import job, ledger, status
from scprimer.publish.course import assignments
from scprimer.publish.course.session import POINTS, Session
from scprimer.publish.sphinxext import words

UNKNOWN = "not measured"
HEADROOM = 1.25  # memory to grant, over the highest that was measured
STEP_MB = 500  # memory is granted in such steps
SHELF = "/srv/scprimer"  # where the sheet puts the one copy of the data
EXCHANGE = "/srv/nbgrader/exchange"  # and what students hand in
CLASSES = (10, 20, 40)  # students at once, for the sums


def readme(sessions: Sequence[Session]) -> str:
    """What lies where, and what to do with it."""
    first = sessions[0].chapter.slug
    listed = "\n".join(f"{s.number}. {s.chapter.title} (`{s.name}`)" for s in sessions)
    points = ", ".join(f"{level} {n}" for level, n in POINTS.items())
    return f"""# A course from the book

{listed}

| what | for whom | what it is |
|---|---|---|
| `schedule.md` | you | sessions, exercises, points, and what each session needs |
| `students/` | students | the chapters, with stubs in place of the solutions and all other outputs kept |
| `slides/` | you, students | one page a session, no network needed: arrow keys turn, `N` shows the notes, printing makes a PDF |
| `teacher/` | you alone | the chapters with solutions, what each check asks for, and wrong answers that it refuses |
| `nbgrader/` | you alone | one assignment a session, marked by nbgrader |
| `jupyterhub.md` | whoever runs your hub | image, links, data, memory and disk |
| `manifest.json` | the program | what it wrote; `scprimer course --force` replaces these files only, and none that you have edited |

## Assignments

The hidden tests are the exercises' own checks. Points: {points} for each exercise of that level; change them in
nbgrader's *formgrader* or in the metadata of the cells.

```sh
pip install nbgrader
cd nbgrader
nbgrader generate_assignment {first}     # source/ -> release/: what students get
# students' files go to submitted/STUDENT/{first}/{first}.ipynb
nbgrader autograde {first}               # -> autograded/
nbgrader generate_feedback {first}       # -> feedback/: a page for each student
nbgrader export                          # grades.csv
```

Autograding runs what students wrote. Do it in a container or under an account that can harm nothing. nbgrader's feedback
pages load MathJax from the web to show formulas; all else of this kit asks for nothing from elsewhere.

The book is public, solutions and checks included. The marks show who has worked, not who knows: where more depends on them,
change the numbers in the set-up cells and checks of `nbgrader/source/`, or let students explain their answers.
"""


def schedule(sessions: Sequence[Session]) -> str:
    """The sessions, their exercises, and what each needs."""
    dated = sessions[0].day is not None
    head = (
        "| session | "
        + ("day | " if dated else "")
        + "chapter | exercises | points |"
        + (" hand in by |" if dated else "")
    )
    rows = [head, "|" + "---|" * (head.count("|") - 1)]
    for s in sessions:
        when = f" {s.day.isoformat()} |" if dated else ""
        due = f" {s.due.isoformat()} |" if dated else ""
        rows.append(f"| {s.number} |{when} {s.chapter.title} | {len(s.exercises)} | {s.points} |{due}")
    parts = ["# Schedule", "\n".join(rows)]
    if not dated:
        parts.append("No days: `--start 2026-10-05` would set them, a session a week.")
    parts += ["## What each session needs", _needs(sessions)]
    parts += [_session(s, sessions) for s in sessions]
    return "\n\n".join(parts) + "\n"


def _needs(sessions: Sequence[Session]) -> str:
    profiles = ledger.PROFILES
    rows = [
        f"| chapter | {' | '.join(f'time, {p}' for p in profiles)} | peak memory | download |",
        f"|---|{'---|' * (len(profiles) + 2)}",
    ]
    for s in sessions:
        times = " | ".join(_minutes(s.stamps.get(p, {})) for p in profiles)
        stamp = s.stamps.get("standard", {})
        rows.append(
            f"| {s.chapter.title} | {times} | {_memory(stamp.get('peak_mb'))} | {_memory(stamp.get('downloaded_mb'))} |"
        )
    how = sorted({_hardware(s.stamps["standard"]) for s in sessions if "standard" in s.stamps})
    note = f"Peak memory and download are those of `standard`. Measured on: {'; '.join(how)}. " if how else ""
    if keepers := _keepers(sessions):
        note += f"Where stored checkpoints were used{keepers}, a first run takes longer. "
    return "\n".join(rows) + f"\n\n{note}Exercises need no download and take seconds.\n\n{_total(sessions)}"


def _total(sessions: Sequence[Session]) -> str:
    names = data_sets(sessions)
    if not names:
        return "No session needs a data set from outside, as far as was recorded."
    return f"Data sets of the course: {', '.join(f'`{n}`' for n in names)}, {words.memory(megabytes(names))} together."


def _session(s: Session, sessions: Sequence[Session]) -> str:
    taught = {other.chapter.slug for other in sessions if other.number < s.number}
    lines = [f"## {s.number}. {s.chapter.title}", status.promise(s.chapter)]
    if s.needs:
        names = [ledger.chapter_name(slug) + ("" if slug in taught else " (not taught before)") for slug in s.needs]
        lines.append(f"Its code imports methods from: {', '.join(names)}.")
    lines.append(
        "\n".join(
            f"{n}. {e.title} ({e.level}, {POINTS[e.level]} point{'s' if POINTS[e.level] > 1 else ''}"
            f"{', marked by hand' if e.open else ''})"
            for n, e in enumerate(s.exercises, 1)
        )
    )
    return "\n\n".join(lines)


def hub(sessions: Sequence[Session], given: int) -> str:
    """How to run the course on a JupyterHub, with sizes from the recorded runs.

    Args:
        sessions: the sessions.
        given: bytes of the files that each student gets.
    """
    names = data_sets(sessions)
    peak, where = max(
        ((s.stamps.get("standard", {}).get("peak_mb") or 0, s.chapter.title) for s in sessions), key=lambda x: x[0]
    )
    unmeasured = [s.chapter.slug for s in sessions if "peak_mb" not in s.stamps.get("standard", {})]
    links = "\n".join(f"- {s.chapter.title}: `{_pull(s)}`" for s in sessions)
    first = sessions[0].chapter.slug
    return f"""# The course on a JupyterHub

The book's tests do what this sheet says on a hub of their own (`make hub`): settings, links, exchange.

## Image

The repository's `Dockerfile` builds a single-user image with the book, its pinned packages, JupyterLab, nbgrader and
nbgitpuller:

```sh
docker build -t scprimer .
```

Name `scprimer` as the single-user image of your spawner (KubeSpawner, DockerSpawner). It starts `jupyterhub-singleuser`
when a hub starts it. The package `jupyterhub` in the image should have the version of your hub: name that with
`--build-arg JUPYTERHUB_VERSION=...`. The book lies in `/opt/scprimer` of the image, so a user's own disk may be mounted as the
home, `/home/jovyan`.

## Settings

```python
{_settings(names, peak)}```

A value under `environment` reaches every notebook; `notebook_dir` is where the links clone to. On Kubernetes (Zero to
JupyterHub) write them as `singleuser.extraEnv`, `singleuser.defaultUrl`, `singleuser.memory.limit`, `singleuser.cpu.limit` and
`hub.config.Spawner.notebook_dir`. A server that runs
already keeps its old settings: stop it and start it again.

## Data: one copy for everyone

{_mirror(names)}

## Memory, processors, disk

{_memory_words(peak, where, unmeasured)}

What students get (notebooks and slides) takes {words.memory(given / 1e6)} in each home, {words.memory(CLASSES[-1] * given / 1e6)} for {CLASSES[-1]} of them.
Checkpoints of long trainings come on top where chapters keep them{_keepers(sessions)}; how large they are was not recorded.

The settings above are those of the measurements: one thread for every numerical library (all of the variables, since each
library reads its own, and one that is left out can raise the number for the others), and an allocator that keeps freed
memory. One processor a student keeps to the times in `schedule.md`; with fewer processors than students at work, times
grow in proportion.
For a session on a weak server, `SCPRIMER_PROFILE=smoke`: the same chapters on small simulated data, without a
download.

## Students' files

Put `students/` and `slides/` (nothing else of this kit) into a git repository that students can read. With
[nbgitpuller](https://nbgitpuller.readthedocs.io) a link clones it into their home and opens a chapter, and a second click
brings changes without touching what they wrote. In these links replace `YOUR-HUB`, and `YOUR-REPOSITORY` by its address
(percent-encoded) and `YOUR-FOLDER` by the last part of that address, as it stands there (with `.git`, if it ends so):

{links}

In a student's notebook *Run All Cells* runs the chapter and stops at the first exercise that has no answer yet
(`NotImplementedError`): all that comes before, the report on the claims included, has run then.

## Assignments

The students' versions are in `nbgrader/release/` once `nbgrader generate_assignment` has run. The simplest way: put them
beside the chapters in that repository, and let students hand in through your learning platform; `nbgrader zip_collect`
sorts a download of all files into `submitted/`.

With one file system for everybody, nbgrader's exchange does both ways. It is a folder that every server mounts under the
same path and everybody may write to (`mkdir -p {EXCHANGE} && chmod 777 {EXCHANGE}`), and one file in
`/etc/jupyter/` of the image:

```python
# nbgrader_config.py
c = get_config()
c.Exchange.root = "{EXCHANGE}"
c.CourseDirectory.course_id = "{assignments.COURSE}"
# Where everybody is `jovyan`, as in the book's image, the owner of a file says nothing about who handed it in:
c.ExchangeCollect.check_owner = False
```

| who | where | what |
|---|---|---|
| you | `nbgrader/` of this kit | `nbgrader generate_assignment {first}`, `nbgrader release_assignment {first}` |
| a student | their home | `nbgrader list`, `nbgrader fetch_assignment {first}`, then, when they are done, `nbgrader submit {first}` |
| you | `nbgrader/` of this kit | `nbgrader collect {first}`, `nbgrader autograde {first}`, `nbgrader generate_feedback {first}`, `nbgrader release_feedback {first}` |
| a student | their home | `nbgrader fetch_feedback {first}` |

Students type these in a terminal of JupyterLab, or press the buttons of *Nbgrader → Assignment List*. A student is known by
the name of their account, and in the image, where all are `jovyan`, by their name on the hub. Then the exchange
protects nobody from anybody: all files belong to the same account, so a student who looks for it can read and change what
others handed in. Use it where students have accounts of their own or can be trusted, and the learning platform elsewhere.

Mark in a server of its own, started from the same image: what is run there was written by students.
"""


def _settings(names: Sequence[str], peak: float) -> str:
    """The lines for the hub's configuration; the tests of the hub run them."""
    lines = [
        "# jupyterhub_config.py",
        'c.Spawner.default_url = "/lab"',
        'c.Spawner.notebook_dir = "~"',
        "c.Spawner.environment.update({",
    ]
    if names:
        lines.append(f'    "SCPRIMER_MIRROR": "{SHELF}/data",  # one copy of the data, see below')
    lines += [f'    "{name}": "1",' for name in job.THREAD_VARIABLES]
    lines += [f'    "{name}": "{value}",' for name, value in job.KEEP_MEMORY.items()]
    lines += [
        '    # "SCPRIMER_PROFILE": "smoke",  # on a weak server: small simulated data',
        "})",
    ]
    if peak:
        lines.append(f'c.Spawner.mem_limit = "{granted(peak)}M"')
    lines.append("c.Spawner.cpu_limit = 1")
    return "\n".join(lines) + "\n"


def _chapters(slugs: Sequence[str]) -> str:
    return ", ".join(map(ledger.chapter_name, slugs))


def _keepers(sessions: Sequence[Session]) -> str:
    """The chapters that keep checkpoints, in brackets."""
    slugs = [s.chapter.slug for s in sessions if s.stamps.get("standard", {}).get("checkpoints")]
    return f" ({_chapters(slugs)})" if slugs else ""


def _mirror(names: Sequence[str]) -> str:
    if not names:
        return "The recorded runs needed no data set from outside."
    return f"""All sessions together need {len(names)} data sets, {words.memory(megabytes(names))}. Fetch them once, on a disk that every server mounts
(read-only for students):

```sh
SCPRIMER_CACHE={SHELF} scprimer data pull {" ".join(names)}
```

`SCPRIMER_MIRROR={SHELF}/data` then points everybody at it. Files are read in place and checked against their hashes; nothing
is copied into homes. A data set that is not in this folder is downloaded into the home of whoever asks for it, and without a
network the error names the file, its address and this variable."""


def _memory_words(peak: float, where: str, unmeasured: Sequence[str]) -> str:
    if not peak:
        return "No chapter of this course has a recorded run: its memory is unknown."
    grant = granted(peak)
    rows = "\n".join(f"| {n} | {words.memory(n * grant)} | {words.memory(n * peak)} |" for n in CLASSES)
    note = f" Not measured: {_chapters(unmeasured)}." if unmeasured else ""
    return f"""The chapter that takes most is *{where}*, {words.memory(peak)} at `standard`. Grant each student {words.memory(grant)}: that is {HEADROOM - 1:.0%} more,
rounded up, for the notebook server and an open second notebook.{note} Everybody at the peak in the same moment is the worst case.

| students at once | granted | all at the peak |
|--:|--:|--:|
{rows}"""


def granted(peak_mb: float) -> int:
    """Memory to grant a student, in megabytes."""
    return math.ceil(peak_mb * HEADROOM / STEP_MB) * STEP_MB


def data_sets(sessions: Sequence[Session]) -> list[str]:
    """Names of the data sets that the recorded runs loaded, each once, in order."""
    return list(dict.fromkeys(name for s in sessions for name in s.stamps.get("standard", {}).get("data", {})))


def megabytes(names: Sequence[str]) -> float:
    """Size of all files of registered data sets, in megabytes."""
    from scprimer import data

    return sum(data.describe(name).bytes for name in names) / 1e6


def _pull(s: Session) -> str:
    path = quote(f"lab/tree/YOUR-FOLDER/students/{s.name}.ipynb", safe="")
    return f"https://YOUR-HUB/hub/user-redirect/git-pull?repo=YOUR-REPOSITORY&branch=main&urlpath={path}"


def _minutes(stamp: Mapping[str, Any]) -> str:
    return words.minutes(stamp["seconds"]) if "seconds" in stamp else UNKNOWN


def _memory(megabytes: float | None) -> str:
    return UNKNOWN if megabytes is None else words.memory(megabytes)


def _hardware(stamp: Mapping[str, Any]) -> str:
    return f"{words.device(stamp)}, {stamp.get('date', 'no date')}"
