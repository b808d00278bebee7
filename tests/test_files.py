from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from vocable.extras import need
from vocable.files import atomic_path, same_plan_or_refuse, walk


def test_an_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists() and temporary.suffix == ".txt"
    assert target.read_text() == "new"
    with atomic_path(target) as temporary:
        temporary.unlink()
        temporary.touch(0o600)
        temporary.write_text("new")
    (tmp_path / "usual").touch()
    assert target.stat().st_mode == (tmp_path / "usual").stat().st_mode
    for failure in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(failure), atomic_path(target) as temporary:
            temporary.write_text("half")
            raise failure
    assert [p.name for p in target.parent.iterdir()] == ["out.txt"] and target.read_text() == "new"


def test_a_missing_need_names_its_extra() -> None:
    with pytest.raises(ImportError, match=r"pip install 'vocable\[plot\]'"):
        need("no_such_module", "plot")


def test_any_name_that_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / f"{'a' * 251}.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk" / "real.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path / "disk"
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "disk" / "real.txt").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        with atomic_path(tmp_path / "pipe") as temporary:
            temporary.write_text("through")
        assert read.result() == "through" and (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="No space left"), atomic_path("/dev/full") as temporary:
        temporary.write_text("new")
    with atomic_path("/dev/null") as temporary:
        temporary.write_text("new")
    assert Path("/dev/null").is_char_device()


def test_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert synced == [3]


def test_a_full_disk_is_known_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="not written") as caught, atomic_path(tmp_path / "x.wav"):
        raise RuntimeError("System error.")
    assert caught.value.errno is None
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=999))
    with pytest.raises(OSError, match="no space left") as caught, atomic_path(tmp_path / "x.wav"):
        raise RuntimeError("System error.")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder)]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_folders_are_walked_through_links_but_not_in_circles(tmp_path: Path) -> None:
    root, real = tmp_path / "root", tmp_path / "real"
    for folder in (root / "b", root / ".hidden", real / "carl"):
        folder.mkdir(parents=True)
        (folder / "x.wav").touch()
    (root / "b" / "._x.wav").touch()
    (root / "a.wav").symlink_to("nowhere.wav")
    (root / "carl").symlink_to(real / "carl")
    (root / "b" / "up").symlink_to(root)
    (real / "carl" / "back").symlink_to(root)
    os.mkfifo(root / "pipe.wav")
    assert names(root) == ["a.wav", "b/x.wav", "carl/x.wav"]
    with pytest.raises(OSError):
        names(tmp_path / "absent")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "x.wav").touch()
    list_folder = Path.iterdir

    def listed(folder: Path) -> Iterator[Path]:
        if folder.name == "lost+found":
            raise PermissionError
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", listed)
    assert names(tmp_path) == ["lost+found", "x.wav"]


def test_a_plan_that_differs_is_refused_and_said(tmp_path: Path) -> None:
    same_plan_or_refuse(tmp_path, {"layers": [0, 1], "manifest": "a"}, "plan")
    same_plan_or_refuse(tmp_path, {"layers": (0, 1), "manifest": "a"}, "plan")
    with pytest.raises(ValueError, match=r"begun with another plan.*different: added, manifest\)"):
        same_plan_or_refuse(tmp_path, {"layers": [0, 1], "manifest": "b", "added": 1}, "plan")
    for content in ("{", "[" * 100_000, "[]"):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(ValueError, match="choose another folder"):
            same_plan_or_refuse(tmp_path, {"layers": [0, 1]}, "plan")
