"""How much of speech survives a codec: the recordings, vocable at 1, 2, 4 and 8 layers, Opus and Codec 2.

    python benchmarks/reconstruction.py --manifest ../shared/data/eval.jsonl --corpus librispeech-test-clean

Prints a table and writes it, with each clip's figures, as JSON. benchmarks/README.md says what to install. Clips that
are done stay in .cache/bench, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import vocable
from vocable import SpeechTokenizer, audio
from vocable.corpus.manifest import Utterance, read_manifest
from vocable.files import atomic_path

RATE = 16000  #: what every metric here takes
RESAMPLES = 10_000  #: draws of speakers, for the intervals

# ---- systems: a waveform in; the waveform behind the codec, and the bits that were sent, out -------------------------


def recording(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """The clip itself in 16 bits a sample: what the metrics say where nothing is lost."""
    return waveform, 16.0 * len(waveform)


def ours(waveform: np.ndarray, layers: int) -> tuple[np.ndarray, float]:
    """vocable through its first `layers` layers; codes are counted without entropy coding."""
    model = codec(_worker["model"])
    encoded = model.encode(waveform, RATE, layers=slice(0, layers))
    decoded = model.decode(encoded).waveform[0].numpy()
    bits = encoded.codes.numel() * math.log2(model.codebook_size)
    return audio.resample(decoded, model.sample_rate, RATE), bits


def opus(waveform: np.ndarray, kbps: int) -> tuple[np.ndarray, float]:
    """Opus tuned for speech, with opusenc's defaults for the rest: variable bitrate, packets of 20 ms."""
    raw = f"--raw --raw-rate {RATE} --raw-chan 1 --raw-bits 16"
    stream = pipe(f"opusenc --quiet --speech --vbr --framesize 20 --bitrate {kbps} --serial 0 {raw} - -", pcm(waveform))
    # opusdec leaves out the samples of the encoder's delay. Floats, because its 16-bit output is dithered.
    decoded = np.frombuffer(pipe(f"opusdec --quiet --float --rate {RATE} - -", stream), "<f4")
    return decoded, 8.0 * opus_payload(stream)


def opus_payload(stream: bytes) -> int:
    """Bytes of the audio packets of an Ogg Opus stream, without Ogg's page headers and the tags."""
    pages, at = [], 0
    while at < len(stream):
        segments = stream[at + 26]
        pages.append(sum(stream[at + 27 : at + 27 + segments]))
        at += 27 + segments + pages[-1]
    return sum(pages[2:])  # OpusHead and OpusTags have a page each


