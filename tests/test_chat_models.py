"""Chat models from their checkpoint to an answer: they stop, and learn to stop, where their own files say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    Gemma3Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from polyvex.answer import Assistant, load
from polyvex.assemble import Built, build, empty_model
from polyvex.data.prompt import IGNORED, IMAGE
from polyvex.errors import RecipeError, RunError
from polyvex.hooks.manager import Registries
from polyvex.lm.small_llama import SmallLlama
from polyvex.plan import make_plan
from polyvex.recipe import Recipe
from polyvex.rundir import RunDirectory
from polyvex.training.stages import train

SPECIAL = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>"]
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
STAGES = [{"name": "tune", "trains": ["connector", "lm"], "steps": 1, "batch_size": 2}]
Make = Callable[..., Recipe]


def trained_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["what color is the square?", "red green blue yellow"] * 5, trainer)
    return tokenizer


def save(path: Path, tokenizer: Tokenizer, *, template: str | None = GEMMA, rows: int = 310, ends: Any = None) -> Path:
    """A checkpoint of a small random Llama; ``ends`` are the tokens that end its answers."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=template
    )
    fast.save_pretrained(path)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=rows, **sizes, **heads, bos_token_id=0, eos_token_id=1))
    lm.generation_config.eos_token_id = [1, 3] if ends is None else ends
    lm.save_pretrained(path)
    return path


@pytest.fixture
def make(tiny_recipe: Make) -> Make:
    """A recipe for a checkpoint."""

    def of(checkpoint: Path, *changes: str) -> Recipe:
        lm = {"use": "pretrained", "checkpoint": str(checkpoint)}
        return tiny_recipe(*changes, lm=lm, moe=None, stages=STAGES)

    return of


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    return save(tmp_path / "gemma", trained_bpe())


@pytest.fixture
def built(gemma: Path, make: Make, registries: Registries) -> Built:
    return build(make(gemma, "prompt.template=chat"), registries=registries)


def test_all_end_tokens_are_taken_and_stored(built: Built, tmp_path: Path) -> None:
    assert built.model.generation_config.eos_token_id == [1, 3]
    built.model.save_pretrained(tmp_path / "run")
    built.processor.save_pretrained(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "generation_config.json").read_text())["eos_token_id"] == [1, 3]
    again: Any = AutoProcessor.from_pretrained(tmp_path / "run")
    assert (again.stop_ids, again.end_ids) == ([1, 3], [3])


def test_labels_end_with_the_end_of_the_turn(built: Built) -> None:
    tokenizer = built.processor.tokenizer
    ids, labels = built.processor.prompts.example("what?", "red", images=0)
    learned = [one for one in labels if one != IGNORED]
    assert learned == [*tokenizer.encode("red", add_special_tokens=False), 3]
    said = [{"role": "user", "content": "\nwhat?"}, {"role": "assistant", "content": "red"}]
    theirs = tokenizer.apply_chat_template(said, tokenize=False)
    # The roles differ only in the name that the template's generation prompt gives the model.
    assert tokenizer.decode(ids) + "\n" == theirs.replace("assistant", "model").replace("user\n", "user\n\n")


def test_a_template_that_is_written_out_ends_with_the_sequence_and_stops_alike(
    gemma: Path, make: Make, registries: Registries
) -> None:
    processor = build(make(gemma), registries=registries).processor
    assert (processor.end_ids, processor.stop_ids) == ([1], [1, 3])


def test_generation_stops_where_transformers_stops(
    gemma: Path, make: Make, registries: Registries, tmp_path: Path
) -> None:
    recipe = make(gemma, "prompt.template=chat")
    built = build(recipe, registries=registries)
    ids = built.processor.question("what?")
    lm: Any = AutoModelForCausalLM.from_pretrained(gemma)
    free = lm.generate(**ids, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, ids["input_ids"].shape[1] :]
    third = free.tolist()[2]  # let an ordinary word end answers: the third one that the model says
    save(tmp_path / "stops", trained_bpe(), ends=[1, third])
    expected = AutoModelForCausalLM.from_pretrained(
        tmp_path / "stops"
    ).generate(  # type: ignore[misc]
        **ids, max_new_tokens=6, do_sample=False
    )[0, ids["input_ids"].shape[1] :]
    assert 1 <= len(expected) <= 3
    other = build(make(tmp_path / "stops", "prompt.template=chat"), registries=registries)
    answer = Assistant(model=other.model.eval(), processor=other.processor).ask(None, "what?", max_new_tokens=6)
    assert answer.ids == expected.tolist()
    assert answer.text == other.processor.tokenizer.decode(expected[:-1]).strip()


