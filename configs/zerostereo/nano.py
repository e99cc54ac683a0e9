"""The default model fine-tuned on pairs made from photographs: small enough for two cores.

    bridgedepth data synthesize PHOTOS --out SET --depth field --inpaint runs/inpaint_nano/export --max-side 512
    bridgedepth train --config zerostereo/nano --workdir runs/zero_nano --config.data.root=SET --init WEIGHTS

WEIGHTS are of the default model's kind: of a run of bridgedepth/nano_sharp, or the folder bridgedepth_jax/weights/nano. A
set with labels of a random field has confidence 1 everywhere: task.loss then is the loss of labels with another name for it.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.bridgedepth import nano_sharp


def get_config() -> ConfigDict:
    config = nano_sharp.get_config()
    config.init = "nano"
    config.data.train = (("custom:pairs.csv", 1),)
    config.data.crop = (128, 256)
    config.data.augment.update(enabled=True, dense_resize_probability=0.5, eraser_probability=0.0)
    config.solver.update(max_iter=1000, batch_size=1, base_lr=1e-4, average=0.99, strict_resume=True)
    config.task.loss = "zero"
    config.run.health_every = 0
    config.eval.update(datasets=(), every=0)
    return config
