"""From figures to what is wrong: the paper's failure signatures (SpeechTokenizer, arXiv 2308.16692, section 4).

Words that are lost from RVQ-1 on point at its content; a voice that is lost although words are kept points at the
layers above it. Thresholds are relative to the recording's own figures, by the same judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: More than so many points of WER above the recording's are a loss of words.
WORDS_LOST = 2.0
#: A speaker cosine under this is another voice to resemblyzer: different speakers of LibriSpeech stand at about 0.6.
VOICE_LOST = 0.85
#: The same for RVQ-1 alone: distilled, it should keep words and lose the voice.
CONTENT_LOST, VOICE_KEPT = 35.0, 0.85


def diagnose(summary: Mapping[str, Any]) -> list[str]:
    """Findings, a sentence each, from the summary of a reconstruction with WER and speaker cosine.

    Reads the systems `NAME@:1` and `NAME@:8` (or the one with most layers) of each codec, and the recording.
    """
    systems: Mapping[str, Any] = summary["systems"]
    if "recording" not in systems:
        raise ValueError("the summary has no recording to compare with: evaluate it with recording among the systems")
    if "wer" not in systems["recording"] or "speaker" not in systems["recording"]:
        raise ValueError("the summary has no WER or no speaker cosine: evaluate it with wer and speaker")
    truth = systems["recording"]["wer"]["value"]
    findings = []
    for codec, by_layers in _by_codec(systems).items():
        whole = by_layers[max(by_layers)]
        lost, voice = whole["wer"]["value"] - truth, whole["speaker"]["value"]
        first = by_layers.get(1)
        if first is not None:
            lost_first, voice_first = first["wer"]["value"] - truth, first["speaker"]["value"]
            if lost_first > CONTENT_LOST:
                findings.append(
                    f"{codec}: RVQ-1 alone loses {lost_first:.1f} points of WER: its content is poor. Raise "
                    "distillation.weight, take another layer of the teacher, or train longer."
                )
            elif lost > WORDS_LOST:
                findings.append(
                    f"{codec}: RVQ-1 alone keeps words ({lost_first:+.1f} points of WER), all layers do not "
                    f"({lost:+.1f}): the decoder is at fault, or the layers above fight RVQ-1."
                )
            if voice_first > VOICE_KEPT:
                findings.append(
                    f"{codec}: RVQ-1 alone keeps the voice (cosine {voice_first:.2f}): content is not apart from it."
                )
        if lost > WORDS_LOST and (first is None or first["wer"]["value"] - truth > CONTENT_LOST):
            findings.append(f"{codec}: all layers lose {lost:.1f} points of WER: look at RVQ-1 first.")
        if voice < VOICE_LOST and lost <= WORDS_LOST:
            findings.append(
                f"{codec}: words are kept and the voice is not (cosine {voice:.2f}): the residual layers are too few "
                "or undertrained. See their perplexity, and quantizer.dropout."
            )
    return findings or ["no failure signature: words and voice are kept"]


def _by_codec(systems: Mapping[str, Any]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Codec -> number of layers -> figures, of the systems that begin with RVQ-1."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for name, figures in systems.items():
        codec, _, layers = name.partition("@:")
        if layers.isdigit() and "value" in figures.get("wer", {}) and "value" in figures.get("speaker", {}):
            found.setdefault(codec, {})[int(layers)] = figures
    return found
