"""The report of a listening test: screening, means, differences, listeners, power, predictors.

OUT/summary.json   all figures
OUT/scores.csv     every score with listener, clip, system, page and place
OUT/index.html     the page
OUT/tables.md      its tables and notes in Markdown
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vocable
from vocable.evaluation.listening import inference
from vocable.evaluation.listening.answers import Answers
from vocable.evaluation.listening.kinds import LOW_ANCHOR, MID_ANCHOR, REFERENCE
from vocable.evaluation.listening.plan import Plan
from vocable.evaluation.listening.power import detectable, power_of
from vocable.evaluation.listening.predictors import prediction_table, summarize_predictors
from vocable.evaluation.pictures import scores as draw_scores
from vocable.evaluation.summary import figure_cell, write_summary
from vocable.files import atomic_path
from vocable.page import Cell, Page, Table, to_png

FEWEST = 5  #: listeners; with fewer there are no intervals and no tests


def report(answers: Answers, key: Mapping[str, Any], plan: Plan, out: Path) -> dict[str, Any]:
    """Write the report to the folder `out`, and return its summary."""
    summary = summarize(answers, key, plan)
    page = Page(f"{plan.scale.title}: {plan.title}", lead=_lead(summary))
    page.tables(tables(summary, plan))
    page.notes(notes(summary, plan))
    kept = answers.kept()
    if summary["listeners_kept"] >= FEWEST:
        with np.errstate(invalid="ignore"):
            by_listener = np.nansum(kept, -1) / np.isfinite(kept).sum(-1)
        points = {name: row[np.isfinite(row)] for name, row in zip(answers.judged, by_listener, strict=True)}
        known = {name: found for name, found in summary["scores"].items() if "low" in found}
        figures = {name: [found[k] for k in ("value", "low", "high")] for name, found in known.items()}
        label = "score" if not plan.scale.compares else "fraction of answers"
        caption = f"{label}: means of listeners (grey), means and 95 % intervals (blue)"
        page.picture(
            to_png(draw_scores({name: points[name] for name in figures}, figures, label=label)), caption=caption
        )
    write_summary(out, summary)
    _write_csv(out / "scores.csv", answers)
    page.write_html(out / "index.html")
    page.write_markdown(out / "tables.md")
    return summary


def summarize(answers: Answers, key: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return all figures of a test, as JSON."""
    kept = answers.kept()
    count = len(answers.listeners) - len(answers.left_out)
    systems = [answers.judged.index(name) for name in (plan.systems if not plan.scale.compares else answers.judged)]
    summary: dict[str, Any] = {
        "suite": "listening",
        "study": key["study"],
        "kind": plan.kind,
        "standard": plan.scale.standard,
        "vocable": vocable.__version__,
        "simulated": answers.simulated,
        "clips": len(answers.clips),
        "listeners_planned": plan.listeners,
        "listeners_kept": count,
        "left_out": {str(number): why for number, why in answers.left_out.items()},
        "scores": _means(answers, kept, count, plan),
        "listeners": _listeners(answers, plan),
        "made_with": key["made_with"],
    }
    if count >= FEWEST:
        summary["differences"], summary["power"] = _tests(answers, kept[systems], plan)
    return summary | summarize_predictors(answers, kept, key, plan)


def _means(answers: Answers, kept: np.ndarray, count: int, plan: Plan) -> dict[str, dict[str, float]]:
    known = np.isfinite(kept).any((-2, -1))
    estimate = inference.means(kept[known])
    low, high = (np.clip(bound, plan.scale.low, plan.scale.high) for bound in estimate.interval())
    found: dict[str, dict[str, float]] = {}
    for i, s in enumerate(np.flatnonzero(known)):
        own = {"value": estimate.value[i]} | ({"low": low[i], "high": high[i]} if count >= FEWEST else {})
        found[answers.judged[s]] = {name: round(float(value), 4) for name, value in own.items()}
        found[answers.judged[s]] |= {"speakers": count, "answers": int(np.isfinite(kept[s]).sum())}
    return found