@pytest.mark.parametrize("ends", ["<eos>", [1, "3"]])
def test_end_tokens_that_are_no_ids_are_refused(ends: Any, gemma: Path, make: Make, registries: Registries) -> None:
    path = gemma / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(RecipeError) as error:
        build(make(gemma), registries=registries)
    assert error.value.code == "generation-config"


def test_an_end_token_of_the_model_that_is_a_word_does_not_count(
    gemma: Path, make: Make, registries: Registries
) -> None:
    (gemma / "generation_config.json").unlink()
    config = json.loads((gemma / "config.json").read_text())
    (gemma / "config.json").write_text(json.dumps({**config, "eos_token_id": [3, 200]}))
    assert build(make(gemma), registries=registries).processor.stop_ids == [3, 1]


def with_hole(tokenizer: Tokenizer, at: int) -> Tokenizer:
    told = json.loads(tokenizer.to_str())
    words = told["model"]["vocab"]
    told["model"]["vocab"] = {word: number + (number >= at) for word, number in words.items()}
    return Tokenizer.from_str(json.dumps(told))


def test_the_placeholder_gets_a_new_id_in_a_vocabulary_with_a_hole(
    make: Make, registries: Registries, tmp_path: Path
) -> None:
    checkpoint = save(tmp_path / "hole", with_hole(trained_bpe(), 200), ends=[1])
    plain = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    vocabulary = plain.get_vocab()
    word = max(vocabulary, key=lambda one: vocabulary[one])
    assert vocabulary[word] == len(vocabulary)  # which is the id that counting would give <image>
    built = build(make(checkpoint), registries=registries)
    image = built.processor.image_token_id
    assert image not in vocabulary.values()
    said = word.replace("\u0120", " ")
    assert vocabulary[word] in (ids := built.processor.prompts.question(f"is it{said}?", images=0))
    assert image not in ids
    built.processor.save_pretrained(tmp_path / "run")
    again: Any = AutoProcessor.from_pretrained(tmp_path / "run")
    assert again.image_token_id == image == built.model.config.image_token_id
    assert {one: again.tokenizer.get_vocab()[one] for one in vocabulary} == vocabulary
    text = "what color is <image> the square?"
    assert again.tokenizer.encode(text, split_special_tokens=True) == plain.encode(text)


def test_a_placeholder_inside_a_padded_vocabulary_is_never_an_answer(built: Built) -> None:
    image = built.processor.image_token_id
    assert image == len(built.processor.tokenizer) - 1 < built.model.lm.config.vocab_size
    assert built.model.generation_config.suppress_tokens == [image]


