"""The page of a scan: what it shows and where, that it loads nothing, that no text becomes code."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.spatial.transform import Rotation

from cradl_jax.prediction.findings import Finding
from cradl_jax.prediction.viewer import Profile, profile_figure, scan_page
from tests.helpers.browser import browse, needs_chromium
from tests.helpers.scans import brain, volume

HOSTILE = "</title></script><script>document.title='x'</script><img src=http://evil.example> $x_$"


class Page(HTMLParser):
    """All tags with their attributes, and all text outside styles and scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.inside = [], "", None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data


def viewer_of(page):
    (frame,) = (attrs for tag, attrs in Page(page).tags if tag == "iframe")
    return frame["srcdoc"]


def parameters(viewer):
    """What brainsprite is told, and the sprites it shows."""
    told = json.loads(re.search(r"brain = brainsprite\((\{.*?\})\);", viewer).group(1))
    images = {
        attrs["alt"]: imread(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1])))
        for tag, attrs in Page(viewer).tags
        if tag == "img"
    }
    return told, images


def cube(sprite, told):
    """[X, Y, Z, 4] of a sprite, see nilearn's `_data_to_sprite`."""
    nx, ny, nz = (told["nbSlice"][axis] for axis in "XYZ")
    rows = int(np.ceil(np.sqrt(nx)))
    tiles = sprite.reshape(rows, nz, -1, ny, 4).transpose(0, 2, 3, 1, 4)
    return tiles.reshape(-1, ny, nz, 4)[:nx, :, ::-1]


