"""`help` of every public name says what it takes: arguments, fields, shapes, results and errors."""

import dataclasses
import inspect
import re

import jax

import prerl_jax

ARRAYS = re.compile(r"\b(Array|ndarray|ArrayLike)\b")
SHAPE = re.compile(r"\b(f32|f|f64|bf16|i32|i64|int|u8|u32|bool|float|key)\[[^\]]*\]|\[[A-Z][^\]]*\]")
"""A shape with its dtype, such as f32[B, T], i32[] or bool[B], or a bare one such as [D, V]."""

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):$", re.MULTILINE)


def sections(doc: str) -> dict[str, str]:
    """{"Args": its text, ...} of a docstring."""
    parts = SECTION.split(inspect.cleandoc(doc))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(text: str) -> dict[str, str]:
    """{name: what is said of it} of a section's lines `name: ...`, `a, b: ...` or `name type: ...`."""
    found, names = {}, []
    for line in text.splitlines():
        head = re.match(r"^ {2,4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", line)
        if head:
            names = [name.lstrip("*") for name in head.group(1).split(", ")]
        for name in names:
            found[name] = found.get(name, "") + line
    return found


def own_doc(thing) -> str:
    """The docstring, without the signature that dataclasses make up, and without a base class's."""
    doc = (vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__) or ""
    return "" if isinstance(thing, type) and doc.startswith(f"{thing.__name__}(") else doc


def raises(*functions) -> bool:
    """Whether one of these functions has a raise statement."""
    return any(re.search(r"^\s+raise \w*Error\(", inspect.getsource(f), re.MULTILINE) for f in functions)


def arguments(function) -> dict[str, str]:
    """{argument: its annotation}, without self."""
    found = inspect.signature(function).parameters
    return {name: str(p.annotation) for name, p in found.items() if name not in ("self", "cls")}


def faults_of_function(name: str, function) -> list[str]:
    doc, taken = own_doc(function), arguments(function)
    if not doc:
        return [f"{name} has no docstring"]
    said = sections(doc)
    faults = [f"{name}: argument {a} is not under Args:" for a in taken if a not in entries(said.get("Args", ""))]
    result = str(inspect.signature(function).return_annotation)
    if result != "None" and not re.search(r"\bReturns\b", doc):
        faults.append(f"{name} does not say what it returns (Returns:)")
    if ARRAYS.search(" ".join([*taken.values(), result])) and not SHAPE.search(doc):
        faults.append(f"{name} takes or returns arrays, and no shape such as f32[B, T] is in its docstring")
    if raises(function) and "Raises" not in doc:
        faults.append(f"{name} raises errors, and does not say when (Raises:)")
    return faults


def faults_of_method(name: str, method, doc_of_class: str) -> list[str]:
    doc = own_doc(method)
    if not doc and method.__name__ != "__call__":  # what a call does may be in the docstring of the class
        return [f"{name} has no docstring"]
    taken = [*arguments(method).values(), str(inspect.signature(method).return_annotation)]
    if ARRAYS.search(" ".join(taken)) and not SHAPE.search(doc + doc_of_class):
        return [f"{name} takes or returns arrays, and no shape is in its docstring or its class's"]
    return []


def faults_of_class(name: str, cls: type) -> list[str]:
    doc, faults = own_doc(cls), []
    if not doc:
        return [f"{name} has no docstring"]
    said, own = sections(doc), dict(vars(cls))
    if getattr(cls, "_is_protocol", False):
        own.pop("__init__", None)  # typing's
    if dataclasses.is_dataclass(cls):
        listed = entries(said.get("Attributes", ""))
        for field in dataclasses.fields(cls):
            if field.name not in listed:
                faults.append(f"{name}: field {field.name} is not under Attributes:")
            elif ARRAYS.search(str(field.type)) and not SHAPE.search(listed[field.name]):
                faults.append(f"{name}: field {field.name} is an array, and has no shape under Attributes:")
    elif "__init__" in own:
        listed = entries(said.get("Args", ""))
        faults += [f"{name}: argument {a} is not under Args:" for a in arguments(own["__init__"]) if a not in listed]
    made_by = own.get("__post_init__" if dataclasses.is_dataclass(cls) else "__init__")
    if made_by and raises(made_by) and "Raises" not in doc:
        faults.append(f"{name} raises errors when it is made, and does not say when (Raises:)")
    for key, member in own.items():
        if isinstance(member, property):
            faults += [] if member.__doc__ else [f"{name}.{key} has no docstring"]
        elif inspect.isfunction(member) and (not key.startswith("_") or key == "__call__"):
            faults += faults_of_method(f"{name}.{key}", member, doc)
    return faults


def faults(names: dict) -> list[str]:
    """What the help of these public names lacks, a line each."""
    found = []
    for name, thing in sorted(names.items()):
        if isinstance(thing, type):
            found += faults_of_class(name, thing)
        elif inspect.isfunction(thing):
            found += faults_of_function(name, thing)
    return found


def public() -> dict:
    return {name: getattr(prerl_jax, name) for name in prerl_jax.__all__}


def test_the_help_of_public_names_is_complete():
    found = faults(public())
    assert not found, "\n".join([f"the help of prerl_jax lacks {len(found)} things:", *found])


def test_the_rules_themselves():
    """The check sees what it is there for."""

    def good(x: jax.Array, size: int) -> jax.Array:
        """Sums.

        Args:
          x: f32[B, T], the summands.
          size: how many.

        Returns:
          f32[B], the sums.

        Raises:
          ValueError: size is below 0.
        """
        if size < 0:
            raise ValueError(size)
        return x

    def bad(x: jax.Array, size: int) -> jax.Array:
        """Sums."""
        if size < 0:
            raise ValueError(size)
        return x

    @dataclasses.dataclass(frozen=True)
    class Good:
        """A pair.

        Attributes:
          a, b: f32[B], the two.
        """

        a: jax.Array
        b: jax.Array

    @dataclasses.dataclass(frozen=True)
    class Bad:
        """A pair.

        Attributes:
          a: the first.
        """

        a: jax.Array
        b: jax.Array

        def __call__(self, x: jax.Array) -> jax.Array:
            return x

    @dataclasses.dataclass(frozen=True)
    class Silent:
        a: int

    assert faults({"good": good, "Good": Good}) == []
    assert faults({"bad": bad, "Bad": Bad, "Silent": Silent}) == [
        "Bad: field a is an array, and has no shape under Attributes:",
        "Bad: field b is not under Attributes:",
        "Bad.__call__ takes or returns arrays, and no shape is in its docstring or its class's",
        "Silent has no docstring",
        "bad: argument x is not under Args:",
        "bad: argument size is not under Args:",
        "bad does not say what it returns (Returns:)",
        "bad takes or returns arrays, and no shape such as f32[B, T] is in its docstring",
        "bad raises errors, and does not say when (Raises:)",
    ]
