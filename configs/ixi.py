"""A study that anyone can run on real brains: IXI, about 580 healthy adults of London.

Three hospitals took part, on scanners of 1.5 and 3 T.

    export CRADL_DATA=/data            # holds IXI-T2: IXI002-Guys-0828-T2.nii.gz and the others
    python -m experiments.prepare --scans=/data/IXI-T2 --out=/data/IXI
    python -m experiments.check --config=configs/ixi.py
    python -m experiments.synthesize --config=configs/ixi.py
    python -m experiments.reproduce --config=configs/ixi.py --workdir=runs/ixi

IXI (brain-development.org, CC BY-SA 3.0) gives its T2 scans as one archive without registration.
They show the skull and differ in pose, which `experiments.prepare` mends: about 2 minutes of one
core a scan, HD-BET among them, so ten hours on two cores. Of the people 98 are held out by seed,
and foreign objects are pasted into their scans, 49 for validation and 49 for test, as in the
paper's HCP Synth.; a tenth of the others validate. Training takes on a GPU what configs/hcp.py
says, for two thirds of its slices. We have not run it as a whole: expect no figure from us.

Patients' scans join it by name: --config=configs/ixi.py:brats,isles,mslub takes those you have.
Each is prepared by the same command, but for the extraction where it is done:

    python -m experiments.prepare --scans=/data/BraTS2021 --layout=brats --extract=none --out=...
    python -m experiments.prepare --scans=/data/ISLES2015/SISS/Training --layout=isles2015 ...
    python -m experiments.prepare --scans=mslub.csv --out=/data/MSLUB

with --out=/data/BraTS, and --extract=none --out=/data/ISLES. BraTS (2021 or 2023, synapse.org,
registration) has about 1,250 training cases whose tumors are outlined; ISLES 2015
(isles-challenge.org, registration) 28 sub-acute strokes, and T2, which later ones lack. MSLUB
(Lesjak et al., Neuroinformatics 2018, CC BY) has 30 patients with multiple sclerosis: list their T2
scans and the consensus masks, on one grid, in a CSV file of subject,image,mask. Of these 20, 8 and
10 validate.

No list of splits comes with it, for we had no list of IXI's people. Who is in which split is drawn
by seed from those who are there, and written to splits/healthy.csv of the run. Keep that file with
your results: --config.data.sets.healthy.split_file=healthy.csv takes it again. IXI014
has 28 slices of 5 mm: leave it out.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from configs import default
from cradl_jax.errors import InputError

PATIENTS = {"brats": ("BraTS", 20), "isles": ("ISLES", 8), "mslub": ("MSLUB", 10)}
"""Folder of each data set of patients, and how many of them validate."""


def get_config(patients: str = "") -> ConfigDict:
    """Return the settings; `patients` are names of `PATIENTS`, separated by commas."""
    config = default.get_config()
    config.data.sets.update(
        {
            "healthy": {
                "layout": "bids",
                "path": "IXI",
                "offset": 0,
                "splits": {"held_out": 98, "val": 0.1, "train": -1},
                "split_file": placeholder(str),
            },
            "synth": {
                "layout": "bids",
                "path": "IXI_Synth",
                "made_from": "healthy",  # from people held out there, by experiments.synthesize
                "offset": 0,
                "splits": {"val": 49, "test": 49, "held_out": -1},
                "split_file": placeholder(str),
            },
        }
    )
    for name in filter(None, patients.split(",")):
        if name not in PATIENTS:
            raise InputError(
                f"--config=configs/ixi.py:{patients}: expected names of {', '.join(PATIENTS)}, "
                f"found {name!r}; correct it"
            )
        folder, validating = PATIENTS[name]
        config.data.sets[name] = {
            "layout": "bids",
            "path": folder,
            "offset": 0,
            "splits": {"val": validating, "test": -1},
            "split_file": placeholder(str),
        }
    return config
