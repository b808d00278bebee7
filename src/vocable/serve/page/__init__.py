"""The browser page of the service.

`blocks.py` puts the page together; each tab has a file: `tokens.py`, `layers.py`, `convert.py`, `speak.py` and
`compare.py`. `backend.py` gives them the jobs of the engine, `parts.py` the components that they share, `figures.py`
the pictures. `style.css` and `speech.js` are sent to the browser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vocable.extras import need

if TYPE_CHECKING:
    from fastapi import FastAPI


def mount(app: FastAPI) -> Callable[[], None]:
    """Serve the page at /. Call it after all routes are added, because the page answers all other paths.

    app: the service; its state holds `engine`, `settings` and `voices`. Returns a function that ends the connections
    which open pages keep; without it, a server that ends waits for them. Raises ImportError if the extra `serve` is not
    installed.
    """
    need("gradio", "serve")
    need("matplotlib", "serve")
    from vocable.serve.page.blocks import mount_blocks  # imported here, because gradio takes seconds

    return mount_blocks(app)
