"""Derive from the installed plugins the class that checks a whole recipe, and its JSON schema."""

from typing import Annotated, Any, Literal, Union

from pydantic import Field, create_model

from polyvex.adapters import LanguageModelLoRA, LoRA, PartialLoRATable
from polyvex.encoders.images import LIMITS, MOST_PIXELS
from polyvex.encoders.precision import Precision
from polyvex.encoders.tiling import Tiling
from polyvex.encoders.tuning import Tune
from polyvex.hooks.manager import Registries
from polyvex.hooks.registry import Registry
from polyvex.options import Options
from polyvex.recipe.schema import MoETable, Recipe, false_is_none, numbered

NAME = r"^[a-z0-9][a-z0-9_-]*$"


def _or_none(table: Any) -> Any:
    """The type of a table that may be left out, or false."""
    return Annotated[table | None, false_is_none(table)]


class EncoderKeys(Options):
    """Keys that every ``[[encoders]]`` table has beside those of its encoder."""

    name: str = Field(
        default="", pattern=r"^([a-z0-9][a-z0-9_-]*)?$", description="Name in this recipe; the encoder's own if empty."
    )
    tiling: Annotated[Tiling | None, false_is_none(Tiling)] = Field(
        default=None,
        description="See large images in tiles; {} takes LLaVA-1.6's AnyRes, left out or false there are none.",
    )
    precision: Precision = Field(
        default="float32", description="Precision of its network on a GPU; on a CPU it is float32 in any case."
    )
    tune: Tune = Field(
        default="frozen",
        description="frozen: tokens are cached once. trainable or lora: stages that train encoders change it, whole or "
        "through adapters, and images are encoded in each step.",
    )
    lora: Annotated[LoRA | None, false_is_none(LoRA)] = Field(
        default=None, description="Adapters of tune = 'lora'; false as if left out."
    )
    reduce: Any = Field(
        default=None, description="A reducer: fewer of its tokens, before fusion. All of them if left out or false."
    )
    positions: Any = Field(
        default=None,
        description="Position scheme of this encoder; overrides [positions], which is the default for all encoders.",
    )


class FusionKeys(Options):
    """Keys that ``[fusion]`` has beside those of its fusion."""

    separator: Literal["none", "learned", "text"] = Field(
        default="none",
        description="What stands between two encoders' runs: nothing, a learned vector, or a text.",
    )
    separator_text: str = Field(default="", description="The text between two runs, with separator = 'text'.")
    match: Literal["none", "parameters", "tokens", "both"] = Field(
        default="none",
        description="Set the option that decides the fusion's parameters, or its tokens, so that it has as many as the "
        "fusion of match_to: a fair comparison.",
    )
    match_to: Any = Field(default=None, description="The table of the fusion to match; none if left out or false.")


class LMKeys(Options):
    """Keys that ``[lm]`` has beside those of its language model."""

    attention: Literal["auto", "sdpa", "eager", "flex", "flash"] = Field(
        default="auto",
        description="Attention implementation; auto is sdpa where the language model has it, else eager. flash is "
        "refused: it misreads positions that repeat.",
    )
    lora: Annotated[LanguageModelLoRA | None, false_is_none(LanguageModelLoRA)] = Field(
        default=None,
        description="Low-rank adapters in its blocks and experts, which stages train as lm.lora; none if left out.",
    )
    partial_lora: Annotated[PartialLoRATable | None, false_is_none(PartialLoRATable)] = Field(
        default=None,
        description="Low-rank updates that act on visual tokens alone, which stages train as lm.partial_lora; none if "
        "left out.",
    )


class DataKeys(Options):
    """Keys that ``[data]`` has beside those of its data set."""

    train_split: str = Field(default="train", description="Split to train on.")
    test_split: str = Field(default="test", description="Split to evaluate on.")
    train_limit: int = Field(default=0, ge=0, description="Train only on the first N samples; 0 takes all.")
    on_unreadable: Literal["skip", "stop"] = Field(
        default="skip", description="What to do with samples whose image cannot be read: leave out and count, or stop."
    )
    max_unreadable: float = Field(
        default=0.01, ge=0, le=1, description="Share of unreadable images that stops the run."
    )
    max_image_bytes: int = Field(
        default=LIMITS.bytes, ge=1, description="Size in bytes above which an image file counts as unreadable."
    )
    max_image_pixels: int = Field(
        default=LIMITS.pixels,
        ge=1,
        le=MOST_PIXELS,
        description="Number of pixels above which an image counts as unreadable; it is known before any is decoded.",
    )


