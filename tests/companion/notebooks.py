"""Run the cells of a notebook in this process, on results of a test's own."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt

from companion import tables, words

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def run(name, results, monkeypatch, without=()):
    """The tables that a notebook prints from a folder of results, and the facts that it glues.

    Its figures are rendered. Cells with one of the texts in ``without`` are left out.
    """
    shown, facts = [], {}
    monkeypatch.setattr(tables, "show", lambda table, raw=(): shown.append(table))
    monkeypatch.setattr(words, "glued", facts.update)
    scope: dict[str, object] = {}
    for cell in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not any(text in source for text in without):
            exec(source, scope)
        if "parameters" in cell["metadata"].get("tags", ()):
            scope["results"] = str(results)
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    return shown, facts
