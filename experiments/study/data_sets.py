"""The data sets of a study: where their scans and slices are, and who is in which split."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.data.scans.contrasts import T2W, stated
from cradl_jax.data.scans.layouts import HELD_OUT, Scan, list_scans, stem
from cradl_jax.data.scans.splits import assign_splits, listed_splits, source_faults, subject_faults
from cradl_jax.data.slices.store import SliceStore, open_store
from cradl_jax.devices import processes
from cradl_jax.errors import InputError
from cradl_jax.storage.manifest import differences

HEALTHY = "healthy"
"""The data set that models and densities learn from; every other one is anomalous."""


def stores(config: ConfigDict, workdir: Path) -> dict[str, SliceStore]:
    """Open the slice store of every data set, the healthy one first.

    Raises:
        InputError: If one is missing or was made with other settings or of another contrast, or
            processes have others.
    """
    opened = {}
    for name in names(config):
        path = store_path(workdir, name)
        if not path.exists():
            raise InputError(
                f"{path}: expected the slices of the data set '{name}', found none; run python -m "
                "experiments.preprocess first"
            )
        try:
            opened[name] = open_store(path)
        except InputError as fault:
            raise InputError(f"{fault}: run python -m experiments.preprocess first") from fault
        if fault := other_slicing(config, name, opened[name]):
            raise InputError(
                f"{fault}; go back to those, run python -m experiments.preprocess again, or choose "
                "another folder (--workdir)"
            )
        images = [Path(record["image"]) for record in opened[name].records]
        others = other_contrasts(config, images)
        if others and config.data.sets[name].layout != "csv":  # which is taken as it is
            raise InputError(
                f"{opened[name].path}: expected slices of the contrast {config.data.contrast}, "
                f"found those of {', '.join(others)}; run python -m experiments.preprocess again, "
                "or choose another working directory"
            )
    processes.assert_equal({f"slices of {n}": s.manifest["fingerprint"] for n, s in opened.items()})
    return opened


def names(config: ConfigDict) -> list[str]:
    """Return the names of the data sets in the order of the config, but the healthy one first."""
    if HEALTHY not in config.data.sets:
        raise InputError(
            f"config.data.sets: expected a data set '{HEALTHY}', found {list(config.data.sets)}; "
            "name the data set to train on so"
        )
    for name, settings in config.data.sets.items():
        source = settings.get("made_from")
        if source == name or (source and source not in config.data.sets):
            raise InputError(
                f"config.data.sets.{name}.made_from: expected another data set of "
                f"{list(config.data.sets)}, found '{source}'; correct the name"
            )
    return sorted(config.data.sets, key=lambda name: name != HEALTHY)


def store_path(workdir: Path, name: str) -> Path:
    """Return the folder of a data set's slice store."""
    return workdir / "slices" / name


def slicing(config: ConfigDict, name: str) -> dict:
    """Return how the scans of a data set are sliced, see `normalized_slices`."""
    settings = config.data.sets[name]
    return {
        "size": config.data.size,
        "field_mm": config.data.field_mm,
        "span": config.data.span,
        "detrend": config.data.detrend,
        "offset": settings.get("offset", 0),
        "slice_spacing_mm": settings.get("slice_spacing_mm") or config.data.slice_spacing_mm,
    }


def other_slicing(config: ConfigDict, name: str, store: SliceStore) -> str | None:
    """Say how a data set's store was sliced otherwise than the config says; None if alike."""
    differing = differences(store.manifest["settings"], slicing(config, name))
    if not differing:
        return None
    return f"{store.path}: was sliced with different settings ({'; '.join(differing)})"


def data_root(config: ConfigDict, workdir: Path) -> Path:
    """Return the folder that the paths of data sets start from."""
    return Path(config.data.root or workdir / "data").expanduser()


def data_set_path(config: ConfigDict, workdir: Path, name: str) -> Path:
    """Return the folder of a data set, or the CSV file that lists it."""
    return data_root(config, workdir) / Path(config.data.sets[name].path).expanduser()


def find_all(config: ConfigDict, workdir: Path) -> tuple[dict[str, list[Scan]], list[str]]:
    """Find the scans of all data sets, held out ones too, and what is wrong with the lists.

    Raises:
        InputError: If the folder of all data sets is missing, or a name in the config is wrong.
    """
    lists = {name: find_data_set(config, workdir, name) for name in names(config)}
    found = {name: scans for name, (scans, _) in lists.items()}
    faults = [fault for _, faults in lists.values() for fault in faults]
    faults += missing_splits({name: used(scans) for name, scans in found.items() if scans})
    return found, faults + leaks(config, found)


