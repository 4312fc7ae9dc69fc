"""One description per operator that computes with weights, one file per family; importing this package fills the table.

Counting, costs, the refit, readings, gradients, low rank, sparsity and quantization read it. With its channel rule it
is all that a new operator needs.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
