"""The public functions beside their references, by name.

These functions are not transformations: losses, tree functions, projections and helpers. A
module of this package describes a room of the source.
"""

import importlib
import pkgutil

from tests.functions.row import Function as Function

FUNCTIONS: dict[str, Function] = {
    name: row
    for module in pkgutil.iter_modules(__path__)
    if module.name != "row"
    for name, row in importlib.import_module(f"{__name__}.{module.name}").FUNCTIONS.items()
}
