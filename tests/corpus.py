"""Bad files and settings, and odd ones that are valid: each made by a function, none stored.

A volume's maker writes into an empty folder and returns the path to give to a command. Beside it
stands what the message must say (a regular expression).
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scans import brain, write

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (20, 24, 16)
Maker = Callable[[Path], Path]


def plain() -> np.ndarray:
    """The brain of every file here, in whole numbers that all formats can hold."""
    return np.rint(brain(SHAPE)).astype(np.int16)


def nifti(data=None, header=nib.Nifti1Header(), **fields) -> bytes:  # noqa: B008
    """A .nii file whose header says what `fields` say, true or not."""
    data = plain() if data is None else data
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, AFFINE, header)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    raw = bytearray(image.to_bytes())
    view = np.ndarray((), image.header.template_dtype.newbyteorder(header.endianness), buffer=raw)
    for name, value in fields.items():
        view[name] = value
    return bytes(raw)


def sform(affine) -> dict:
    """Fields that say the affine by the sform."""
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), np.asarray(affine, float), strict=False))
    return {"sform_code": 1, **rows}


def file(name: str, content: Callable[[], bytes] | bytes) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / name

    return make


def saying(**fields) -> Maker:
    return file("scan.nii", lambda: nifti(**fields))


def holding(data: Callable[[], np.ndarray], name="scan.nii.gz", affine=AFFINE) -> Maker:
    return lambda folder: write(folder / name, data(), affine)


def changed(index, value) -> Callable[[], np.ndarray]:
    def data():
        found = brain(SHAPE)
        found[index] = value
        return found

    return data


def zipped(level=1) -> bytes:
    return gzip.compress(nifti(), level)


def flipped(place: int) -> bytes:
    content = bytearray(zipped())
    content[place] ^= 0xFF
    return bytes(content)


def named(name: str | bytes) -> Maker:
    """The plain scan under a name that makes trouble."""

    def make(folder: Path) -> Path:
        path = folder / os.fsdecode(name)
        path.write_bytes(nifti())
        return path

    return make


def folder_named_as_file(folder: Path) -> Path:
    (folder / "scan.nii").mkdir()
    return folder / "scan.nii"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "scan.nii")
    return folder / "scan.nii"


def link(target: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / "other.nii").symlink_to("scan.nii")
        (folder / "scan.nii").symlink_to(target)
        return folder / "scan.nii"

    return make


def pair(spoil: Callable[[Path], None], **fields) -> Maker:
    """A .hdr/.img pair, spoiled."""

    def make(folder: Path) -> Path:
        nib.save(nib.Nifti1Pair(plain(), AFFINE), folder / "scan.img")
        raw = bytearray((folder / "scan.hdr").read_bytes())
        header = np.ndarray((), nib.Nifti1Header.template_dtype, buffer=raw)
        for name, value in fields.items():
            header[name] = value
        (folder / "scan.hdr").write_bytes(raw)
        spoil(folder / "scan.img")
        return folder / "scan.hdr"

    return make


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def surfer(change: Callable[[bytes], bytes]) -> Maker:
    def make(folder: Path) -> Path:
        nib.save(nib.MGHImage(plain(), AFFINE), folder / "scan.mgz")
        (folder / "scan.mgz").write_bytes(change((folder / "scan.mgz").read_bytes()))
        return folder / "scan.mgz"

    return make


def nearly_empty() -> np.ndarray:
    data = np.zeros(SHAPE, np.float32)
    data[9:11, 9, 9] = 5, 6
    return data


COLOR = [("R", "u1"), ("G", "u1"), ("B", "u1")]
FLIPPED = np.diag([-2.0, 2.0, 2.0, 1.0])
LIE = "cannot be read|promises"

VOLUMES: dict[str, tuple[Maker, str]] = {
    "truncated gzip": (file("scan.nii.gz", lambda: zipped()[:1500]), LIE),
    "gzip with a wrong checksum": (file("scan.nii.gz", lambda: flipped(-6)), "CRC|crc"),
    "gzip with a flipped byte": (file("scan.nii.gz", lambda: flipped(1500)), "cannot be read"),
    "gzip with a wrong length": (file("scan.nii.gz", lambda: flipped(-2)), "cannot be read"),
    "gzip with garbage behind": (file("scan.nii.gz", lambda: zipped() + b"x" * 99), "cannot be r"),
    "gzip that is none": (file("scan.nii.gz", nifti), "cannot be read"),
    "gzip of gigabytes": (
        file("scan.nii.gz", lambda: gzip.compress(nifti() + bytes(1 << 26), 1)),
        "the file holds more",
    ),
    "wrong magic": (saying(magic=b"xyz"), "cannot be read"),
    "more voxels than data": (saying(dim=(3, 20, 24, 999, 1, 1, 1, 1)), LIE),
    "gigabytes of voxels": (saying(dim=(3, 1000, 1000, 1000, 1, 1, 1, 1)), LIE),
    "terabytes of voxels": (saying(dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)), "at most 1073741824"),
    "more voxels than 64 bits count": (
        file(
            "scan.nii",
            lambda: nifti(header=nib.Nifti2Header(), dim=(3, 2**32, 2**32, 2, 1, 1, 1, 1)),
        ),
        "at most 1073741824",
    ),
    "no voxel": (saying(dim=(3, 20, 0, 16, 1, 1, 1, 1)), "expected a 3-D volume"),
    "a negative number of voxels": (saying(dim=(3, 20, -24, 16, 1, 1, 1, 1)), "expected a 3-D vol"),
    "no dimensions": (saying(dim=(0, 0, 0, 0, 0, 0, 0, 0)), "cannot be read|3-D"),
    "unknown type of numbers": (saying(datatype=999), "cannot be read"),
    "quadruple precision": (saying(datatype=1536), "cannot be read"),
    "voxels that start beyond the end": (saying(vox_offset=1e9), LIE),
    "voxels that start nowhere": (saying(vox_offset=np.nan), "cannot be read"),
    "voxels that start before the header": (saying(vox_offset=-1000), "cannot be read"),
    "header extension of two gigabytes": (
        file(
            "scan.nii", lambda: nifti(vox_offset=1e6)[:348] + b"\1\0\0\0" + b"\xf0\xff\xff\x7f" * 9
        ),
        "cannot be read",
    ),
    "pair of which one lacks": (pair(Path.unlink), r"scan\.img: expected a volume, found no such"),
    "pair with a pipe": (pair(as_pipe), r"scan\.img: .*found a pipe"),
    "pair that lies": (pair(lambda _: None, dim=(3, 20, 24, 999, 1, 1, 1, 1)), "cannot be read"),
    "pair of terabytes": (
        pair(lambda _: None, dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)),
        "at most",
    ),
    "truncated mgz": (surfer(lambda content: content[:2000]), "cannot be read"),
    "text as mgz": (surfer(lambda _: b"subject,split\n"), "cannot be read"),
    "NaN": (holding(changed((3, 4, 5), np.nan)), "1 of 7680 NaN"),
    "infinity": (holding(changed((3, 4, 5), -np.inf)), "NaN or infinite"),
    "scale that overflows": (saying(scl_slope=3e38), "NaN or infinite"),
    "scale that underflows": (saying(scl_slope=1e-42), "magnitude"),
    "intercept that is NaN": (saying(scl_slope=1, scl_inter=np.nan), "cannot be read"),
    "intercept that is infinite": (saying(scl_slope=1, scl_inter=np.inf), "cannot be read"),
    "intercept without a zero": (saying(scl_slope=1, scl_inter=1000), "0% zero voxels"),
    "double precision that overflows": (
        holding(lambda: brain(SHAPE).astype(np.float64) * 1e300),
        "NaN or infinite",
    ),
    "intensities near overflow": (holding(lambda: brain(SHAPE) * np.float32(1e35)), "magnitude"),
    "spacing of 0": (saying(pixdim=(1, 2, 0, 2, 1, 1, 1, 1)), "voxel sizes above 0"),
    "spacing of 0 and no affine": (
        saying(pixdim=(1, 2, 0, 2, 1, 1, 1, 1), sform_code=0, qform_code=0),
        "above 0|places",
    ),
    "negative spacing": (saying(pixdim=(1, -2, 2, 2, 1, 1, 1, 1)), "above 0"),
    "spacing of NaN": (saying(pixdim=(1, np.nan, 2, 2, 1, 1, 1, 1)), "above 0"),
    "infinite spacing": (saying(pixdim=(1, np.inf, 2, 2, 1, 1, 1, 1), sform_code=0), "places"),
    "spacing other than the affine's": (saying(pixdim=(1, 1, 2, 2, 1, 1, 1, 1)), "one voxel size"),
    "singular affine": (saying(**sform(np.diag([2, 0, 2, 1]))), "expected an affine"),
    "affine of NaN": (saying(**sform(np.diag([2, np.nan, 2, 1]))), "expected an affine"),
    "infinite affine": (saying(**sform(np.diag([2, np.inf, 2, 1]))), "expected an affine"),
    "affine of two equal axes": (
        saying(**sform([[2, 2, 0, 0], [0, 1e-9, 0, 0], [0, 0, 2, 0]])),
        "expected an affine",
    ),
    "quaternion of no rotation": (saying(quatern_b=9, sform_code=0), "cannot be read"),
    "sform and qform that mirror each other": (saying(**sform(FLIPPED)), "one orientation"),
    "micrometers": (saying(xyzt_units=3), "expected millimeters"),
    "meters": (saying(xyzt_units=1), "expected millimeters"),
    "5-D": (holding(lambda: np.stack([brain(SHAPE)] * 2, -1)[:, :, :, None]), "expected a 3-D"),
    "4-D": (holding(lambda: np.stack([brain(SHAPE)] * 2, -1)), "expected a 3-D"),
    "2-D": (holding(lambda: np.ones((20, 20), np.float32)), "expected a 3-D"),
    "a single voxel": (holding(lambda: np.ones((1, 1, 1), np.float32)), "expected a 3-D"),
    "one slice": (holding(lambda: brain((20, 24, 1))), "expected a 3-D"),
    "color": (holding(lambda: np.zeros(SHAPE, COLOR)), "one real number"),
    "complex": (holding(lambda: brain(SHAPE).astype(np.complex64)), "complex64"),
    "constant": (holding(lambda: np.full(SHAPE, 7, np.int16)), "constant"),
    "all zero": (holding(lambda: np.zeros(SHAPE, np.int16)), "every voxel is 0"),
    "a mask instead of a scan": (holding(lambda: (brain(SHAPE) > 0).astype(np.uint8)), "mask"),
    "no zero background": (holding(lambda: brain(SHAPE) + 1), "HD-BET"),
    "a whole head": (holding(lambda: brain((60,) * 3), affine=np.diag([4, 4, 4, 1])), "HD-BET"),
    "nearly empty brain": (holding(nearly_empty), "only 2 of 7680 voxels"),
    "empty file": (file("scan.nii", b""), "cannot be read"),
    "empty gzip file": (file("scan.nii.gz", b""), "cannot be read"),
    "half a header": (file("scan.nii", lambda: nifti()[:200]), "cannot be read"),
    "text": (file("scan.nii", b"subject,split,image,mask\n" * 40), "cannot be read"),
    "a web page": (file("scan.nii.gz", b"<html>404 not found</html>"), "cannot be read"),
    "DICOM": (file("scan.dcm", bytes(128) + b"DICM" + bytes(400)), "the ending '.dcm'"),
    "zip": (file("scan.nii.zip", b"PK\5\6" + bytes(18)), "the ending '.zip'"),
    "no ending": (file("scan", nifti), "the ending ''"),
    "missing": (lambda folder: folder / "scan.nii", "found no such"),
    "folder with the name of a file": (folder_named_as_file, "found none in it"),
    "pipe": (pipe, "found a pipe"),
    "device without an end": (link("/dev/zero"), "found a pipe or a device"),
    "loop of links": (link("other.nii"), "too many levels of symbolic links"),
    "link to nothing": (link("gone.nii"), "found no such"),
    "newline in the name": (named("sc\nan.nii"), "fit for a file"),
    "quote in the name": (named('sc"an.nii'), "fit for a file"),
    "hidden name": (named(".nii"), "fit for a file"),
    "backslash in the name": (named("..\\scan.nii"), "fit for a file"),
    "name of 255 bytes": (named("n" * 251 + ".nii"), "fit for a file"),
    "name that is no text": (named(b"sc\xffan.nii"), "fit for a file"),
    "name too long for any file": (lambda folder: folder / ("n" * 300 + ".nii"), "too long"),
    "null byte in the name": (lambda folder: folder / "sc\0an.nii", "found no such"),
}
"""Bad volumes: how to make one, and what the message says."""


def mask(data: Callable[[], np.ndarray], affine=AFFINE) -> Maker:
    return holding(data, "mask.nii.gz", affine)


def lesion(value=1) -> np.ndarray:
    data = np.zeros(SHAPE, np.float32)
    data[8:12, 8:12, 6:9] = value
    return data


MASKS: dict[str, tuple[Maker, str]] = {
    "other shape": (mask(lambda: lesion()[:, :, 1:]), "image's shape"),
    "other affine": (mask(lesion, np.diag([2.0, 2.0, 2.2, 1.0])), "affine of its image"),
    "shifted": (mask(lesion, AFFINE + np.eye(4, k=3)), "affine of its image"),
    "mirrored": (mask(lesion, FLIPPED), "affine of its image"),
    "negative labels": (mask(lambda: lesion(-1)), "found -1"),
    "labels that are fractions": (mask(lambda: lesion(0.4)), "fractions"),
    "NaN": (mask(lambda: lesion(np.nan)), "NaN"),
    "color": (mask(lambda: np.zeros(SHAPE, COLOR)), "one real number"),
    "truncated": (file("mask.nii.gz", lambda: zipped()[:1500]), LIE),
    "pipe": (lambda folder: Path(pipe(folder).rename(folder / "mask.nii.gz")), "pipe"),
}
"""Bad masks of a scan of an anomalous data set."""

HEADER = b"subject,split,image,mask\n"
ROW = b"a,train,a.nii,\n"
LISTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "found none: subject, split, image, mask missing"),
    "header alone": (HEADER, "a row for each scan"),
    "semicolons": (HEADER.replace(b",", b";") + ROW.replace(b",", b";"), "separated by ','"),
    "tabs": (HEADER.replace(b",", b"\t"), "separated by ','"),
    "missing column": (b"subject,split,image\na,train,a.nii\n", "mask missing"),
    "a column twice": (HEADER[:-1] + b",image\na,train,a.nii,,b.nii\n", "image twice"),
    "comma in a cell": (HEADER + b"a,train,a.nii,,b.nii\n", "line 2: expected 4 cells"),
    "unknown split": (HEADER + b"a,tain,a.nii,\n", "expected split.*'tain'"),
    "no subject": (HEADER + b",train,a.nii,\n", "expected 'subject'"),
    "no image": (HEADER + b"a,train,,\n", "expected 'image'"),
    "missing image": (HEADER + b"a,train,gone.nii,\n", "gone.nii, found no such file"),
    "missing mask": (HEADER + b"a,train,a.nii,gone.nii\n", "mask .*found no such file"),
    "image as its mask": (HEADER + b"a,train,a.nii,a.nii\n", "the image itself"),
    "folder as image": (HEADER + b"a,train,.,\n", "found a folder"),
    "device as image": (HEADER + b"a,train,/dev/zero,\n", "found a pipe or a device"),
    "row twice": (HEADER + ROW + ROW, "found 2 times"),
    "image twice": (HEADER + ROW + b"b,train,a.nii,\n", "found 2 times"),
    "subject in two splits": (HEADER + ROW + b"a,val,b.nii,\n", "in one split"),
    "quote without an end": (HEADER + b'"a,train,a.nii,\n' + ROW, "unexpected end of data"),
    "quote within a cell": (HEADER + b'"a"b,train,a.nii,\n', "cannot be read"),
    "null bytes": (HEADER + b"a,train,a\0.nii,\n", "found no such file"),
    "UTF-16": ("subject,split,image,mask\na,train,a.nii,\n".encode("utf-16"), "UTF-8"),
    "Latin-1": (HEADER + "ä,train,a.nii,\n".encode("latin-1"), "UTF-8"),
    "newline in a subject": (HEADER + b'"a\nb",train,a.nii,\n', "printable"),
    "escape codes in a subject": (HEADER + b"a\x1b[31m,train,a.nii,\n", "printable"),
    "cell of 100 kB": (HEADER + b"a,train," + b"n" * 100_000 + b",\n", "too long"),
    "cell of 200 kB": (HEADER + b"a,train," + b"n" * 200_000 + b",\n", "field limit"),
    "not a table": (bytes(range(256)), "UTF-8"),
}
"""Bad lists of scans; beside them lie the scans a.nii and b.nii."""

NAMES: dict[str, tuple[bytes, str]] = {
    "outside the folder": (b"image,subject\na.nii,../../x\n", "fit for a file"),
    "absolute": (b"image,subject\na.nii,/tmp/x\n", "fit for a file"),
    "newline": (b'image,subject\na.nii,"x\ny"\n', "fit for a file"),
    "hidden": (b"image,subject\na.nii,.x\n", "fit for a file"),
    "twice": (b"image,subject\na.nii,x\nb.nii,X\n", "a name of its own"),
    "too long": (b"image,subject\na.nii," + b"x" * 240 + b"\n", "fit for a file"),
    "column image missing": (b"path\na.nii\n", "image missing"),
}
"""Bad lists for experiments.predict: subjects that output files are named after."""

SETTINGS: dict[str, tuple[str, str]] = {
    "unknown setting": ("train.epoch=3", "expected a setting that the config has"),
    "setting below a number": ("seed.x=3", "expected a setting that the config has"),
    "text for a number": ("train.epochs=many", "train.epochs=many"),
    "fraction for a whole number": ("train.epochs=1.5", "train.epochs=1.5"),
    "number for a group": ("train=1", "config.train=1"),
    "text for true or false": ("train.annealing=maybe", "train.annealing=maybe"),
    "no epochs": ("train.epochs=0", "config.train.epochs: .*found 0"),
    "negative batch": ("train.batch_size=-8", "config.train.batch_size: .*found -8"),
    "empty batch": ("train.batch_size=0", "config.train.batch_size: .*found 0"),
    "one slice a batch": ("train.batch_size=1", "config.train.batch_size: .*from 2"),
    "negative learning rate": ("train.learning_rate=-1e-3", "config.train.learning_rate: .*above"),
    "learning rate 0": ("train.learning_rate=0", "config.train.learning_rate: .*above 0"),
    "learning rate NaN": ("train.learning_rate=nan", "config.train.learning_rate: .*found nan"),
    "learning rate infinite": ("train.learning_rate=inf", "config.train.learning_rate"),
    "negative weight decay": ("train.weight_decay=-1", "config.train.weight_decay"),
    "temperature 0": ("loss.temperature=0", "config.loss.temperature: .*above 0"),
    "negative temperature": ("loss.temperature=-0.5", "config.loss.temperature: .*above 0"),
    "temperature NaN": ("loss.temperature=nan", "config.loss.temperature: .*found nan"),
    "size that no encoder takes": ("data.size=96", "config.data.size: .*power of two"),
    "size 4": ("data.size=4", "config.data.size: .*from 8"),
    "negative size": ("data.size=-64", "config.data.size"),
    "no features": ("model.features=0", "config.model.features"),
    "one latent dimension": ("model.latent=1", "config.model.latent"),
    "unknown precision": ("model.dtype=int8", "config.model.dtype: expected one of"),
    "no components": ("gmm.components=0", "config.gmm.components"),
    "negative components": ("gmm.components=-2", "config.gmm.components"),
    "components that are fractions": ("gmm.components=1.5", "config.gmm.components"),
    "components twice": ("gmm.components=2,2", "config.gmm.components: .*different"),
    "tolerance NaN": ("gmm.tolerance=nan", "config.gmm.tolerance"),
    "negative regularization": ("gmm.regularization=-1e-5", "config.gmm.regularization"),
    "no blocks": ("flow.blocks=0", "config.flow.blocks"),
    "flow without epochs": ("flow.epochs=0", "config.flow.epochs"),
    "scores in batches of none": ("score.batch_size=0", "config.score.batch_size"),
    "unknown method": ("methods=gan", "config.methods: .*'gan'"),
    "no method": ("methods=()", "config.methods"),
    "method twice": ("methods=vae,vae", "config.methods: .*different"),
    "negative seed": ("seed=-1", "config.seed: .*found -1"),
    "huge seed": ("seed=99999999999", "config.seed: .*to 2147483647"),
    "negative seed among several": ("seeds=0,-1", "config.seeds: .*found -1"),
    "no seeds": ("seeds=()", "config.seeds"),
    "probability above 1": ("augment.mirror=1.5", "config.augment.mirror"),
    "scales in the wrong order": ("augment.scale=(1.2,0.9)", "config.augment.scale"),
    "one scale": ("augment.scale=1", "config.augment.scale"),
    "noise of the wrong kind": ("augment.noise=nan", "config.augment.noise"),
    "negative workers": ("data.workers=-1", "config.data.workers"),
    "unknown layout": ("data.sets.lesion.layout=nifti", "config.data.sets.lesion.layout: .*bids"),
    "negative offset": ("data.sets.lesion.offset=-1", "config.data.sets.lesion.offset"),
    "empty path": ("data.sets.lesion.path=", "config.data.sets.lesion.path"),
    "voxels of no size": ("phantom.spacing_mm=0", "config.phantom.spacing_mm"),
    "negative number of subjects": (
        "phantom.subjects.healthy.train=-4",
        "config.phantom.subjects.healthy.train",
    ),
}
"""Overrides of configs/phantom.py on the command line."""

BASE = "from configs import phantom\n\n\ndef get_config():\n    config = phantom.get_config()\n"
CONFIGS: dict[str, tuple[str, str]] = {
    "syntax error": ("def get_config(:\n", "SyntaxError"),
    "no get_config": ("config = 3\n", "no attribute 'get_config'"),
    "get_config with arguments": ("def get_config(x):\n    pass\n", "get_config.*missing 1"),
    "no ConfigDict": ("def get_config():\n    return 3\n", "to return a ConfigDict, found 3"),
    "an error of its own": ("def get_config():\n    raise RuntimeError('no')\n", "line 2: .*no;"),
    "missing module": ("import nowhere_to_be_found\n", "line 1: .*nowhere_to_be_found"),
    "setting with a slip": (
        BASE + "    config.train.epoch = 9\n    return config\n",
        "train.epochs?",
    ),
    "setting of another type": (
        BASE + "    with config.ignore_type():\n        config.train.epochs = 'nine'\n"
        "    return config\n",
        "config.train.epochs: .*found 'nine'",
    ),
    "setting left out": (
        BASE + "    del config.flow.clip\n    return config\n",
        "config.flow.clip",
    ),
    "smoke without settings": (
        BASE + "    del config.smoke_settings\n    return config\n",
        "smoke_",
    ),
    "data set with a path as name": (
        BASE + "    config.data.sets['a/b'] = config.data.sets.lesion\n    return config\n",
        r"a data set's name",
    ),
    "unknown setting of a data set": (
        BASE + "    config.data.sets.lesion.ofset = 3\n    return config\n",
        "config.data.sets.lesion.ofset",
    ),
    "override of no method": (
        BASE + "    config.overrides.gan = {'train': {'epochs': 3}}\n    return config\n",
        "config.overrides.gan",
    ),
    "override of a setting that is shared": (
        BASE + "    config.overrides.vae = {'gmm': {'tolerance': 3.0}}\n    return config\n",
        "config.overrides.vae.gmm.tolerance",
    ),
}
"""Configs that are no configs."""


def with_extension() -> bytes:
    header = nib.Nifti1Header()
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a remark" * 30))
    return nifti(header=header)


def oriented(codes: str) -> Maker:
    def make(folder: Path) -> Path:
        wanted = nib.orientations.axcodes2ornt(codes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), wanted)
        nib.save(nib.Nifti1Image(plain(), AFFINE).as_reoriented(turn), folder / "scan.nii")
        return folder / "scan.nii"

    return make


def oblique(folder: Path) -> Path:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    nib.save(nib.Nifti1Image(plain(), turn @ AFFINE), folder / "scan.nii")
    return folder / "scan.nii"


def saved(kind: type, name: str, data: Callable[[], np.ndarray] = plain) -> Maker:
    def make(folder: Path) -> Path:
        nib.save(kind(data(), AFFINE), folder / name)
        return folder / name

    return make


def members() -> bytes:
    content = nifti()
    return gzip.compress(content[:5000]) + gzip.compress(content[5000:]) + bytes(64)


BIG = nib.Nifti1Header(endianness=">")
ODDITIES: dict[str, Maker] = {
    "big-endian": file("scan.nii", lambda: nifti(header=BIG)),
    "scaled whole numbers": saying(scl_slope=0.25, scl_inter=0),
    "scale 0, which means none": saying(scl_slope=0, scl_inter=7),
    "scale NaN, which means none": saying(scl_slope=np.nan),
    "scale and intercept": file(
        "scan.nii", lambda: nifti(plain() - 100, scl_slope=1, scl_inter=100)
    ),
    "gzip": file("scan.nii.gz", zipped),
    "gzip of several members": file("scan.nii.gz", members),
    "gzip without compression": file("scan.nii.gz", lambda: zipped(0)),
    "capital letters": file("SCAN.NII.GZ", zipped),
    "NIfTI-2": file("scan.nii", lambda: nifti(header=nib.Nifti2Header())),
    "pair by its header": pair(lambda _: None),
    "pair by its voxels": lambda folder: pair(lambda _: None)(folder).with_suffix(".img"),
    "Analyze": lambda folder: saved(nib.Spm99AnalyzeImage, "scan.img")(folder),
    "mgz": saved(nib.MGHImage, "scan.mgz"),
    "LPS": oriented("LPS"),
    "SAR": oriented("SAR"),
    "oblique": oblique,
    "bytes": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.uint8)),
    "signed bytes": file(
        "scan.nii", lambda: nifti((plain() - 64).astype(np.int8), scl_slope=1, scl_inter=64)
    ),
    "unsigned": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.uint16)),
    "double precision": saved(nib.Nifti1Image, "scan.nii", lambda: plain().astype(np.float64)),
    "4-D of one volume": saved(nib.Nifti1Image, "scan.nii", lambda: plain()[..., None]),
    "header extension": file("scan.nii", with_extension),
    "qform alone": saying(sform_code=0),
    "sform alone": saying(qform_code=0, quatern_b=0.5),
    "another size of the header": saying(sizeof_hdr=12345),
    "leading dash": named("-scan.nii"),
    "spaces and letters of other alphabets": named("mein scan ä 脳.nii"),
    "link": lambda folder: _linked(folder),
    "trailing bytes": file("scan.nii", lambda: nifti() + bytes(1000)),
}
"""Odd files of the plain scan, which give the same slices."""


def _linked(folder: Path) -> Path:
    target = named("target.nii")(folder)
    (folder / "scan.nii").symlink_to(target)
    return folder / "scan.nii"
