"""The trials of a test as YAML: configurations of webMUSHRA, and a plain list for crowd platforms.

webMUSHRA itself is not part of vocable; its licence is its own. It has no page for ABX, and none for SMOS, where a
prompt is heard before each clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocable.evaluation.listening.kinds import REFERENCE
from vocable.evaluation.listening.plan import Plan
from vocable.extras import need
from vocable.files import atomic_path


def write_platforms(out: Path, plan: Plan, key: Mapping[str, Any]) -> None:
    """Write OUT/public/forms.yaml, and OUT/webmushra/listener-N.yaml for each listener.

    The configurations of webMUSHRA are not public: they do not list the hidden reference, which webMUSHRA adds itself.
    """
    forms = key["forms"]
    width = len(str(len(forms)))
    listed = [
        {"listener": number, "trials": [[_file(token) for token in trial["stimuli"]] for trial in form]}
        for number, form in enumerate(forms, 1)
    ]
    question = {"study": key["study"], "kind": plan.kind, "question": plan.scale.question}
    question["answers"] = list(plan.scale.options)
    _write(out / "public" / "forms.yaml", question | {"forms": listed})
    if plan.kind in ("abx", "smos"):
        return
    hidden = {token for token, stimulus in key["stimuli"].items() if stimulus["system"] == REFERENCE}
    for number, form in enumerate(forms, 1):
        pages: list[dict[str, Any]] = [
            {"type": "generic", "id": "welcome", "name": plan.title, "content": plan.scale.question},
            *(_page(plan, i, trial["stimuli"], hidden) for i, trial in enumerate(form)),
            {"type": "finish", "name": "Thank you", "content": "The test is done.", "writeResults": True},
        ]
        config = {"testname": plan.title, "testId": f"{key['study']}-{number}", "bufferSize": 2048}
        config |= {"stopOnErrors": True, "showButtonPreviousPage": False, "remoteService": "service/write.php"}
        _write(out / "webmushra" / f"listener-{number:0{width}}.yaml", config | {"pages": pages})


def _page(plan: Plan, index: int, tokens: Sequence[str], hidden: set[str]) -> dict[str, Any]:
    page: dict[str, Any] = {"id": f"trial{index}", "name": "", "content": plan.scale.question}
    if plan.kind == "mushra":
        files = {f"C{i}": _file(token) for i, token in enumerate(tokens[1:], 1) if token not in hidden}
        # webMUSHRA puts its hidden reference last, so it must draw the order.
        page |= {"type": "mushra", "reference": _file(tokens[0]), "stimuli": files, "randomize": True, "strict": False}
        return page | {"createAnchor35": False, "createAnchor70": False, "showWaveform": False, "enableLooping": True}
    if plan.kind == "preference":
        both = {"C1": _file(tokens[0]), "C2": _file(tokens[1])}
        return page | {"type": "paired_comparison", "unforced": plan.scale.options[2], "stimuli": both}
    labels = [{"value": i, "label": label} for i, label in enumerate(plan.scale.options, 1)]
    page |= {"type": "likert_single_stimulus", "mustRate": True, "mustPlayback": "ended", "response": labels}
    return page | {"stimuli": {"C1": _file(tokens[0])}}


def _file(token: str) -> str:
    return f"audio/{token}.wav"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        text = need("yaml", "listen").safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
