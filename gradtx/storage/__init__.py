"""Optimizer state in fewer bits: codecs, and the wrapper that puts them on the slots of any optimizer."""

from gradtx.storage import blockwise as _blockwise
from gradtx.storage import dynamic as _dynamic
from gradtx.storage import sixteen as _sixteen
from gradtx.storage.codec import CODECS, Codec, register_codec
from gradtx.storage.stored import stored

__all__ = ["CODECS", "Codec", "register_codec", "stored"]

_ = _blockwise, _dynamic, _sixteen
