"""Bad lists of scans, settings and configs, and what the message about each must say."""

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
    "size that no encoder takes": (
        "data.size=100",
        "config.data.size: .*nearest are 96 and 112.*found 100",
    ),
    "unknown contrast": ("data.contrast=T2", "config.data.contrast: expected one of T2w, .*'T2'"),
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
    "fewer blocks than none": ("flow.blocks=-1", "config.flow.blocks"),
    "flow without epochs": ("flow.epochs=0", "config.flow.epochs"),
    "scores in batches of none": ("score.batch_size=0", "config.score.batch_size"),
    "fewer than no neighbours": ("score.neighbours=-1", "config.score.neighbours: .*from 0"),
    "more neighbours than slices": ("score.neighbours=1000", "config.score.neighbours: .*to 64"),
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
