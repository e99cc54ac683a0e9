"""The default model, last stage: the choice of every pixel between the disparities around it, everything else frozen.

    python train.py --config configs/bridgedepth/nano_choice.py --workdir runs/nano_choice --init bridgedepth_jax/weights/nano

Half of the scenes are as fine as photographs are. A step takes a third of the whole network's. The rate is constant and the
weights are averaged, as in configs/nano_sharp.py.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano_sharp


def get_config() -> ConfigDict:
    config = nano_sharp.get_config()
    config.seed = 332  # other scenes
    config.model.fusion_reach = (2, 4, 8, 16)
    config.data.synthetic.scenes = "mixed"
    config.task.only = ("fusion/",)
    config.solver.update(base_lr=1e-3, batch_size=2)
    config.run.update(health_every=0)
    return config
