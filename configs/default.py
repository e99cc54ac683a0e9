"""The default experiment, all fields with what they mean; the other files change what differs.

Any field can be set on the command line, `--config.solver.base_lr=1e-4`, `--config.data.train='(("kitti_mix", 1),)'`; an
unknown key or a value of another type is an error. Files take the ViT as an argument: `--config configs/sf.py:vits`.
"""

from ml_collections import ConfigDict

from bridgedepth_jax.systems.bridgedepth.config import ModelConfig


def model(encoder: str, vit: str, *, drop_path: float = 0.0) -> ConfigDict:
    """The whole `model` section, all fields of ModelConfig, which bridgedepth_jax/config.py documents: a stereo encoder
    (resnet, convnext, swin) with a ViT (vits, vitb, vitl, vitg). Widths and depths are fields too: model.nmp.infer_layers.
    """
    tree = ModelConfig.size(encoder, vit, drop_path=drop_path).to_dict()
    tree["nmp"]["mlp_ratio"] = float(tree["nmp"]["mlp_ratio"])  # a ConfigDict keeps the type it first saw
    return ConfigDict(tree)


def get_config(vit: str = "vitl") -> ConfigDict:
    return ConfigDict(
        dict(
            seed=326,  # of initial weights, data order, augmentation and drop path
            init=f"depth_anything_v2_{vit}",  # start: checkpoint folder, published name, another --workdir, random-mono
            # The network. Also here: dtype ("bfloat16": mixed precision), precision of float32 products, and remat (blocks are
            # computed again in the backward pass: less memory, a third more time).
            model=model("resnet", vit),
            data=dict(
                root="data",  # folder of the data sets as downloaded, or of the packed ones
                source="raw",  # or "tfds": packed by scripts/prepare_dataset.py
                train=(("sceneflow", 1),),  # (name, how often it is repeated in an epoch; -1: as is)
                crop=(368, 784),  # height, width; multiples of 16
                skip_broken=False,  # a broken file: take the next one instead of stopping
                augment=dict(
                    enabled=True,  # False: only the crop
                    saturation=(0.0, 1.4),  # range of the factor
                    gamma=(1.0, 1.0),  # range of the exponent
                    spatial_scale=(-0.2, 0.4),  # range of log2 of the scale
                    flip="",  # "hf" mirrored images, "h" mirrored and swapped, "v" vertical
                    y_jitter=False,  # dense sets: right image up or down by up to 2 rows
                    dense_resize_probability=0.0,  # beside where the crop needs it; the original never resizes dense samples
                    sparse_resize_probability=0.8,
                    stretch_probability=0.8,  # dense sets: of another scale for each axis
                    max_stretch=0.2,  # of log2 of that scale
                    asymmetric_probability=0.2,  # dense sets: of different colours left and right
                    eraser_probability=0.5,  # of rectangles over the right image
                ),
                synthetic=dict(  # of the set "synthetic"
                    height=None,  # pixels; None: the crop's
                    width=None,
                    max_disparity=192.0,  # pixels
                    seed=None,  # None: the experiment's
                    size=100_000,  # samples in an epoch
                    photos=None,  # folder of photographs for textures; None: those of scikit-image, where installed
                ),
                workers=0,  # processes that read; 0: threads of this one
                threads=2,  # in each of them
                prefetch=2,  # batches ready in advance
            ),
            solver=dict(
                max_iter=300_000,  # steps
                batch_size=8,  # pairs a step, over all devices and processes
                accumulate=1,  # the batch goes through in so many parts: less memory, same result
                base_lr=5e-4,  # peak of the one-cycle schedule
                weight_decay=1e-5,  # of everything but the next two
                weight_decay_norm=1e-5,  # of norm scales and shifts
                backbone_weight_decay=1e-5,  # of stereo_encoder.backbone
                grad_clip=1.0,  # largest global norm of the gradient
                train_mono=False,  # train the monocular branch too
                mono_rate=0.1,  # then: factor on its learning rate
                loss_type="L1",  # or "SMOOTH_L1"
                max_disp=192,  # pixels; ground truth from here on counts as unknown
                loss_weights=(1.0, 1.0, 1.0, 1.4, 1.4, 1.4, 1.4, 1.6, 2.0, 2.0),  # 5 coarse outputs, 5 fine ones
                max_bad_steps=20,  # stop after so many steps in a row without a finite loss and gradient
                no_resume_optimizer=True,  # init is a --workdir: take its weights, not its optimiser and step
                strict_resume=True,  # init: every parameter must be there and fit; False: take what fits
            ),
            run=dict(  # nothing here changes what is learnt
                fsdp=1,  # devices that share one copy of parameters and optimiser; 1: every device has its own
                frozen_dtype="float32",  # or "bfloat16": how the frozen monocular branch is held
                latest_every=1000,  # steps between checkpoints ...
                keep=2,  # ... of which so many are kept
                milestone_every=100_000,  # steps between checkpoints kept for ever
                images_every=1000,  # steps between pictures in TensorBoard; 0: none
                print_every=20,  # steps between progress lines
                profile_at=0,  # step at which three steps are traced into WORKDIR/profile; 0: none
            ),
            eval=dict(
                datasets=("things",),  # each by the paper's protocol for it
                every=20_000,  # steps; 0: only at the end
                limit=0,  # pairs of each set during training; 0: all
                batch=1,  # images at once and process
            ),
        )
    )


def convnext(
    vit: str, drop_path: float, *, start: str, train: dict[str, int], crop: tuple[int, int], max_disp: int
) -> ConfigDict:
    """What the fine-tuned experiments share: ConvNeXt encoder, evaluation on the four real sets."""
    config = get_config(vit)
    config.init = start
    config.model = model("convnext", vit, drop_path=drop_path)
    config.data.train = tuple(train.items())
    config.data.crop = crop
    config.solver.max_disp = max_disp
    config.eval.datasets = REAL
    return config


REAL = ("kitti_2012_trainval", "kitti_2015_trainval", "eth3d", "middlebury_Q")