def table_model(registry: Registry[Any], keys: type[Options] | None = None) -> Any:
    """The type of a table of one kind: a union over all registered names, told apart by ``use``."""
    models = [one_table(registry, entry.name, keys) for entry in registry]
    if not models:  # a table that no name fits, so that the problem is told like any other unknown name
        make: Any = create_model
        return make(f"No{registry.kind.title()}", __base__=Options, use=(Literal[""], ...))
    if len(models) == 1:
        return models[0]
    return Annotated[Union[tuple(models)], Field(discriminator="use")]  # noqa: UP007 - built at run time


def one_table(registry: Registry[Any], name: str, keys: type[Options] | None = None) -> type[Options]:
    """The type of a table of the component ``name``: its own options, and the ``keys`` of its kind."""
    make: Any = create_model  # what is made at run time, a type checker cannot follow
    component = registry[name]
    bases = (component.Options, keys) if keys else (component.Options,)
    title = f"{registry.kind} {name}".title().replace(" ", "")
    use = (Literal[name], Field(description=f"Which {registry.kind}."))  # type: ignore[valid-type]
    return make(title, __base__=bases, __doc__=component.summary, use=use)


def encoder_keys(registries: Registries) -> type[EncoderKeys]:
    """:class:`EncoderKeys` with the tables of the installed reducers and position schemes."""
    make: Any = create_model
    tables: dict[str, Any] = {"reduce": registries.reducers, "positions": registries.position_schemes}
    fields = {}
    for name, registry in tables.items():
        described = Field(default=None, description=EncoderKeys.model_fields[name].description)
        fields[name] = (_or_none(table_model(registry)), described)
    return make("EncoderKeys", __base__=EncoderKeys, __doc__=EncoderKeys.__doc__, **fields)


def fusion_keys(registries: Registries) -> type[FusionKeys]:
    """:class:`FusionKeys` with the tables of the installed fusions."""
    make: Any = create_model
    described = Field(default=None, description=FusionKeys.model_fields["match_to"].description)
    other = (_or_none(table_model(registries.fusions)), described)
    return make("FusionKeys", __base__=FusionKeys, __doc__=FusionKeys.__doc__, match_to=other)


def recipe_model(registries: Registries) -> type[Recipe]:
    """The class that reads a recipe strictly, with the tables of all installed components."""
    make: Any = create_model
    encoder: Any = table_model(registries.encoders, encoder_keys(registries))
    moe = make(
        "MoE",
        __base__=MoETable,
        __doc__=MoETable.__doc__,
        router=(table_model(registries.routers), _described(MoETable, "router")),
    )
    return make(
        "Recipe",
        __base__=Recipe,
        __doc__=Recipe.__doc__,
        encoders=(list[encoder], _like("encoders", min_length=1)),
        fusion=(table_model(registries.fusions, fusion_keys(registries)), _like("fusion")),
        positions=(table_model(registries.position_schemes), _like("positions")),
        lm=(table_model(registries.language_models, LMKeys), _like("lm")),
        moe=(_or_none(moe), Field(default=None, description=Recipe.model_fields["moe"].description)),
        data=(table_model(registries.datasets, DataKeys), _like("data")),
    )


def _described(table: type[Any], name: str) -> Any:
    return Field(description=table.model_fields[name].description)


def _like(name: str, **more: Any) -> Any:
    return Field(description=Recipe.model_fields[name].description, **more)


def json_schema(registries: Registries) -> dict[str, Any]:
    """JSON schema of recipes for editors; covers the plugins that are installed now."""
    schema = registries.derive(recipe_model).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "polyvex recipe"}


def encoder_names(recipe: Recipe) -> list[str]:
    """Names of the encoders in order: given ones, else the ``use``; repeats get -2, -3, … by their order."""
    return numbered([table.name or table.use for table in recipe.encoders])
