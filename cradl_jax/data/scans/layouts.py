"""Find the scans of a data set: in the layout of a known data set, or listed in a CSV file."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cradl_jax.data.scans.contrasts import CONTRASTS, ENHANCED, FLAIR, T1W, T2W, stated
from cradl_jax.data.scans.volumes import ENDINGS
from cradl_jax.errors import InputError, cause
from cradl_jax.storage.reading import check_file, is_entry, kind_of, no_file

SPLITS = ("train", "val", "test")
HELD_OUT = "held_out"
"""The split of scans that a study leaves out, for another data set to be made from them."""


@dataclass(frozen=True)
class Scan:
    """One scan of a data set."""

    subject: str
    image: Path
    mask: Path | None
    """The anomaly annotation; None where there is none."""
    split: str | None
    """One of `SPLITS`, or `HELD_OUT`; None where the data set does not say."""


ANOMALY = re.compile(
    "lesion|tumou?r|anomal|wmh|infarct|stroke|(o?e)dema|ha?emorrhage|metasta|gliom|plaque", re.I
)
ANATOMY = {"brain", "head", "skull", "parenchyma", "ventricles", "CSF", "GM", "WM", "BS", "CBM"}
"""Labels and descriptions of masks: of anomalies, and of anatomy (BIDS, common image-derived)."""

Found = tuple[list[Scan], list[str]]
"""Scans, and what is wrong with the list of them."""


def find_scans(path: Path, layout: str, contrast: str = T2W) -> list[Scan]:
    """Return the scans of a data set, see `list_scans`.

    Raises:
        InputError: If anything is wrong with the list. All faults are named at once.
    """
    scans, faults = list_scans(path, layout, contrast)
    raise_faults(faults)
    return scans


def list_scans(path: Path, layout: str, contrast: str = T2W) -> Found:
    """List the scans of the data set at `path` by path (a CSV file keeps its order).

    Args:
        path: The data set's folder, or the CSV file.
        layout: How its files are named, one of `LAYOUTS`; here those of T2w:
            'bids': `sub-X/[ses-Y/]anat/sub-X_*T2w.nii.gz`, masks of anomalies under
                `derivatives/**/sub-X/**/anat/sub-X_*_mask.nii.gz`, splits in the optional column
                `split` of `participants.tsv`;
            'hcp': `X/[T1w/]T2w_acpc_dc_restore_brain.nii.gz`;
            'brats': `*_t2.nii.gz` beside `*_seg.nii.gz`, or `*-t2w.nii.gz` beside `*-seg.nii.gz`,
                in folders of any depth;
            'isles2015': `VSD.Brain.XX.O.MR_T2.*` and `VSD.Brain.XX.O.OT.*` in a folder a case;
            'csv': columns `subject,split,image,mask`, paths relative to the CSV file (they may
                lead out of its folder: they are only read), an empty mask for a healthy scan.
            Every `.nii.gz` may be a `.nii`, a `.mgz` or a `.hdr/.img`, in any spelling.
        contrast: Which of `CONTRASTS` to take; a CSV file is taken as it is. A contrast-enhanced
            scan is none of T1w.

    Returns:
        The scans whose image exists, and the faults: scans, masks or splits that do not exist.

    Raises:
        InputError: If the path is missing, a pipe or a device, or holds no scan of that layout and
            contrast.
    """
    path = Path(path).expanduser().absolute()
    _check_request(path, layout, contrast)
    files, find = LAYOUTS[layout]
    scans, faults = find(path, contrast)
    faults += [
        f"{scan.image}: expected a subject's name of printable characters, found "
        f"{scan.subject!r}; rename the subject"
        for scan in scans
        if not scan.subject.isprintable()
    ]
    faults += _twice(scans, layout)
    lost = _lost(scans)
    faults += lost.values()
    scans = [scan for scan in scans if scan.image not in lost]
    if not scans and not faults:
        others = [other for other in files if other != contrast and find(path, other)[0]]
        held = f", but scans of {', '.join(others)} (config.data.contrast)" if others else ""
        raise InputError(
            f"{path}: expected {files[contrast]} (layout '{layout}'), found none{held}; check the "
            "path and the layout, or list the scans in a CSV file (layout 'csv')"
        )
    return scans, faults


def _check_request(path: Path, layout: str, contrast: str) -> None:
    """Raise an InputError unless a layout holds the contrast, and a folder or file is there."""
    if layout not in LAYOUTS:
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, found {layout!r}")
    if contrast not in CONTRASTS:
        raise InputError(f"contrast: expected one of {', '.join(CONTRASTS)}, found {contrast!r}")
    expected, found = "a file" if layout == "csv" else "a folder", kind_of(path)
    if found != expected:
        raise InputError(
            f"{path}: expected {expected} for layout '{layout}', found {found}; check the path"
        )
    files = LAYOUTS[layout].files
    if contrast not in files:
        raise InputError(
            f"{path}: expected scans of the contrast {contrast}, found layout '{layout}', which "
            f"holds {', '.join(files)} alone; choose one of these (config.data.contrast), or list "
            "the scans in a CSV file (layout 'csv')"
        )


def raise_faults(faults: Iterable[str]) -> None:
    """Raise one `InputError` that lists every fault, if there is any."""
    if faults := list(faults):
        raise InputError(*faults)


def _lost(scans: Iterable[Scan]) -> dict[Path, str]:
    """Find the images and masks that are links to no file, each with what is wrong."""
    files = {file for scan in scans for file in (scan.image, scan.mask) if file}
    return {
        file: f"{file}: expected a link to a file, found that it leads to {found}; fetch the file "
        "(of a DataLad data set by datalad get), or remove the link"
        for file in sorted(files)
        if (found := no_file(file))
    }


def _twice(scans: Iterable[Scan], layout: str) -> list[str]:
    """Find scans that lie there twice: packed and not, or of an HCP subject in two folders."""
    first, faults = {}, []
    for scan in scans:
        key = scan.subject if layout == "hcp" else scan.image.with_name(stem(scan.image))
        other = first.setdefault(key, scan.image)
        if other != scan.image and layout != "csv":
            faults.append(
                f"{scan.image}: expected one file of a scan, found {other} too; remove one, or "
                "list the scans in a CSV file"
            )
    return faults


def volume_files(paths: Iterable[Path]) -> list[Path]:
    """Select the volumes among `paths`, in any spelling of their endings, sorted.

    Of a .hdr/.img pair it is the header; hidden files such as macOS's `._*` are none.
    """
    endings = tuple(ending for ending in ENDINGS if ending != ".img")
    return sorted(
        path for path in set(paths) if path.name.lower().endswith(endings) and is_entry(path)
    )


def stem(path: Path) -> str:
    """Return the name of a volume's file without its ending."""
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def _only(candidates: list[Path], image: Path, faults: list[str]) -> Path | None:
    """Return the one mask of an image, None where there is none; several are a fault."""
    if len(candidates) > 1:
        names = ", ".join(str(candidate) for candidate in candidates)
        faults.append(
            f"{image}: expected one mask of its anomalies, found {len(candidates)} ({names}); "
            "remove those that are not meant, or list the scans in a CSV file"
        )
    return candidates[0] if candidates else None


