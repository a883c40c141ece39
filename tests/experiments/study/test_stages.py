from configs import field
from cradl_jax.names import VAES
from experiments.study import stages
from tests.helpers.refusals import in_time, refusal  # noqa: F401


def test_a_command_that_trains_none_of_the_methods_says_which_it_trains(tmp_path):
    config = field.get_config()
    config.methods = ("cradl", "dae")
    message = refusal(stages.train_all, config, tmp_path, VAES, False)
    assert "expected vae or cevae, found cradl, dae; add --config.methods=vae" in message
    assert not any(tmp_path.iterdir())
