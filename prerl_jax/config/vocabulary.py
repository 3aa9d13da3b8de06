"""The names that saved configs import from prerl_jax, and those that the value of an override may use."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

from prerl_jax.config.schema import TrainConfig
from prerl_jax.core import baselines, recipes
from prerl_jax.core.guards import Guard
from prerl_jax.data import layouts


def public_names() -> dict[str, Any]:
    """Everything that `from prerl_jax import *` gives, by name."""
    # `import prerl_jax` here would be a circle, since prerl_jax/__init__.py imports this room. No import is needed:
    # prerl_jax is this module's own parent package, and Python has loaded it when a config is read or written.
    facade = sys.modules[__name__.partition(".")[0]]
    return {name: getattr(facade, name) for name in facade.__all__}


def _is_recipe(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType) and thing.__module__ in (recipes.__name__, baselines.__name__)


def _are_guards(thing: Any) -> bool:
    return isinstance(thing, tuple) and bool(thing) and all(isinstance(one, Guard) for one in thing)


def _classes_in(value: Any) -> dict[str, type]:
    """The dataclasses that a value is made of, by name."""
    children: list[Any] = []
    own: dict[str, type] = {}
    if isinstance(value, tuple):
        children = list(value)
    elif dataclasses.is_dataclass(value):
        children = [getattr(value, f.name) for f in dataclasses.fields(value)]
        own = {type(value).__name__: type(value)}
    return {name: cls for child in children for name, cls in _classes_in(child).items()} | own


def vocabulary(config: TrainConfig) -> dict[str, Any]:
    """The names that an override of this config may use.

    They are the public dataclasses and recipes of prerl_jax, its tuples of guards, its readers of published data sets,
    the classes of the config's own values (a user's classes, too), and `true`, `false` and `inf`. Where a user's class
    has the name of a public one, the name means the public one.
    """
    public = public_names().items()
    names = {n: t for n, t in public if dataclasses.is_dataclass(t) or _is_recipe(t) or _are_guards(t)}
    readers = {n: t for n, t in vars(layouts).items() if getattr(t, "__module__", "") == layouts.__name__}
    return _classes_in(config) | readers | names | {"true": True, "false": False, "inf": float("inf")}
