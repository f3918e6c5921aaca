"""What is told before anything is built: known facts, what a folder or the hub's cache holds, and what cannot be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from polyvex_hf import HfEncoder, HfOptions, register_encoders
from polyvex_hf.known import KNOWN
from polyvex_hf.named import CHECKPOINTS

VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}


def written(config: Any, folder: Path) -> str:
    config.save_pretrained(folder)
    hf.ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def refused(**options: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is checked by the caller
        HfEncoder.describe(HfOptions(**options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "tokens", "dim"),
    [
        ("clip-l-336", 576, 1024),  # MouSi and LLaVA-1.5: 24 x 24
        ("clip-l-224", 256, 1024),
        ("hf-siglip-so400m-384", 729, 1152),  # 27 x 27: 6 pixels of 384 are left over, in training too
        ("hf-dinov2-giant", 256, 1536),  # MouSi: 16 x 16 at 224 pixels
        ("hf-mae-huge", 256, 1280),  # MouSi: 16 x 16
        ("hf-convnext-l-384", 576, 768),  # the stage before the last: 384 / 16 each way
        ("hf-swin-l-384", 144, 1536),  # the stage before the last, with the merging behind it
    ],
)
def test_facts_of_named_ones_are_those_of_the_papers(name: str, tokens: int, dim: int) -> None:
    kind = register_encoders()[name]
    facts = kind.describe(kind.Options())
    assert (facts.shape.tokens, facts.shape.dim) == (tokens, dim)
    assert facts.source.split()[0] in ("OpenAI's", "Google's", "Meta's", "Microsoft's")


def test_named_ones_are_known_and_differ_in_nothing_but_checkpoint_and_size() -> None:
    named = register_encoders()
    assert set(named) == {"hf", *CHECKPOINTS}
    assert {checkpoint for checkpoint, _ in CHECKPOINTS.values()} == set(KNOWN)
    options = named["hf-dinov2-giant"].Options()
    assert options.model_dump() == {
        **HfOptions(checkpoint="facebook/dinov2-giant").model_dump(),
        "image_size": 224,
    }


def test_whole_networks_have_the_sizes_that_their_papers_tell() -> None:
    def millions(name: str, layer: int) -> float:
        kind = register_encoders()[name]
        return kind.describe(kind.Options(layers=layer)).parameters / 1e6

    assert 300 < millions("clip-l-336", -1) < 306  # ViT-L: 304
    assert 1130 < millions("hf-dinov2-giant", -1) < 1140  # ViT-g: 1,136
    assert 625 < millions("hf-mae-huge", -1) < 635  # ViT-H: 632


def test_licences_are_told(tmp_path: Path) -> None:
    named = register_encoders()
    assert not named["hf-mae-huge"].describe(named["hf-mae-huge"].Options()).license.commercial
    assert named["clip-l-336"].describe(named["clip-l-336"].Options()).license.name == "MIT"
    folder = written(hf.ViTConfig(**VIT), tmp_path)
    for card, name, commercial in (
        (None, "unknown (no licence in a model card here)", False),
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0", True),
        ("---\nlicense: [mit, cc-by-nc-4.0]\n---\n", "mit, cc-by-nc-4.0", False),
        ("---\nlicense: [: :\n---\n", "unknown (no licence in a model card here)", False),
    ):
        if card is not None:
            (tmp_path / "README.md").write_text(card)
        found = HfEncoder.describe(HfOptions(checkpoint=folder)).license
        assert (found.name, found.commercial) == (name, commercial)


def test_what_is_in_the_hubs_cache_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "not in the hub's local cache. To get it: hf download me/vit" in refused(checkpoint="me/vit")
    snapshot = tmp_path / "models--me--vit" / "snapshots" / "abc"
    (tmp_path / "models--me--vit" / "refs").mkdir(parents=True)
    (tmp_path / "models--me--vit" / "refs" / "main").write_text("abc")
    model = hf.ViTModel(hf.ViTConfig(**VIT))
    model.save_pretrained(snapshot)
    hf.ViTImageProcessorPil(image_mean=[0.1, 0.2, 0.3]).save_pretrained(snapshot)
    options = HfOptions(checkpoint="me/vit")
    assert HfEncoder.describe(options).shape.tokens == 16
    assert HfEncoder.weights(options).path == snapshot / "model.safetensors"
    encoder = HfEncoder(options)
    assert encoder.load_pretrained().missing == []
    assert torch.allclose(encoder.transform(Image.new("RGB", (9, 9)))[:, 0, 0], -torch.tensor([0.2, 0.4, 0.6]))


def test_a_directory_stays_where_it_is_and_a_name_on_the_hub_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(hf.ViTConfig(**VIT), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    located = HfOptions(checkpoint="mine", weights="file.bin").located()
    assert located.checkpoint == os.path.abspath("mine")
    assert located.weights == os.path.abspath("file.bin")
    assert HfOptions(checkpoint="me/vit").located().checkpoint == "me/vit"


def test_describing_reads_config_json_again_when_it_changes(tmp_path: Path) -> None:
    folder = written(hf.ViTConfig(**VIT), tmp_path)
    assert HfEncoder.describe(HfOptions(checkpoint=folder)).shape.dim == 32
    written(hf.ViTConfig(**{**VIT, "hidden_size": 64}), tmp_path)
    assert HfEncoder.describe(HfOptions(checkpoint=folder)).shape.dim == 64


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (hf.ViTConfig(**VIT), {"layers": 3}, "layers [3] do not fit"),
        (hf.ViTConfig(**VIT), {"layers": [0, -4]}, "which has 3: 0 to 2, or -3 to -1"),
        (hf.ViTConfig(**VIT), {"image_size": 70}, "70x70 is not a multiple of the 16x16 patches"),
        (hf.ViTConfig(**VIT), {"image_size": [64, 8]}, "64x16 is"),
        (hf.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2), {}, "it takes input_ids"),
        (hf.ViTConfig(**VIT, num_channels=4), {}, "does not look at RGB images"),
        (hf.BeitConfig(**VIT), {"norm": True}, "has no final norm over its tokens"),
        (hf.ConvNextConfig(), {"layers": [0, 1]}, "have the grids 56x56, 28x28, which cannot be joined"),
        (
            hf.ConvNextConfig(),
            {"layers": 0, "norm": True},
            "is for tokens 768 wide, but the layers that are read are 96",
        ),
        (hf.ConvNextConfig(), {"image_size": 70}, "70x70 is not a multiple of the 16x16 patches"),
        (hf.ResNetConfig(), {}, "states no image_size; give the option image_size"),
        (hf.HieraConfig(), {}, "Families whose sequences are known: clip_vision_model"),
        (hf.SamVisionConfig(num_hidden_layers=2), {}, "Families whose sequences are known"),
        (hf.YolosConfig(), {}, "gives out sequences, and which of their tokens are patches is not known"),
        (hf.Siglip2VisionConfig(), {}, "needs more than pixels: pixel_attention_mask, spatial_shapes"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    config: Any, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in refused(checkpoint=written(config, tmp_path), **options)


def test_a_place_without_a_config_is_refused(tmp_path: Path) -> None:
    assert "no config.json in" in refused(checkpoint=str(tmp_path))
    assert "is no directory, and not in the hub's local cache" in refused(checkpoint=str(tmp_path / "gone"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    assert "transformers cannot read it" in refused(checkpoint=str(tmp_path))
    (tmp_path / "config.json").write_text("{ half of")
    assert "transformers cannot read it" in refused(checkpoint=str(tmp_path))


def test_code_beside_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    auto = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto}))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    assert "transformers cannot read it" in refused(checkpoint=str(tmp_path))
    assert not (tmp_path / "ran").exists()
