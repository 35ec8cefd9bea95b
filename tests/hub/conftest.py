"""A JupyterHub on loopback, set up as the course kit's sheet says, and people with a browser of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from chromium import SIZES, Visit
from labpage import SLOW, LabPage
from servers import free_port, serving

from scprimer.publish import book, course
from scprimer.publish.course import sheets

COURSE = ("normalisation", "anndata")  # the two chapters that are quickest at `smoke`


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.hub)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a test fails, what everybody saw at that moment is kept as a picture beside the hub's log."""
    report = yield
    if report.when == "call" and report.failed:
        for one in item.funcargs.values():
            if isinstance(one, Person):
                picture = one.hub.homes.parent / f"{item.name}-{one.name}.png"
                one.page.screenshot(path=picture)
                report.sections.append((f"what {one.name} saw", str(picture)))
    return report


def clean_environment(**more: object) -> dict[str, str]:
    """This process's environment without the settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SCPRIMER_", "JUPYTER", "GIT_", "XDG_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return kept | {"PATH": path, "JUPYTER_PLATFORM_DIRS": "0"} | {k: str(v) for k, v in more.items()}


def settings_of_everybody(folder: Path) -> Path:
    """A folder that stands for ``/etc/jupyter`` of an image: JupyterLab does not ask for news."""
    (folder / "labconfig").mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folder / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    return folder


# ---- the course and its repositories -----------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def kit(tmp_path_factory) -> Path:
    """The folder that ``scprimer course`` makes."""
    out = tmp_path_factory.mktemp("kit")
    course.make(book.root(), out, COURSE)
    return out


@pytest.fixture(scope="session")
def sheet(kit) -> str:
    return (kit / "jupyterhub.md").read_text(encoding="utf-8")


def snippet(sheet: str, name: str) -> str:
    """The settings that the sheet shows for one file, word for word."""
    (found,) = re.findall(rf"```python\n(# {name}\n.*?)```", sheet, flags=re.DOTALL)
    return found


@dataclass
class Repository:
    """A bare git repository and a checkout through which its owner changes it."""

    address: str
    checkout: Path

    @classmethod
    def of(cls, files: Path, at: Path) -> Repository:
        bare, checkout = at / "bare" / files.name, at / files.name
        git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        shutil.copytree(files, checkout)
        git("init", "--quiet", "--initial-branch=main", cwd=checkout)
        git("remote", "add", "origin", bare.as_uri(), cwd=checkout)
        made = cls(bare.as_uri(), checkout)
        made.publish("first")
        return made

    def publish(self, message: str) -> None:
        """Commit everything and push it."""
        git("add", "--all", cwd=self.checkout)
        author = ("-c", "user.name=Author", "-c", "user.email=author@example.org")
        git(*author, "commit", "--quiet", "--message", message, cwd=self.checkout)
        git("push", "--quiet", "origin", "main", cwd=self.checkout)


def git(*arguments: str, cwd: Path | None = None) -> None:
    subprocess.run(["git", *arguments], cwd=cwd, env=clean_environment(), check=True)


@pytest.fixture(scope="session")
def book_repository(root, tmp_path_factory) -> Repository:
    """The book's repository as far as a reader's notebooks need it; the package is in the hub's environment."""
    top = tmp_path_factory.mktemp("book")
    ignore = shutil.ignore_patterns(".*", "__pycache__")
    shutil.copytree(root / "notebooks", top / "scprimer" / "notebooks", ignore=ignore)
    return Repository.of(top / "scprimer", top / "git")


@pytest.fixture(scope="session")
def course_repository(kit, tmp_path_factory) -> Repository:
    """What the sheet tells a teacher to publish: ``students/`` and ``slides/``."""
    top = tmp_path_factory.mktemp("course")
    for folder in ("students", "slides"):
        shutil.copytree(kit / folder, top / "autumn" / folder)
    return Repository.of(top / "autumn", top / "git")


# ---- the hub -----------------------------------------------------------------------------------------------------------
@dataclass
class Hub:
    """A running hub; every user has a folder in ``homes``."""

    address: str
    password: str
    homes: Path
    shelf: Path  # the one copy of the data
    exchange: Path
    etc: Path  # stands for /etc/jupyter of the image


@pytest.fixture(scope="session")
def proxy(root, cannot_run) -> list[str]:
    """The command of the proxy, which tests/hub/proxy.sh has fetched."""
    program = (
        root
        / "_build"
        / "tools"
        / "hub-proxy"
        / "node_modules"
        / "configurable-http-proxy"
        / "bin"
        / "configurable-http-proxy"
    )
    node = shutil.which("node")
    if node is None or not program.is_file():
        cannot_run("the hub's proxy is not here: run `make hub` (it needs npm)")
    return [node, str(program)]


