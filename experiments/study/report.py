"""Gather the results of a study in tables, figures and one page."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cradl_jax import scoring
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.devices.batches import in_batches
from cradl_jax.evaluation import bootstrap, results
from cradl_jax.evaluation.results import Choice
from cradl_jax.names import BASELINE, FAE, OF_FEATURES, PAPER, PRETEXTS, RESTORERS, has_encoder
from cradl_jax.reporting import figures, galleries, page, paper, summary, tables
from cradl_jax.reporting.page import Picture, Section, Table, Verbatim
from cradl_jax.storage.files import replacing, write_text
from cradl_jax.storage.integrity import write_checksums
from cradl_jax.storage.manifest import read_manifest
from cradl_jax.storage.reading import read_arrays
from experiments.cli.locking import exclusive_stage
from experiments.study import evaluation, protocol_report, runs, screening, stored_maps
from experiments.study.data_sets import HEALTHY, stores
from experiments.study.evaluation import EVALUATED, SPLITS
from experiments.study.scores import by_scan
from experiments.study.stored_maps import MAP, StoredMaps
from experiments.study.training_log import read_history

EXAMPLES = 6  # slices shown for each data set
SUMMARY = (
    "Every method learned what normal slices look like from healthy scans alone. CRADL and RADL "
    "score a slice by the negative log-likelihood of its representation and a voxel by the "
    "gradient of that; the VAE and the ceVAE by the terms of their loss. Scores are chosen on "
    "validation scans. The baselines need no network: any method must beat them."
)
RESTORATION = (
    "Beyond the paper, {} restore slices from corruptions and score by what they restore. They are "
    "not among the methods of Tables 2 to 4, which are the paper's (CRADL, VAE and ceVAE). They "
    "learned to undo coarse noise, or patches of other healthy slices and a smooth bias: other "
    "corruptions than the anomalies that they are measured on, but made by a program as well."
)
ENCODERS = (
    "Beyond the paper, {} train the encoder by other pretexts; densities of its representations "
    "score as those of CRADL. They are not among the methods of Tables 2 to 4."
)
FEATURES = (
    "Beyond the paper, {} reconstructs features of CRADL's encoder and scores by how unlike their "
    "structure it leaves them. It is not among the methods of Tables 2 to 4, and learned from "
    "healthy slices as they are."
)
NOTHING_MEASURED = (
    "The study has no anomalous data set: nothing could be measured, and no score chosen. Dense "
    "densities score new scans, at thresholds from healthy validation scans."
)


@exclusive_stage("the report")
def write(config: ConfigDict, workdir: Path) -> Path:
    """Write all of it and return the page's path."""
    opened = stores(config, workdir)
    foreign = stored_maps.methods(workdir, config.seeds)
    rows = [
        row
        for seed in config.seeds
        for method in (*config.methods, *foreign, BASELINE)
        if seed in foreign.get(method, config.seeds)
        for row in evaluation.read_results(
            ConfigDict({**config, "seed": seed}), workdir, method, opened
        )
    ]
    anomalous = {name: store for name, store in opened.items() if name != HEALTHY}
    names = {name: config.data.sets[name].get("paper") for name in anomalous}
    names = {name: theirs for name, theirs in names.items() if theirs}
    scores = results.select_scores(rows)
    chosen = list(estimates(config, workdir, rows, scores))
    compared = list(differences(config, workdir, chosen))
    encoders = list(estimates(config, workdir, rows, results.of_encoders(scores), ("auprc",)))
    written = tables.result_tables(rows, sizes(anomalous), names, chosen, compared, encoders)
    written += protocol_report.tables(config, workdir, rows, opened)
    text = "\n".join(map(page.markdown_table, written)) if anomalous else f"{NOTHING_MEASURED}\n"
    bars = figures.comparison_bars(
        summary.bars(rows, chosen, names), summary.prevalences(rows), "95 % interval over scans"
    )
    caption = (
        "Comparison: AUPRC on test scans of CRADL, of the same densities on the representations of "
        "the VAEs (RADL), of their KL-divergence, and of the best term of their loss (as Figure 2)."
    )
    further = figures.comparison_bars(
        summary.beyond_bars(rows, chosen), summary.prevalences(rows), "95 % interval over scans"
    )
    beyond = (
        "Beyond the paper: AUPRC on test scans of each method at the best of all its scores on "
        "validation, also densities at each position, and of the baselines without a network."
    )
    unlike = screening.table(opened[HEALTHY])
    drawn = Picture(bars, caption), Picture(further, beyond)
    said = [SUMMARY, *beyond_paper(config.methods)]
    sections = [
        Section("Results", [*said, *drawn, *written] if anomalous else [NOTHING_MEASURED]),
        Section("Anomalies", [anomalies(anomalous)] if anomalous else []),
        Section("Pixel scores", list(pixel_scores(config, workdir, rows, opened))),
        Section("Slice scores", list(curves(config, workdir, rows, anomalous))),
        Section("Training scans", [unlike] if unlike.rows else []),
        Section("Training", list(training(config, workdir))),
        Section("Representations and densities", list(diagnostics(config, workdir))),
        Section("Study", [provenance(config, workdir, opened), Verbatim(str(config))]),
    ]
    sections = [section for section in sections if section.parts]
    results.write_csv(workdir / "results.csv", rows)
    write_text(workdir / "tables.md", text)
    save_figures(workdir / "figures", sections)
    place = workdir / "report.html"
    write_text(place, page.html_page("CRADL: anomalies in brain MRI", sections))
    write_checksums(workdir, "results.csv", "tables.md", "figures", place.name)
    return place


