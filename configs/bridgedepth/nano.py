"""The published parts, small enough to ship with the package, trained from procedural stereo pairs alone.

    python train.py --config configs/nano.py --workdir runs/nano

Data: rendered while training, no files (with scikit-image installed some surfaces carry its photographs; of its stereo pair
none). All weights start at random and are trained, the monocular branch too.
The default model, configs/bridgedepth/nano_sharp.py, has more parts. A longer run is the same command with more steps,
--config.solver.max_iter=100000.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def get_config() -> ConfigDict:
    config = base.get_config("vits")
    config.init = "random-mono"
    config.model = ConfigDict(ModelConfig.nano().to_dict())
    config.data.train = (("synthetic", 1),)
    config.data.crop = (96, 240)
    config.data.synthetic.max_disparity = 80.0
    config.data.augment.enabled = False  # the renderer varies the photometry itself
    config.solver.update(max_iter=14000, batch_size=2, base_lr=1e-3)
    config.task.update(train_mono=True, mono_rate=1.0)
    config.task.loss_weights = (1.0, 1.4, 1.6, 2.0)
    config.run.update(latest_every=500, print_every=50, images_every=1000)
    config.eval.update(datasets=("synthetic",), every=0, limit=16)
    return config
