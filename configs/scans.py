r"""Your own scans, listed in CSV files with the columns subject,split,image,mask.

    python -m experiments.reproduce --config=configs/scans.py \
        --config.data.healthy=healthy.csv --config.data.anomalous=stroke.csv,tumor.csv

Each anomalous file is a data set of its own, named by the file. The healthy file has the splits
train and val, and test if whole scans and lesions are to be measured, the anomalous ones val and
test; paths are relative to their CSV file.

Training has the paper's size, 128x128 slices and three seeds. On one H200, 100 epochs of 111,000
slices take 215 s for CRADL, 228 s for the VAE and 426 s for the ceVAE, and fewer slices less in
proportion. Two CPU cores need months for so much: there, take the sizes of configs/phantom.py. What
to expect depends on your scans; the report puts trivial baselines beside every method.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import default


def get_config() -> ConfigDict:
    """Return the settings."""
    config = default.get_config()
    config.data.healthy = placeholder(str)
    config.data.anomalous = placeholder(str)
    config.data.offset = 0  # slices dropped at each end of a brain
    return config
