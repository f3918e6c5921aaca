"""Weights of another run's stage: what fits, what does not, and what differs all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from polyvex_basics import Patchify
from torch import Tensor

from polyvex.assemble import build_model, empty_model, make_processor
from polyvex.encoders import WeightsPlace
from polyvex.errors import RecipeError, RunError, WeightsError
from polyvex.fusion.mlp import MLPFusion
from polyvex.hooks.manager import Registries
from polyvex.model import PolyvexForConditionalGeneration
from polyvex.model.start import start_problems, take_weights, unlike
from polyvex.recipe import Recipe
from polyvex.recipe.start import Start, start_of
from polyvex.rundir import RunDirectory

Make = Callable[..., Recipe]
TUNE: dict[str, Any] = {"moe": None, "stages": [{"name": "tune", "trains": ["connector", "lm"], "steps": 1}]}
LEARN: dict[str, Any] = {"moe": None, "stages": [{"name": "tune", "trains": ["connector", "encoders"], "steps": 1}]}
TRAINABLE = "encoders.0.tune=trainable"


@pytest.fixture
def made(registries: Registries) -> Callable[[Recipe], PolyvexForConditionalGeneration]:
    def make(recipe: Recipe) -> PolyvexForConditionalGeneration:
        processor = make_processor(recipe, registries, ["some text"])
        return build_model(recipe, processor, registries, encoders=False)[0]

    return make


@pytest.fixture
def store(registries: Registries, tmp_path: Path) -> Callable[[Recipe], dict[str, str]]:
    """A function that writes the folder of a run with one finished stage, with random weights of its own."""

    def make(recipe: Recipe) -> dict[str, str]:
        run = RunDirectory(tmp_path / "other")
        processor = make_processor(recipe, registries, ["some text"])
        model, _ = build_model(recipe, processor, registries, encoders=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        run.begin(recipe)
        processor.save_pretrained(run.path)
        stage = run.stage(0, recipe.stages[0])
        model.save_pretrained(stage.model)
        stage.finish({})
        return {"run": str(run.path)}

    return make


def state_of(start: dict[str, str], registries: Registries) -> dict[str, Tensor]:
    folder = Path(start["run"]) / "stages" / "0-tune" / "model"
    return PolyvexForConditionalGeneration.from_pretrained(folder, registries=registries).state_dict()


def told(recipe: Recipe, registries: Registries) -> list[str]:
    start = start_of(recipe)
    assert start is not None
    return start_problems(recipe, registries, empty_model(recipe, registries), start)


def test_every_weight_is_taken(
    tiny_recipe: Make, store: Callable[..., Any], made: Callable[..., Any], registries: Registries
) -> None:
    start = store(tiny_recipe("positions.use=share_row_col", **TUNE))
    recipe = tiny_recipe("positions.use=share_row_col", "seed=9", start=start, **TUNE)
    assert told(recipe, registries) == []
    there, here = state_of(start, registries), made(recipe).state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in there)
    assert any(name.startswith("positions.") for name in there)


def test_every_key_and_every_cause_is_told(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries, made: Callable[..., Any]
) -> None:
    start = store(tiny_recipe("positions.use=share_row_col", **TUNE))
    recipe = tiny_recipe("encoders.0.dim=4", "fusion.depth=3", start=start, **TUNE)
    (problem,) = told(recipe, registries)
    assert problem == (
        f"[start]: the weights of {start['run']}, after stage tune, are not this model's. "
        "missing there: fusion.rest.0.3.bias, fusion.rest.0.3.weight; "
        "unexpected here: positions.scheme.columns; "
        "of another shape: fusion.first.0.weight ([32, 8] there, [32, 4] here). "
        "What differs: encoders.0.dim: 8 there, 4 here; fusion.depth: 2 there, 3 here; "
        "positions.use: 'share_row_col' there, 'share_row' here. "
        f"Make these tables as they are in {start['run']}/recipe.toml, or start from another run"
    )
    with pytest.raises(RecipeError) as caught:
        made(recipe)
    assert caught.value.problems == [problem]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ("seed=3", []),
        ("lm.attention=eager", []),
        ("prompt.template={image}{question} ", []),
        ("evaluation.limit=3", []),
        ("loss.load_balance=0", []),
        ("encoders.0.name=patchify", []),  # which it is called in any case
        ("positions.use=share_all", ["positions.use: 'share_row' there, 'share_all' here"]),
        ("encoders.0.image_size=64", ["encoders.0.image_size: 32 there, 64 here"]),
        ("lm.max_positions=256", ["lm.max_positions: 128 there, 256 here"]),
        ("lm.rope_theta=5000.0", ["lm.rope_theta: 10000.0 there, 5000.0 here"]),
    ],
)
def test_what_fits_and_yet_differs(
    change: str, lines: list[str], tiny_recipe: Make, store: Callable[..., Any], registries: Registries
) -> None:
    recipe = tiny_recipe(change, start=store(tiny_recipe(**TUNE)), **TUNE)
    start = start_of(recipe)
    assert start is not None
    assert told(recipe, registries) == []
    assert unlike(recipe, empty_model(recipe, registries), start) == lines


def test_a_configuration_that_the_tables_do_not_tell(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries
) -> None:
    # As where a checkpoint at the same place is another one now.
    recipe = tiny_recipe(start=store(tiny_recipe(**TUNE)), **TUNE)
    model, start = empty_model(recipe, registries), start_of(recipe)
    assert start is not None
    model.lm.config.rms_norm_eps = 0.5
    (line,) = unlike(recipe, model, start)
    assert line == "the language model's config.rms_norm_eps: 1e-06 there, 0.5 here"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows each time the weights of ``patchify`` are loaded from their own place."""
    names: list[str] = []
    plain = Patchify.load_pretrained

    def load(self: Patchify) -> Any:
        names.append("patchify")
        return plain(self)

    monkeypatch.setattr(Patchify, "load_pretrained", load)
    return names