def codec2(waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Codec 2 at 3200 bit/s: 8 kHz, 64 bits every 20 ms.

    Its speech comes out 20 ms late, which c2dec leaves in and which would cost 0.2 of STOI. The constant is taken off:
    STOI peaked there on ten clips of ten, whereas the cross-correlation of the waveforms peaked anywhere from 5 to
    29 ms, since a parametric codec keeps the envelope and not the phase.
    """
    frame = RATE // 50
    # One frame more for the delay, and whole ones, because c2enc drops a last frame that is not full.
    padded = np.pad(waveform, (0, frame + -len(waveform) % frame))
    stream = pipe("c2enc 3200 - -", pcm(audio.resample(padded, RATE, 8000)))
    decoded = np.frombuffer(pipe("c2dec 3200 - -", stream), "<i2").astype(np.float32) / 32768
    return audio.resample(decoded, 8000, RATE)[frame:], 8.0 * len(stream)


def pcm(waveform: np.ndarray) -> bytes:
    return (np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2").tobytes()


def pipe(command: str, data: bytes = b"") -> bytes:
    return subprocess.run(command.split(), input=data, capture_output=True, check=True).stdout


@dataclass(frozen=True)
class System:
    label: str
    code: Callable[[np.ndarray], tuple[np.ndarray, float]]
    bitrate: float = 0.0  #: nominal bits a second; ours are the model's to say
    layers: int = 0  #: of ours
    package: str = ""  #: Debian's, for the tools of a peer


TOOLS = {"opus-tools": ("opusenc", "opusdec"), "codec2": ("c2enc", "c2dec")}
SYSTEMS = {
    "truth": System("recording", recording, 16.0 * RATE),
    **{f":{n}": System(f"vocable :{n}", partial(ours, layers=n), layers=n) for n in (1, 2, 4, 8)},
    "opus-6": System("Opus 6 kbit/s", partial(opus, kbps=6), 6000, package="opus-tools"),
    "opus-12": System("Opus 12 kbit/s", partial(opus, kbps=12), 12000, package="opus-tools"),
    "codec2-3200": System("Codec 2 3200", codec2, 3200, package="codec2"),
}

# ---- metrics: recording, decoded clip and text in; (sum, count) out, None for no answer; a figure is sum / count -----

Score = tuple[float, int] | None


def score_pesq(reference: np.ndarray, decoded: np.ndarray, text: str | None) -> Score:
    from pesq import PesqError, pesq

    try:
        return float(pesq(RATE, reference, decoded, "wb")), 1
    except PesqError:  # it found no speech
        return None


def score_stoi(reference: np.ndarray, decoded: np.ndarray, text: str | None) -> Score:
    from pystoi import stoi

    with warnings.catch_warnings():
        # pystoi warns, and returns 1e-5, where it finds too little speech.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(reference, decoded, RATE)), 1
        except RuntimeWarning:
            return None


def score_wer(reference: np.ndarray, decoded: np.ndarray, text: str | None) -> Score:
    """Word edits, and words, after Whisper's own normalizer."""
    if text is None:
        return None
    import jiwer

    recognizer, normalize = whisper(_worker["asr"])
    # Without the fallback to higher temperatures, which sample and so differ from run to run.
    options = {"beam_size": 5, "temperature": 0.0, "condition_on_previous_text": False, "without_timestamps": True}
    segments, _ = recognizer.transcribe(decoded, language="en", **options)
    words = jiwer.process_words(normalize(text), normalize(" ".join(segment.text for segment in segments)))
    return words.substitutions + words.deletions + words.insertions, words.hits + words.substitutions + words.deletions


def score_speaker(reference: np.ndarray, decoded: np.ndarray, text: str | None) -> Score:
    return float(embedding(reference.tobytes()) @ embedding(decoded.tobytes())), 1


def score_mos(reference: np.ndarray, decoded: np.ndarray, text: str | None) -> Score:
    with torch.inference_mode():
        return float(distillmos()(torch.from_numpy(decoded)[None])), 1


@dataclass(frozen=True)
class Metric:
    label: str
    score: Callable[[np.ndarray, np.ndarray, str | None], Score]
    packages: str
    digits: int
    scale: float = 1.0


ASR_PACKAGES = "faster-whisper ctranslate2 jiwer whisper-normalizer more-itertools regex"
METRICS = {
    "pesq": Metric("PESQ-WB", score_pesq, "pesq", 2),
    "stoi": Metric("STOI", score_stoi, "pystoi", 3),
    "wer": Metric("WER %", score_wer, ASR_PACKAGES, 1, scale=100.0),
    "speaker": Metric("speaker cosine", score_speaker, "resemblyzer webrtcvad-wheels librosa", 3),
    "mos": Metric("DistillMOS", score_mos, "distillmos xls-r-sqa transformers", 2),
}
#: They ask for packages that no line of theirs that runs here imports, some of which do not install everywhere.
NO_DEPS = {"whisper-normalizer", "resemblyzer", "distillmos", "xls-r-sqa"}

# ---- models, each loaded once in a worker ----------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def start_worker(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    _worker.update(settings)


@lru_cache(maxsize=1)
def codec(name: str | None) -> SpeechTokenizer:
    return SpeechTokenizer.from_pretrained(name)


@lru_cache(maxsize=1)
def whisper(folder: str) -> tuple[Any, Callable[[str], str]]:
    from faster_whisper import WhisperModel
    from whisper_normalizer.english import EnglishTextNormalizer

    return WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=1), EnglishTextNormalizer()


@lru_cache(maxsize=2)  # the recording's, which every system of a clip asks for, and one other
def embedding(samples: bytes) -> np.ndarray:
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = _worker.get("voice") or _worker.setdefault("voice", VoiceEncoder("cpu", verbose=False))
    return encoder.embed_utterance(preprocess_wav(np.frombuffer(samples, np.float32)))


@lru_cache(maxsize=1)
def distillmos() -> torch.nn.Module:
    # distillmos imports torchaudio at module level and uses it for reading files alone: an empty module will do.
    if importlib.util.find_spec("torchaudio") is None:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
        return ConvTransformerSQAModel().eval()


# ---- the run ---------------------------------------------------------------------------------------------------------

Row = dict[str, Any]


def score_clip(clip: Utterance, systems: list[str], metrics: list[str]) -> list[Row]:
    """A row for each system, with its metrics as [sum, count] or None."""
    reference, _ = audio.read(clip.path, RATE)
    rows = []
    for name in systems:
        decoded, bits = SYSTEMS[name].code(reference)
        decoded = np.pad(decoded, (0, max(0, len(reference) - len(decoded))))[: len(reference)]
        decoded = np.clip(decoded, -1.0, 1.0).astype(np.float32)
        row: Row = {"clip": clip.id, "system": name, "seconds": len(reference) / RATE, "bits": bits}
        for metric in metrics:
            score = METRICS[metric].score(reference, decoded, clip.text)
            row[metric] = [round(score[0], 5), score[1]] if score and math.isfinite(score[0]) else None
        rows.append(row)
    return rows


