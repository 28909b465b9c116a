"""Folders of the user's code: their place among everything that can be imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import agentexec as ax
from agentexec.worker.loading import load
from agentexec.worker.target import Target
from agentexec.worker.user_folders import UserFolders


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a user, in which the test runs; what it imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def installed_beside(tmp_path: Path) -> Path:
    """Return a folder at the end of the path, which stands for that of the installed packages."""
    packages = tmp_path / "packages"
    packages.mkdir()
    sys.path.append(str(packages))
    return packages


def origin(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    return spec.origin


@pytest.mark.parametrize("name", ["json", "queue", "this", "sqlalchemy", "agents", "typing_extensions"])
def test_the_standard_library_and_our_own_needs_come_before_the_users_folder(name: str, folder: Path) -> None:
    (folder / f"{name}.py").write_text("raise SystemExit('shadowed')")
    before = origin(name)
    UserFolders([str(folder)]).install()
    sys.modules.pop("this", None)
    assert origin(name) == before != str(folder / f"{name}.py")


def test_the_users_folder_comes_before_other_packages(folder: Path) -> None:
    packages = installed_beside(folder)
    (packages / "helpers_of_users.py").write_text("")
    (folder / "helpers_of_users.py").write_text("")
    UserFolders([str(folder)]).install()
    assert origin("helpers_of_users") == str(folder / "helpers_of_users.py")


def test_a_mere_folder_hides_no_package(folder: Path) -> None:
    packages = installed_beside(folder)
    (packages / "data_of_users.py").write_text("")
    (folder / "data_of_users").mkdir()
    UserFolders([str(folder)]).install()
    assert origin("data_of_users") == str(packages / "data_of_users.py")


def test_the_file_of_a_module_is_found_without_importing_anything(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "worker.py").write_text("raise SystemExit('imported')")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "shop" / "worker.py").write_text("")
    folders = UserFolders([str(folder)])
    assert folders.file_of("src.worker") == str(folder / "src" / "worker.py")
    assert folders.file_of("shop.worker") == str(folder / "shop" / "worker.py")
    assert folders.file_of("shop.nothing") is None
    assert folders.file_of("nothing_at_all.worker") is None
    assert folders.file_of("sqlalchemy.orm") == str(Path(origin("sqlalchemy")).parent / "orm" / "__init__.py")


@pytest.mark.parametrize("name", ["json", "json.py", "redis", "redis.py:pool", "email.worker"])
def test_a_module_whose_name_is_taken_is_refused_in_a_sentence(name: str, folder: Path) -> None:
    text = "import agentexec as ax\npool = ax.Pool()\n"
    for file in ("json.py", "redis.py"):
        (folder / file).write_text(text)
    (folder / "email").mkdir()
    (folder / "email" / "__init__.py").write_text("")
    (folder / "email" / "worker.py").write_text(text)
    with pytest.raises(ax.ModuleLoadError, match=r"has the name of .*; rename it\.$"):
        load(Target.parse(name))


@pytest.mark.parametrize(
    "line", ["from json import my_own", "import redis.my_own", "import json; json.my_own"]
)
def test_an_import_of_a_file_whose_name_is_taken_says_which_file(line: str, folder: Path) -> None:
    (folder / "json.py").write_text("my_own = 1")
    (folder / "redis.py").write_text("my_own = 1")
    (folder / "the_worker.py").write_text(f"{line}\n")
    taken = "redis" if "redis" in line else "json"
    with pytest.raises(ax.ModuleLoadError) as failed:
        load(Target.parse("the_worker"))
    assert f"{folder / 'the_worker.py'}, line 1" in str(failed.value) or "redis" in line
    assert f"{folder / taken}.py has the name of" in str(failed.value)


def test_a_folder_is_installed_once(folder: Path) -> None:
    for _ in range(2):
        UserFolders([str(folder)]).install()
    assert sum(isinstance(finder, UserFolders) for finder in sys.meta_path) == 1
    assert sys.path.count(str(folder)) == 1 and sys.path[-1] == str(folder)


def test_a_file_that_imports_relatively_is_advised_to_be_named_as_a_module(folder: Path) -> None:
    (folder / "worker_of_package.py").write_text("from .db import engine\n")
    with pytest.raises(ax.ModuleLoadError, match=f"like {folder.name}.worker_of_package, from the folder"):
        load(Target.parse("worker_of_package.py"))


@pytest.mark.parametrize("name", [".", ".worker", "./worker"])
def test_what_cannot_be_a_module_is_refused(name: str) -> None:
    with pytest.raises(ax.ModuleLoadError, match="does not name a module"):
        Target.parse(name)