def find_data_set(config: ConfigDict, workdir: Path, name: str) -> tuple[list[Scan], list[str]]:
    """Find a data set's scans, each with its split, and what is wrong with the list of them.

    Raises:
        InputError: If the folder of all data sets is missing.
    """
    root, settings = data_root(config, workdir), config.data.sets[name]
    if not root.is_dir() and not Path(settings.path).expanduser().is_absolute():
        phantom = "make the phantom with python -m experiments.phantom, or name the folder"
        remedy = f"{phantom} of your own scans" if "phantom" in config else "name it"
        raise InputError(
            f"{root}: expected the folder of the data sets, found none; {remedy} with "
            "--config.data.root=... or $CRADL_DATA"
        )
    path, scans = data_set_path(config, workdir, name), []
    try:
        scans, faults = list_scans(path, settings.layout, config.data.contrast)
        if not faults:
            scans, faults = with_splits(config, name, scans)
    except InputError as fault:
        hint = ""
        if settings.get("made_from") and not path.exists():
            hint = "; make it with python -m experiments.synthesize"
        faults = [f"data set '{name}': {fault}{hint}"]
    return scans, faults


def require_t2w(config: ConfigDict, what: str) -> None:
    """Raise an InputError unless a study takes the contrast in which scans are generated."""
    if config.data.contrast != T2W:
        raise InputError(
            f"config.data.contrast: expected {T2W}, as {what} is written, found "
            f"{config.data.contrast}; choose {T2W}, or a config of your own scans"
        )


def contrast_warning(config: ConfigDict, name: str, scans: list[Scan]) -> str | None:
    """Say that listed scans are named as of another contrast than the study's, if any are."""
    others = other_contrasts(config, [scan.image for scan in scans])
    if not others:
        return None
    return (
        f"warning: {name}: expected scans of the contrast {config.data.contrast}, found "
        f"{sum(others.values())} of {len(scans)} named as {', '.join(others)}; predict will refuse "
        "scans of such names, unless config.data.contrast is theirs"
    )


def other_contrasts(config: ConfigDict, images: Iterable[Path]) -> Counter[str]:
    """Count the files whose names state another contrast than the study's, by contrast."""
    found = Counter(stated(stem(image)) for image in images)
    return Counter({one: n for one, n in found.items() if one not in (None, config.data.contrast)})


def with_splits(config: ConfigDict, name: str, scans: list[Scan]) -> tuple[list[Scan], list[str]]:
    """Give a data set's scans their splits: listed in its split_file, or else drawn."""
    settings = config.data.sets[name]
    if settings.get("split_file"):
        return listed_splits(scans, Path(settings.split_file).expanduser())
    return assign_splits(scans, settings.get("splits") or {}, config.data.seed), []


def used(scans: list[Scan]) -> list[Scan]:
    """Return the scans that are not held out."""
    return [scan for scan in scans if scan.split != HELD_OUT]


def leaks(config: ConfigDict, found: dict[str, list[Scan]]) -> list[str]:
    """Find what would leak from one split, or from the healthy data set, into another.

    Raises:
        InputError: `config.data.separate` names what is no data set.
    """
    faults, sound = [], {}
    separate = [name for name in (config.data.get("separate") or "").split(",") if name]
    if unknown := set(separate) - found.keys():
        raise InputError(
            f"config.data.separate: expected data sets of {list(found)}, found "
            f"{', '.join(sorted(unknown))}; correct the names"
        )
    for name, scans in found.items():
        source = config.data.sets[name].get("made_from")
        leaking = source_faults(name, used(scans), source, found[source]) if source else []
        if not leaking:
            sound[name] = used(scans)
        faults += leaking
    return faults + subject_faults(sound, separate)


def missing_splits(data_sets: dict[str, list[Scan]]) -> list[str]:
    """Find the splits that a study needs and a data set lacks."""
    faults = []
    for name, scans in data_sets.items():
        needed = ("train", "val") if name == HEALTHY else ("val", "test")
        splits = {scan.split for scan in scans}
        if not splits.issuperset(needed):
            found = ", ".join(sorted(map(str, splits))) or "none"
            faults.append(
                f"data set '{name}': expected scans in the splits {' and '.join(needed)}, found "
                f"{found}; models and scores are chosen on val, so move some scans there"
            )
    return faults