def _find_bids(path: Path, contrast: str) -> Found:
    splits, faults = _participants(path / "participants.tsv")
    masks = defaultdict(list)
    for mask in volume_files(path.glob("derivatives/**/sub-*/**/anat/sub-*_mask.*")):
        what = _labels(mask)
        if any(map(ANOMALY.search, what)):
            masks[mask.name.split("_")[0]].append(mask)
        elif not set(what) & ANATOMY:
            faults.append(
                f"{mask}: expected a mask whose label or desc names an anomaly (label-lesion) or "
                f"anatomy (desc-brain), found {', '.join(what) or 'neither'}; rename or remove it, "
                "or list the scans in a CSV file"
            )
    scans = []
    for image in volume_files([*path.glob("sub-*/anat/*"), *path.glob("sub-*/ses-*/anat/*")]):
        subject = image.relative_to(path).parts[0]
        named = re.fullmatch(rf"{re.escape(subject)}_(.*_)?{contrast}", stem(image))
        if named and stated(stem(image)) != ENHANCED:
            mask = _only([m for m in masks[subject] if _is_bids_mask(m, image)], image, faults)
            scans.append(Scan(subject, image, mask, splits.get(subject)))
    for subject in sorted(splits.keys() - {scan.subject for scan in scans}) if scans else ():
        faults.append(
            f"{path / 'participants.tsv'}: {subject} is in split '{splits[subject]}', but "
            f"{path / subject} holds no *_{contrast}.nii.gz; restore the scan or remove the row"
        )
    return scans, faults


