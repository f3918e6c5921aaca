"""The page of a run: what is on it, that it stands alone, and that nothing on it is code by accident."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from polyvex.errors import RunError
from polyvex.evaluation.evaluate import Evaluation
from polyvex.report import write_report

from .conftest import HASH, LOCK, answered, write_evaluation, write_json

VOID = {"meta", "img", "br", "link", "input", "hr", "col", "source"}


class Reader(HTMLParser):
    """Tags with their attributes, ids, and the text between; knows whether every tag is closed."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> Reader:
    return Reader(write_report(folder).page.read_text(encoding="utf-8"))


def change_json(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


def test_a_page_says_what_the_run_is_and_what_it_reached(hand_run: Path) -> None:
    text = read(hand_run).text
    for part in (
        "polyvex run",
        "patchify + color-grid → mlp → share_row → small-llama with 4 experts (top_k router), on jsonl",
        "exact_match after 2-experts 75.0%",
        "questions 4",
        "samples 48",
        "images 24",
        "1-tune, exact_match 2-experts, exact_match",
        "100.0% of 2 100.0% of 2",  # kind a, after tune and after experts
        "50.0% of 2 50.0% of 2",  # kind b
        "30.1% – 95.4%",  # Wilson's interval of 3 of 4, by the formula with z = 1.96: (0.301, 0.954)
    ):
        assert part in text
    assert "Read this first" not in text


def test_a_page_says_which_run_it_starts_from(hand_run: Path) -> None:
    path = hand_run / "recipe.toml"
    assert "starts from" not in read(hand_run).text
    start = '[start]\nrun = "/runs/<dense>"\nstage = "tune"\n'
    path.write_text(path.read_text(encoding="utf-8") + start, encoding="utf-8")
    assert "on jsonl, starts from /runs/<dense>, after stage tune" in read(hand_run).text


def test_an_evaluation_without_images_is_marked_blind(hand_run: Path) -> None:
    text = read(hand_run).text
    assert "0-language, exact_match (blind)" in text
    assert "1-tune (blind)" not in text
    assert "asked blind, without images" in text
    assert "exact_match 0-language WITHOUT images: 50.0%" in str(write_report(hand_run))


def test_the_lock_the_recipe_and_the_hashes_can_be_unfolded(hand_run: Path) -> None:
    reader = read(hand_run)
    folded = [tag for tag, _ in reader.tags if tag == "details"]
    assert len(folded) == 3
    assert "libraries: torch 9.8.7" in reader.text
    assert f"weights_sha256: color-grid {LOCK['weights_sha256']['color-grid']}" in reader.text
    assert "weights_sha256: patchify none needed" in reader.text
    assert 'template = "{image}Question: {question}\\nAnswer: "' in reader.text
    assert f"0-language fusion frozen {HASH['old'][:16]} {HASH['old'][:16]} " in reader.text
    assert f"0-language lm trained {HASH['old'][:16]} {HASH['new'][:16]} " in reader.text


def test_the_stages_say_what_trained_and_what_was_proven_frozen(hand_run: Path) -> None:
    text = read(hand_run).text
    assert "experts upcycles lm.moe" in text
    assert "language without images lm" in text
    assert text.count("trained, hash changed: lm") == 3
    assert text.count("frozen, hash the same: fusion") == 3
    assert "1,234 3 4 0.001 1.5" in text  # parameters, steps, batch, learning rate, seconds


def test_a_broken_promise_about_hashes_shows(hand_run: Path) -> None:
    after = {"fusion": {"frozen": HASH["new"]}, "lm": {"trained": HASH["old"]}}
    change_json(hand_run / "stages" / "1-tune" / "done.json", hashes_after=after)
    text = read(hand_run).text
    assert "frozen, hash CHANGED: fusion" in text
    assert "was to train, hash THE SAME: lm" in text


def test_tokens_and_positions_of_each_encoder(hand_run: Path) -> None:
    # patchify: 32 / 16 = 2 rows of 2; color-grid: 2 rows of 4; share_row gives each row one position.
    text = read(hand_run).text
    assert "patchify 32x32 4 4 2x2 2 8 Apache-2.0" in text
    assert "color-grid 32x32 8 8 2x4 2 6 Apache-2.0" in text
    assert "all 12 12 4" in text


def test_without_its_plugin_a_run_still_has_a_page(hand_run: Path) -> None:
    recipe = hand_run / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('"patchify"', '"gone"'), encoding="utf-8")
    text = read(hand_run).text
    assert "Tokens and positions cannot be counted here" in text
    assert "unknown encoder 'gone'" in text
    assert "gone + color-grid → mlp" in text


