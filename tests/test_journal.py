"""Journals: values are read back, and a line that a kill cut short costs no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocable.journal import Journal


def test_values_are_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "rows.jsonl")
    assert list(journal.read()) == []
    for values in ([{"a": 1}, [2]], ["é\u2028", None]):
        with journal.open() as append:
            for value in values:
                append(value)
                assert list(journal.read())[-1] == value, "before the file is closed"
    assert list(journal.read()) == [{"a": 1}, [2], "é\u2028", None]
    assert journal.path.read_text().count("\n") == 3


@pytest.mark.parametrize("torn", ['{"path": "torn', "\n[[", "[" * 100_000, "\xff"])
def test_damaged_lines_are_skipped(tmp_path: Path, torn: str) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    with journal.open() as append:
        append("first")
    with open(journal.path, "ab") as file:
        file.write(b"\n" + torn.encode("latin-1"))
    with journal.open() as append:
        append("last")
    assert list(journal.read()) == ["first", "last"]