def _tests(answers: Answers, scores: np.ndarray, plan: Plan) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the tests of all pairs of systems, and the power that the test reached."""
    if plan.scale.compares:
        estimate, null, names = inference.means(scores), 0.5, answers.judged
    elif len(plan.systems) == 1:
        return [], {}
    else:
        estimate, null = inference.differences(scores), 0.0
        names = [f"{plan.systems[a]} - {plan.systems[b]}" for a, b in inference.pairs(len(plan.systems))]
    low, high = estimate.interval()
    p = estimate.p(null)
    corrected = inference.holm(p)
    tests = [
        {
            "pair": name,
            **{
                key: round(float(values[i]), 5)
                for key, values in {
                    "value": estimate.value,
                    "low": low,
                    "high": high,
                    "p": p,
                    "holm": corrected,
                }.items()
            },
        }
        for i, name in enumerate(names)
    ]
    error, freedom = float(np.median(estimate.error)), float(np.median(estimate.freedom))
    if error == 0:
        return tests, {}
    reached = {
        "planned_difference": plan.effect,
        "planned_power": plan.power,
        "power": round(power_of(plan.effect, error, freedom, len(names)), 4),
        "detectable": round(detectable(plan.power, error, freedom, len(names)), 4),
    }
    return tests, reached


def _listeners(answers: Answers, plan: Plan) -> dict[str, dict[str, Any]]:
    reliability = inference.reliabilities(answers.scores)
    found: dict[str, dict[str, Any]] = {}
    for n, number in enumerate(answers.listeners):
        own: dict[str, Any] = {"answers": int(np.isfinite(answers.scores[:, n]).sum())}
        if np.isfinite(reliability[n]):
            own["correlation"] = round(float(reliability[n]), 3)
        if plan.kind == "mushra":
            for name in (REFERENCE, MID_ANCHOR, LOW_ANCHOR):
                judged = answers.scores[answers.judged.index(name), n]
                if np.isfinite(judged).any():
                    own[name] = round(float(np.nanmean(judged)), 1)
        elif np.isfinite(answers.failed[n]).any():
            own["checks_passed"] = int((answers.failed[n] == 0).sum())
            own["checks"] = int(np.isfinite(answers.failed[n]).sum())
        own["seconds"] = round(answers.seconds[number], 1)
        found[str(number)] = own | {"left_out": answers.left_out.get(number)}
    return found


# ---- the page ----------------------------------------------------------------------------------------------------


def _lead(summary: Mapping[str, Any]) -> str:
    if not summary["listeners"]:
        return "Nobody has listened yet: there are no scores."
    people = "simulated listeners, not people" if summary["simulated"] else "listeners"
    count = f"{summary['listeners_kept']} {people} ({len(summary['left_out'])} more were left out)"
    return f"{count}, {summary['clips']} clips, {summary['standard']}"


def tables(summary: Mapping[str, Any], plan: Plan) -> dict[str, Table]:
    """Return the tables of the report."""
    digits = 1 if plan.kind == "mushra" else 2
    found: dict[str, Table] = {}
    if summary["scores"]:
        rows: list[list[Cell]] = [
            [name, figure_cell(figure, digits), str(figure["answers"])] for name, figure in summary["scores"].items()
        ]
        heading = {"preference": "preferred", "abx": "correct"}.get(plan.kind, f"{plan.scale.title} ↑")
        found["Scores"] = (["pair" if plan.scale.compares else "system", heading, "answers"], rows)
    if summary.get("differences"):
        rows = [
            [test["pair"], figure_cell(test, digits), _p(test["p"]), _p(test["holm"]), "yes" * (test["holm"] < 0.05)]
            for test in summary["differences"]
        ]
        value = "fraction (0.5: no difference)" if plan.scale.compares else "difference"
        found["Differences"] = (["pair", value, "p", "p, Holm", "found"], rows)
    found |= prediction_table(summary)
    if summary["listeners"]:
        columns = ["answers", "correlation", REFERENCE, MID_ANCHOR, LOW_ANCHOR, "checks_passed", "checks", "seconds"]
        own = list(summary["listeners"].values())
        columns = [column for column in columns if any(column in listener for listener in own)]
        rows = [
            [number, *(str(one.get(column, "-")) for column in columns), one["left_out"] or "kept"]
            for number, one in summary["listeners"].items()
        ]
        headings = [column.replace("_", " ") for column in columns]
        found["Listeners"] = (["listener", *headings, "screening"], rows)
    return found


def notes(summary: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return the notes under the tables: screening, intervals, tests, power."""
    lines = []
    if plan.kind == "mushra":
        rule = "the hidden reference below 90, or the 7 kHz anchor above 90, in more than 15 % of the trials"
        lines.append(
            f"Screening by ITU-R BS.1534-3: listeners are left out who rate {rule}; a clip whose 7 kHz anchor more "
            "than a quarter of all listeners rate above 90 does not count in the second rule."
        )
    else:
        lines.append(
            "Screening: listeners are left out who fail more than a quarter of the attention checks, or give the same "
            "answer in every trial."
        )
    if "differences" in summary:
        lines.append(
            "Under means and differences, 95 % intervals; listeners and clips both are samples, so that the figures "
            "hold for other listeners and other clips. Found: p < .05 after Holm's correction for all pairs."
        )
    elif summary["listeners"]:
        lines.append(f"There are no intervals and no tests with fewer than {FEWEST} listeners.")
    if summary.get("power"):
        power = summary["power"]
        lines.append(
            f"Power: with these answers, a difference of {power['planned_difference']:g} is found with a probability "
            f"of {power['power']:.2f} (planned: {power['planned_power']:g}); a difference of {power['detectable']:.3g} "
            f"with a probability of {power['planned_power']:g}."
        )
    if summary["listeners"]:
        lines.append(
            "Correlation of a listener: with the mean of the others, over the stimuli that both judged. Seconds: "
            "median on a page."
        )
    if summary["simulated"]:
        lines.append("Some or all answers are simulated: nothing here is a result.")
    if summary["made_with"]:
        lines.append("Made with " + ", ".join(f"{name} {value}" for name, value in summary["made_with"].items()) + ".")
    return lines


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _write_csv(path: Path, answers: Answers) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["listener", "kept", "clip", "judged", "score", "page", "place", "seconds"])
        for row in answers.rows:
            kept = int(row.listener not in answers.left_out)
            place = (row.trial + 1, row.place + 1)
            writer.writerow([row.listener, kept, row.clip, row.judged, f"{row.score:g}", *place, row.seconds])
