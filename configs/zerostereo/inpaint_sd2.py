"""Fine-tuning of Stable Diffusion 2's inpainting network for holes of warped views (spec `zerostereo.md` section 4).

    python -m convert diffusers STABLE_DIFFUSION_2_INPAINTING weights/sd2
    python train.py --config configs/zerostereo/inpaint_sd2.py --init weights/sd2 --workdir runs/inpaint

The paper's: 50,000 steps of batch 32 (8 x 4 accumulated) at 512 x 512, AdamW 2e-5 with decay 0.01. Ours differs in that pixels
without a disparity are left out of the warp (`task.left_out`), and in bfloat16 where the original has float16.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.configs.default import get_config as default


def get_config() -> ConfigDict:
    config = default("zerostereo")
    config.model.unet.dtype = "bfloat16"
    config.data.train = (("tartan_air", 1), ("crestereo", 1), ("falling_things", 1), ("sceneflow", 1), ("vkitti2", 1))
    config.data.crop = (512, 512)
    augment(config)
    config.solver.update(max_iter=50_000, batch_size=32, accumulate=4, base_lr=2e-5, weight_decay=0.01, grad_clip=None)
    config.eval.update(datasets=(), every=0)
    return config


def augment(config: ConfigDict) -> None:
    """The same colour jitter for both views, and nothing else: no scale, no stretch, no eraser."""
    config.data.augment.update(spatial_scale=(0.0, 0.0), stretch_probability=0.0, sparse_resize_probability=0.0)
    config.data.augment.update(asymmetric_probability=0.0, eraser_probability=0.0)