def head(shape=(30, 36, 28), spacing=(4.0, 4.0, 4.0), turn=(0, 0, 0)):
    """A scan off the center of the scanner, turned by degrees."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = [-70, -30, 10] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return volume(brain(shape), affine)


def millimeters(scan):
    index = np.stack(np.meshgrid(*map(np.arange, scan.data.shape), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(scan.affine, index)


def blob(scan, center, width=8.0, top=1.0):
    """A map in the brain that is highest, `top`, at `center` in mm."""
    distance = np.linalg.norm(millimeters(scan) - center, axis=-1)
    return (top * np.exp(-0.5 * (distance / width) ** 2) * (scan.data != 0)).astype(np.float32)


def profile(n=20):
    scores = np.random.default_rng(0).normal(size=n)
    return Profile(np.linspace(-30, 50, n), scores, 1.0, (np.full(n, -1.0), np.full(n, 1.0)))


def page_of(scan, heat, title="sub-01", summary=None, threshold=0.0, warnings=(), findings=()):
    more = {"threshold": threshold, "summary": summary or {"slices": 20}, "warnings": warnings}
    return scan_page(title, scan, heat, profile(), findings, **more)


@pytest.mark.parametrize(
    ("shape", "spacing", "turn"),
    [
        ((30, 36, 28), (4.0, 4.0, 4.0), (0, 0, 0)),
        ((60, 66, 12), (2.0, 2.0, 9.0), (0, 0, 0)),
        ((40, 44, 30), (3.0, 3.0, 4.0), (10, -20, 15)),
        ((280, 300, 24), (0.45, 0.45, 5.0), (-8, 0, 4)),
    ],
)
def test_the_overlay_lies_where_the_map_is(shape, spacing, turn):
    scan = head(shape, spacing, turn)
    target = np.array([-85.0, -20, 15])
    heat = blob(scan, target)
    told, images = parameters(viewer_of(page_of(scan, heat, threshold=0.3)))
    cross = [told["numSlice"][axis] for axis in "XYZ"]
    step = told["affine"][0][0]
    assert step > min(spacing) - 1e-6
    shown_at = nib.affines.apply_affine(told["affine"], np.add(cross, 1))  # as brainsprite reads it
    assert np.abs(shown_at - target).max() < max(*spacing, step)
    overlay, background = (cube(images[name], told) for name in ("overlay", "background"))
    marked = overlay[..., 3] > 0
    volume = np.count_nonzero(heat > 0.3) * np.prod(spacing)
    assert marked.sum() * step**3 == pytest.approx(volume, rel=0.25)
    middle = nib.affines.apply_affine(told["affine"], np.argwhere(marked).mean(0) + 1)
    expected = millimeters(scan)[heat > 0.3].mean(0)
    assert np.abs(middle - expected).max() < max(*spacing, step) / 2
    shown = background[..., 0] > 0
    liters = np.count_nonzero(scan.data) * np.prod(spacing)
    assert shown.sum() * step**3 == pytest.approx(liters, rel=0.15)
    assert not shown[[0, -1]].any() and not shown[..., [0, -1]].any()


def finding(number, peak_mm, **others):
    known = Finding(number, 1.5, 2.0, 3.0, 4.0, 0.25, peak_mm, peak_mm, (1.0, 2.0, 3.0))
    return known._replace(**others)


def highest(scan, heat):
    return tuple(millimeters(scan)[np.unravel_index(heat.argmax(), heat.shape)])


def test_a_button_moves_the_cross_to_the_peak_of_each_finding():
    scan = head(spacing=(3.0, 3.0, 4.0), turn=(10, -20, 15))
    heat = blob(scan, (-85.0, -20, 15))
    peaks = [highest(scan, heat), (-60.0, -45, 0), (-75.5, -12.5, 22)]
    found = [finding(k, peak) for k, peak in enumerate(peaks, 1)]
    viewer = viewer_of(page_of(scan, heat, threshold=0.3, findings=found))
    told, _ = parameters(viewer)
    moves = re.findall(r"numSlice,\{X:(\d+),Y:(\d+),Z:(\d+)\}\);brain.drawAll\(\)", viewer)
    assert len(moves) == 3
    step = told["affine"][0][0]
    for move, peak in zip(moves, peaks, strict=True):
        shown_at = nib.affines.apply_affine(told["affine"], np.add([int(x) for x in move], 1))
        assert np.abs(shown_at - peak).max() <= step / 2 + 1e-6
    assert viewer.count("<button") == 3 and "2: 1.50 ml" in viewer
    assert moves[0] == tuple(str(told["numSlice"][axis]) for axis in "XYZ")


def test_the_table_of_findings():
    scan = head()
    found = [finding(1, (1.0, -2.0, 3.0), per_healthy_scan=5.0), finding(2, (0.0, 0.0, 0.0))]
    text = Page(page_of(scan, blob(scan, (-85, -20, 15)), findings=found)).text
    assert "5 or more" in text and "0.25" in text and "1, -2, 3" in text
    many = [finding(k, (0.0, 0.0, 0.0)) for k in range(1, 61)]
    page = Page(page_of(scan, blob(scan, (-85, -20, 15)), findings=many))
    assert "10 more are in the table beside this page." in page.text
    assert "nowhere does the map lie above" in Page(page_of(scan, 0 * scan.data)).text


def test_small_values_keep_their_digits():
    scan = head()
    page = page_of(scan, blob(scan, (-85, -20, 15), top=3e-5), threshold=1e-5)
    told, _ = parameters(viewer_of(page))
    assert told["colorMap"]["max"] == pytest.approx(3, rel=0.2)
    assert "Colors show the map's values times 100000." in Page(page).text
    assert "above 1e-05" in Page(page).text


def test_maps_without_anything_to_show():
    scan = head()
    for heat, threshold in ((np.zeros_like(scan.data), 0.0), (blob(scan, (-85, -20, 15)), 7.0)):
        page = page_of(scan, heat, threshold=threshold)
        told, images = parameters(viewer_of(page))
        assert not cube(images["overlay"], told)[..., 3].any()
        assert "Nothing is marked" in Page(page).text


def test_nothing_is_loaded_and_no_text_becomes_code():
    scan = head()
    plain, hostile = (
        page_of(
            scan,
            blob(scan, (-85, -20, 15)),
            text,
            {text: text},
            warnings=[text],
        )
        for text in ("sub-01", HOSTILE)
    )
    outer = Page(hostile)
    assert "script" not in [tag for tag, _ in outer.tags]
    assert outer.text.count(HOSTILE) == 5  # title, heading, warning, name and value
    for page in (hostile, viewer_of(hostile)):
        for tag, attrs in Page(page).tags:
            assert tag not in ("link", "base", "object", "embed")
            for name in ("src", "href", "action"):
                assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    assert "evil" not in viewer_of(hostile)
    assert viewer_of(hostile).count("<script") == viewer_of(plain).count("<script")
    policy = '<head><meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
    assert hostile.count(policy) == 1
    (frame,) = (attrs for tag, attrs in outer.tags if tag == "iframe")
    assert frame["sandbox"] == "allow-scripts"


def test_what_the_page_says():
    scan = head()
    heat = blob(scan, (-85, -20, 15))
    fit, unfit = (
        Page(page_of(scan, heat, warnings=given, summary={"slices above": "3 of 20"})).text
        for given in ([], ["Axes look swapped.", "Too few slices."])
    )
    assert "Yes, as far as" in fit
    assert "Axes look swapped." in unfit and "Too few slices." in unfit
    for text in (fit, unfit):
        assert "For research only. Not a medical device." in text
        assert "3 of 20" in text


def test_a_page_of_noise_stays_below_15_megabytes():
    rng = np.random.default_rng(0)
    data = rng.uniform(50, 150, (154, 144, 144)).astype(np.float32)
    scan = volume(data, np.diag([0.9, 0.9, 0.9, 1]))
    assert len(page_of(scan, rng.random(data.shape, np.float32))) < 15e6


def test_the_profile_shows_scores_threshold_and_healthy_range():
    n = 20
    heights, scores = np.arange(n)[::-1] * 2.0, np.arange(n) / n
    healthy_range = (np.full(n, 0.1), np.linspace(0.4, 0.6, n))
    figure = profile_figure(Profile(heights, scores, 0.71, healthy_range))
    (axes,) = figure.axes
    curve, line, above = axes.lines
    np.testing.assert_array_equal(curve.get_xdata(), heights[::-1])
    np.testing.assert_array_equal(curve.get_ydata(), scores[::-1])
    np.testing.assert_array_equal(line.get_ydata(), 0.71)
    np.testing.assert_array_equal(sorted(above.get_ydata()), [0.75, 0.8, 0.85, 0.9, 0.95])
    (band,) = axes.collections
    bounds = band.get_datalim(axes.transData)
    assert bounds.ymin == pytest.approx(0.1) and bounds.ymax == pytest.approx(0.6)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [
        "5th to 95th percentile of healthy slices at that height",
        "this scan",
        "threshold 0.71: 5 of 20 slices above",
    ]


def colored(picture):
    """Pixels of the overlay's colors: neither gray nor the blue of the cross and links."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    return np.count_nonzero((red > 0.6) & (blue < 0.5) & (red - blue > 0.3) & (green < 0.9 * red))


