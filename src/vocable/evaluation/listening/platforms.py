"""The trials of a test as YAML: configurations of webMUSHRA, and a plain list for crowd platforms.

webMUSHRA itself is not part of vocable; its licence is its own. ABX has no page there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocable.evaluation.listening.plan import Plan
from vocable.extras import need
from vocable.files import atomic_path


def write_platforms(public: Path, plan: Plan, study: str, forms: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Write PUBLIC/forms.yaml, and PUBLIC/webmushra/listener-N.yaml for each listener."""
    width = len(str(len(forms)))
    listed = [
        {"listener": number, "trials": [[_file(token) for token in trial["stimuli"]] for trial in form]}
        for number, form in enumerate(forms, 1)
    ]
    question = {"study": study, "kind": plan.kind, "question": plan.scale.question, "answers": list(plan.scale.options)}
    _write(public / "forms.yaml", question | {"forms": listed})
    if plan.kind == "abx":
        return
    for number, form in enumerate(forms, 1):
        pages: list[dict[str, Any]] = [
            {"type": "generic", "id": "welcome", "name": plan.title, "content": plan.scale.question},
            *(_page(plan, i, trial["stimuli"]) for i, trial in enumerate(form)),
            {"type": "finish", "name": "Thank you", "content": "The test is done.", "writeResults": True},
        ]
        config = {"testname": plan.title, "testId": f"{study}-{number}", "bufferSize": 2048, "stopOnErrors": True}
        config |= {"showButtonPreviousPage": False, "remoteService": "service/write.php", "pages": pages}
        _write(public / "webmushra" / f"listener-{number:0{width}}.yaml", config)


def _page(plan: Plan, index: int, tokens: Sequence[str]) -> dict[str, Any]:
    page: dict[str, Any] = {"id": f"trial{index}", "name": "", "content": plan.scale.question}
    files = {f"C{i}": _file(token) for i, token in enumerate(tokens[1:], 1)}
    if plan.kind == "mushra":
        # The reference must be named twice: webMUSHRA adds no hidden one, because ours is among the stimuli.
        page |= {"type": "mushra", "reference": _file(tokens[0]), "stimuli": files, "randomize": False, "strict": False}
        return page | {"createAnchor35": False, "createAnchor70": False, "showWaveform": False, "enableLooping": True}
    if plan.kind == "preference":
        both = {"C1": _file(tokens[0]), "C2": _file(tokens[1])}
        return page | {"type": "paired_comparison", "unforced": plan.scale.options[2], "stimuli": both}
    labels = [{"value": i, "label": label} for i, label in enumerate(plan.scale.options, 1)]
    page |= {"type": "likert_single_stimulus", "mustRate": True, "mustPlayback": True, "response": labels}
    if plan.kind == "smos":
        return page | {"reference": _file(tokens[0]), "stimuli": files}
    return page | {"stimuli": {"C1": _file(tokens[0])}}


def _file(token: str) -> str:
    return f"audio/{token}.wav"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        text = need("yaml", "listen").safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
