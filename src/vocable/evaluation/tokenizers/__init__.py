"""Tokenizers under test, and their names on the command line.

    recording                      the speech itself, in 16 bits per sample
    fast, FOLDER, OWNER/NAME       a SpeechTokenizer: the embedded one, a twin, the official package's. The name fast is
                                   reserved: a folder of that name is ./fast
    encodec:ID                     EnCodec, by folder or hub id; its first eight layers, 6 kbit/s
    dac:ID  mimi:ID  xcodec:ID     codecs of transformers, by folder or hub id
    units:FOLDER                   k-means units of a teacher's layer, of `vocable semantic units`; decoded by the
                                   vocoder of `vocable train vocoder`
    opus:KBPS  codec2:BPS          codecs without tokens, to compare speech quality with

`NAME@:1` and `NAME@1:8` take some of the layers. A new kind of tokenizer is a file in this folder with a class of
`Tokenizer`, and a line in `load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vocable.evaluation.tokenizers.base import NotAvailable, Tokenizer, Tokens, bits_of
from vocable.evaluation.tokenizers.codec import CodecTokenizer, Recording
from vocable.evaluation.tokenizers.hub import HUB_CODECS, HubCodec
from vocable.evaluation.tokenizers.programs import Codec2, Opus
from vocable.evaluation.tokenizers.units import Units

__all__ = [
    "CodecTokenizer",
    "NotAvailable",
    "Tokenizer",
    "Tokens",
    "bits_of",
    "load_available",
    "load_tokenizer",
    "makers",
    "split_spec",
]


def split_spec(spec: str) -> tuple[str, slice]:
    """Split NAME@LAYERS into the name of the whole tokenizer and a slice of its layers."""
    name, _, layers = spec.partition("@")
    return name, _layers(spec, layers) if layers else slice(None)


def load_tokenizer(spec: str) -> Tokenizer:
    """Load the tokenizer NAME or NAME@LAYERS.

    Raises NotAvailable if weights or programs are missing, ValueError for a name without meaning.
    """
    name, _, layers_text = spec.partition("@")
    layers = _layers(spec, layers_text) if layers_text else None
    kind, _, rest = name.partition(":")
    if layers is not None and kind in ("recording", "units", "opus", "codec2"):
        raise ValueError(f"{spec}: {kind} has no layers")
    if name == "recording":
        return Recording()
    if kind in HUB_CODECS:
        return HubCodec(spec, kind, rest, layers)
    if kind == "units":
        return Units(spec, Path(rest))
    if kind in ("opus", "codec2"):
        if not rest.isdigit():
            raise ValueError(f"{spec}: say {kind}:{'6' if kind == 'opus' else '3200'}")
        return Opus(int(rest)) if kind == "opus" else Codec2(int(rest))
    return CodecTokenizer(spec, name, layers)


def _layers(spec: str, text: str) -> slice:
    try:
        start, stop = (int(bound) if bound else None for bound in text.split(":"))
    except ValueError:
        raise ValueError(f"{spec}: layers are a slice, as in {spec.partition('@')[0]}@:1") from None
    return slice(start or 0, stop)


def load_available(specs: Sequence[str], *, with_codes: bool = False) -> tuple[dict[str, Tokenizer], dict[str, str]]:
    """Load the tokenizers that are available, and say for each of the others why it is not.

    Raises ValueError if none is available, or, `with_codes`, if one has no codes.
    """
    found: dict[str, Tokenizer] = {}
    missing: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        try:
            found[spec] = load_tokenizer(spec)
        except NotAvailable as error:
            missing[spec] = str(error)
    for spec, tokenizer in found.items():
        if with_codes and not tokenizer.codebook_sizes:
            raise ValueError(f"{spec} has no tokens: it can be measured by `vocable eval reconstruction` alone")
    if not found:
        raise ValueError("; ".join(missing.values()))
    return found, missing


def makers(tokenizers: Mapping[str, Tokenizer]) -> dict[str, str]:
    """Return what made each tokenizer: a codec's id, a program's version."""
    return {name: tokenizer.made_by for name, tokenizer in tokenizers.items()}
