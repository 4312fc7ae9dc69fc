"""Jobs as text: `onnxprune run recipe.yaml`, or the same from Python."""

from onnxprune.recipe.recipe import parse_recipe, read_recipe, to_yaml

__all__ = ["parse_recipe", "read_recipe", "to_yaml"]
