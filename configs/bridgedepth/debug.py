"""A tiny network for a minute on two cores, without any file: does training run at all on this machine?

    python train.py --config configs/debug.py --workdir runs/debug

Data: procedural stereo pairs of 64x96 pixels. Everything starts at random and is trained, the monocular branch too.
Expected: the loss falls from the first progress line to the last, a checkpoint and an inference checkpoint are written;
the disparities are worth nothing.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import base


def tiny_model() -> ConfigDict:
    """All parts of the network in a few layers: it compiles in seconds."""
    model = base.model("resnet", "vits")
    model.mono.update(name="tiny", dim=32, depth=4, heads=2, taps=(0, 1, 2, 3), features=16, out_channels=(8, 16, 16, 16))
    model.backbone.update(out_channels=32, dims=(16, 16, 24), depths=(1, 1, 1))
    model.dpn.update(max_disp=64, context_dim=16, seed_dim=16, lookup_dim=16)
    model.nmp.update(prop_dim=32, dim=32, mlp_ratio=2.0, prop_heads=2, heads=2, prop_layers=1, infer_layers=1, refine_layers=1)
    model.nmp.update(concat_dim=16, concat_hidden=16, correlation_dim=32, correlation_groups=8)
    return model


def get_config() -> ConfigDict:
    config = base.get_config("vits")
    config.init = "random-mono"
    config.model = tiny_model()
    config.data.train = (("synthetic", 1),)
    config.data.crop = (64, 96)
    config.data.synthetic.max_disparity = 32.0
    config.data.augment.enabled = False
    config.solver.update(max_iter=60, batch_size=4, base_lr=2e-3)
    config.task.update(train_mono=True, mono_rate=1.0, max_disp=64)
    config.task.loss_weights = (1.4, 2.0)
    config.run.update(latest_every=20, print_every=10, images_every=20)
    config.eval.update(datasets=("synthetic",), every=0, limit=8)
    return config
