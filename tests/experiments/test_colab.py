"""The notebook runs from its first cell to its last, on a handful of tiny scans."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]
TINY = """
FOLDER = {folder!r}
SCANS = {{
    "healthy": {{"train": 8, "val": 2}},
    "synth": {{"val": 2, "test": 2}},
    "lesion": {{"val": 2, "test": 2}},
}}
SPACING_MM, SIZE, EPOCHS = 4.0, 32, 2
"""


def test_notebook_runs(tmp_path):
    notebook = nbformat.read(REPOSITORY / "experiments" / "cradl_colab.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    (settings,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    settings.source = TINY.format(folder=str(tmp_path / "run"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": REPOSITORY}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3, "slices, loss, heatmaps"
    assert any("srcdoc" in o.get("data", {}).get("text/html", "") for o in outputs)
    assert (tmp_path / "run" / "cradl.safetensors").exists()
