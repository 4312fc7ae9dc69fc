"""Pipelines as data: `onnxprune run recipe.yaml`, or the same steps from Python."""

from onnxprune.recipe.recipe import Images, Limits, Outputs, Recipe, parse_recipe, read_recipe, to_yaml
from onnxprune.recipe.run import Done, RecipeResult, run_recipe, run_steps
from onnxprune.recipe.steps import Step, step

__all__ = [
    "Done",
    "Images",
    "Limits",
    "Outputs",
    "Recipe",
    "RecipeResult",
    "Step",
    "parse_recipe",
    "read_recipe",
    "run_recipe",
    "run_steps",
    "step",
    "to_yaml",
]