ENCODER = "encoders.patchify."


def test_an_encoder_that_learned_there_is_not_loaded_from_its_file(
    tiny_recipe: Make, store: Callable[..., Any], made: Callable[..., Any], registries: Registries, loaded: list[str]
) -> None:
    start = store(tiny_recipe(TRAINABLE, **LEARN))
    loaded.clear()
    model = made(tiny_recipe(TRAINABLE, start=start, **LEARN))
    assert loaded == []
    there, here = state_of(start, registries), model.state_dict()
    assert any(name.startswith(ENCODER) for name in here)
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_an_encoder_that_was_frozen_there_learns_from_its_own_weights(
    tiny_recipe: Make, store: Callable[..., Any], made: Callable[..., Any], registries: Registries, loaded: list[str]
) -> None:
    start = store(tiny_recipe(**TUNE))
    recipe = tiny_recipe(TRAINABLE, start=start, **LEARN)
    assert told(recipe, registries) == []
    loaded.clear()
    here, anew = made(recipe).state_dict(), made(tiny_recipe(TRAINABLE, **LEARN)).state_dict()
    assert loaded == ["patchify"] * 2
    own = [name for name in here if name.startswith(ENCODER)]
    assert own
    assert all(torch.equal(here[name], anew[name]) for name in own)
    assert not torch.equal(here["fusion.first.0.weight"], anew["fusion.first.0.weight"])


def test_an_encoder_that_learned_there_cannot_be_frozen_here(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries
) -> None:
    recipe = tiny_recipe(start=store(tiny_recipe(TRAINABLE, **LEARN)), **TUNE)
    (problem,) = told(recipe, registries)
    assert f"unexpected here: {ENCODER}" in problem
    assert "encoders.0.tune: 'trainable' there, 'frozen' here" in problem


def test_the_fusions_own_weights_are_not_read(
    tiny_recipe: Make, store: Callable[..., Any], made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = store(tiny_recipe(**TUNE))
    recipe = tiny_recipe(start=start, **TUNE)
    monkeypatch.setattr(MLPFusion, "weights", classmethod(lambda cls, options: WeightsPlace(path=None, install="get")))
    monkeypatch.setattr(MLPFusion, "load_pretrained", lambda self: pytest.fail("read"))
    made(recipe)


def test_damaged_weights_are_told_before_they_are_read(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries
) -> None:
    recipe = tiny_recipe(start=store(tiny_recipe(**TUNE)), **TUNE)
    start = start_of(recipe)
    assert isinstance(start, Start)
    start.weights.write_bytes(start.weights.read_bytes()[:-9])
    with pytest.raises(WeightsError, match=r"the weights in .*model\.safetensors are damaged"):
        told(recipe, registries)


def test_a_file_that_lacks_a_weight_of_its_own_model_is_refused(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries, made: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file, save_file

    recipe = tiny_recipe(start=store(tiny_recipe(**TUNE)), **TUNE)
    start = start_of(recipe)
    assert start is not None
    state = load_file(start.weights)
    state.pop("fusion.first.0.weight")
    save_file(state, start.weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"missing: fusion\.first\.0\.weight"):
        take_weights(recipe, registries, empty_model(recipe, registries), start)


def test_a_run_without_its_tokenizer_is_told(
    tiny_recipe: Make, store: Callable[..., Any], made: Callable[..., Any]
) -> None:
    start = store(tiny_recipe(**TUNE))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(start["run"]) / name).unlink()
    with pytest.raises(RecipeError, match=r"\[start\]: .*other has no tokenizer that can be read"):
        made(tiny_recipe(start=start, **TUNE))


@pytest.mark.parametrize("content", ["null", "{"])
def test_a_damaged_configuration_of_the_stage_is_a_readable_error(
    tiny_recipe: Make, store: Callable[..., Any], registries: Registries, content: str
) -> None:
    recipe = tiny_recipe(start=store(tiny_recipe(**TUNE)), **TUNE)
    start = start_of(recipe)
    assert start is not None
    model = empty_model(recipe, registries)
    (start.model / "config.json").write_text(content)
    for use in (start_problems, take_weights):
        with pytest.raises(RunError) as caught:
            use(recipe, registries, model, start)
        assert caught.value.code == "damaged-record"
