"""Prepared voices on disk: for each name a token file, and a JSON file with the consent of the speaker."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from vocable.files import atomic_path

#: Lower case alone, because some file systems do not distinguish cases.
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
_RESERVED = ("default", "con", "prn", "aux", "nul")  # the voice of no recording, and devices of Windows


@dataclass(frozen=True)
class VoiceRecord:
    """A prepared voice, without its codes."""

    name: str
    consent: str  #: who agreed to the use of the voice, in the words of the client that created it
    created: str  #: ISO 8601, UTC
    token_id: str  #: of the codec that the voice is for


class VoiceStore:
    """A folder of voices. The token files are those of `vocable tts --voice`."""

    def __init__(self, folder: Path, *, most: int) -> None:
        """most: the number of voices that are kept."""
        self.folder, self.most = folder, most
        folder.mkdir(parents=True, exist_ok=True)

    def records(self) -> list[VoiceRecord]:
        """Return the voices, by name. Token files without a readable record are left out."""
        records = (self._record(path) for path in sorted(self.folder.glob("*.json")))
        return [record for record in records if record is not None]

    def get(self, name: str) -> VoiceRecord | None:
        """Return a voice, or None if there is none of this name."""
        return self._record(self.folder / f"{name}.json") if is_name(name) else None

    def tokens(self, name: str) -> bytes | None:
        """Return the token file of a voice, or None if there is none of this name."""
        try:
            return self._tokens(name).read_bytes() if self.get(name) else None
        except FileNotFoundError:  # it was removed a moment ago
            return None

    def add(self, name: str, tokens: bytes, *, consent: str, token_id: str) -> VoiceRecord:
        """Keep a voice. Raises ValueError for a name that cannot be used or is taken, and for too many voices."""
        if not is_name(name) or name in _RESERVED:
            raise ValueError("a name has 1 to 64 of a-z, 0-9, - and _, and is not 'default'")
        if self.get(name):
            raise ValueError(f"there is a voice {name!r} already: choose another name, or delete it first")
        if len(list(self.folder.glob("*.json"))) >= self.most:
            raise ValueError(f"{self.most} voices are kept already, which is the limit: delete one first")
        record = VoiceRecord(name, consent, datetime.now(timezone.utc).isoformat(timespec="seconds"), token_id)
        with atomic_path(self._tokens(name)) as temporary:
            temporary.write_bytes(tokens)
        with atomic_path(self.folder / f"{name}.json") as temporary:  # last, because it makes the voice known
            temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        return record

    def remove(self, name: str) -> bool:
        """Remove a voice; returns whether there was one."""
        if not self.get(name):
            return False
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self._tokens(name).unlink(missing_ok=True)
        return True

    def _tokens(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _record(self, path: Path) -> VoiceRecord | None:
        try:
            record = VoiceRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return record if record.name == path.stem and is_name(record.name) else None


def is_name(name: str) -> bool:
    """Return whether this can be the name of a voice."""
    return re.fullmatch(NAME, name) is not None
