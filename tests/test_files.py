from __future__ import annotations

from pathlib import Path

import pytest

from vocable.extras import need
from vocable.files import atomic_path


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
