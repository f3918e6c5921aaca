"""Recipes: one TOML file that names every part of a run, checked strictly."""

from polyvex.recipe.read import parse_recipe, read_recipe
from polyvex.recipe.schema import Recipe, Stage

__all__ = ["Recipe", "Stage", "parse_recipe", "read_recipe"]
