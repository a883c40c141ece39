"""Gather a study's results: results.csv, tables.md, figures and one page, report.html.

python -m experiments.report --config=configs/phantom.py [--workdir=runs/phantom]
"""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cradl_jax import checkpoints, figures, report, scoring
from cradl_jax.data.slices import SliceStore
from cradl_jax.postprocess import postprocess
from cradl_jax.report import BASELINE, Picture, Section, Table, Verbatim
from experiments import app, runs
from experiments.preprocess import stores
from experiments.training import read_history

EXAMPLES = 8  # slices shown for each data set
SUMMARY = (
    "CRADL learns what normal slices look like from healthy scans alone. Every slice of the "
    "data sets below was then scored by the negative log-likelihood of its representation, and "
    "every voxel by the gradient of that score. Scores in bold were chosen on validation scans; "
    "the baselines are what any method must beat."
)


def write(config: ConfigDict, workdir: Path) -> Path:
    """Write all of it and return the page's path."""
    rows = [
        row
        for seed in config.seeds
        for method in (*config.methods, BASELINE)
        for row in report.read_csv(
            runs.folder(workdir, seed, method) / "evaluation" / "results.csv"
        )
    ]
    report.write_csv(workdir / "results.csv", rows)
    (workdir / "tables.md").write_text(report.tables(rows), encoding="utf-8")
    sections = [
        Section("Results", [SUMMARY, *report.result_tables(rows)]),
        Section("Examples", list(examples(config, workdir, rows))),
        Section("Slice scores", list(curves(config, workdir, rows))),
        Section("Training", list(training(config, workdir))),
        Section("Representations and densities", list(diagnostics(config, workdir))),
        Section("Study", [provenance(config, workdir), Verbatim(str(config))]),
    ]
    save_figures(workdir / "figures", sections)
    page = workdir / "report.html"
    page.write_text(report.html_page("CRADL: anomalies in brain MRI", sections), encoding="utf-8")
    return page


def save_figures(path: Path, sections: list[Section]) -> None:
    """Each picture as a PNG file, numbered in the page's order."""
    path.mkdir(exist_ok=True)
    pictures = [p for section in sections for p in section.parts if isinstance(p, Picture)]
    for number, picture in enumerate(pictures, start=1):
        name = "".join(c if c.isalnum() else "_" for c in picture.caption.split(":")[0].lower())
        picture.figure.savefig(path / f"{number:02d}_{name}.png", dpi=160)


def curves(config: ConfigDict, workdir: Path, rows: list[report.Result]) -> Iterator[Picture]:
    """Score histograms, ROC and precision-recall curves of the chosen scores, first seed, test."""
    chosen = report.select_scores(rows)
    _, *data_sets = stores(config, workdir)
    for dataset in data_sets:
        pairs = {}
        for method in (*config.methods, BASELINE):
            score = chosen.get((dataset, "slice", method))
            if score is None:
                continue
            evaluation = runs.folder(workdir, config.seeds[0], method) / "evaluation"
            with np.load(evaluation / f"{dataset}_test.npz", allow_pickle=False) as file:
                pairs[f"{method} {score}"] = file[score], file["labels"]
                if method != BASELINE:
                    figure = figures.score_histogram(file[score], file["labels"], score)
                    yield Picture(
                        figure, f"{dataset} {method} scores: how {score} of test slices spreads."
                    )
        yield Picture(
            figures.roc_and_pr(pairs), f"{dataset} curves: ROC and precision-recall, test slices."
        )


def examples(config: ConfigDict, workdir: Path, rows: list[report.Result]) -> Iterator[Picture]:
    """Test slices with annotation and heatmap of the chosen localization score, first seed."""
    chosen = report.select_scores(rows)
    _, *data_sets = stores(config, workdir).items()
    first = ConfigDict({**config, "seed": config.seeds[0]})
    for method in config.methods:
        scorers = {
            name: (scorer, params)
            for names, scorer, params in runs.scorers(first, workdir, method)[0]
            for name in names
        }
        for dataset, store in data_sets:
            name = chosen.get((dataset, "voxel", method))
            if name is None:
                continue
            shown = typical(store)
            scorer, params = scorers[name]
            batch = scoring.Batch(store.images, store.brains, store.position)
            scored = next(
                scoring.in_batches(
                    scorer,
                    params,
                    batch,
                    shown,
                    batch_size=len(shown),
                    devices=jax.local_devices(),
                )
            )
            raw, scores = scored.heatmaps[name], next(iter(scored.scores.values()))
            processed = np.asarray(postprocess(raw, store.brains[shown]))
            figure = figures.examples(
                store.images[shown], store.masks[shown], raw, processed, scores
            )
            yield Picture(
                figure,
                f"{dataset} {method} examples: test slices, their annotation, and the heatmap of "
                f"{name}, raw and post-processed; the last slices are normal.",
            )


def typical(store: SliceStore) -> np.ndarray:
    """The slice with most anomalous voxels of each of the first test scans, and normal ones."""
    rows = store.rows("test")
    scans = np.unique(store.scans[rows])[: EXAMPLES - 2]
    found = []
    for scan in scans:
        mine = rows[store.scans[rows] == scan]
        found.append(mine[np.argmax(np.count_nonzero(store.masks[mine], axis=(1, 2)))])
    normal = rows[~store.masks[rows].any(axis=(1, 2))]
    middle = normal[np.argsort(np.abs(store.position[normal] - 0.5), kind="stable")]
    return np.array([*found, *middle[: EXAMPLES - len(found)]])


def training(config: ConfigDict, workdir: Path) -> Iterator[Picture]:
    """Loss curves of each method, first seed."""
    for method in config.methods:
        history = read_history(runs.folder(workdir, config.seeds[0], method))
        yield Picture(figures.loss_curves(history), f"{method} training: loss over steps.")


def diagnostics(config: ConfigDict, workdir: Path) -> Iterator[Picture | Table]:
    """Effective rank of the representations and likelihoods of the densities, first seed."""
    for method in config.methods:
        fitted = runs.folder(workdir, config.seeds[0], method) / "densities"
        found = json.loads((fitted / "diagnostics.json").read_text())
        yield Picture(
            figures.spectrum(np.array(found["eigenvalues"]), found["effective_rank"]),
            f"{method} spectrum: how many dimensions the representations of normal slices use; a "
            "collapsed representation limits every density.",
        )
        yield Table(
            f"{method}: mean negative log-likelihood of representations",
            ("density", "training", "validation", "iterations"),
            [
                (name, f"{nll['train']:.1f}", f"{nll['val']:.1f}", str(nll["iterations"]))
                for name, nll in found["nll"].items()
            ],
        )


def provenance(config: ConfigDict, workdir: Path) -> dict[str, str]:
    """Versions, commit and the data's fingerprints."""
    manifest = checkpoints.read_manifest(runs.folder(workdir, config.seeds[0], config.methods[0]))
    prints = {
        f"data set {name}": store.manifest["fingerprint"]
        for name, store in stores(config, workdir).items()
    }
    return {"commit": manifest["git_commit"] or "none", **manifest["versions"], **prints}


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point."""
    print(f"report: {write(config, workdir).resolve().as_uri()}")


if __name__ == "__main__":
    app.run(main)
