"""Curves of training runs: one PNG, and one HTML page with it, their last figures, and where their recipes differ.

Reads RUN/log.jsonl and RUN/recipe.json, of runs that are finished, interrupted or still running.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vocable.extras import need
from vocable.files import atomic_path
from vocable.page import Cell, Page, Table, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A training figure's panel: its title, and the scale of its axis. A figure that is not named here gets a plain one.
PANELS = {
    "total": ("loss, weighted sum", "log"),
    "mel": ("mel distance: L1 of log-mel, nats", "log"),
    "spectrum": ("spectrum: L1 of compressed bins", "log"),
    "waveform": ("waveform: L1, of full scale", "log"),
    "commitment": ("commitment: squared distance", "linear"),
    "distillation": ("distillation loss", "linear"),
    "teacher_cosine": ("cosine to the teacher", "linear"),
    "adversarial": ("adversarial loss", "linear"),
    "features": ("feature matching loss", "linear"),
    "discriminators": ("discriminators' loss", "linear"),
    "judged_right": ("judged right by discriminators, share", "linear"),
    "gradient": ("gradient norm, before clipping", "log"),
    "learning_rate": ("learning rate", "linear"),
    "dead_codes": ("codebook entries replaced in a step", "symlog"),
    "speed": ("speed, steps per second", "linear"),
}
NO_CURVES = {"step", "elapsed", "progress", "skipped"}
SMOOTHED_SHARE = 0.04  #: of a run, in the moving average over its training figures
NOT_SMOOTHED = {"learning_rate", "dead_codes"}
COLUMNS = 4
NONE = "-"  #: in a table, where a run has no such figure or field


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it."""

    folder: Path
    recipe: dict[str, str]  #: dotted names of fields, and their values as JSON
    rows: list[dict[str, float]]  #: one for each logged step, in order; training and dev figures of a step together

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps at which a figure was logged, and its values: two of float64 [N]."""
        points = [(row["step"], row[name]) for row in self.rows if name in row]
        steps, values = np.array(points, float).reshape(-1, 2).T
        return steps, values

    def layers(self, name: str) -> dict[int, str]:
        """Dev figures that come by layers, `mel:` or `perplexity`: number of layers or layer, and the whole name."""
        keys = {key for row in self.rows for key in row}
        found = (re.fullmatch(rf"dev/{name}(\d+)", key) for key in keys)
        return dict(sorted((int(match[1]), match[0]) for match in found if match))


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run's folder. Raises ValueError where no step is logged (yet), or the log or the recipe are not as
    `vocable train` writes them."""
    folder = Path(folder)
    log, recipe = folder / "log.jsonl", folder / "recipe.json"
    if not log.is_file() or not recipe.is_file():
        raise ValueError(f"{folder}: no run here: name a folder that `vocable train` wrote")
    rows: dict[float, dict[str, float]] = {}
    for number, line in enumerate(log.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # a line that is being written, or that a kill cut short
            continue
        if not _is_record(record):
            raise ValueError(f"{log}, line {number}: each line needs step, elapsed and progress, and numbers alone")
        step = record["step"]
        # A run that is resumed goes back to its last checkpoint: what was logged behind it did not happen.
        if rows and step < next(reversed(rows)):
            rows = {earlier: row for earlier, row in rows.items() if earlier < step}
        rows.setdefault(step, {}).update(record)
    if not rows:
        raise ValueError(f"{log}: no step is logged yet; try again in a minute")
    steps = list(rows.values())
    for before, row in itertools.pairwise(steps):
        if row["elapsed"] > before["elapsed"]:
            row["speed"] = (row["step"] - before["step"]) / (row["elapsed"] - before["elapsed"])
    try:
        fields = _flat(json.loads(recipe.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{recipe}: damaged: not a recipe as `vocable train` writes it") from error
    return Run(folder, fields, steps)


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and {"step", "elapsed", "progress"} <= record.keys()
        and all(isinstance(value, (int, float)) for value in record.values())
    )


def write_report(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write the page `out` (.html), and its picture beside it (.png), whose path is returned."""
    out = Path(out)
    if out.suffix != ".html":
        raise ValueError(f"{out}: a report is a page: let its name end in .html")
    named = name_runs([read_run(folder) for folder in folders])
    picture = to_png(draw(named))
    with atomic_path(out.with_suffix(".png")) as temporary:
        temporary.write_bytes(picture)
    make_page(named, picture).write_html(out)
    return out.with_suffix(".png")


def name_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the names of their folders, or by their paths where two names are the same."""
    names = [run.folder.resolve().name for run in runs]
    return {n if names.count(n) == 1 else str(run.folder): run for n, run in zip(names, runs, strict=True)}


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving average, [N] -> [N]; values that are not finite are left out of it."""
    window = np.ones(max(1, round(SMOOTHED_SHARE * len(values))))
    finite = np.isfinite(values)
    sums = np.convolve(np.where(finite, values, 0.0), window, "same")
    counts = np.convolve(finite, window, "same")
    return np.where(counts > 0.5, sums / counts.clip(1.0), np.nan)


# ---- the picture -----------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run]) -> Figure:
    """Small multiples, a colour for each run: dev figures, then training figures, smoothed over raw."""
    need("matplotlib", "plot")
    from matplotlib import color_sequences
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    palette = color_sequences["tab10" if len(runs) <= 10 else "tab20"]
    colours = {name: palette[i % len(palette)] for i, name in enumerate(runs)}
    training = training_figures(runs.values())
    has_dev = any(run.layers("mel:") for run in runs.values())
    count = 4 * has_dev + len(training)
    rows = -(-count // COLUMNS)
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)
    figure = Figure(figsize=(4.4 * COLUMNS, 2.9 * rows + 0.7), layout=layout)
    axes: list[Axes] = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    if has_dev:
        _draw_dev(axes[:4], runs, colours)
    for axis, name in zip(axes[count - len(training) :], training, strict=False):
        _draw_training(axis, name, runs, colours)
    for axis in axes[:count]:
        axis.title.set_fontsize(10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    for stop in sorted({stop for run in runs.values() for stop in run.layers("mel:")}):
        handles.append(Line2D([], [], color="black", linestyle=_style(stop), label=f"dev, :{stop}"))
    columns = min(len(handles), 12)
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=11)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a `$` in a run's name is no formula
    return figure


def training_figures(runs: Iterable[Run]) -> list[str]:
    """Names of the training figures of any of the runs, in the order of `PANELS`; not those that are always zero."""
    names = {key for run in runs for row in run.rows for key, value in row.items() if value and "/" not in key}
    order = list(PANELS)
    return sorted(names - NO_CURVES, key=lambda name: (order.index(name) if name in order else len(order), name))


def _draw_dev(axes: Sequence[Axes], runs: dict[str, Run], colours: dict[str, Any]) -> None:
    """Mel distance and perplexity of dev clips, over steps and by layer."""
    from matplotlib import ticker

    mel, mel_by_layers, perplexity, perplexity_by_layer = axes
    for label, run in runs.items():
        style: dict[str, Any] = {"color": colours[label], "marker": ".", "linewidth": 1.4}
        for stop, name in run.layers("mel:").items():
            mel.plot(*run.curve(name), linestyle=_style(stop), **style)
        for name in list(run.layers("perplexity").values())[:1]:
            perplexity.plot(*run.curve(name), **style)
        for axis, kind in ((mel_by_layers, "mel:"), (perplexity_by_layer, "perplexity")):
            last = {layer: run.curve(name)[1][-1] for layer, name in run.layers(kind).items()}
            axis.plot(list(last), list(last.values()), **style)
    for axis, title, unit in (
        (mel, "dev: mel distance, nats", "step"),
        (mel_by_layers, "dev: mel distance at the last pass, nats", "layers decoded"),
        (perplexity, "dev: perplexity of RVQ-1", "step"),
        (perplexity_by_layer, "dev: perplexity at the last pass", "layer"),
    ):
        axis.set_title(title)
        axis.set_xlabel(unit)
    for axis in (mel_by_layers, perplexity_by_layer):
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    for axis in (perplexity, perplexity_by_layer):
        axis.set_ylim(bottom=0)


def _style(stop: int) -> Literal[":", "-.", "--", "-"]:
    """The line for speech from the first `stop` layers: the more of them, the more solid."""
    return ":" if stop <= 1 else "-." if stop <= 2 else "--" if stop <= 4 else "-"


def _draw_training(axis: Axes, name: str, runs: dict[str, Run], colours: dict[str, Any]) -> None:
    from matplotlib import ticker

    title, scale = PANELS.get(name, (name.replace("_", " "), "linear"))
    for label, run in runs.items():
        steps, values = run.curve(name)
        if not len(steps):
            continue
        if name not in NOT_SMOOTHED:
            axis.plot(steps, values, color=colours[label], alpha=0.25, linewidth=0.7)
            values = smooth(values)
        axis.plot(steps, values, color=colours[label], linewidth=1.5)
    axis.set_title(title, parse_math=False)
    axis.set_xlabel("step")
    axis.set_yscale(scale)
    if scale == "log":
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    if scale != "linear":
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


# ---- the page --------------------------------------------------------------------------------------------------------


def make_page(runs: dict[str, Run], picture: bytes) -> Page:
    """Return the page of the curves (a PNG), the runs' last figures, and where their recipes differ."""
    page = Page("Training: " + ", ".join(runs))
    page.picture(picture, caption="Curves of all runs; the table below gives the last figures.")
    page.tables({"Last figures": _table(runs, last_figures(runs.values()))})
    page.notes(["Training figures: the last value of the plotted moving average. Dev figures: the last pass."])
    if len(runs) > 1:
        differing = differences(runs.values())
        page.tables({"Where the recipes differ": _table(runs, differing)})
        page.notes([] if differing else ["Nowhere."])
    return page


def last_figures(runs: Iterable[Run]) -> dict[str, list[str]]:
    """Where each run stands and its last figures: a row for each, a cell for each run."""
    runs = list(runs)
    ends = [run.rows[-1] for run in runs]
    table = {
        "step": [f"{end['step']}" for end in ends],
        "minutes": [f"{end['elapsed'] / 60:.1f}" for end in ends],
        "progress": ["finished" if end["progress"] >= 1 else f"{end['progress']:.0%}" for end in ends],
        "skipped steps": [f"{max(run.curve('skipped')[1], default=0):.0f}" for run in runs],
    }
    for name in training_figures(runs):
        table[PANELS[name][0] if name in PANELS else name] = [
            f"{smooth(values)[-1]:.4g}" if len(values) else NONE for _, values in (run.curve(name) for run in runs)
        ]
    keys = dict.fromkeys(key for kind in ("mel:", "perplexity") for r in runs for key in r.layers(kind).values())
    for key in keys:
        table[key] = [f"{values[-1]:.4g}" if len(values) else NONE for _, values in (run.curve(key) for run in runs)]
    return table


def differences(runs: Iterable[Run]) -> dict[str, list[str]]:
    """The recipe fields that are not the same in all runs: a row for each, a cell for each run."""
    recipes = [run.recipe for run in runs]
    table = {key: [r.get(key, NONE) for r in recipes] for key in dict.fromkeys(key for r in recipes for key in r)}
    return {key: cells for key, cells in table.items() if len(set(cells)) > 1}


def _table(runs: Iterable[str], figures: dict[str, list[str]]) -> Table:
    rows: list[list[Cell]] = [[name, *cells] for name, cells in figures.items()]
    return ["", *runs], rows


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested dictionaries as dotted names, and what stands there as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: json.dumps(value)}
    return flat
