"""Graphs and pictures of the report: what they show, not how they look."""

import io

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from cradl_jax.evaluation.metrics import in_memory, operating_points
from cradl_jax.reporting import figures, galleries
from cradl_jax.reporting.figures import Bar


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.2
    return np.round(rng.normal(size=400) + labels, 1), labels


def test_drawn_curves_enclose_the_areas_of_scikit_learn(scored):
    scores, labels = scored
    roc, (recall, precision) = figures._curves(operating_points(in_memory(scores, labels)))
    assert auc(*roc) == pytest.approx(roc_auc_score(labels, scores))
    steps = np.sum(np.diff(recall) * precision[1:])
    assert steps == pytest.approx(average_precision_score(labels, scores))


def test_roc_and_pr_names_every_score_and_its_areas(scored):
    scores, labels = scored
    curves = {"gmm1": (scores, labels), "none": (scores, np.zeros(400, bool))}
    figure = figures.roc_and_pr(curves, ["cevae", "vae"])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    expected = f"AUROC {roc_auc_score(labels, scores):.3f}"
    assert len(texts) == 2 and "gmm1" in texts[0] and expected in texts[0]
    assert [axes.lines[0].get_color() for axes in figure.axes] == [figures.COLORS["cevae"]] * 2


def test_histogram_counts_every_slice_of_each_class_once(scored):
    scores, labels = scored
    scores = np.concatenate([scores, [1e6]])
    figure = figures.score_histogram(scores, np.append(labels, True), "t")
    shares = [patch.get_data().values.sum() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(shares, 1)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == [f"normal ({(~labels).sum()} slices)", f"anomalous ({labels.sum() + 1} slices)"]


def test_loss_curves_mark_the_smallest_validation_loss():
    history = [
        {"step": 1, "train/loss": 3.0},
        {"step": 2, "train/loss": 2.0, "val/loss": 2.5},
        {"step": 3, "val/loss": 2.75},
    ]
    lines = figures.loss_curves(history).axes[0].lines
    points = [np.transpose(line.get_data()).tolist() for line in lines]
    assert points == [[[1, 3], [2, 2]], [[2, 2.5], [3, 2.75]], [[2, 2.5]]]


BARS = [
    Bar("slice", "synth", "cradl", "density", 0.5, 0.4, 0.6, 0.55),
    Bar("slice", "synth", "vae", "density", 0.3),
    Bar("slice", "lesion", "vae", "kl", 0.2),
    Bar("slice", "lesion", "cevae", "best", 0.7),
    Bar("voxel", "synth", "cradl", "density", 0.1),
]
CHANCE = {("slice", "synth"): 0.2, ("slice", "lesion"): 0.4, ("voxel", "synth"): 0.01}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_comparison_bars_stand_in_their_group_and_panel_at_their_height():
    figure = figures.comparison_bars(BARS, CHANCE, "95 % interval")
    detection, localization = figure.axes
    places = {round(bar.get_height(), 6): bar.get_center()[0] for bar in detection.patches}
    assert set(places) == {0.5, 0.3, 0.2, 0.7}
    assert -0.5 < places[0.5] < places[0.3] < 0.5 < places[0.2] < places[0.7] < 1.5
    assert [bar.get_height() for bar in localization.patches] == [0.1]
    names = [label.get_text() for label in detection.get_xticklabels()]
    assert names == ["synth", "lesion"]
    chance = [c.get_segments()[0][0, 1] for c in detection.collections if c.get_linestyle()[0][1]]
    assert chance == [0.2, 0.4]
    expected = {"CRADL", "RADL, VAE", "KL-Div., VAE", "best ceVAE", "prevalence (chance)"}
    assert set(legend(figure)) == expected | {"paper", "95 % interval"}


def test_comparison_bars_name_neither_paper_nor_error_bars_where_there_are_none():
    plain = [bar._replace(low=np.nan, high=np.nan, cited=np.nan) for bar in BARS]
    assert not {"paper", "95 % interval"} & set(legend(figures.comparison_bars(plain, CHANCE, "x")))


def test_a_data_set_without_a_chosen_score_says_so():
    bars = [bar for bar in BARS if bar.dataset == "synth"]
    figure = figures.comparison_bars(bars, CHANCE)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no score chosen"]


@pytest.fixture
def slices():
    rng = np.random.default_rng(0)
    images = np.zeros((3, 16, 16), np.float32)
    images[:, 4:12, 5:10] = rng.uniform(0.1, 1, (3, 8, 5))
    masks = np.zeros((3, 16, 16), bool)
    masks[0, 5:8, 6:9] = True
    return images, masks


def test_pixel_scores_have_one_scale_per_method_for_all_slices(slices):
    rng = np.random.default_rng(0)
    small = rng.gamma(1, 1, slices[0].shape) * np.array([1, 10, 100])[:, None, None]
    maps = {"CRADL": small, "VAE": 1000 * small}
    figure = galleries.pixel_scores(*slices, maps, ["a", "b", "c"])
    grid = np.array(figure.axes[:12], object).reshape(3, 4)
    for column, heat in zip(grid.T[2:], maps.values(), strict=True):
        limits = {axes.images[0].get_clim() for axes in column}
        assert limits == {(0, np.percentile(heat, galleries.CLAMP))}
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["a", "b", "c"]
    assert [axes.get_title() for axes in grid[0]] == ["slice", "annotation", "CRADL", "VAE"]
    assert [len(axes.collections) for axes in grid[:, 1]] == [1, 0, 0]  # outlines


def test_pictures_show_all_of_every_brain_and_the_background_black(slices):
    heat = np.broadcast_to(np.arange(16.0), (3, 16, 16))
    figure = galleries.pixel_scores(*slices, {"m": heat})
    image, heatmap = figure.axes[0].images[0].get_array(), figure.axes[2].images[0].get_array()
    assert image.shape == heatmap.shape == (8 + 4, 5 + 4)
    assert image.compressed().tolist() == slices[0][0][slices[0][0] != 0].tolist()
    assert heatmap[0].tolist() == list(range(3, 12))
    assert galleries.GRAY(np.ma.masked)[:3] == (0, 0, 0)


def test_anomaly_examples_pair_each_slice_with_its_annotation(slices):
    images, masks = slices
    many = np.repeat(images[:1], 8, axis=0), np.repeat(masks[:1], 8, axis=0)
    figure = galleries.anomaly_examples({"A": many, "B": (images, masks)})
    grid = np.array(figure.axes, object).reshape(4, 6)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["A", "annotation", "B", "annotation"]
    shown = [[len(axes.images) for axes in row] for row in grid]
    assert shown == [[1] * 6] * 2 + [[1, 1, 1, 0, 0, 0]] * 2
    outlined = [sum(len(axes.collections) for axes in row) for row in grid]
    assert outlined == [0, 6, 0, 1]


def test_the_sweep_shows_every_object_at_its_place():
    maps = {
        (level, name): {(x, y): x / 10 + y / 100 for x in (0.0, 1.5) for y in (0.5, 0.0, 1.0)}
        for level in ("slice", "voxel")
        for name in ("CRADL", "VAE")
    }
    figure = figures.sweep_maps(maps)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 4
    np.testing.assert_allclose(
        panels[3].images[0].get_array(), [[0, 0.15], [0.005, 0.155], [0.01, 0.16]]
    )
    assert [text.get_text() for text in panels[2].get_xticklabels()] == ["0", "1.5"]
    assert len(panels[1].texts) == 6 and panels[0].get_ylabel().endswith("texture")


@pytest.mark.parametrize("eigenvalues", [[4.0, 1.0, 0.0], [0.0, 0.0]])
def test_figures_of_a_short_run_can_be_written(eigenvalues):
    blank = np.zeros((1, 8, 8))
    drawn = [
        figures.loss_curves([{"step": 1, "train/loss": 1.0}]),
        figures.score_histogram(np.zeros(3), np.zeros(3, bool), "constant"),
        figures.spectrum(np.array(eigenvalues), 1.6 if sum(eigenvalues) else float("nan")),
        figures.roc_and_pr({}, []),
        figures.comparison_bars([], {}),
        figures.comparison_bars([], {("slice", "synth"): 0.0}),
        galleries.pixel_scores(blank, blank > 0, {"CRADL": blank}),
        galleries.anomaly_examples({"A": (blank, blank > 0)}),
    ]
    for figure in drawn:
        file = io.BytesIO()
        figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")