@pytest.fixture(scope="session")
def hub(root, sheet, proxy, cannot_run, tmp_path_factory) -> Hub:
    """A JupyterHub with the settings of the sheet, for the profile `smoke`."""
    for package in ("jupyterhub", "nbgitpuller", "jupyterlab"):
        if importlib.util.find_spec(package) is None:
            cannot_run(f"the package {package} is not installed (make hub installs it)")
    top = tmp_path_factory.mktemp("hub")
    etc, homes, shelf, exchange = settings_of_everybody(top / "etc"), top / "homes", top / "shelf", top / "exchange"
    (shelf / "data").mkdir(parents=True)
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    placed = {sheets.SHELF: str(shelf), sheets.EXCHANGE: str(exchange)}
    (etc / "nbgrader_config.py").write_text(moved(snippet(sheet, "nbgrader_config.py"), placed))

    ports = [free_port() for _ in range(3)]
    password = secrets.token_urlsafe(24)
    public = f"http://127.0.0.1:{ports[0]}/"
    ours = f"""
        c.JupyterHub.bind_url = {public!r}
        c.JupyterHub.hub_bind_url = "http://127.0.0.1:{ports[1]}"
        c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{ports[2]}"
        c.ConfigurableHTTPProxy.command = {proxy!r}
        c.JupyterHub.authenticator_class = "shared-password"
        c.SharedPasswordAuthenticator.user_password = {password!r}
        c.Authenticator.allow_all = True
        c.JupyterHub.spawner_class = "simple"  # all users are one account of this machine, as in the image
        c.SimpleLocalProcessSpawner.home_dir_template = {str(homes / "{username}")!r}
        c.Spawner.args = {["--allow-root"] if os.geteuid() == 0 else []!r}
        c.Spawner.environment = {{"JUPYTER_CONFIG_PATH": {str(etc)!r}, "PYTHONPATH": {str(root)!r}}}
        c.Spawner.start_timeout = c.Spawner.http_timeout = {SLOW // 1000}
    """
    smoke = snippet(sheet, "jupyterhub_config.py").replace('# "SCPRIMER_PROFILE"', '"SCPRIMER_PROFILE"')
    (top / "jupyterhub_config.py").write_text(textwrap.dedent(ours) + moved(smoke, placed))
    log = top / "log"
    with serving(
        [sys.executable, "-m", "jupyterhub"], f"{public}hub/health", env=clean_environment(), cwd=top, log=log
    ):
        yield Hub(public, password, homes, shelf / "data", exchange, etc)


def moved(settings: str, places: dict[str, str]) -> str:
    """Settings with the sheet's folders replaced by those of the test."""
    for old, new in places.items():
        settings = settings.replace(old, new)
    return settings


class Person:
    """Somebody with a name, a browser, and a home on the hub."""

    def __init__(self, name: str, hub: Hub, browser):
        self.name, self.hub, self.home = name, hub, hub.homes / name
        self.context = browser.new_context(viewport=SIZES["desktop"])
        self.visit = Visit(self.context, hub.address)
        self.page = self.visit.page
        self.page.set_default_timeout(SLOW)

    def log_in(self) -> None:
        """Fill in the hub's form, which every address leads to at first."""
        self.page.locator("#username_input").fill(self.name)
        self.page.locator("#password_input").fill(self.hub.password)
        self.page.locator("#login_submit").click()

    def arrive(self) -> None:
        """Log in, if that has not happened, and wait for the own server, which makes the home."""
        self.page.goto(f"{self.hub.address}hub/spawn/{self.name}", wait_until="commit")
        self.page.wait_for_load_state()
        if "/hub/login" in self.page.url:
            self.log_in()
        self.page.wait_for_url(f"**/user/{self.name}/lab*")

    def follow(self, link: str, *, opens: str) -> LabPage:
        """Open a link to the hub and wait until it has led to the notebook ``opens`` in JupyterLab."""
        self.page.goto(link, wait_until="commit")
        self.page.wait_for_load_state()
        if "/hub/login" in self.page.url:
            self.log_in()
        self.page.wait_for_url(f"**/user/{self.name}/lab/tree/{opens}*")
        return LabPage(self.page, f"{self.hub.address}user/{self.name}/", self.home, opens)

    def run(self, name: str, *sources: str) -> list:
        """Run a notebook with these cells on the hub; its cells with what they wrote."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.home / name)
        return self.follow(f"{self.hub.address}user/{self.name}/lab/tree/{name}?reset", opens=name).run_all()

    def foreign_requests(self) -> list[str]:
        return [fault for fault in self.visit.faults if "another host" in fault]


@pytest.fixture(scope="session")
def person(hub, browser) -> Callable[[str], Person]:
    """People by name; each keeps one browser throughout."""
    known: dict[str, Person] = {}

    def named(name: str) -> Person:
        if name not in known:
            known[name] = Person(name, hub, browser)
        return known[name]

    yield named
    for one in known.values():
        one.context.close()


@pytest.fixture(scope="session")
def ada(person) -> Person:
    """A reader who works in the book's own repository."""
    return person("ada")


@pytest.fixture(scope="session")
def bob(person) -> Person:
    """A student of the course."""
    return person("bob")


def link(template: str, hub: Hub, repository: Repository) -> str:
    """A link of the sheet, with its placeholders replaced as the sheet says."""
    folder = repository.address.rsplit("/", 1)[-1]
    return (
        template.replace("https://YOUR-HUB/", hub.address)
        .replace("YOUR-REPOSITORY", quote(repository.address, safe=""))
        .replace("YOUR-FOLDER", folder)
    )
