"""Check that libsndfile will read all samples of an audio file, and correct headers that prevent it.

libsndfile takes the length of a file from its header. So it reads a truncated file as a shorter recording, an MP3 file
without a Xing header up to an estimated length, and only the first of concatenated files (`cat a.ogg b.ogg`).
"""

from __future__ import annotations

import contextlib
import mmap
import re
import struct
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

#: A copy of a file with another header: new bytes, and byte ranges (start, stop) of the original file.
Pieces = list[bytes | tuple[int, int]]


class CutShort(ValueError):
    """Bytes are missing at the end of a file."""


class Unreadable(ValueError):
    """libsndfile cannot read all of a file.

    options: options with which ffmpeg reads all of it (None: it cannot, and the message says what to do).
    """

    def __init__(self, message: str, options: str | None = "") -> None:
        super().__init__(message)
        self.options = options


@contextlib.contextmanager
def whole(path: Path, *, thorough: bool = True) -> Iterator[Path]:
    """Yield a file that libsndfile reads to its end: `path`, or a temporary copy with a corrected header.

    thorough: read all of a FLAC file to find a second one after it. Raises CutShort or Unreadable, without the path in
    the message, if samples would be lost.
    """
    pieces: Pieces | None = None
    if path.stat().st_size:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pieces = _examine(data, path.suffix.lower(), thorough)
    if pieces is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "audio")
        with open(path, "rb") as file, open(copy, "wb") as written:
            for piece in pieces:
                if isinstance(piece, bytes):
                    written.write(piece)
                    continue
                at, stop = piece
                file.seek(at)
                while block := file.read(min(stop - at, 1 << 20)):
                    written.write(block)
                    at += len(block)
        yield copy


def _examine(data: mmap.mmap, suffix: str, thorough: bool) -> Pieces | None:
    """Return the pieces of a corrected copy; None if the file needs no correction."""
    start = _end_of_id3(data, 0)
    magic = data[start : start + 4]
    if magic == b"fLaC":
        if thorough and data.find(b"fLaC\0\0\0\x22", start + 4) > 0:
            raise Unreadable("holds several FLAC files, one after the other")
        return None
    if magic == b"OggS":
        _check_ogg(data, start)
        return None
    if (end := _stated_end(data, start)) is not None:
        return _check_end(data, start, end)
    return _check_mp3(data, start) if _HEADER.match(magic) or suffix == ".mp3" else None


def _end_of_id3(data: mmap.mmap, at: int) -> int:
    """Return the end of the ID3v2 tags that begin at `at`."""
    while data[at : at + 3] == b"ID3" and len(size := data[at + 6 : at + 10]) == 4:
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
    return at


# ---- containers whose header states their size -----------------------------------------------------------------------

#: Of each kind of header: offset of the size, its format, and the number of bytes that it does not count.
_SIZES = {
    b"RIFF": (4, "<I", 8),  # WAV
    b"RIFX": (4, ">I", 8),
    b"FORM": (4, ">I", 8),  # AIFF
    b"RF64": (20, "<Q", 8),
    b"riff": (16, "<Q", 0),  # W64
    b".snd": (8, ">I", 0),  # AU; the size does not count the header
}
#: Programs that do not know the size yet write 0, or a number of at least about this size.
_UNKNOWN = 0x7FFFF000
#: Fewer bytes than this after the stated end are ignored.
_NEGLIGIBLE = 65_536


def _stated_end(data: mmap.mmap, start: int) -> int | None:
    """Return the end of the file that its header states: 0 if it states none, None for other kinds of files."""
    magic = data[start : start + 4]
    try:
        if magic == b"NIST":
            header = data[start : start + 1024]
            fields = dict(re.findall(rb"(sample_count|channel_count|sample_n_bytes) -i (\d+)", header))
            count, channels, width = (int(fields[k]) for k in (b"sample_count", b"channel_count", b"sample_n_bytes"))
            return None if b"shorten" in header else start + int(header[8:16]) + count * channels * width
        if magic == b"caff":
            at = start + 8
            while at < len(data) and data[at : at + 4] != magic:
                [size] = struct.unpack_from(">q", data, at + 4)
                if size < 0:
                    return 0
                at += 12 + size
            return at
        form = data[start + 8 : start + 12]
        if magic not in _SIZES or (magic[:2] in (b"RI", b"RF") and form != b"WAVE"):
            return None
        at, kind, left_out = _SIZES[magic]
        [stated] = struct.unpack_from(kind, data, start + at)
        if magic == b".snd":
            left_out = int.from_bytes(data[start + 4 : start + 8], "big")
    except (struct.error, KeyError, ValueError):  # not a file of these kinds
        return None
    return start + stated + left_out if 0 < stated < (_UNKNOWN if kind[1] == "I" else 2**62) else 0


def _check_end(data: mmap.mmap, start: int, end: int) -> Pieces | None:
    """Compare the stated end with the size of the file; return the pieces of an unfinished WAV file, otherwise None.

    Raises CutShort for missing bytes, Unreadable for more bytes than stated.
    """
    if len(data) + 1 < end:  # some programs omit the pad byte of the last chunk
        raise CutShort
    if data[start : start + 4] == b"RIFF" and (pieces := _unfinished_wav(data, start)):
        return pieces
    if not end or end >= len(data):
        return None
    rest = data[end : end + _NEGLIGIBLE]
    if rest[:4] == data[start : start + 4]:
        raise Unreadable(f"holds several recordings, one after the other: split it at byte {end}", None)
    tag = re.match(rb"[\w ]{3}", rest)
    if len(rest) == _NEGLIGIBLE and any(rest) and not tag:
        left = len(data) - end
        raise Unreadable(f"its header is wrong: {left} bytes follow the end that it states", "-ignore_length 1")
    return None


