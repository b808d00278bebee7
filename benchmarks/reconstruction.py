"""How much of speech survives the embedded codec, beside its twin without a teacher, Opus and Codec 2?

    python benchmarks/reconstruction.py --manifest ../shared/data/eval.jsonl --corpus librispeech-test-clean

`vocable eval reconstruction` with the systems and metrics of the README's and the model card's tables, which this
script writes. Clips that are done stay in the results, so that an interrupted run goes on where it stopped.
benchmarks/README.md says what to install.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from script import fail, stopped, write_between
from vocable.cli.results import select, stages
from vocable.evaluation.compare import compare
from vocable.evaluation.compare import table as differences
from vocable.evaluation.metrics import METRICS, Judges
from vocable.evaluation.reconstruction import Reconstruction
from vocable.evaluation.summary import figure_cell
from vocable.page import markdown

#: `vocable semantic units`, and `vocable train vocoder` to speak them; without these the table has no such row.
UNITS = "units:.cache/units/whisper-base-4-500"
#: Under the names that the tables give them. models/twin has no teacher.
LABELS = {
    "recording": "recording",
    **{f"fast@:{n}": f"vocable `:{n}`" for n in (8, 4, 2, 1)},
    **{f"models/twin@:{n}": f"twin `:{n}`" for n in (8, 1)},
    UNITS: "Whisper units, k-means 500",
    "opus:6": "Opus, 6 kbit/s (VBR)",
    "opus:12": "Opus, 12 kbit/s (VBR)",
    "codec2:3200": "Codec 2, 3200 bit/s",
}
METRICS_SHOWN = ("pesq", "stoi", "wer", "per", "speaker", "mos")
HERE = Path(__file__).parent
MARK = "reconstruction: written by benchmarks/reconstruction.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="JSONL: id, path, duration, speaker, text, corpus")
    parser.add_argument("--corpus", help="only the clips of this corpus")
    parser.add_argument("--limit", type=int, help="so many clips, spread evenly")
    parser.add_argument("--models", type=Path, default=Judges.folder, help="holds asr/whisper-tiny.en; else the hub's")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "reconstruction")
    parser.add_argument("--no-pages", action="store_true", help="leave the README and the model card alone")
    args = parser.parse_args()
    try:
        run(args)
    except (ValueError, OSError, ImportError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        stopped()


def run(args: argparse.Namespace) -> None:
    clips = select(args.manifest, corpus=args.corpus, limit=args.limit)
    judges = Judges(args.models, asr="tiny.en")
    suite = Reconstruction(clips, systems=tuple(LABELS), metrics=METRICS_SHOWN, judges=judges, listen=0)
    with stages() as progress:
        summary = suite.run(args.out, jobs=args.jobs, progress=progress)
    short, whole = table(summary, intervals=False), table(summary, intervals=True)
    distilled = distillation(args.out)
    print(whole, distilled, sep="\n\n")
    if not args.no_pages:
        write_between(HERE.parent / "README.md", MARK, short)
        write_between(HERE.parent / "docs" / "MODEL_CARD.md", MARK, f"{whole}\n\n{distilled}")


def table(summary: dict[str, Any], intervals: bool) -> str:
    """The Markdown table. Without intervals it is the README's, and shorter: the twin and the phones are left out."""
    names = [name for name in summary["metrics"] if intervals or name != "per"]
    rows = []
    for system, found in summary["systems"].items():
        if not intervals and system.startswith(("models/", "units:")):
            continue
        cells = [figure_cell(found[name], METRICS[name].digits) for name in names]
        # Of a recording nobody would ask, and what Opus is asked for is not what it takes.
        bitrate = f"{found['measured_bps' if system.startswith('opus') else 'nominal_bps']:.0f}"
        shown = cells if intervals else [cell if isinstance(cell, str) else cell[0] for cell in cells]
        rows.append([LABELS[system], "-" if system == "recording" else bitrate, *shown])
    return markdown(["system", "bit/s", *(METRICS[name].heading() for name in names)], rows)


def distillation(results: Path) -> str:
    """What the teacher brings and costs: the codec less its twin, on the same clips."""
    parts = []
    for layers in (":1", ":8"):
        columns, rows = differences(compare((results, f"fast@{layers}"), (results, f"models/twin@{layers}")))
        heads = {"figure": f"`{layers}`", "A": "vocable", "B": "twin", "A - B": "difference"}
        parts.append(markdown([heads.get(column, column) for column in columns], rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