def test_the_page_needs_no_network_and_no_other_file(hand_run: Path) -> None:
    reader = read(hand_run)
    addresses = [value for _, attrs in reader.tags for key, value in attrs.items() if key in ("src", "href", "data")]
    assert len(addresses) > 4
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    page = (hand_run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in page
    assert all(inner.startswith("#") for inner in re.findall(r"url\((.*?)\)", page))
    assert "http://" not in page
    assert "https://" not in page


def test_the_page_is_whole(hand_run: Path) -> None:
    reader = read(hand_run)
    assert reader.open == []
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    asked = [name for _, attrs in reader.tags for name in attrs.get("aria-labelledby", "").split()]
    asked += [attrs["href"][1:] for _, attrs in reader.tags if attrs.get("href", "").startswith("#")]
    assert asked
    assert set(asked) <= set(ids)


def test_text_of_people_is_escaped(hand_run: Path) -> None:
    evil = "<script>alert('x')</script>"
    texts = {"question": evil, "answer": f"{evil}&amp;", "expected": evil, "kind": evil, "id": evil}
    answers = [answered(0, right=False, **texts), answered(1, **{**texts, "id": "q1"})]
    write_evaluation(hand_run, Evaluation(name="2-experts", metric="exact_match", answers=answers))
    change_json(hand_run / "lock.json", libraries={evil: evil})
    page = write_report(hand_run).page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;amp;" in page
    assert Reader(page).open == []


def test_wrong_answers_show_what_was_expected_and_their_image(hand_run: Path) -> None:
    reader = read(hand_run)
    assert "what is 3? ✗ wrong: red expected: blue b · q3" in reader.text
    assert "what is 0? ✓ right: red a · q0" in reader.text
    images = [attrs for tag, attrs in reader.tags if tag == "img"]
    assert len(images) == 4
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in images)
    assert images[0]["alt"] == "Image of the question q3"


def test_an_image_that_is_gone_or_broken_is_told(hand_run: Path, picture: Path) -> None:
    picture.unlink()
    assert f"Image not shown: no image at {picture}" in read(hand_run).text
    picture.write_text("no picture", encoding="utf-8")
    reader = read(hand_run)
    assert f"Image not shown: {picture}: it has changed since the evaluation" in reader.text
    assert "img" not in {tag for tag, _ in reader.tags}


def test_a_large_image_becomes_small(hand_run: Path, picture: Path) -> None:
    noise = Image.effect_noise((1200, 900), 80).convert("RGB")
    noise.save(picture)
    assert picture.stat().st_size > 1_000_000
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    answers = [answered(number, images=(str(picture),), image_sha256=(digest,)) for number in range(4)]
    write_evaluation(hand_run, Evaluation(name="2-experts", metric="exact_match", answers=answers))
    reader = read(hand_run)
    assert "img" in {tag for tag, _ in reader.tags}
    assert (hand_run / "report.html").stat().st_size < 500_000


def test_left_out_and_unreadable_are_loud(hand_run: Path) -> None:
    change_json(hand_run / "evaluation" / "1-tune.json", skipped=7, cut=3)
    change_json(hand_run / "lock.json", unreadable_images=["/a.png", "/b.png"], left_out={"train": 7, "test": 7})
    written = write_report(hand_run)
    assert written.loud == [
        "LEFT OUT: 7 questions of 1-tune, whose images cannot be read",
        "CUT: 3 answers of 1-tune did not end within evaluation.max_new_tokens",
        "UNREADABLE: 2 images (/a.png, /b.png); 7 training samples are left out",
    ]
    text = Reader(written.page.read_text(encoding="utf-8")).text
    assert text.index("Read this first LEFT OUT: 7 questions") < text.index("Accuracy")
    assert "questions left out 7" in text
    assert "unreadable images 2" in text


