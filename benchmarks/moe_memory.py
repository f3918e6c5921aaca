"""Memory of a mixture of experts while it trains, measured, against what ``polyvex plan`` says of the stage.

The recipe's language model is upcycled and trained for some steps on random tokens of the length and batch that plan
counts with, in a process of its own. Total and active parameters are counted on the real model, the active ones by the
arithmetic of a forward (2 per parameter and token); weights are what their tensors hold, and training is what the
process holds at most beyond what it held before the model was built.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

RECIPE = "recipes/smollm2-easyvqa.toml"
GIB = 2**30


def measure(path: str, steps: int) -> None:
    """Train, and print what was measured as JSON."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from polyvex.assemble import build_model, make_processor
    from polyvex.hooks.manager import load_registries
    from polyvex.moe.upcycle import install_experts, moe_layers
    from polyvex.plan import make_plan
    from polyvex.recipe import read_recipe
    from polyvex.recipe.samples import training_texts
    from polyvex.training.parts import freeze_all_but, selected

    registries = load_registries()
    recipe = read_recipe(path, registries=registries)
    plan = make_plan(recipe, registries)
    stage, said = recipe.stages[-1], plan.stages[-1]
    processor = make_processor(recipe, registries, training_texts(recipe, registries))
    before = resident()
    model, _ = build_model(recipe, processor, registries, encoders=False)
    assert recipe.moe is not None
    router = (registries.routers[recipe.moe.router.use], recipe.moe.router)
    install_experts(model.lm, recipe.moe, router, copy=True, context=model.context)
    freeze_all_but(model, selected(model, stage.trains))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    length, rows = plan.visual_tokens + plan.text_tokens, stage.batch_size // stage.accumulate
    model.train()
    for _ in range(steps):
        ids = torch.randint(1000, 40_000, (rows, length))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lm = model.lm.eval()
    for _, layer in moe_layers(lm):
        layer.experts.backend = "loop"  # torch does not count the arithmetic of grouped products
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        lm(input_ids=torch.randint(1000, 40_000, (1, 1)), use_cache=False)
    tied = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    looked_up = 0 if tied else lm.get_input_embeddings().weight.numel()
    rest = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith("lm."))
    held = {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in model.parameters()}
    found = {
        "total": (said.total, sum(weight.numel() for weight in model.parameters())),
        "active": (said.active, counter.get_total_flops() // 2 + looked_up + rest),
        "weights": (4 * said.total, sum(held.values())),
        "training": (said.memory_bytes, peak - before),
    }
    print(json.dumps(found))


def resident() -> int:
    """Bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default=RECIPE)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(options.recipe, options.steps)
        return
    command = [sys.executable, __file__, options.recipe, "--here", "--steps", str(options.steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, (said, found) in json.loads(done.stdout.splitlines()[-1]).items():
        unit, scale = ("M parameters", 1e6) if name in ("total", "active") else ("GiB", GIB)
        print(f"{name:9} plan {said / scale:8.2f} {unit}, measured {found / scale:8.2f}, ratio {found / said:.3f}")


if __name__ == "__main__":
    main()
