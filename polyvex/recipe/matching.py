"""``match`` of ``[fusion]``: one option of the fusion follows from the size of another fusion."""

from typing import Any

from polyvex.fusion.matching import Match, What, bring_to, size_of
from polyvex.hooks.manager import Registries
from polyvex.layouts import token_shapes
from polyvex.recipe.schema import Recipe

ORDER: dict[str, tuple[What, ...]] = {
    "none": (),
    "parameters": ("parameters",),
    "tokens": ("tokens",),
    "both": ("tokens", "parameters"),  # queries are parameters, too, so these come last
}
"""What each value of ``match`` brings to the size of the other fusion, in turn."""


def sized_fusion(recipe: Recipe, registries: Registries, *, dim: int | None = None) -> tuple[Any, list[Match]]:
    """The fusion's table as it is built: with its size brought to the other fusion's, where ``match`` asks for it.

    Args:
        dim: the language model's width; left out, only the tokens are brought to the other's, since parameters
            depend on it and tokens do not.

    Returns:
        The table, without ``match`` if all of it is done, and what was set.

    Raises:
        ValueError: if one of the two fusions cannot work here, or they cannot be brought to one size.
    """
    table: Any = recipe.fusion
    if table.match == "none" or table.match_to is None:
        return table, []
    wanted = ORDER[table.match]
    encoders = [(registries.encoders[one.use], one) for one in recipe.encoders]
    inputs = token_shapes(encoders, registries.reducers)
    other = registries.fusions[table.match_to.use]
    kind, done = registries.fusions[table.use], []
    options = table.model_copy(update={"match": "none", "match_to": None})
    for what in wanted:
        if what == "parameters" and dim is None:
            return table.model_copy(update={one.option: one.value for one in done}), done
        try:
            size = size_of(other, table.match_to, what, inputs=inputs, dim=dim or 1)
        except ValueError as error:
            raise ValueError(f"match_to: {error}") from None
        options, match = bring_to(kind, options, what, size, inputs=inputs, dim=dim or 1)
        done.append(match)
    return options, done


def matching_problems(recipe: Recipe, registries: Registries) -> list[str]:
    """Keys around ``match`` that contradict each other or would have no effect."""
    table = recipe.fusion
    if (table.match == "none") != (table.match_to is None):
        way = "match_to = {use = …} names the fusion to match" if table.match_to is None else "match says what to match"
        missing, given = ("match_to", "match") if table.match_to is None else ("match", "match_to")
        return [f"[fusion]: {given} has no effect without {missing}: {way}. Set both, or take {given} out"]
    problems = []
    for what in ORDER[table.match]:
        name = registries.fusions[table.use].sizes.get(what)
        if name is None:
            problems.append(f"[fusion]: match = '{table.match}': no option of '{table.use}' changes its {what}")
        elif getattr(table, name) != type(table).model_fields[name].default:
            problems.append(
                f"[fusion]: {name} = {getattr(table, name)} has no effect, since match = '{table.match}' sets it. Take "
                f"one of them out"
            )
    return problems
