from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vocable.lock import one_at_a_time


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with one_at_a_time(out):
        with pytest.raises(ValueError, match="another run uses this folder"), one_at_a_time(out):
            pass
        with one_at_a_time(tmp_path / "other"):
            pass
    with one_at_a_time(out):  # it was let go of
        pass


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "other").mkdir()
    left = [tmp_path / ".0123456789ab.tmp.npz", tmp_path / "model" / ".ba9876543210.tmp"]
    kept = [tmp_path / "other" / left[0].name, tmp_path / ".mine.tmp", tmp_path / "a.0123456789ab.tmp"]
    for path in (*left, *kept):
        path.touch()
    with one_at_a_time(tmp_path, "model", "missing"):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_a_process_that_was_killed_holds_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time, vocable.lock as l\nwith l.one_at_a_time(sys.argv[1]):\n print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    with pytest.raises(ValueError, match="another run"), one_at_a_time(tmp_path):
        pass
    process.kill()
    process.communicate()
    with one_at_a_time(tmp_path):
        pass
