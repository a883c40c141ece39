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

Patients' scans can be added in a config of your own that starts from this one, prepared by the same
command (BraTS and ISLES by --extract=none): config.data.sets["brats"] = {"layout": "bids", ...}.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from configs import default


def get_config() -> ConfigDict:
    """Return the settings."""
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
    return config
