"""A device and rows with round numbers."""

from prerl_jax.plan.count import Cost
from prerl_jax.plan.report import Rates, Row
from prerl_jax.runtime.chips import GIB

RATES = Rates(flops=100e12, bandwidth=GIB * 100, links=GIB * 10, host=GIB)
EVERYONE = ("base", "rl", "evaluation")


def row(role, *, peak=4, columns=0, tokens=0, name=None, refused="", phases=EVERYONE, **work):
    """A row: peak, hbm, links and host in GiB, flops in TFLOP; of the peak, 1 GiB are parameters."""
    parts = {"parameters": GIB, "cache": 2 * GIB, "temporaries and results": max(0, peak - 3) * GIB}
    return Row(
        name or role, phases, role, columns, tokens, peak * GIB, parts, None if refused else cost(**work), refused
    )


def cost(flops=0.0, hbm=0.0, links=0.0, host=0.0):
    """TFLOP and GiB."""
    return Cost(flops * 1e12, hbm * GIB, links * GIB, host=host * GIB)
