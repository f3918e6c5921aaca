"""What stops a run: another recipe, other data, other weights, and proof that failed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from polyvex.errors import DataError, RunError, TrainingError
from polyvex.training.trainer import StageTrainer

from .runs import Run, Stage


def test_the_run_of_another_recipe_is_refused_with_the_differences(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    with pytest.raises(RunError) as caught:
        run("seed=3", "positions.use=share_all", **one_stage())
    assert str(caught.value) == (
        f"{first.path} is the run of another recipe:\n"
        "  - seed: 0 there, 3 here\n"
        "  - positions.use: 'share_row' there, 'share_all' here\n"
        "Choose another --out, or undo the change"
    )


@pytest.mark.parametrize("what", ["question", "answer", "picture", "order"])
def test_a_run_does_not_go_on_with_other_data(what: str, run: Run, one_stage: Stage, own_data: dict[str, Any]) -> None:
    tables = {**one_stage(), "data": own_data}
    first = run(**tables)
    folder = Path(own_data["folder"])
    lines = (folder / "train.jsonl").read_text().splitlines()
    if what == "picture":
        name = json.loads(lines[0])["image"]
        shutil.copy(folder / json.loads(lines[-1])["image"], folder / name)
    elif what == "order":
        lines.reverse()
    else:
        lines[0] = json.dumps({**json.loads(lines[0]), what: "something else"})
    (folder / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunError, match=rf"^{first.path}: data_sha256 is .*, but the run began with "):
        run(**tables)


def test_data_without_images_are_refused_before_anything_is_stored(
    run: Run, one_stage: Stage, own_data: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(own_data["folder"]) / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "images": []} | {"image": None}) + "\n" for line in lines))
    with pytest.raises(DataError) as typed:
        run(**{**one_stage(), "data": own_data})
    assert typed.value.code == "data-lines"
    for line in lines:
        del line["image"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError) as caught:
        run(**{**one_stage(), "data": own_data})
    assert caught.value.code == "no-images"
    assert not list(tmp_path.rglob("lock.json"))


def test_a_run_does_not_go_on_with_other_weights(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    lock = json.loads(first.lock.read_text())
    lock["weights_sha256"]["patchify"] = "another"
    first.lock.write_text(json.dumps(lock))
    with pytest.raises(RunError, match="weights_sha256 is "):
        run(**one_stage())


def test_a_run_does_not_go_on_with_other_encoder_code(run: Run, one_stage: Stage, said: Any) -> None:
    first = run(**one_stage())
    lock = json.loads(first.lock.read_text())
    file = next(name for name in lock["code"]["patchify"] if name.startswith("polyvex_basics"))
    lock["code"]["patchify"][file] = "another"
    first.lock.write_text(json.dumps(lock))
    run(**one_stage())  # no stage is left, so nothing trains on other tokens
    assert said.any_with(f"NOT AS BEFORE: code.patchify.{file}: 'another' there")
    (first.path / "stages" / "0-tune" / "done.json").unlink()
    with pytest.raises(RunError, match=file) as caught:
        run(**one_stage())
    assert caught.value.code == "code-changed"


def test_a_run_without_a_record_of_its_code_goes_on(run: Run, one_stage: Stage) -> None:
    first = run(**one_stage())
    lock = json.loads(first.lock.read_text())
    del lock["code"]
    first.lock.write_text(json.dumps(lock))
    (first.path / "stages" / "0-tune" / "done.json").unlink()
    run(**one_stage())


def test_a_folder_with_something_else_is_refused(run: Run, one_stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(RunError) as caught:
        run(**one_stage())
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is not empty and not a run (no recipe.toml). Choose another --out"
    )


def test_a_frozen_part_that_changes_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StageTrainer.compute_loss

    def touch(self: StageTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        if self.stage.name == "experts":
            with torch.no_grad():
                model.fusion.rest[0][1].bias[0] += 1
        return plain(self, model, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", touch)
    with pytest.raises(TrainingError, match="stage experts: frozen weights of 'fusion' changed while it trained"):
        run()


def test_a_stage_that_moves_nothing_stops_the_run(run: Run, one_stage: Stage) -> None:
    with pytest.raises(TrainingError, match="stage tune: 'fusion' was to train, but its weights are as before"):
        run(**one_stage(lr=1e-30))


def test_upcycling_that_changes_the_logits_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyvex.training import upcycle

    plain = upcycle.install_experts

    def spoil(lm: Any, *args: Any, **kwargs: Any) -> list[str]:
        layers = plain(lm, *args, **kwargs)
        with torch.no_grad():
            lm.model.layers[0].mlp.experts.down_proj.mul_(3)
        return layers

    monkeypatch.setattr(upcycle, "install_experts", spoil)
    with pytest.raises(TrainingError, match=r"^upcycling changed the logits by .*; what experts start as must not\. "):
        run()


def test_raw_probabilities_may_change_the_logits(run: Run, said: Any) -> None:
    run("moe.router.renormalize=false")
    assert said.any_with("upcycled layers.0.mlp")


@pytest.mark.parametrize("layers", ["first_half", "second_half", "dense", "[1]"])
def test_upcycling_moves_no_logit_in_any_mode(layers: str, run: Run, said: Any) -> None:
    run(f"moe.layers={layers}")
    (line,) = [line for line in said if "logits moved by" in line]
    assert float(line.rsplit(" ", 1)[1]) < 1e-5
