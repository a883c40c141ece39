"""Your own scans, listed in CSV files with the columns subject,split,image,mask.

    python -m experiments.reproduce --config=configs/scans.py \
        --config.data.healthy=healthy.csv --config.data.anomalous=stroke.csv,tumor.csv

Each anomalous file is a data set of its own, named by the file. The healthy file has the splits
train and val, the anomalous ones val and test; paths are relative to their CSV file.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.healthy = placeholder(str)
    config.data.anomalous = placeholder(str)
    config.data.offset = 10  # slices dropped at each end of a volume
    return config
