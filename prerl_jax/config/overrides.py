"""Overrides of single fields, `a.b.0.c=value`. The annotations of the dataclasses give the types.

A value is a Python literal, or a call of a class or recipe of prerl_jax: `phases=dsrl(warmup=5, total=60)`,
`phases.0.aggregation=SequenceSumTokenSumNorm(scale=0.01)`. A recipe returns a tuple of phases; `+` and stars join
tuples: `phases=nsr_prerl(steps=8) + grpo(steps=52)`. A string needs no quotation marks. Nothing else is evaluated.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from prerl_jax.config.checks import validate_without_mesh
from prerl_jax.config.io import load_config
from prerl_jax.config.schema import TrainConfig
from prerl_jax.config.vocabulary import vocabulary
from prerl_jax.data.field_types import describe, fits, require_types

# --- the command line


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` and `--set` to a command line; `config_of` reads them."""
    parser.add_argument(
        "--config", default="lab", help="a config file, or the name of one that ships with the package; lab by default"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        nargs="+",
        help="change fields of the config: --set seed=3 optimizer.learning_rate=1e-5 'phases=grpo(steps=40)'",
    )


def config_of(arguments: argparse.Namespace) -> TrainConfig:
    """The config that parsed arguments name, with its overrides. Raises what `load_config` and `apply_overrides` do."""
    return apply_overrides(load_config(arguments.config), arguments.overrides)


# --- values


def _evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of a literal, or of a call of a known name. Raises ValueError for any other syntax."""
    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(ast.USub(), operand):
            value = _evaluate(operand, names)
            if isinstance(value, int | float):
                return -value
        case ast.BinOp(left, ast.Add(), right):
            parts = _evaluate(left, names), _evaluate(right, names)
            if all(isinstance(part, tuple) for part in parts):
                return parts[0] + parts[1]
        case ast.Tuple(items):
            return tuple(_items(items, names))
        case ast.List(items):
            return _items(items, names)
        case ast.Dict(keys, values) if None not in keys:  # {**other} has a key of None
            return {_evaluate(k, names): _evaluate(v, names) for k, v in zip(keys, values, strict=True) if k}
        case ast.Name(name) if name in names:
            return names[name]
        case ast.Name(name):
            known = ", ".join(sorted(n for n, t in names.items() if callable(t)))
            raise NameError(f"{name!r} is none of the names that a value may use: {known}")
        case ast.Call(ast.Name() as function, args, keywords) if all(k.arg for k in keywords):
            called = _evaluate(function, names)
            if callable(called):
                options = {k.arg: _evaluate(k.value, names) for k in keywords if k.arg}
                return _typed(called(*(_evaluate(a, names) for a in args), **options))
    raise ValueError(
        f"{ast.unparse(node)!r} is neither a literal, nor a call of a prerl_jax class or recipe, nor tuples joined by +"
    )


def _typed(made: Any) -> Any:
    """The result of a call. Raises ValueError where a field is not of its type."""
    if isinstance(made, tuple):
        return tuple(map(_typed, made))
    if dataclasses.is_dataclass(made):
        require_types(made)
    return made


def _items(nodes: Sequence[ast.expr], names: dict[str, Any]) -> list[Any]:
    """The values of the elements of a tuple or list. A starred tuple adds each of its own."""
    items: list[Any] = []
    for node in nodes:
        if not isinstance(node, ast.Starred):
            items.append(_evaluate(node, names))
            continue
        value = _evaluate(node.value, names)
        if not isinstance(value, tuple):
            raise ValueError(f"{ast.unparse(node)!r} puts a star before a {type(value).__name__}, which is no tuple")
        items += value
    return items


def _as_expected(value: Any, expected: Any) -> Any:
    """The value, with a list turned into a tuple and an int into a float where the annotation wants one."""
    if isinstance(value, list) and not fits(value, expected):
        return tuple(value)
    floats = expected is float or (float in typing.get_args(expected) and int not in typing.get_args(expected))
    return float(value) if floats and type(value) is int else value


def _value(text: str, expected: Any, path: str, names: dict[str, Any]) -> Any:
    takes_text = expected is str or str in typing.get_args(expected)
    try:
        value = _as_expected(_evaluate(ast.parse(text.strip(), mode="eval").body, names), expected)
    except (SyntaxError, NameError, TypeError, ValueError) as error:
        if takes_text:
            return text
        raise ValueError(f"{path}={text}: expected {describe(expected)}, got {text!r} ({error}).") from error
    if fits(value, expected):
        return value
    if takes_text and value is not None:
        return text
    raise ValueError(f"{path}={text}: expected {describe(expected)}, got {type(value).__name__} {value!r}.")


# --- paths


def _element_type(expected: Any, index: int) -> Any:
    """The annotation of a tuple's element; Any without one."""
    options = [expected, *typing.get_args(expected)] if typing.get_origin(expected) is not tuple else [expected]
    for option in options:
        if typing.get_origin(option) is tuple:
            arguments = typing.get_args(option)
            return arguments[0] if arguments[-1] is Ellipsis else arguments[index]
    return Any


def _replace(node: Any, expected: Any, keys: Sequence[str], done: str, text: str, names: dict[str, Any]) -> Any:
    """`node`, which is at the path `done`, with the value at `keys` below it replaced."""
    if not keys:
        return _value(text, expected, done, names)
    key, rest = keys[0], keys[1:]
    path = f"{done}.{key}" if done else key
    if isinstance(node, tuple):
        if not key.isdecimal() or int(key) >= len(node):
            have = f"0 to {len(node) - 1}" if node else "none, it is empty"
            raise ValueError(f"--set {path}: {done} is a tuple of {len(node)}; an index is one of {have}, not {key!r}.")
        index = int(key)
        new = _replace(node[index], _element_type(expected, index), rest, path, text, names)
        return (*node[:index], new, *node[index + 1 :])
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        raise ValueError(f"--set {path}: {done} is {node!r}, a {type(node).__name__}, which has no fields.")
    fields = [f.name for f in dataclasses.fields(node) if f.init]
    if key not in fields:
        level = f"{done} ({type(node).__name__})" if done else type(node).__name__
        raise ValueError(f"--set {path}: {level} has no field {key!r}; its fields are {', '.join(fields)}.")
    hint = typing.get_type_hints(type(node)).get(key, Any)
    return dataclasses.replace(node, **{key: _replace(getattr(node, key), hint, rest, path, text, names)})


def apply_overrides(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """Applies overrides to a config, in order, and validates the result as a whole, but for its mesh.

    Args:
      config: the config.
      overrides: texts such as "optimizer.learning_rate=1e-5".

    Returns:
      The new config.

    Raises:
      ValueError: a field does not exist (the error lists those that do), an index is out of range, a value is not of
        the annotated type, or the new config is not valid.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ValueError(f"--set {override}: write it as path=value, for instance optimizer.learning_rate=1e-5.")
        config = _replace(config, TrainConfig, path.strip().split("."), "", text, vocabulary(config))
    return validate_without_mesh(config)
