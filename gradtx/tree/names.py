"""The roles of parameters by their names: which parts of a path name an embedding, a head, a norm.

The names are those of models in Flax, Haiku, Equinox, and Hugging Face. Each expression matches a
whole part of a path: `lm_head` of `lm_head/kernel`.
"""

import functools
import re

EMBEDDING, POSITION, HEAD = "an embedding", "a position table", "a head"
ROUTER, NORM, DYNAMICS = "a router", "a norm or bias", "a state-space parameter"
GROUPS = {
    "embedding": EMBEDDING,
    "position": POSITION,
    "head": HEAD,
    "router": ROUTER,
    "norm": NORM,
    "dynamics": DYNAMICS,
}
"""The groups of `by_role` that have the parameters of one role."""


class Expression:
    """Names, as one regular expression that is compiled when the first name is compared."""

    def __init__(self, *names: str) -> None:
        self.names: tuple[str, ...] = names

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled: to compile all of them takes a twentieth of the import."""
        return re.compile("|".join(self.names), re.IGNORECASE)

    def fullmatch(self, name: str) -> re.Match[str] | None:
        """The match of a whole name."""
        return self.pattern.fullmatch(name)


NAMES = {
    POSITION: Expression(
        r"wpe|pe|(.*_)?pos",
        r".*pos(ition(al)?)?_?(emb|enc|table).*",
        r".*rel(ative)?_?(pos|att|emb).*",
    ),
    HEAD: Expression(
        r"(.*_)?head|(.*_)?logits(_.*)?|(.*_)?classifier",
        r"unembed.*|embed_out|qa_outputs",
    ),
    EMBEDDING: Expression(
        r"wte|.*embed.*|(.*_)?emb|codebooks?|codevectors?",
        r"(cls|class|mask|dist|distillation|register|query|latent|prompt)_?tokens?|latents",
    ),
    ROUTER: Expression(r"(.*_)?routers?(_weights)?|.*expert_gate|switch_gate"),
    NORM: Expression(
        r"b|(.*_)?bias|(.*_)?scale|layer_?scale.*|offset|beta|gamma",
        r"rms|ln(_?[0-9f]+|_[a-z]+)?",
        # Norms fused with the matrix behind them keep its kernel under one name.
        r"(?!.*(mlp|qkv|proj|dense|linear)).*norm.*",
    ),
}
"""The parts of a path that name a role; the first role that matches is taken."""
LAST_NAMES = {
    DYNAMICS: Expression(
        r"(a|nu|theta|gamma|lambda)_log|log_(a|dt|step|lambda)|lambda(_(re|im|real|imag))?",
        r"dt_bias|time_(decay|first|faaaa|mix(_[a-z])?|maa(_[a-z])?)",
    ),
    NORM: Expression(r"(b|gamma|beta|ls)_?\d+|bias_.*"),
}
"""The same for the last part alone, since modules may have these names too."""

STACKS = Expression(r"(.*_)?layers?|(.*_)?blocks?|h|(.*_)?stack(ed)?(_.*)?|.*scan.*|(.*_)?repeats?")
"""Modules that repeat a layer."""
EXPERTS = Expression(r"(.*_)?experts?(_.*)?")
"""Modules and arrays that have one matrix for each expert."""
MIXTURES = Expression(r".*moe.*|.*mixture.*")
"""Modules of experts and the router that chooses among them."""
GATES = Expression(r"gate|gating|w_?g|wg_\w*|gate_(w|kernel)|switch")
"""Names of routers, where they stand in such a module."""
CONVOLUTIONS = Expression(r".*conv.*")
QUERIES = Expression(r"(.*_)?(query|key|value|q|k|v)(_proj|_kernel)?|w[qkv]")
"""Matrices from a model's features to its heads."""
FUSED = Expression(r"(.*_)?q?kv(_proj|_kernel)?|wq?kv")
"""The same, several in one array."""
OUTPUTS = Expression(r"(.*_)?(out|o|output)(_proj|_kernel)?|wo|to_out|c_proj|proj|attn_vec.*")
"""Matrices from the heads to a model's features."""
ATTENTIONS = Expression(r".*att(n|ention).*")
TORCH = Expression(
    r"self_attn|[qkvo]_proj|(gate|up|down)_proj|embed_tokens|input_layernorm|tok_embeddings|"
    r"word_embeddings|c_attn|c_fc"
)
"""Names of torch models, whose matrices are (outputs, inputs) under the name `weight`."""

