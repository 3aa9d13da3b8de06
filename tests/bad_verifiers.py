"""Functions that a user might give as a verifier, and should not. A light module: workers import it."""

import os
import time

from prerl_jax.verify import Judgement, right_or_wrong


def right(problem, response):
    return response.rpartition("#")[2] == problem.answer


def raises(problem, response):
    return {}[response]


def nan(problem, response):
    return float("nan")


def text(problem, response):
    return "right"


def a_list(problem, response):
    return [1.0]


def nothing(problem, response):
    """It returns None."""


def two(problem, response):
    return 2.0 * right(problem, response)


def minus_one(problem, response):
    return 1.0 if right(problem, response) else -1.0


def hangs(problem, response):
    time.sleep(1000)


def exits(problem, response):
    os._exit(3)


def never(problem, response):
    return 0.0


def nan_on_responses(problem, response):
    """It accepts the problems' own answers, which have one line, and fails on worked additions."""
    return float("nan") if "\n" in response else float(right(problem, response))


def unknown_on_responses(problem, response):
    return None if "\n" in response else right(problem, response)


def unknown_where_half_is_right(problem, response):
    """Unknown on every second right response, told by its question and its length; the other verdicts are right."""
    if right(problem, response) and (len(response) + int(problem.answer)) % 2 and "\n" in response:
        return None
    return right_or_wrong(right(problem, response), response.rpartition("#")[2] or None, "#" in response)


def judged_two(problem, response):
    """It may return 2, since it says what is right."""
    return Judgement(2.0, "right") if right(problem, response) else Judgement(0.0, "wrong")