def score_all(clips: list[Utterance], makers: dict[str, str], metrics: list[str], cache: Path, jobs: int) -> list[Row]:
    """The rows of all clips and systems: from the cache and, where they are not in it yet, from `jobs` processes."""
    rows: dict[tuple[str, str], Row] = {}
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):  # a line that an interrupt cut short
            row = json.loads(line)
            if makers.get(row["system"]) == row.pop("made_by"):
                rows[row["clip"], row["system"]] = row
    todo = [(clip, [name for name in makers if (clip.id, name) not in rows]) for clip in clips]
    # Spawned, because torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start_worker, (_worker,))
    cache.parent.mkdir(parents=True, exist_ok=True)
    with open(cache, "a", encoding="utf-8") as file:
        try:
            futures = [pool.submit(score_clip, clip, systems, metrics) for clip, systems in todo if systems]
            console = Console(stderr=True)
            for future in track(as_completed(futures), f"{len(futures)} clips", len(futures), console=console):
                for row in future.result():
                    # The line break comes first, so that a line that was cut short spoils no other.
                    file.write("\n" + json.dumps(row | {"made_by": makers[row["system"]]}))
                    rows[row["clip"], row["system"]] = row
                file.flush()
        finally:
            pool.shutdown(cancel_futures=True)
    return [rows[clip.id, name] for clip in clips for name in makers]


def summarize(rows: list[Row], clips: dict[str, Utterance], metrics: list[str], seed: int) -> Row:
    """One system's bitrate and figures."""
    summary: Row = {"measured_bps": round(sum(row["bits"] for row in rows) / sum(row["seconds"] for row in rows), 1)}
    for metric in metrics:
        asked = [row for row in rows if metric != "wer" or clips[row["clip"]].text is not None]
        valid = [row for row in asked if row[metric] is not None]
        summary[metric] = {"clips": len(valid), "failed": len(asked) - len(valid)}
        if valid:
            speakers = [clips[row["clip"]].speaker or row["clip"] for row in valid]
            figure = interval([row[metric] for row in valid], speakers, seed) * METRICS[metric].scale
            summary[metric] |= dict(zip(("value", "low", "high"), figure.round(4).tolist(), strict=True))
    return summary


def interval(scores: list[list[float]], speakers: list[str], seed: int) -> np.ndarray:
    """sum / count, and its 95 % bootstrap interval. Speakers are drawn anew, because clips of one are alike."""
    _, index = np.unique(speakers, return_inverse=True)
    totals = np.zeros((index.max() + 1, 2))
    np.add.at(totals, index, scores)
    # The seed is the same for each system, and so are the draws.
    draws = np.random.default_rng(seed).integers(len(totals), size=(RESAMPLES, len(totals)))
    sums, counts = totals[draws].sum(axis=1).T
    return np.array([totals[:, 0].sum() / totals[:, 1].sum(), *np.percentile(sums / counts, [2.5, 97.5])])


def show(report: Row, metrics: list[str]) -> None:
    """Print the table, and what it leaves out."""
    title = f"{report['clips']} clips, {report['speakers']} speakers, {report['codec']}"
    table = Table(title=title, caption="bit/s: nominal, measured; mean, its 95 % interval over speakers")
    table.add_column("")
    for heading in ["bit/s", *(METRICS[metric].label for metric in metrics)]:
        table.add_column(heading, justify="right", no_wrap=True)
    notes = [f"WER: {report['clips_without_text']} clips have no text."] if report["clips_without_text"] else []
    for name, summary in report["systems"].items():
        cells = [f"{summary['nominal_bps']:.0f}\n[dim]{summary['measured_bps']:.0f}"]
        for metric in metrics:
            found, form = summary[metric], f".{METRICS[metric].digits}f"
            interval = f"[dim]{found['low']:{form}} to {found['high']:{form}}" if "low" in found else ""
            cells.append(f"{found.get('value', math.nan):{form}}\n{interval}")
            if found["failed"]:
                notes.append(f"{SYSTEMS[name].label}: no {METRICS[metric].label} for {found['failed']} clips.")
        table.add_row(SYSTEMS[name].label, *cells)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table, *notes, sep="\n")


# ---- what it takes ---------------------------------------------------------------------------------------------------


