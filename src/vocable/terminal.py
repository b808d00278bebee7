"""Escape text for a terminal."""


def printable(text: str) -> str:
    """Return text on one line, with control characters and bytes that are not UTF-8 as escape sequences."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