def test_an_unfinished_run_says_loudly_what_is_missing(hand_run: Path) -> None:
    (hand_run / "lock.json").unlink()
    (hand_run / "config.json").unlink()
    (hand_run / "stages" / "1-tune" / "done.json").unlink()
    shutil.rmtree(hand_run / "stages" / "2-experts")
    for name in ("1-tune", "2-experts"):
        (hand_run / "evaluation" / f"{name}.json").unlink()
    written = write_report(hand_run)
    assert written.loud == [
        "UNFINISHED: lock.json: versions, hashes and seeds are not known",
        "UNFINISHED: stage 1-tune: stopped after step 3 of 3",
        "UNFINISHED: stage 2-experts: has not begun",
        f"UNFINISHED: go on with: polyvex train RECIPE --out {hand_run}",
    ]
    text = Reader(written.page.read_text(encoding="utf-8")).text
    assert "✗ not finished; last logged step 3" in text
    assert "exact_match after 0-language 50.0%" in text
    assert "There is no lock.json" in text
    assert [one["name"] for one in written.evaluations] == ["0-language"]


def test_a_run_that_has_only_its_recipe_has_a_page(hand_run: Path) -> None:
    for name in ("stages", "evaluation"):
        shutil.rmtree(hand_run / name)
    text = read(hand_run).text
    assert "stage 0-language: has not begun" in text
    assert "Nothing was evaluated yet" in text


def test_all_trained_but_not_evaluated_or_stored(hand_run: Path) -> None:
    (hand_run / "config.json").unlink()
    (hand_run / "evaluation" / "1-tune.json").unlink()
    assert write_report(hand_run).loud == [
        "UNFINISHED: stage 1-tune: trained, but not evaluated",
        "UNFINISHED: the finished model: all stages are done, but it is not stored yet",
    ]


@pytest.mark.parametrize(("when", "missing"), [("never", []), ("last_stage", ["2-experts"])])
def test_an_evaluation_that_the_recipe_does_not_want_is_not_missing(
    hand_run: Path, when: str, missing: list[str]
) -> None:
    shutil.rmtree(hand_run / "evaluation")
    recipe = hand_run / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('"each_stage"', f'"{when}"'), encoding="utf-8")
    assert write_report(hand_run).loud == [f"UNFINISHED: stage {name}: trained, but not evaluated" for name in missing]


def test_a_cell_of_an_ablation_stores_no_model_and_lacks_none(hand_run: Path) -> None:
    (hand_run / "config.json").unlink()
    write_json(hand_run / "result.json", {})
    assert write_report(hand_run).loud == []


def test_evaluations_outside_the_stages_come_last(hand_run: Path) -> None:
    write_evaluation(hand_run, Evaluation(name="0-test-9", metric="exact_match", answers=[answered()]))
    written = write_report(hand_run)
    assert [one["name"] for one in written.evaluations] == ["0-language", "1-tune", "2-experts", "0-test-9"]


def test_an_evaluation_of_no_questions(hand_run: Path) -> None:
    write_evaluation(hand_run, Evaluation(name="2-experts", metric="exact_match", answers=[]))
    written = write_report(hand_run)
    assert "exact_match 2-experts: – (0.0% to 100.0%) of 0 questions" in str(written)
    assert "1-tune; wrong ones first" in Reader(written.page.read_text(encoding="utf-8")).text


