"""How large the image interface is; every stage builds it from here.

Eight by eight patches of a picture of 96 pixels, and nine queries: one for each part of a picture
that can be named, such as 'at the top on the left' (see `targets.py`).
The ViT is trained in stage 1 (`eyes.py`) and frozen in all later ones.
"""

from llmasr.config import QFormerConfig, VisionConfig, ViTConfig

VISION = VisionConfig(
    vit=ViTConfig(
        image_size=96, patch_size=12, width=160, num_blocks=4, num_heads=4, mlp_width=640,
        frozen=True,
    ),
    qformer=QFormerConfig(
        width=160, num_blocks=2, num_heads=4, mlp_width=640, cross_every=1, dropout=0.0
    ),
    modalities=("image",),
    num_queries=9,
    adaptor_width=256,
)  # fmt: skip