def beyond_paper(methods: Sequence[str]) -> list[str]:
    """Say what those methods do, if any, that the paper does not have."""
    kinds = (ENCODERS, PRETEXTS), (RESTORATION, RESTORERS), (FEATURES, (FAE,))
    named = [(said, [m for m in methods if m in kind]) for said, kind in kinds]
    return [said.format(" and ".join(map(paper.method_name, ms))) for said, ms in named if ms]


def sizes(anomalous: dict[str, SliceStore]) -> tables.Figures:
    """Count scans and slices of each data set and split."""
    counts = {}
    for (name, store), split in product(anomalous.items(), SPLITS):
        scans = store.scans[store.rows(split)]
        counts[name, split, "scans"] = len(np.unique(scans))
        counts[name, split, "slices"] = len(scans)
    return counts


def mean_draws(config: ConfigDict, workdir: Path, choice: Choice, name: str) -> np.ndarray:
    """Read bootstrap draws of a metric on test, the mean over seeds: [draws]."""
    draws = []
    for seed in config.seeds:
        folder = runs.folder(workdir, seed, choice.method) / "evaluation"
        if not folder.exists():  # a foreign method may have some seeds alone
            continue
        file = read_arrays(folder / f"{choice.dataset}_test_draws.npz", *EVALUATED)
        draws.append(file[f"{choice.level}-{name}"])
    return np.mean(draws, axis=0)


def estimates(
    config: ConfigDict,
    workdir: Path,
    rows: list[results.Result],
    chosen: Mapping[Choice, str],
    metrics: Sequence[str] = tables.HEADLINE,
) -> Iterator[summary.Estimate]:
    """Yield metrics of every chosen score on test, with their intervals."""
    spreads = {level: summary.measured(rows, level, "test") for level in results.LEVELS}
    for choice, score in chosen.items():
        for metric in metrics:
            key = choice.dataset, choice.method, score, metric
            mean, _ = spreads[choice.level].get(key, summary.UNDEFINED)
            draws = mean_draws(config, workdir, choice, f"{score}-{metric}")
            yield summary.Estimate(*choice, score, metric, mean, *bootstrap.interval(draws))


def differences(
    config: ConfigDict, workdir: Path, estimated: Iterable[summary.Estimate]
) -> Iterator[summary.Comparison]:
    """Compare the best method of each data set, level and comparison with others, by test AUPRC.

    These are the second best, and beyond the paper all others, foreign methods and the baseline.
    """
    candidates = [
        e
        for e in estimated
        if e.metric == "auprc" and (e.method in PAPER or e.comparison == "beyond")
    ]
    first = {e[:3]: place for place, e in reversed(list(enumerate(candidates)))}
    candidates.sort(key=lambda e: first[e[:3]])  # together, in the order of the data sets
    for which, group in groupby(candidates, key=lambda e: e[:3]):
        best, *others = sorted(group, key=lambda e: e.mean, reverse=True)
        for other in others if best.comparison == "beyond" else others[:1]:
            draws = [
                mean_draws(config, workdir, Choice(*e[:4]), f"{e.score}-auprc")
                for e in (best, other)
            ]
            _, low, high, p = bootstrap.paired(*draws)
            methods = best.method, other.method
            yield summary.Comparison(*which, *methods, best.mean - other.mean, low, high, p)