def test_a_line_cut_while_it_was_written_is_dropped_and_no_other(hand_run: Path) -> None:
    metrics = hand_run / "stages" / "1-tune" / "metrics.jsonl"
    metrics.write_text(metrics.read_text(encoding="utf-8") + '{"step": 4, "answ', encoding="utf-8")
    assert write_report(hand_run).loud == []
    metrics.write_text('{"step": 1, "answ\n{"step": 2}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"(?s)1-tune/metrics\.jsonl is damaged.*line 1: "):
        write_report(hand_run)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("lock.json", "{", r"lock\.json is damaged"),
        ("lock.json", "[]", r"(?s)lock\.json is damaged.*an object"),
        ("lock.json", '{"samples": 1}', r"(?s)lock\.json.*images.*unreadable_images"),
        ("evaluation/1-tune.json", "{}", r"(?s)1-tune\.json is damaged.*name: "),
        ("stages/1-tune/done.json", "{}", r"(?s)done\.json.*seconds.*trained_parameters"),
        ("recipe.toml", "name =", r"(?s)recipe\.toml is damaged.*not valid TOML"),
        ("recipe.toml", 'name = "a"', r"not the resolved recipe of a run: it lacks seed, encoders"),
    ],
)
def test_a_damaged_file_is_named(hand_run: Path, name: str, text: str, told: str) -> None:
    (hand_run / name).write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=told):
        write_report(hand_run)


def test_a_folder_that_is_neither_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    for folder, what in ((tmp_path, "is neither a run nor an ablation"), (tmp_path / "no", "does not exist")):
        with pytest.raises(RunError) as caught:
            write_report(folder)
        assert str(caught.value) == (
            f"{folder} {what}: expected a folder with recipe.toml (as polyvex train RECIPE --out writes it), or with "
            f"cells and ablation.json (polyvex ablate RECIPE --out)"
        )
    assert list(tmp_path.iterdir()) == []


def test_what_encoders_weigh_is_shown_by_kind(hand_run: Path) -> None:
    assert "What encoders weigh" not in read(hand_run).text
    weights = {
        "all": {"patchify": {"weight": 0.7, "used": 1}, "color-grid": {"weight": 0.3, "used": 0.5}},
        "side": {"patchify": {"weight": 0.41, "used": 1}, "color-grid": {"weight": 0.59, "used": 1}},
    }
    change_json(hand_run / "evaluation" / "1-tune.json", encoder_weights=weights)
    text = read(hand_run).text
    assert "after 1-tune, by kind of question" in text
    assert "kind patchify color-grid all 70.0% 30.0% (used at 50.0%) side 41.0% 59.0%" in text


def test_the_same_run_gives_the_same_page(hand_run: Path) -> None:
    first = write_report(hand_run).page.read_bytes()
    assert write_report(hand_run).page.read_bytes() == first


def test_a_real_run_has_a_report(real_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(real_run, tmp_path / "run"))
    written = write_report(folder)
    assert all(sentence.startswith("CUT: ") for sentence in written.loud)  # three steps teach no model to stop
    reader = Reader(written.page.read_text(encoding="utf-8"))
    assert reader.open == []
    assert [one["name"] for one in written.evaluations] == ["0-align", "1-tune", "2-experts"]
    assert [one["questions"] for one in written.evaluations] == [12, 12, 12]
    drawn = [attrs["aria-labelledby"].split("-")[0] for tag, attrs in reader.tags if tag == "svg"]
    assert drawn == ["accuracy", "loss0", "loss1", "loss2", "load0"]  # layer 0 of the two is sparse
    assert "trained, hash changed: fusion, lm" in reader.text  # stage tune
    assert "CHANGED" not in reader.text


def test_what_is_printed_ends_with_the_page(hand_run: Path) -> None:
    lines = str(write_report(hand_run)).splitlines()
    assert lines[-1] == str(hand_run / "report.html")
    place = lines.index("exact_match 2-experts: 75.0% (30.1% to 95.4%) of 4 questions")
    assert lines[place + 1 : place + 3] == ["    a: 100.0% of 2", "    b: 50.0% of 2"]


def test_what_is_printed_as_json(hand_run: Path) -> None:
    record = json.loads(json.dumps(write_report(hand_run).as_dict()))
    assert record["paths"] == [str(hand_run / "report.html")]
    assert record["evaluations"][2]["by_kind"] == {"a": [1.0, 2], "b": [0.5, 2]}
    assert record["results"] == []


def test_charts_are_drawn_only_when_a_report_is_written() -> None:
    code = "import sys, polyvex.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
