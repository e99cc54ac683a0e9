"""The default model: what `configs/bridgedepth/nano.py` lacks, trained for as long as there is time.

    python scripts/forget.py bridgedepth_jax/weights/nano runs/start mono/ depth_feature_down/ stereo_encoder/dpn/prior_proj/
    python train.py --config configs/bridgedepth/nano_sharp.py --workdir runs/nano_sharp --init runs/start

Bounded monocular states, semi-global matching as a further candidate and in the last choice of every pixel, convex upsampling
guided by the image, a learned confidence, and crowded scenes whose disparities are in proportion to the crop's width. The rate
is constant and the weights are averaged, so that a run can stop and go on at any step: the average is what is evaluated and
exported.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano
from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def get_config() -> ConfigDict:
    config = nano.get_config()
    config.model = ConfigDict(ModelConfig.nano_sharp().to_dict())
    config.seed = 329
    config.data.crop = (160, 384)
    config.data.synthetic.update(scenes="crowded", max_disparity=144.0)  # 3/8 of the width at most
    config.solver.update(max_iter=200_000, batch_size=1, base_lr=5e-4, schedule="constant", average=0.998, strict_resume=False)
    config.run.update(latest_every=250, print_every=50, images_every=1000, health_every=500)
    config.eval.update(every=0, limit=16)
    return config
