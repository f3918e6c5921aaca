"""Choices of separators and positions that would have no effect, or that the runs of a recipe cannot honour."""

from polyvex.hooks.manager import Registries
from polyvex.layouts import ImageLayouts
from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe


def arrangement_problems(recipe: Recipe, registries: Registries, layouts: ImageLayouts) -> list[str]:
    """Sentences about separators and position schemes, each with a way out. Empty if all is well."""
    return _separators(recipe, layouts) + _positions(recipe, registries, layouts) + _updates(recipe, layouts)


def _runs(layouts: ImageLayouts) -> int:
    """Runs that the language model reads one behind the other."""
    return 1 if layouts.arrangement.interleaved else len(layouts.runs)


def _separators(recipe: Recipe, layouts: ImageLayouts) -> list[str]:
    fusion, problems = recipe.fusion, []
    if fusion.separator != "none" and _runs(layouts) == 1:
        problems.append(
            f"[fusion]: separator = '{fusion.separator}' has no effect, since all visual tokens are one run. Set it to "
            f"'none', or take a fusion that keeps encoders apart"
        )
    return problems


def _updates(recipe: Recipe, layouts: ImageLayouts) -> list[str]:
    """Partial LoRA for each encoder asks for tokens that belong to one."""
    partial = getattr(recipe.lm, "partial_lora", None)
    if partial is None or not partial.per_encoder or len(layouts.runs) > 1:
        return []
    why = "there is one encoder" if len(recipe.encoders) == 1 else f"the fusion '{recipe.fusion.use}' mixes encoders"
    return [f"[lm.partial_lora]: per_encoder has no effect, since {why}. Set it to false"]


def separator_problems(recipe: Recipe) -> list[str]:
    """What ``separator`` and its text say against each other, whatever the fusion."""
    fusion = recipe.fusion
    if fusion.separator == "text" and not fusion.separator_text:
        return ["[fusion]: separator is 'text', but separator_text is empty. Give the text"]
    if fusion.separator != "text" and fusion.separator_text:
        return ["[fusion]: separator_text has no effect without separator = 'text'"]
    return []


def _positions(recipe: Recipe, registries: Registries, layouts: ImageLayouts) -> list[str]:
    own = {index: table.positions for index, table in enumerate(recipe.encoders) if table.positions is not None}
    names, runs = encoder_names(recipe), _runs(layouts)
    problems = []
    if own and (runs != len(names) or layouts.arrangement.interleaved):
        problems += [
            f"[[encoders]] {names[index]}: positions of its own need a run of its own, but the fusion "
            f"'{recipe.fusion.use}' mixes encoders. Take them out, or take a fusion that keeps encoders apart"
            for index in own
        ]
        own = {}
    common = [index for index in range(len(layouts.runs)) if index not in own]
    tables = [("[positions]", recipe.positions, common)]
    tables += [(f"[[encoders]] {names[index]}.positions", table, [index]) for index, table in own.items()]
    for where, table, served in tables:
        if not served:
            continue  # [positions] is a default, and every encoder overrides it
        if table.base == "common" and runs == 1:
            way = "Take sequential" if table.use == "share_encoder" else "Take base = 'sequential'"
            problems.append(f"{where}: base = 'common' has no effect, since all visual tokens are one run. {way}")
        bare = [index for index in served if layouts.runs[index].tile.grid is None]
        if registries.position_schemes[table.use].needs_grid and bare:
            whose = f" of {', '.join(names[index] for index in bare)}" if runs == len(names) else ""
            own = "" if len(bare) == len(served) else ", or positions of their own for those"
            problems.append(
                f"{where}: '{table.use}' goes by rows, but the tokens{whose} have no grid behind the fusion "
                f"'{recipe.fusion.use}'. Take share_all, or a scheme that counts tokens{own}"
            )
    return problems