def _is_bids_mask(mask: Path, image: Path) -> bool:
    """Say whether a mask belongs to an image: the entities that both names have agree."""
    of_mask, of_image = _entities(mask), _entities(image)
    shared = of_mask.keys() & of_image.keys() - {"desc", "space", "res"}
    return all(of_mask[key] == of_image[key] for key in shared | {"sub"})


def _entities(path: Path) -> dict[str, str]:
    return dict(part.split("-", 1) for part in stem(path).split("_") if "-" in part)


def _labels(mask: Path) -> list[str]:
    entities = _entities(mask)
    return [entities[key] for key in ("label", "desc") if key in entities]


def _participants(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read the split of each subject that has one, and what is wrong with the file."""
    if not path.is_file():
        return {}, []
    splits, faults = {}, []
    for line, row in read_table(path, delimiter="\t", columns=("participant_id",)):
        subject, split = row["participant_id"], row.get("split", "n/a")
        if split not in (*SPLITS, "", "n/a"):
            faults.append(split_fault(path, line, split))
        elif subject in splits:
            faults.append(f"{path}, line {line}: {subject} was listed before; keep one row of it")
        elif split in SPLITS:
            splits[subject] = split
    return splits, faults


def _find_hcp(path: Path, contrast: str) -> Found:
    name = f"{contrast}_acpc_dc_restore_brain.*"
    images = volume_files([*path.glob(f"*/{name}"), *path.glob(f"*/T1w/{name}")])
    return [Scan(image.relative_to(path).parts[0], image, None, None) for image in images], []


BRATS = {T2W: ("_t2", "-t2w"), T1W: ("_t1", "-t1n"), FLAIR: ("_flair", "-t2f")}
"""Ends of the names of BraTS, up to 2021 and since."""


def _find_brats(path: Path, contrast: str) -> Found:
    scans, faults = [], []
    ends = BRATS[contrast]
    for image in volume_files(file for end in ends for file in path.rglob(f"*{end}.*")):
        match = re.fullmatch(f"(.+)({'|'.join(ends)})", stem(image))
        if match:
            case, separator = match[1], match[2][0]
            masks = volume_files(image.parent.glob(f"{case}{separator}seg.*"))
            # From 2021 on the names end in the number of the examination: BraTS-GLI-00000-000.
            subject = re.sub(r"^(BraTS-\w+-\d+)-\d+$", r"\1", case)
            scans.append(Scan(subject, image, _only(masks, image, faults), None))
    return scans, faults


ISLES = {T2W: "MR_T2", T1W: "MR_T1", FLAIR: "MR_Flair"}
"""Parts of the names of ISLES 2015; MR_T1c is contrast-enhanced."""


def _find_isles2015(path: Path, contrast: str) -> Found:
    scans, faults = [], []
    for image in volume_files(path.rglob(f"VSD.Brain*.{ISLES[contrast]}[!cC]*")):
        case = next(folder for folder in image.parents if not folder.name.startswith("VSD."))
        mask = _only(volume_files(case.rglob("VSD.Brain*.OT.*")), image, faults)
        scans.append(Scan(case.name, image, mask, None))
    return scans, faults


def _find_csv(path: Path, _contrast: str) -> Found:
    scans, faults = [], []
    columns = ("subject", "split", "image", "mask")
    for line, row in read_table(path, delimiter=",", columns=columns):
        if row["split"] not in SPLITS:
            faults.append(split_fault(path, line, row["split"]))
        for column in ("subject", "image"):
            if not row[column]:
                faults.append(f"{path}, line {line}: expected '{column}', found none; fill it in")
        files = {}
        for column in ("image", "mask"):
            file = path.parent / Path(row[column]).expanduser()
            if not row[column]:
                continue
            if found := no_file(file):
                faults.append(
                    f"{path}, line {line}: expected the {column} {file}, found {found}; "
                    "correct the path (it is relative to the CSV file)"
                )
            else:
                files[column] = file
        if "image" in files:
            if files["image"] == files.get("mask"):
                faults.append(
                    f"{path}, line {line}: expected a mask beside the image, found the image "
                    "itself; name the mask, or leave it empty for a healthy scan"
                )
            scans.append(Scan(row["subject"], files["image"], files.get("mask"), row["split"]))
    return scans, faults


def split_fault(path: Path, line: int, split: str, splits: Iterable[str] = SPLITS) -> str:
    """Return the fault of a line with none of the `splits`."""
    return f"{path}, line {line}: expected split {', '.join(splits)}, found {split!r}; correct it"


def read_table(
    path: Path, delimiter: str, columns: tuple[str, ...]
) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a text table that are not blank, each with its line number.

    Raises:
        InputError: It is no file, no such table (in UTF-8 if the cells are not separated by tabs),
            lacks one of the `columns`, or has a row of more cells than its header.
    """
    check_file(path, "a text table")
    bids = delimiter == "\t"  # whose tables know no quotes; only the columns needed must be sound
    quoting = csv.QUOTE_NONE if bids else csv.QUOTE_MINIMAL
    errors, around = ("replace", ' "') if bids else ("strict", None)
    try:
        with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True, quoting=quoting)
            header = [name.strip(around) for name in next(reader, ())]
            rows = [(reader.line_num, [cell.strip(around) for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(
            f"{path}: expected a text table in UTF-8, found one that cannot be read "
            f"({cause(fault)}); save it again as CSV UTF-8"
        ) from fault
    _check_header(path, header, columns, delimiter)
    for line, cells in rows:
        if any(cells[len(header) :]):
            raise InputError(
                f"{path}, line {line}: expected {len(header)} cells as in its header, found "
                f"{len(cells)}; put a cell that holds the delimiter {delimiter!r} in quotes"
            )
    padded = [(line, [*cells, *[""] * (len(header) - len(cells))]) for line, cells in rows]
    return [(line, dict(zip(header, cells, strict=False))) for line, cells in padded if any(cells)]


def _check_header(path: Path, header: list[str], columns: tuple[str, ...], delimiter: str) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path}, line 1: expected the columns {', '.join(columns)}, found "
            f"{', '.join(header) or 'none'}: {', '.join(missing)} missing; add them to the header, "
            f"its names and all cells separated by {delimiter!r}"
        )
    if twice := [name for name in columns if header.count(name) > 1]:
        raise InputError(
            f"{path}, line 1: expected every column once, found {', '.join(twice)} twice; remove "
            "one"
        )


class Layout(NamedTuple):
    """How the files of a data set are named.

    Attributes:
        files: those that show the layout, for each contrast that it holds.
        find: lists the scans of a folder, or of a CSV file, and of a contrast.
    """

    files: Mapping[str, str]
    find: Callable[[Path, str], Found]


LAYOUTS = {
    "bids": Layout({one: f"sub-*/anat/sub-*_{one}.nii.gz" for one in CONTRASTS}, _find_bids),
    "hcp": Layout({one: f"*/{one}_acpc_dc_restore_brain.nii.gz" for one in (T2W, T1W)}, _find_hcp),
    "brats": Layout(
        {one: " or ".join(f"*{end}.nii.gz" for end in ends) for one, ends in BRATS.items()},
        _find_brats,
    ),
    "isles2015": Layout(
        {one: f"VSD.Brain.XX.O.{name}.*.nii" for one, name in ISLES.items()},
        _find_isles2015,
    ),
    "csv": Layout(dict.fromkeys(CONTRASTS, "a row for each scan"), _find_csv),
}
