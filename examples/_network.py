"""The digits of scikit-learn, and a small network for them in plain JAX."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Images(NamedTuple):
    """Images as rows of 64 pixels, and their digits 0 to 9."""

    x: jax.Array
    y: jax.Array


class Data(NamedTuple):
    """Handwritten digits: 1257 for training, 270 for validation, 270 for the test."""

    train: Images
    valid: Images
    test: Images


def load(seed: int) -> Data:
    """Load the 1797 digits, standardized by mean and deviation of the training images."""
    x, y = map(np.asarray, load_digits(return_X_y=True))
    train_x, rest_x, train_y, rest_y = map(
        np.asarray, train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    )
    valid_x, test_x, valid_y, test_y = train_test_split(
        rest_x, rest_y, test_size=0.5, stratify=rest_y, random_state=seed
    )
    mean, deviation = train_x.mean(axis=0), train_x.std()
    parts = (train_x, train_y), (valid_x, valid_y), (test_x, test_y)
    return Data(*(_images((x - mean) / deviation, y) for x, y in parts))


def _images(x: Any, y: Any) -> Images:
    return Images(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))


def init(rng: np.random.Generator, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Initialize the layers with normal weights of variance 2 / inputs.

    He et al. 2015, arXiv 1502.01852, equation 10."""
    return {"layers": [_layer(rng, *shape) for shape in itertools.pairwise(sizes)]}


def _layer(rng: np.random.Generator, inputs: int, outputs: int) -> dict[str, jax.Array]:
    kernel = rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs))
    return {"bias": jnp.zeros(outputs), "kernel": jnp.asarray(kernel, jnp.float32)}


def logits(params: Any, x: jax.Array) -> jax.Array:
    *hidden, last = params["layers"]
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    return x @ last["kernel"] + last["bias"][None]


def loss(params: Any, images: Images) -> jax.Array:
    """Cross-entropy in nats, the mean over images."""
    log_p = jax.nn.log_softmax(logits(params, images.x))
    return -jnp.mean(jnp.take_along_axis(log_p, images.y[:, None], axis=1))


def accuracy(params: Any, images: Images) -> jax.Array:
    return jnp.mean(logits(params, images.x).argmax(axis=1) == images.y)


def take(images: Images, indices: Any) -> Images:
    return Images(images.x[indices], images.y[indices])


def batches(rng: np.random.Generator, images: int, size: int, steps: int) -> np.ndarray:
    """The image indices of each step; every epoch has its own order, without overlap."""
    per_epoch = images // size
    epochs = [rng.permutation(images)[: per_epoch * size] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(epochs).reshape(-1, size)[:steps]
