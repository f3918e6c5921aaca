"""A run's language model as a directory: whole or not at all, and it says what the run says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyvex.answer import load
from polyvex.data.prompt import IMAGE
from polyvex.errors import ExportError, ParityError, RunError
from polyvex.export import write
from polyvex.export.write import compare, export_run
from polyvex.hooks.manager import Registries
from polyvex.lm.small_llama import SmallLlama, SmallLlamaOptions

from .conftest import Finished, Mixture, enliven

FULL = "lm.vocab_size=264"  # the tiny data set's tokenizer fills it


def generated(lm: Any, ids: torch.Tensor, **options: Any) -> list[list[int]]:
    return lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, **options).tolist()


def test_the_exported_model_goes_on_as_the_runs_does(
    finished: Finished, registries: Registries, tmp_path: Path
) -> None:
    run = finished("moe.layers=dense", "lm.vocab_size=600")
    done = export_run(run, "mixtral", tmp_path / "out", registries=registries)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assistant = load(run, registries=registries)
    lm = assistant.model.lm
    ids = torch.randint(600, (3, 9), generator=torch.Generator().manual_seed(1))
    image = assistant.processor.image_token_id
    told = {"eos_token_id": 2, "pad_token_id": 0, "suppress_tokens": [image]}
    assert generated(found, ids) == generated(lm, ids, **told)
    assert found.generation_config.suppress_tokens == [image]
    assert (found.generation_config.eos_token_id, found.generation_config.pad_token_id) == (2, 0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(IMAGE) == image
    assert done.difference <= 1e-5 * done.scale
    assert done.left_out_tokens == []
    assert done.parameters == sum(parameter.numel() for parameter in lm.parameters())


def test_a_pretrained_language_model_with_experts_in_some_layers(
    finished: Finished, mixture: Mixture, registries: Registries, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    mixture("qwen3", dense=True, vocab_size=300, head_dim=16, tie_word_embeddings=True).save_pretrained(checkpoint)
    SmallLlama(SmallLlamaOptions(vocab_size=300)).tokenizer(["a red square"]).save_pretrained(checkpoint)
    run = finished(
        "moe.layers=[1]", "moe.router={use='switch'}", lm={"use": "pretrained", "checkpoint": str(checkpoint)}
    )
    done = export_run(run, "qwen3_moe", tmp_path / "out", registries=registries)
    assert done.difference <= 1e-5 * done.scale
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.config.mlp_only_layers == [0, 2]
    assert found.lm_head.weight is found.model.embed_tokens.weight
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


def test_a_placeholder_beyond_the_vocabulary_is_gone(
    finished: Finished, registries: Registries, tmp_path: Path
) -> None:
    run = finished("moe.layers=dense", FULL)
    assert load(run, registries=registries).processor.image_token_id == 264
    done = export_run(run, "mixtral", tmp_path / "out", registries=registries)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert done.left_out_tokens == [IMAGE]
    assert "left out of the tokenizer: <image>" in str(done)
    assert found.generation_config.suppress_tokens is None
    assert found(**tokenizer(f"what is {IMAGE}?", return_tensors="pt")).logits.isfinite().all()


def test_what_is_there_and_what_is_said(finished: Finished, registries: Registries, tmp_path: Path) -> None:
    run, out = finished(), tmp_path / "new" / "out"
    done = export_run(run, "mixtral", out, copy_dense=True, registries=registries)
    assert done.files == sorted(path.name for path in out.iterdir())
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(done.files)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert str(done).splitlines()[0] == (
        f"exported the language model of {run} as mixtral: {out} ({len(done.files)} files, "
        f"{done.parameters:,} parameters)"
    )
    assert str(done).splitlines()[2] == (
        "it is the language model alone; encoders, fusion and position scheme stay in the run"
    )
    card = (out / "README.md").read_text()
    assert "layer 1 had none in the run, and has equal copies of a network here" in card
    assert json.loads(json.dumps(done.as_dict()))["difference"] == done.difference


def test_a_folder_that_is_there_and_empty_will_do(finished: Finished, registries: Registries, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_run(finished("moe.layers=dense"), "mixtral", tmp_path / "out", registries=registries)
    assert (tmp_path / "out" / "config.json").exists()


def test_a_refused_export_writes_nothing(finished: Finished, registries: Registries, tmp_path: Path) -> None:
    run = finished("moe.router={use='switch'}")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError) as caught:
        export_run(run, "mixtral", tmp_path / "out", registries=registries)
    assert len(caught.value.reasons) == 2
    assert str(caught.value).startswith(f"{run} cannot be exported as mixtral: 2 reasons\n  - layer 0: the router")
    assert sorted(tmp_path.iterdir()) == before


def test_reasons_of_model_and_tokenizer_come_together(
    finished: Finished, registries: Registries, tmp_path: Path
) -> None:
    def lose(model: Any, processor: Any) -> None:
        model.lm.resize_token_embeddings(262)
        model.config.image_token_id = processor.image_token_id

    with pytest.raises(ExportError) as caught:
        export_run(finished(FULL, change=lose), "mixtral", tmp_path / "out", registries=registries)
    assert ["no experts" in caught.value.reasons[0], "262 rows lack" in caught.value.reasons[1]] == [True, True]


def test_a_folder_in_use_is_refused_and_left_alone(finished: Finished, registries: Registries, tmp_path: Path) -> None:
    run = finished("moe.layers=dense")
    with pytest.raises(RunError, match="is not empty"):
        export_run(run, "mixtral", run, registries=registries)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is a file, expected a folder or nothing"):
        export_run(run, "mixtral", tmp_path / "file", registries=registries)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at"):
        export_run(tmp_path / "none", "mixtral", tmp_path / "out")


def spoil(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] = state["model.norm.weight"] * 1.01
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_that_says_something_else_is_taken_away(
    finished: Finished, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(lm: Any, folder: Path) -> Any:
        spoil(folder)
        return compare(lm, folder)

    monkeypatch.setattr(write, "compare", wrong)
    (tmp_path / "out").mkdir()
    run = finished("moe.layers=dense")
    with pytest.raises(ParityError, match="logits differ by") as caught:
        export_run(run, "mixtral", tmp_path / "out", registries=registries)
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
    assert list((tmp_path / "out").iterdir()) == []


def test_not_a_number_is_a_difference(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("llama")
    write.in_family(lm, write.family_named("mixtral")).save_pretrained(tmp_path)
    lm.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ParityError, match="differ by nan"):
        compare(lm, tmp_path)


def test_weights_that_transformers_does_not_find_are_told(mixture: Mixture, tmp_path: Path) -> None:
    lm = mixture("llama")
    write.in_family(lm, write.family_named("mixtral")).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.norm.bias"] = state.pop("model.norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ParityError, match=r"in their places: model\.norm\.bias, model\.norm\.weight"):
        compare(lm, tmp_path)


def test_adapters_are_merged_and_partial_ones_are_a_reason(finished: Finished, tmp_path: Path) -> None:
    stages = [
        {"name": "tune", "trains": ["connector", "lm"], "steps": 1},
        {"name": "experts", "trains": ["lm.moe", "lm.lora", "lm.partial_lora"], "upcycle": True, "steps": 1},
    ]

    def adapt(model: Any, _processor: Any) -> None:
        model.adapt_language_model()  # experts get theirs
        enliven(model.lm)

    moe = {"num_experts": 4, "layers": "dense", "router": {"use": "top_k", "k": 2}}
    changes = ("lm.lora={rank=2}", "stages.experts.trains=['lm.moe', 'lm.lora']")
    run = finished(*changes, change=adapt, moe=moe, stages=stages)
    done = export_run(run, "mixtral", tmp_path / "plain")
    assert done.difference <= 1e-4 * done.scale
    assert not any("lora" in name for name in load_file(tmp_path / "plain" / "model.safetensors"))

    both = ("lm.lora={rank=2}", "lm.partial_lora={rank=2, targets=['q_proj']}")
    other = finished(*both, change=adapt, moe=moe, stages=stages)
    with pytest.raises(ExportError, match="Partial LoRA changes what layers do to visual tokens alone"):
        export_run(other, "mixtral", tmp_path / "partial")