@needs_chromium
def test_in_a_browser(tmp_path):
    scan, shots = head(), {}
    for name, top in (("marked", 1.0), ("empty", 0.0)):
        folder = tmp_path / name
        folder.mkdir()
        page = page_of(scan, blob(scan, (-85, -20, 15), 12, top), HOSTILE, threshold=0.2)
        shots[name], errors, urls = browse(page, folder)
        assert errors == [] and urls == []
        black = (shots[name].max(-1) < 0.05).mean()
        assert black > 0.1, "the viewer draws on black"
        gray = (np.ptp(shots[name], axis=-1) < 0.02) & (np.abs(shots[name][..., 0] - 0.4) < 0.2)
        assert gray.mean() > 0.03, "and on it the brain"
    assert colored(shots["marked"]) > 3000 + colored(shots["empty"])


@needs_chromium
def test_a_button_that_is_pressed_moves_the_picture(tmp_path):
    scan = head()
    heat = blob(scan, (-85, -20, 15), 12)
    found = [finding(1, highest(scan, heat)), finding(2, (-60.0, -45, 0))]
    viewer = viewer_of(page_of(scan, heat, threshold=0.2, findings=found))
    shots = []
    for name in ("button", "button:nth-child(1)", "button:nth-child(2)"):
        press = f"setTimeout(() => document.querySelector('.findings {name}').click(), 100)"
        (tmp_path / name).mkdir()
        page = f"{viewer}<script>{press}</script>"
        shot, errors, _ = browse(page, tmp_path / name)
        assert errors == []
        shots.append(shot)
    first, again, second = shots
    assert (first == again).all(), "the cross starts at the first"
    assert (first != second).any(-1).mean() > 0.02


@needs_chromium
def test_the_browser_test_would_see_a_request(tmp_path):
    page = "<img src=http://evil.example/x.png><script>throw Error('seen')</script>"
    _, errors, urls = browse(page, tmp_path)
    assert len(errors) == 1 and "seen" in errors[0]
    assert set(urls) == {"http://evil.example/x.png"}
