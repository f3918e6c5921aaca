"""The order of the encoders: tables sorted as ``order`` says, and options that go with their encoder."""

from typing import Any

from polyvex.recipe.model import encoder_names
from polyvex.recipe.schema import Recipe


def in_order(recipe: Recipe) -> Recipe:
    """The recipe with its encoders' tables in the order that ``order`` names, and no ``order`` any more.

    Raises:
        ValueError: if ``order`` does not have exactly the recipe's encoders. Says their names.
    """
    names = encoder_names(recipe)
    if not recipe.order:
        return recipe
    if sorted(recipe.order) != sorted(names):
        raise ValueError(
            f"order: {', '.join(recipe.order)} is not an order of the encoders. Name each of {', '.join(names)} once"
        )
    places = [names.index(name) for name in recipe.order]
    encoders = [recipe.encoders[place].model_copy(update={"name": names[place]}) for place in places]
    fusion = _moved(recipe.fusion, places)
    if fusion.match_to is not None:
        fusion = fusion.model_copy(update={"match_to": _moved(fusion.match_to, places)})
    return recipe.model_copy(update={"encoders": encoders, "fusion": fusion, "order": []})


def _moved(fusion: Any, places: list[int]) -> Any:
    """A fusion's table whose lists with one value per encoder go with their encoders."""
    own = {key: getattr(fusion, key) for key in fusion.per_encoder_options()}
    moved = {
        key: [values[place] for place in places]
        for key, values in own.items()
        if isinstance(values, list) and len(values) == len(places)  # any other list is a problem the checker tells
    }
    return fusion.model_copy(update=moved)
