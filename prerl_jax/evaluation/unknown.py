"""Ends a run in which too many verdicts are unknown.

Nothing is trained on a response with an unknown verdict. So a policy that makes its verifier hang, or a verifier that
is broken, would otherwise go unnoticed: the run would train on fewer and fewer responses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.quoted import quoted
from prerl_jax.runtime.distributed import gather_text
from prerl_jax.verify import Verified

SHOWN = 300
"""An error shows this many characters of a response, at most."""


class UnknownVerdictsError(ValueError):
    """Too many verdicts of a step or of an evaluation are unknown."""


def require_known(
    known: np.ndarray,
    timed_out: np.ndarray,
    limit: float,
    where: str,
    *,
    problems: Sequence[Problem],
    texts: Sequence[str],
    verified: Verified,
) -> None:
    """Checks the share of unknown verdicts. All processes must call it.

    Args:
      known: bool[N], whether the verdict is known on each response of all processes.
      timed_out: bool[N], whether its verification missed its deadline.
      limit: the largest share of unknown verdicts, in [0, 1).
      where: names the responses, such as "of step 3".
      problems: the problem of each of this process's B responses; the error shows the first unknown one.
      texts: these responses.
      verified: what the verifier says of them.

    Raises:
      UnknownVerdictsError: more verdicts are unknown. All processes raise it, with the numbers and the remedy.
    """
    unknown = int(np.sum(~known))
    if unknown <= limit * len(known):
        return
    mine = np.flatnonzero(~verified.known)
    first = f"{problems[mine[0]]}, the response {quoted(texts[mine[0]][:SHOWN])}" if mine.size else ""
    first += "".join(f" ({death[:SHOWN]})" for death in verified.deaths[:1])
    late = int(np.sum(timed_out))
    shown = next(text for text in gather_text(first) if text)
    raise UnknownVerdictsError(
        f"{unknown} of the {len(known)} verdicts {where} are unknown, and data.unknown_limit is {limit:g}: the "
        f"verifier missed its deadline on {late} responses, and on {unknown - late} it returned None or its process "
        f"died. Nothing of it is trained on. The first is on {shown}. Run the verifier on it by itself. If it needs "
        "more time or memory, raise data.verify_timeout or data.verify_memory; if the policy has learnt to make it "
        "hang, let it refuse such responses as wrong; if this share is normal, raise data.unknown_limit."
    )
