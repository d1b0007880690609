"""Methods with Kronecker factors: SOAP, Shampoo, and their kin that fit factors by divergence;
refreshed every third step, at turns.
"""

import functools
from typing import Any

import gradtx
from tests.methods.row import Method, rate
from tests.oracles import core
from tests.oracles import kronecker as ref
from tests.oracles.compose import descend

SPREADS = ("contained",)
"""Every entry of a direction hangs on every entry of its matrix; test_kronecker_methods.py holds
that nan goes no further. SOAP's first gradient makes no step, and the law looks at no other; that
step of zeros times nan is spread by an orthogonal factor."""


def soap(every: int = 3, b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, **more: Any) -> Any:
    plain = functools.partial(core.adam, b1=b1, b2=b2, eps=eps)
    return ref.by_matrix(ref.soap, plain, every, b1=b1, b2=b2, eps=eps, **more)


def kl_shampoo(**more: Any) -> Any:
    return ref.by_matrix(ref.kl_shampoo, functools.partial(core.adam, b1=0.95, b2=0.95), 3, **more)


def shampoo(
    every: int = 3, graft: str = "adam", b1: float = 0.9, graft_b2: float = 0.999, **more: Any
) -> Any:
    diagonal: dict[str, Any] = {"graft": graft, "b1": b1, "graft_b2": graft_b2}
    return ref.by_matrix(
        ref.shampoo, functools.partial(ref.grafted, **diagonal), every, **diagonal, **more
    )


METHODS: dict[str, Method] = {
    "scale_by_soap": Method(gradtx.scale_by_soap(refresh_every=3), soap()),
    "scale_by_soap/one side": Method(
        gradtx.scale_by_soap(refresh_every=3, one_sided=True), soap(one_sided=True)
    ),
    "scale_by_soap/orthogonal": Method(
        gradtx.scale_by_soap(0.9, 0.9, 0.95, 1e-3, refresh_every=1, orthogonal=True),
        soap(1, 0.9, 0.9, 1e-3, beta=0.95, orthogonal=True),
        float32=3e-5,  # small singular values become large ones, and their rounding with them
        breaks=SPREADS,
    ),
    "soap": Method(
        gradtx.soap(rate, refresh_every=3, weight_decay=0.1), descend(soap(), rate, 0.1)
    ),
    "scale_by_kl_soap": Method(
        gradtx.scale_by_kl_soap(refresh_every=3),
        soap(coupled=True),
        # the basis of a direction that the first gradients of 3 x 4 hardly have, by the inverse of
        # its eigenvalue
        float32=2e-5,
    ),
    "kl_soap": Method(
        gradtx.kl_soap(rate, shampoo_beta=0.9, refresh_every=3, one_sided=True, weight_decay=0.1),
        descend(soap(coupled=True, one_sided=True, beta=0.9), rate, 0.1),
    ),
    "scale_by_kl_shampoo": Method(
        gradtx.scale_by_kl_shampoo(floor=0.2, refresh_every=3),
        kl_shampoo(floor=0.2),
        breaks=SPREADS,
    ),
    "kl_shampoo": Method(
        gradtx.kl_shampoo(rate, refresh_every=3, max_dim=3, weight_decay=0.1),
        descend(kl_shampoo(longest=3), rate, 0.1),
        breaks=SPREADS,
    ),
    "scale_by_shampoo": Method(
        gradtx.scale_by_shampoo(eps=0.1, refresh_every=3),
        shampoo(eps=0.1),
        breaks=SPREADS,
    ),
    "scale_by_shampoo/sums": Method(
        gradtx.scale_by_shampoo(b1=0.0, b2=1.0, eps=0.1, graft="none", refresh_every=1),
        shampoo(1, "none", b1=0.0, b2=1.0, eps=0.1),
        breaks=SPREADS,
    ),
    "scale_by_shampoo/blocks": Method(
        gradtx.scale_by_shampoo(eps=0.1, graft="none", max_dim=2, exponent=0.5, refresh_every=3),
        shampoo(3, "none", eps=0.1, longest=2, exponent=0.5),
        breaks=SPREADS,
    ),
    "shampoo": Method(
        gradtx.shampoo(
            rate,
            eps=0.1,
            graft="sign",
            method="newton",
            one_sided=True,
            weight_decay=0.1,
            refresh_every=3,
        ),
        descend(shampoo(3, "sign", eps=0.1, one_sided=True), rate, 0.1),
        breaks=SPREADS,
    ),
}
