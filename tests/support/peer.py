"""Optax as it is used in tests: untyped, since its types know nothing of gradtx."""

import importlib
from typing import Any

optax: Any = importlib.import_module("optax")