def _unfinished_wav(data: mmap.mmap, start: int) -> Pieces | None:
    """Return the pieces of a WAV file with corrected sizes, if the program that wrote it ended before it wrote them."""
    at, name, size = start + 12, b"", 0
    while name != b"data":
        at += size + size % 2
        if at + 8 > len(data):
            return None
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
    if size < _UNKNOWN and at + size > len(data) + 1:
        raise CutShort
    if size or at == len(data) or re.match(rb"[\w ]{4}", data[at : at + 4]):  # a stated size, no samples, other chunk
        return None
    unknown = b"\xff" * 4
    return [(0, start + 4), unknown, (start + 8, at - 4), unknown, (at, len(data))]


# ---- Ogg -------------------------------------------------------------------------------------------------------------

_BEGINS, _ENDS = 2, 4  #: flags of the first and of the last page of a stream


def _check_ogg(data: mmap.mmap, at: int) -> None:
    """Raise CutShort if the last page is not the end of a stream, Unreadable if another stream follows the first."""
    flags, streams_begin = 0, True
    while at >= 0 and at + 27 <= len(data):
        flags = data[at + 5]
        if flags & _BEGINS and not streams_begin:
            raise Unreadable("holds several Ogg streams, one after the other")
        streams_begin = bool(flags & _BEGINS)
        sizes = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + data[at + 26] + sum(sizes)
        if at > len(data):
            raise CutShort
        if data[at : at + 4] != b"OggS":
            at = data.find(b"OggS", at)  # -1: no Ogg page follows the last one
    if (at >= 0 and data[at : at + 4]) or not flags & _ENDS:
        raise CutShort


# ---- MP3 -------------------------------------------------------------------------------------------------------------

_RATES = (44100, 48000, 32000)
_KILOBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KILOBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5


#: The first bytes of a frame of layer III.
_HEADER = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]", re.DOTALL)


@lru_cache(maxsize=4096)
def _frame_size(header: bytes) -> int:
    """Return the number of bytes of the layer III frame that begins with these four bytes; 0 for an invalid header."""
    if len(header) < 4 or not _HEADER.match(header) or header[2] & 0x0C == 0x0C:
        return 0
    bits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    version = header[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    if version == 3:
        return 144_000 * _KILOBITS_1[bits] // _RATES[rate] + padding
    return 72_000 * _KILOBITS_2[bits] // (_RATES[rate] // (2 if version == 2 else 4)) + padding


def _kind(header: bytes) -> tuple[int, int, bool]:
    """Return the properties that all frames of a stream share: version and layer, sample rate, whether it is mono."""
    return header[1] & 0xFE, header[2] & 0x0C, header[3] >= 0xC0


def _side_information(header: bytes) -> int:
    """Return the number of bytes between a frame's header and its data."""
    mono = header[3] >= 0xC0
    return (17 if mono else 32) if header[1] & 8 else (9 if mono else 17)


def _check_mp3(data: mmap.mmap, start: int) -> Pieces | None:
    """Return the pieces of a stream with a Xing header that states the right number of frames; None if it has one.

    Raises CutShort for missing frames, Unreadable for frames of several kinds.
    """
    first = data[start : start + 4]
    info = start + 4 + _side_information(first) if _frame_size(first) else 0
    stated = None
    if data[info : info + 4] in (b"Xing", b"Info") and info + 16 <= len(data):
        flags, frames, size = struct.unpack_from(">III", data, info + 4)
        stated = frames if flags & 1 else None
        if flags & 3 == 3 and size in (len(data) - start, len(data) - start - 128):  # and an ID3v1 tag
            return None
    count, ranges = 0, list[tuple[int, int]]()
    at, header, in_step = start, b"", False
    while at < len(data) - 4:
        this = data[at : at + 4]
        stop = at + _frame_size(this)
        expected = in_step and stop > at and _kind(this) == _kind(header)
        # Two consecutive frame headers, or one whose frame ends with the file, are not a coincidence.
        if not expected and (stop == at or (stop != len(data) and not _frame_size(data[stop : stop + 4]))):
            in_step, after_tag = False, _end_of_id3(data, at)
            found = _HEADER.search(data, at + 1)
            at = after_tag if after_tag > at else found.start() if found else len(data)
            continue
        in_step, header = True, header or this
        if _kind(this) != _kind(header):
            raise Unreadable("holds several MP3 streams of different sample rates or channels, one after the other")
        if stop > len(data):
            raise CutShort
        data_begins = at + 4 + _side_information(this)
        if data[data_begins : data_begins + 4] not in (b"Xing", b"Info") and data[at + 36 : at + 40] != b"VBRI":
            count += 1
            if ranges and ranges[-1][1] == at:
                ranges[-1] = ranges[-1][0], stop
            else:
                ranges.append((at, stop))
        at = stop
    if not count or stated == count:
        return None
    if stated is not None and stated > count + 1:  # some encoders count the Xing header too
        raise CutShort
    return [_xing_frame(header, count), *ranges]


def _xing_frame(header: bytes, count: int) -> bytes:
    """Return a silent frame of the kind of `header`, with a Xing header that states `count` frames."""
    head = bytes([0xFF, header[1] | 1, 0x80 | header[2] & 0x0C, header[3]])  # without checksum, 64 or 112 kbit/s
    frame = head + bytes(_side_information(header)) + b"Xing" + struct.pack(">II", 1, count)
    return frame.ljust(_frame_size(head), b"\0")
