"""Experimental namespaces, as Optax has them: names here may still change."""

from gradtx.experimental import aggregating as aggregating
