"""``recipes/smollm2-easyvqa.toml``: its first steps, with the real weights and data, all three stages."""

from pathlib import Path

import pytest

from polyvex.hooks.manager import Registries
from polyvex.plan import make_plan
from polyvex.recipe import Recipe, read_recipe
from polyvex.training.stages import train
from polyvex.training.trainer import read_metrics

from .published import RECIPES

PATH = RECIPES / "smollm2-easyvqa.toml"


@pytest.fixture(scope="module")
def recipe(registries: Registries) -> Recipe:
    return read_recipe(PATH, registries=registries)


def test_it_is_what_its_page_tells(recipe: Recipe, registries: Registries, tmp_path: Path) -> None:
    plan = make_plan(recipe, registries, cache=tmp_path)
    assert (plan.problems, plan.missing) == ([], [])
    assert [round(stage.trainable / 1e6, 1) for stage in plan.stages] == [2.6, 137.1, 159.3]
    assert [round(one / 1e6, 1) for one in (plan.stages[-1].total, plan.stages[-1].active)] == [256.6, 177.0]
    assert plan.visual_tokens == 16
    assert sum(stage.steps * stage.batch_size for stage in recipe.stages) == 14_400


def test_its_first_steps(registries: Registries, tmp_path: Path) -> None:
    changes = [f"stages.{name}.steps=1" for name in ("align", "tune", "experts")]
    changes += [f"stages.{name}.warmup=0" for name in ("align", "tune", "experts")]
    changes += [f"stages.{name}.batch_size=2" for name in ("align", "tune", "experts")]
    changes += ["data.train_limit=8", "evaluation.after=never", "training.log_every=1"]
    recipe = read_recipe(PATH, overrides=changes, registries=registries)
    said: list[str] = []
    run = train(
        recipe, tmp_path / "run", registries=registries, cache=tmp_path, say=said.append, progress=False, export=False
    )
    lines = [read_metrics(run.stage(index, stage).metrics) for index, stage in enumerate(recipe.stages)]
    assert [len(line) for line in lines] == [1, 1, 1]
    assert all(0 < line[0]["answer_loss"] < 15 for line in lines)
    assert lines[2][0]["load_balance"] == pytest.approx(15, rel=0.1)  # fifteen layers, and routers that begin even
    (upcycled,) = [line for line in said if line.startswith("upcycled")]
    assert upcycled.count("layers.") == 15
    assert float(upcycled.rsplit(" ", 1)[1]) < 1e-3
