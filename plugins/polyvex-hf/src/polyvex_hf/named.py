"""Names for checkpoints that people ask for; all take the options of ``hf``."""

from pydantic import Field, create_model

from polyvex_hf.encoder import HfEncoder, HfOptions, ImageSize

CHECKPOINTS: dict[str, tuple[str, int | None]] = {
    "clip-l-336": ("openai/clip-vit-large-patch14-336", None),
    "clip-l-224": ("openai/clip-vit-large-patch14", None),
    "hf-siglip-so400m-384": ("google/siglip-so400m-patch14-384", None),
    "hf-dinov2-giant": ("facebook/dinov2-giant", 224),  # what its image processor gives; config.json says 518
    "hf-mae-huge": ("facebook/vit-mae-huge", None),
    "hf-convnext-l-384": ("facebook/convnext-large-384-22k-1k", 384),
    "hf-swin-l-384": ("microsoft/swin-large-patch4-window12-384-in22k", None),
}
"""Name in recipes to the name on the hub, and the image size where config.json does not state the one in use."""


def named_encoders() -> dict[str, type[HfEncoder]]:
    """One class for each name; it differs from ``hf`` in the checkpoint, and perhaps the size, if none is given."""
    return {name: _named(name, *described) for name, described in CHECKPOINTS.items()}


def named_options() -> list[HfOptions]:
    """What each name stands for, as options of ``hf``."""
    return [HfOptions(checkpoint=checkpoint, image_size=size) for checkpoint, size in CHECKPOINTS.values()]


def _named(name: str, checkpoint: str, image_size: int | None) -> type[HfEncoder]:
    title = "".join(part.title() for part in name.split("-"))
    told = {key: HfOptions.model_fields[key].description for key in ("checkpoint", "image_size")}
    options = create_model(
        f"{title}Options",
        __base__=HfOptions,
        checkpoint=(str, Field(default=checkpoint, description=told["checkpoint"])),
        image_size=(ImageSize, Field(default=image_size, description=told["image_size"])),
    )
    facts = {"Options": options, "summary": f"transformers' {checkpoint}", "__doc__": f"``{checkpoint}``."}
    return type(title, (HfEncoder,), facts)
