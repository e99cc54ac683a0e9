"""Rules of networks that several systems hold: their tables are made of these rows, their orders of these names."""

from bridgedepth_jax.convert.engine import COLUMN, CONV, CONV_TRANSPOSED, LINEAR, NORM, SAME, table

# DINOv2 and its DPT head.
VIT_DPT = table(
    ("bias|gamma|cls_token|pos_embed|mask_token", SAME),
    (r"(norm|norm1|norm2)\.weight", NORM),
    (r"resize_layers\.[01]\.weight", CONV_TRANSPOSED),
    (
        r"(patch_embed\.proj|projects\.@|resize_layers\.3|layer[1-4]_rn|out_conv|conv[12]|output_conv1|output_conv2\.@)\.weight",
        CONV,
    ),
    (r"(qkv|proj|fc1|fc2|w12|w3)\.weight", LINEAR),
)
VIT_DPT_ORDER = """
    cls_token pos_embed mask_token gamma weight bias
    pretrained depth_head patch_embed blocks projects resize_layers scratch layer1_rn layer2_rn layer3_rn layer4_rn
    refinenet1 refinenet2 refinenet3 refinenet4 out_conv resConfUnit1 resConfUnit2 conv1 conv2 output_conv1 output_conv2
    norm1 attn q k v qkv projq projkv ls1 norm2 mlp fc1 fc2 w12 w3 ls2 proj norm
"""

# torchvision's ConvNeXt and Swin: `features.1.0.block.2` is the normalisation of a ConvNeXt block, 3 and 5 its products.
FEATURES = table(
    ("layer_scale", COLUMN),
    ("relative_position_bias_table", SAME),
    (r"(features\.0\.[12]|features\.[246]\.0|block\.2)\.weight", NORM),
    (r"(features\.@\.@|block\.0)\.weight", CONV),
    (r"(block\.[35]|mlp\.[03]|reduction)\.weight", LINEAR),
)