def test_a_vocabulary_with_the_placeholder_as_a_word_is_refused(
    make: Make, registries: Registries, tmp_path: Path
) -> None:
    words = {word: number for number, word in enumerate([*SPECIAL, "what", "<unk>", IMAGE])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    checkpoint = save(tmp_path / "words", tokenizer)
    with pytest.raises(RecipeError) as error:
        build(make(checkpoint), registries=registries)
    assert error.value.code == "token-in-use"


def test_plan_and_train_refuse_a_template_alike_and_before_anything_is_encoded(
    make: Make, registries: Registries, tmp_path: Path, cache_folder: Path
) -> None:
    raises = "{{ raise_exception('none of your business') }}"
    recipe = make(save(tmp_path / "raises", trained_bpe(), template=raises), "prompt.template=chat")
    (problem,) = make_plan(recipe, registries).problems
    with pytest.raises(RecipeError) as error:
        train(recipe, tmp_path / "run", registries=registries, say=lambda _: None, progress=False)
    assert error.value.code == "chat-template-fails"
    assert error.value.problems == [problem]
    assert list(cache_folder.iterdir()) == []


def test_plan_and_train_refuse_a_class_that_does_not_work_before_anything_is_encoded(
    make: Make, registries: Registries, tmp_path: Path, cache_folder: Path, gemma: Path
) -> None:
    config = {"model_type": "recurrent_gemma", "vocab_size": 310, "eos_token_id": 1}
    (gemma / "config.json").write_text(json.dumps(config))
    recipe = make(gemma)
    (problem,) = make_plan(recipe, registries).problems
    assert "RecurrentGemmaForCausalLM" in problem
    with pytest.raises(RecipeError) as error:
        train(recipe, tmp_path / "run", registries=registries, say=lambda _: None, progress=False)
    assert problem in error.value.problems
    assert list(cache_folder.iterdir()) == []


def test_a_dated_template_makes_equal_runs_and_is_reported(make: Make, registries: Registries, tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y, %H:%M:%S.%f') }}\n" + GEMMA
    recipe = make(save(tmp_path / "dated", trained_bpe(), template=dated), "prompt.template=chat")
    changed = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"after": "never"})})
    said: list[str] = []
    assert any("prompt.date" in note for note in make_plan(recipe, registries).notes)
    runs = []
    for name in ("a", "b"):
        train(changed, tmp_path / name, registries=registries, say=said.append, progress=False, export=False)
        runs.append(json.loads(RunDirectory(tmp_path / name).lock.read_text())["prompt"])
    assert runs[0] == runs[1]
    assert runs[0]["template"].startswith("01 Jan 2026, 00:00:00.")
    assert sum("prompt.date" in line for line in said) == 2


def test_a_checkpoint_with_code_of_its_own_is_refused_without_a_question(
    make: Make, registries: Registries, gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("somebody was asked to run code")

    monkeypatch.setattr("builtins.input", ask)
    code = {"auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M", "AutoTokenizer": ["mine.T", None]}}
    (gemma / "mine.py").write_text("raise SystemExit('ran')")
    for name in ("tokenizer_config.json", "config.json"):
        told = {**json.loads((gemma / name).read_text()), **code, "model_type": "mine", "tokenizer_class": "Mine"}
        (gemma / name).write_text(json.dumps(told))
        (problem,) = make_plan(make(gemma, "prompt.template=chat"), registries).problems[:1]
        assert "auto_map" in problem
        with pytest.raises(RecipeError) as error:
            build(make(gemma), registries=registries)
        assert error.value.code == "remote-code"


def test_a_run_with_code_of_its_own_is_refused_without_a_question(
    built: Built, make: Make, gemma: Path, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("somebody was asked to run code")

    monkeypatch.setattr("builtins.input", ask)
    path = tmp_path / "run"
    RunDirectory(path).begin(make(gemma, "prompt.template=chat"))
    built.model.save_pretrained(path)
    built.processor.save_pretrained(path)
    RunDirectory(path).finish()
    assert load(path, registries=registries).processor.end_ids == [3]
    told = json.loads((path / "tokenizer_config.json").read_text())
    code = {"auto_map": {"AutoTokenizer": ["mine.T", None]}, "tokenizer_class": "Mine"}
    (path / "tokenizer_config.json").write_text(json.dumps({**told, **code}))
    with pytest.raises((RunError, OSError, ValueError)):
        AutoProcessor.from_pretrained(path)
    with pytest.raises(RunError) as error:
        load(path, registries=registries)
    assert error.value.code == "remote-code"


def test_the_way_to_generate_that_a_run_brings_is_not_used(
    built: Built, make: Make, gemma: Path, registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "y")
    path = tmp_path / "run"
    RunDirectory(path).begin(make(gemma, "prompt.template=chat"))
    built.model.save_pretrained(path)
    built.processor.save_pretrained(path)
    RunDirectory(path).finish()
    (path / "custom_generate").mkdir()
    (path / "custom_generate" / "generate.py").write_text("raise SystemExit('ran')")
    assert load(path, registries=registries).ask(None, "what?", max_new_tokens=2).ids


def test_a_multimodal_checkpoint_is_refused(
    tiny_recipe: Make, registries: Registries, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config={**small, "vocab_size": 300}, vision_config={**small, "image_size": 28})
    monkeypatch.setattr(SmallLlama, "config", lambda _: config)
    with pytest.raises(RecipeError) as error:
        empty_model(tiny_recipe(), registries)
    assert error.value.code == "lm-multimodal"