def save_figures(path: Path, sections: list[Section]) -> None:
    """Save each picture as a PNG file, numbered in the page's order; remove those of before."""
    pictures = [p for section in sections for p in section.parts if isinstance(p, Picture)]
    before, written = set(path.glob("*.png")), set()
    for number, picture in enumerate(pictures, start=1):
        name = "".join(c if c.isalnum() else "_" for c in picture.caption.split(":")[0].lower())
        place = path / f"{number:02d}_{name}.png"
        with replacing(place) as aside:
            aside.write_bytes(picture.png)
        written.add(place)
    for place in before - written:
        place.unlink()


def first_seeds(config: ConfigDict, rows: Iterable[results.Result]) -> dict[str, int]:
    """Return the first seed of each method: ours, then foreign ones, then the baseline."""
    seeds: dict[str, int] = {}
    evaluated = ((row.method, row.seed) for row in rows)
    for method, seed in (*product(config.methods, config.seeds[:1]), *evaluated):
        seeds.setdefault(method, seed)
    return seeds


def curves(
    config: ConfigDict, workdir: Path, rows: list[results.Result], anomalous: dict[str, SliceStore]
) -> Iterator[Picture]:
    """Draw histograms, ROC and precision-recall curves of chosen scores on test, first seed."""
    chosen, seeds = results.select_scores(rows), first_seeds(config, rows)
    for dataset in anomalous:
        pairs, methods = {}, []
        for method, seed in seeds.items():
            score = results.own_choice(chosen, dataset, "slice", method)
            if not score:
                continue
            evaluation = runs.folder(workdir, seed, method) / "evaluation"
            written = paper.method_name(method)
            name = f"{written} {paper.score_name(score)}"
            file = read_arrays(evaluation / f"{dataset}_test_slices.npz", *EVALUATED)
            pairs[name] = file[score], file["labels"]
            methods.append(method)
            if method != BASELINE:
                figure = figures.score_histogram(file[score], file["labels"], name)
                yield Picture(
                    figure,
                    f"{dataset} {written} scores: distribution of {name} over test slices.",
                )
        yield Picture(
            figures.roc_and_pr(pairs, methods),
            f"{dataset} curves: ROC and precision-recall, test slices.",
        )


def anomalies(anomalous: dict[str, SliceStore]) -> Picture:
    """Show test slices of each data set with their annotation (as Figure 4)."""
    shown = {name: typical(store, EXAMPLES, 0) for name, store in anomalous.items()}
    figure = galleries.anomaly_examples(
        {name: (s.images[shown[name]], s.masks[shown[name]]) for name, s in anomalous.items()}
    )
    return Picture(
        figure, "Anomalies: the most anomalous slice of up to six test scans of each data set."
    )


def pixel_scores(
    config: ConfigDict, workdir: Path, rows: list[results.Result], opened: dict[str, SliceStore]
) -> Iterator[Picture]:
    """Show test slices with post-processed heatmaps of every method, first seed (as Figure 1b)."""
    chosen = results.select_scores(rows)
    sources = {
        method: runs.sources(ConfigDict({**config, "seed": seed}), workdir, method, opened[HEALTHY])
        for method, seed in first_seeds(config, rows).items()
        if method != BASELINE
    }
    for dataset, store in opened.items():
        if dataset == HEALTHY:
            continue
        shown = typical(store, EXAMPLES - 2, 2)
        maps = {}
        for method, own_sources in sources.items():
            mine = heatmaps(config, store, shown, own_sources)
            selected = results.own_choice(chosen, dataset, "voxel", method)
            steps = config.score.restoration_steps
            own = scoring.own_scores(method, steps).heatmaps or (selected,)
            for name in (*own, *OF_FEATURES, MAP):
                if name in mine:
                    maps[f"{paper.method_name(method)}\n{paper.score_name(name)}"] = mine[name]
        images, masks = store.images[shown], store.masks[shown]
        labels = ["anomalous" if mask.any() else "normal" for mask in masks]
        yield Picture(
            galleries.pixel_scores(images, masks, maps, labels),
            f"{dataset} pixel scores: test slices, their annotation, and post-processed heatmaps; "
            "the last two slices are normal. Each column has one scale.",
        )


