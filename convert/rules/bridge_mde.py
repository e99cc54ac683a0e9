"""Rules of the generator's networks and of its aesthetic reward (spec `mono-training.md` sections 7 and 9)."""

import re
from typing import Any

from bridgedepth_jax.convert.engine import CONV, EMBEDDING, LINEAR, NORM, SAME, Rules, table


def _none(*_: Any) -> Any:
    raise NotImplementedError  # these tables name tensors alone; what a file means is `convert/flux.py`'s affair


FLUX = Rules(
    layouts=table(("bias", SAME), (r"norm_(q|k|added_q|added_k)\.weight", NORM), ("weight", LINEAR)),
    plain=frozenset({"linear_1", "linear_2"}),
    config_of=_none,
    licence=lambda config: "FLUX.1 [dev] Non-Commercial License",
    content=_none,
)
CLIP_VISION = Rules(
    layouts=table(
        ("bias|class_embedding", SAME),
        (r"position_embedding\.weight", EMBEDDING),
        (r"patch_embedding\.weight", CONV),
        (r"(pre_layrnorm|post_layernorm|layer_norm[12])\.weight", NORM),
        (r"(q_proj|k_proj|v_proj|out_proj|fc1|fc2|visual_projection)\.weight", LINEAR),
    ),
    ignored=re.compile(r"^(text_model\.|text_projection\.|logit_scale$)|position_ids$"),
    config_of=_none,
    licence=lambda config: "MIT",
    content=_none,
)
AESTHETIC = Rules(
    layouts=table(("bias", SAME), ("weight", LINEAR)), config_of=_none, licence=lambda config: "Apache-2.0", content=_none
)
