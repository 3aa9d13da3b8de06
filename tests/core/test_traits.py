"""Parts declare their traits, and a phase refuses a part that does not."""

import dataclasses

import pytest

import prerl_jax as pj


@dataclasses.dataclass(frozen=True)
class NoTraits:
    def __call__(self, *given):
        return given


class Misplaced(NoTraits):
    traits = pj.SpaceTraits()


@pytest.mark.parametrize(
    ("field", "record", "names"),
    [
        ("space", "SpaceTraits", "given_prompt, needs_key"),
        ("advantage", "AdvantageTraits", "compares_group, needs_values, needs_verdict"),
        ("objective", "ObjectiveTraits", "elementwise, skips_zero_advantage, "),
        ("reward_shaping", "RewardShapingTraits", "needs_reference"),
    ],
)
def test_a_part_without_its_traits_is_refused_with_the_line_to_add(field, record, names):
    wrong = [NoTraits()] if field == "space" else [NoTraits(), Misplaced()]
    for part in wrong:
        says = (
            rf"{type(part).__name__}\.traits is .*must be of the class {record}\. .*`traits = {record}\(\)`.*: {names}"
        )
        with pytest.raises(ValueError, match=says):
            pj.Phase("p", 1, **{field: part})
        if field in ("space", "advantage"):
            with pytest.raises(ValueError, match=says):
                pj.Term(**{"space": pj.PostTrainSpace(), field: part})
    with pytest.raises(ValueError, match=r"GroupRelative is a class, and an instance is needed"):
        pj.Phase("p", 1, **{field: pj.GroupRelative})
    with pytest.raises(ValueError, match=r"3 cannot be called\. Give the class int a method __call__"):
        pj.Phase("p", 1, **{field: 3})


def test_a_misspelt_trait_is_refused_where_the_class_is_defined():
    with pytest.raises(TypeError, match="element_wise"):

        class Misspelt:
            traits = pj.ObjectiveTraits(element_wise=True)