def heatmaps(
    config: ConfigDict,
    store: SliceStore,
    shown: np.ndarray,
    scorers: Sequence[tuple[runs.Source, Any]],
) -> dict[str, np.ndarray]:
    """Return all post-processed heatmaps [n, H, W] of the slices `shown` [n] by name.

    Their scans are scored whole, since maps beyond the paper look at all of a scan.
    """
    arrays = scoring.Batch(store.images, store.brains, store.position)
    rows = np.flatnonzero(np.isin(store.scans, store.scans[shown]))
    scans, kept = store.scans[rows], np.isin(rows, shown)
    order = np.searchsorted(rows[kept], shown)
    device, found = jax.local_devices()[:1], {}
    for scorer, params in scorers:
        if isinstance(scorer, StoredMaps):
            found[MAP] = scorer.heatmaps_of(store, shown)
            continue
        size, maps = config.score.batch_size, {}
        batches = in_batches(scoring.post_processed(scorer), params, arrays, rows, size, device)
        for scan, mine in zip(by_scan(batches, scans), by_scan([kept], scans), strict=True):
            finished = scoring.over_scan(scan, config.score.neighbours)
            for name, heatmap in finished.heatmaps.items():
                maps.setdefault(name, []).append(heatmap[mine])
        found |= {name: np.concatenate(parts)[order] for name, parts in maps.items()}
    return found


def typical(store: SliceStore, anomalous: int, normal: int) -> np.ndarray:
    """Choose the most anomalous slice of each of the first test scans, and normal ones."""
    rows = store.rows("test")
    scans = np.unique(store.scans[rows])[:anomalous]
    most_anomalous = []
    for scan in scans:
        mine = rows[store.scans[rows] == scan]
        most_anomalous.append(mine[np.argmax(store.masks[mine].sum((1, 2)))])
    free = rows[~store.masks[rows].any((1, 2)) & (np.abs(store.position[rows] - 0.5) < 0.2)]
    chosen = free[np.linspace(0, len(free) - 1, min(normal, len(free))).astype(int)]
    return np.array([*most_anomalous, *chosen])


def training(config: ConfigDict, workdir: Path) -> Iterator[Picture]:
    """Draw loss curves of each method, first seed."""
    for method in config.methods:
        history = read_history(runs.folder(workdir, config.seeds[0], method))
        yield Picture(
            figures.loss_curves(history), f"{paper.method_name(method)} training: loss over steps."
        )


def diagnostics(config: ConfigDict, workdir: Path) -> Iterator[Picture | Table]:
    """Show effective rank of the representations and likelihoods of the densities, first seed."""
    for method in filter(has_encoder, config.methods):
        name = paper.method_name(method)
        fitted = runs.folder(workdir, config.seeds[0], method) / "densities"
        measured = json.loads((fitted / "diagnostics.json").read_text())
        yield Picture(
            figures.spectrum(np.array(measured["eigenvalues"]), measured["effective_rank"]),
            f"{name} spectrum: how many dimensions the representations of normal slices use; a "
            "collapsed representation limits every density.",
        )
        yield Table(
            f"{name}: mean negative log-likelihood of representations",
            ("Density", "Training", "Validation", "Iterations"),
            [
                (
                    *(paper.score_name(density), f"{nll['train']:.1f}", f"{nll['val']:.1f}"),
                    str(nll["iterations"]),
                )
                for density, nll in measured["nll"].items()
            ],
        )


def provenance(config: ConfigDict, workdir: Path, opened: dict[str, SliceStore]) -> dict[str, str]:
    """Return commit, versions, the data's fingerprints, and those of foreign maps."""
    manifest = read_manifest(runs.folder(workdir, config.seeds[0], config.methods[0]))
    prints = {f"data set {name}": store.manifest["fingerprint"] for name, store in opened.items()}
    foreign = {
        f"maps of {method}, seed {seed}": stored_maps.in_words(runs.folder(workdir, seed, method))
        for method, seeds in stored_maps.methods(workdir, config.seeds).items()
        for seed in seeds
    }
    own = {"commit": manifest["git_commit"] or "none", **manifest["versions"]}
    return own | prints | foreign