def versions(systems: list[str], metrics: list[str]) -> dict[str, str]:
    """Of all packages that shape a metric. Raises ValueError, with the command to run, if one or a tool is missing."""
    for package in {SYSTEMS[name].package: None for name in systems if SYSTEMS[name].package}:
        for tool in TOOLS[package]:
            if shutil.which(tool) is None:
                raise ValueError(f"{tool} is needed: apt-get install {package}")
    found = {"torch": metadata.version("torch"), "numpy": metadata.version("numpy")}
    for metric in metrics:
        for package in METRICS[metric].packages.split():
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                option = "--no-deps " if package in NO_DEPS else ""
                raise ValueError(f"{package} is needed for {metric}: pip install {option}{package}") from None
    return found


def made_by(system: System, codec_id: str) -> str:
    """What made a system's clips."""
    if system.package == "opus-tools":
        return pipe("opusenc --version").decode().splitlines()[0]
    if system.package == "codec2":  # its tools do not tell their version; Debian does
        query = subprocess.run("dpkg-query -W -f '${Version}' codec2", shell=True, capture_output=True, text=True)
        return f"codec2 {query.stdout or 'of unknown version'}"
    return codec_id if system.layers else "recording"


def select(manifest: Path, corpus: str | None, limit: int | None) -> list[Utterance]:
    """The manifest's clips, those of one corpus, and of these `limit` at even steps (it is sorted by speaker)."""
    clips = [clip for clip in read_manifest(manifest) if corpus in (None, clip.corpus)]
    if not clips:
        raise ValueError(f"{manifest}: no clip of the corpus {corpus}")
    count = max(1, min(limit or len(clips), len(clips)))
    return [clips[i * len(clips) // count] for i in range(count)]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:10]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--manifest", type=Path, required=True, help="JSONL, a clip a line: id, path, duration, speaker, text, corpus")
    add("--corpus", help="only the clips of this corpus")
    add("--limit", type=int, help="so many clips, spread evenly")
    add("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    add("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS), metavar="NAME", help=", ".join(METRICS))
    add("--model", help="folder or hub id of a vocable codec (default: the embedded model)")
    add("--models", type=Path, default=Path(".cache/models"), help="holds asr/whisper-tiny.en (otherwise from the hub)")
    add("--jobs", type=int, default=2, help="processes, of one thread each")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--out", type=Path, default=Path(__file__).parent / "results" / "reconstruction.json")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each worker
    try:
        clips = select(args.manifest, args.corpus, args.limit)
        setup: Row = {"manifest": args.manifest.name, "manifest_hash": digest(args.manifest.read_bytes())}
        setup["versions"] = versions(args.systems, args.metrics)
        model = codec(args.model)
        asked = {name: SYSTEMS[name] for name in dict.fromkeys(args.systems)}
        nominal = {n: s.bitrate or model.bitrate(slice(0, s.layers)) for n, s in asked.items()}
        _worker.update(model=args.model)
        if "wer" in args.metrics:
            from faster_whisper import download_model

            folder = args.models / "asr" / "whisper-tiny.en"
            _worker.update(asr=str(folder if folder.is_dir() else download_model("tiny.en")))
            setup["whisper-tiny.en"] = digest(Path(_worker["asr"], "model.bin").read_bytes())
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    # Another manifest, other metrics or other versions: another cache.
    cache = Path(f".cache/bench/reconstruction-{digest(json.dumps(setup).encode())}.jsonl")
    makers = {name: made_by(system, model.id) for name, system in asked.items()}
    rows = score_all(clips, makers, args.metrics, cache, args.jobs)

    by_id = {clip.id: clip for clip in clips}
    report = {
        "codec": model.id,
        "corpus": args.corpus,
        "clips": len(clips),
        "clips_without_text": sum(clip.text is None for clip in clips),
        "speakers": len({clip.speaker or clip.id for clip in clips}),
        "seconds": round(sum(row["seconds"] for row in rows) / len(makers), 1),
        "bootstrap": {"seed": args.seed, "resamples": RESAMPLES},
        "processes": args.jobs,
        "threads_per_process": 1,
        "python": platform.python_version(),
        "vocable": vocable.__version__,
        **setup,
        "systems": {
            name: {"made_by": maker, "nominal_bps": nominal[name]}
            | summarize([row for row in rows if row["system"] == name], by_id, args.metrics, args.seed)
            for name, maker in makers.items()
        },
    }
    show(report, args.metrics)
    # Below the report, indented, a line for each clip and system.
    keys = ["clip", "system", "seconds", "bits", *args.metrics]
    lines = ",\n    ".join(json.dumps({key: row[key] for key in keys}) for row in rows)
    head = json.dumps(report, indent=2).removesuffix("\n}")
    with atomic_path(args.out) as temporary:
        temporary.write_text(f'{head},\n  "rows": [\n    {lines}\n  ]\n}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
