"""Tests for transformations: the laws that every one obeys, and problems to run them on."""

from gradtx.testing.laws import LAWS as LAWS
from gradtx.testing.laws import check_laws as check_laws
from gradtx.testing.problems import gradients as gradients
from gradtx.testing.problems import parameters as parameters
