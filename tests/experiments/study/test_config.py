"""What a config says in short is put in place, and what the command line says stays."""

import pytest

from configs import field, phantom, phantom128
from cradl_jax.storage.manifest import flat
from experiments.study.config import prepare


@pytest.mark.parametrize("study", [phantom, phantom128, field])
def test_a_smoke_run_has_its_settings_but_for_those_given(study):
    config = study.get_config()
    config.smoke = True
    config.train.epochs = 7
    before, smoke = flat(config.to_dict()), flat(config.smoke_settings.to_dict())
    prepare(config.lock(), given={"smoke": True, "train.epochs": 7})
    after = flat(config.to_dict())
    assert after["train.epochs"] == 7 != smoke["train.epochs"]
    assert after == before | smoke | {"train.epochs": 7}


def test_other_runs_keep_what_a_smoke_run_changes():
    config = phantom.get_config()
    prepare(config.lock())
    assert config.train.epochs == phantom.get_config().train.epochs
