"""Diagnose a codec from its figures, by the paper's failure signatures (SpeechTokenizer, arXiv 2308.16692, section 4).

If RVQ-1 alone loses words, its content is poor. If the words are preserved but the voice is not, the layers above RVQ-1
are at fault. Losses of words are relative to the word error rate of the recording.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Percentage points of WER above the recording's; a larger difference is a loss of words.
WORDS_LOST = 2.0
#: Speaker cosine of resemblyzer; a lower one is another voice. Different speakers of LibriSpeech have about 0.6.
VOICE_LOST = 0.85
#: The same two limits for RVQ-1 alone: with distillation, it should preserve words and lose the voice.
CONTENT_LOST, VOICE_KEPT = 35.0, 0.85


def diagnose(summary: Mapping[str, Any]) -> list[str]:
    """Return findings, one sentence each, from the summary of `eval reconstruction` with WER and speaker cosine.

    The systems are the recording, and `NAME@:1` and `NAME@:K`, or `NAME` for all layers, of each SpeechTokenizer.
    Raises ValueError if the recording, a codec, or one of the two figures is missing.
    """
    systems: Mapping[str, Any] = summary.get("systems", {})
    if "recording" not in systems:
        raise ValueError("the summary has no recording to compare with: evaluate it with recording among the systems")
    if not _has_figures(systems["recording"]):
        raise ValueError(
            "the summary has no WER or no speaker cosine: evaluate it with wer and speaker, on clips with text"
        )
    truth = systems["recording"]["wer"]["value"]
    findings = []
    codecs = _by_codec(systems)
    if not codecs:
        raise ValueError("the summary has no codec: evaluate it with NAME@:1 and NAME among the systems")
    for codec, by_layers in codecs.items():
        first = by_layers.get(1)
        most = max(by_layers)
        whole = by_layers[most] if most > 1 else None
        layers = "all layers" if most == math.inf else f"{most} layers"
        lost_first = first["wer"]["value"] - truth if first else 0.0
        if first and lost_first > CONTENT_LOST:
            findings.append(
                f"{codec}: RVQ-1 alone loses {lost_first:.1f} points of WER: its content is poor. Raise "
                "distillation.weight, take another layer of the teacher, or train longer."
            )
        if first and first["speaker"]["value"] > VOICE_KEPT:
            findings.append(
                f"{codec}: RVQ-1 alone keeps the voice (cosine {first['speaker']['value']:.2f}): content and voice "
                "are not separated."
            )
        if not whole:
            continue
        lost, voice = whole["wer"]["value"] - truth, whole["speaker"]["value"]
        if lost > WORDS_LOST:
            blame = "the decoder is at fault, or the layers above interfere with RVQ-1"
            if not first or lost_first > CONTENT_LOST:
                blame = "look at RVQ-1 first" if first else "measure RVQ-1 alone"
            findings.append(f"{codec}: {layers} lose {lost:.1f} points of WER: {blame}.")
        if voice < VOICE_LOST:
            findings.append(
                f"{codec}: the voice is lost with {layers} (cosine {voice:.2f}): the residual layers are too few or "
                "undertrained. See their perplexity (`vocable eval codes`), and quantizer.dropout."
            )
    return findings or ["no failure signature: words and voice are kept"]


def _by_codec(systems: Mapping[str, Any]) -> dict[str, dict[float, Mapping[str, Any]]]:
    """Return codec -> number of layers (inf: all) -> figures, of SpeechTokenizers whose layers begin with RVQ-1.

    The names of other tokenizers contain a colon.
    """
    found: dict[str, dict[float, Mapping[str, Any]]] = {}
    for name, figures in systems.items():
        codec, at, layers = name.partition("@:")
        is_codec = name != "recording" and not {"@", ":"}.intersection(codec)
        if is_codec and _has_figures(figures) and (layers.isdigit() or not at):
            found.setdefault(codec, {})[int(layers) if at else math.inf] = figures
    return found


def _has_figures(figures: Mapping[str, Any]) -> bool:
    return all("value" in figures.get(metric, {}) for metric in ("wer", "speaker"))
