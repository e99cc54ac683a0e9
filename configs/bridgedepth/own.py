"""The default model fine-tuned on pairs of your own with ground truth, beside rendered ones.

    bridgedepth train --config bridgedepth/own --workdir runs/mine --config.data.root=.

Data: `train.csv` in the data directory (the README of `bridgedepth_jax/data` makes it from folders), and as many rendered,
so that what the model knows stays. `test.csv` is evaluated as the README says, after training: here it has no say.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano_sharp


def get_config() -> ConfigDict:
    config = nano_sharp.get_config()
    config.init = "nano"
    config.data.train = (("custom:train.csv", 1), ("synthetic", 1))
    config.data.shares = (1, 1)  # of any number of pairs
    config.data.augment.enabled = True
    config.solver.update(max_iter=2000, base_lr=1e-4, average=0.99, strict_resume=True)
    config.run.health_every = 0
    return config