WEIGHTS = Expression(r"(.*_)?weight(_.*)?")
"""Names of matrices in torch and Equinox, which have the outputs in front."""

_TIMES = Expression(r".*(time|sigma|noise|guidance|cond).*emb.*|t_?emb.*")
"""Embedders of one number: networks, not tables."""
_LAYERS = Expression(r"(linear|dense|fc|mlp|ffn)(_?\d+)?")
MATRICES = Expression(r"kernel|weight|w")
"""Names of the matrix in a layer; the name of its module decides the role."""
BIASES = Expression(r"bias|b")
_LOW_RANK = Expression(r"(.*_)?lora(_.*)?")


@functools.lru_cache(maxsize=16384)
def path_parts(path: str) -> tuple[str, ...]:
    """The names in a path, those within dotted keys too; one empty name for a bare array."""
    parts = [part for part in re.split(r"[/.]", path) if part not in ("", "~", "params")]
    return tuple(parts) or ("",)


def has_part(expression: Expression, parts: tuple[str, ...]) -> bool:
    """Whether an expression matches one of the names."""
    return any(expression.fullmatch(part) for part in parts)


@functools.lru_cache(maxsize=16384)
def role_by_name(parts: tuple[str, ...]) -> str | None:
    """The role that a path names; None: it may be a hidden matrix."""
    if len(parts) == 2 and parts[0] == "shared":
        return EMBEDDING  # T5's table of tokens
    for role, expression in LAST_NAMES.items():
        if parts and expression.fullmatch(parts[-1]):
            return role
    # The last part that names each role.
    last = {role: n for n, part in enumerate(parts) for role in _roles_of_part(part)}
    norm = last.get(NORM, -1)
    for role in NAMES:
        index = last.get(role)
        if index is not None and not _is_layer_inside(role, parts, index):
            # A norm within an embedding is a norm; the bias of a head belongs to the head.
            is_norm = norm > index and not BIASES.fullmatch(parts[norm])
            return NORM if is_norm else role
    return None


@functools.lru_cache(maxsize=4096)
def _roles_of_part(part: str) -> frozenset[str]:
    """The roles that one name may mean. A large tree repeats few names."""
    return frozenset(role for role, expression in NAMES.items() if expression.fullmatch(part))


def _is_layer_inside(role: str, parts: tuple[str, ...], index: int) -> bool:
    """Whether a path leads to a layer of a network within the module that a name means."""
    is_kernel, inside = bool(MATRICES.fullmatch(parts[-1])), parts[index + 1 : -1]
    if role == NORM:
        is_pair = has_part(_LOW_RANK, parts) and parts[index].lower() == "b"
        return is_pair or (is_kernel and has_part(_LAYERS, inside))
    if role not in (EMBEDDING, POSITION) or not (is_kernel or BIASES.fullmatch(parts[-1])):
        return False
    # Flax keeps tables under `embedding`, so that a kernel is a layer; a patch embedding's is one
    # too, but its inputs are the model's.
    is_direct = index == len(parts) - 2 and parts[-1] == "kernel"
    is_time = _TIMES.fullmatch(parts[index]) is not None
    is_network = (is_time and bool(inside)) or (is_direct and (is_time or role == POSITION))
    return is_network or has_part(_LAYERS, inside)


def names_role(pattern: str) -> bool:
    """Whether a regular expression itself names a role, as `lm_head` does."""
    return any(role_by_name((word,)) for word in re.findall(r"\w+", pattern))


def is_numbered(part: str) -> bool:
    """Whether a name is one of several: `0`, `layer_0`."""
    return re.search(r"(^|[a-z_])\d+$", part, re.IGNORECASE) is not None
