"""The order of the encoders: tables sorted as ``order`` says, and options that go with their encoder."""

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
    own = {key: getattr(recipe.fusion, key) for key in recipe.fusion.per_encoder_options()}
    moved = {
        key: [values[place] for place in places]
        for key, values in own.items()
        if isinstance(values, list) and len(values) == len(names)  # any other list is a problem that the checker tells
    }
    fusion = recipe.fusion.model_copy(update=moved)
    return recipe.model_copy(update={"encoders": encoders, "fusion": fusion, "order": []})
