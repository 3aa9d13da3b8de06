"""How often loops run: counters that grow and fall, bounds on either side, in fusions and beside other conditions."""

import pytest

from prerl_jax.plan.hlo import parse
from prerl_jax.plan.loops import trips

PROGRAM = """
%same (p: s32[]) -> s32[] {{
  %p = s32[] parameter(0)
  ROOT %q = s32[] add(%p, %p)
}}

%grown (p.1: s32[], by: s32[]) -> s32[] {{
  %p.1 = s32[] parameter(0)
  %by = s32[] parameter(1)
  ROOT %sum = s32[] add(%p.1, %by)
}}

%compared (p.2: s32[], p.3: s32[]) -> pred[] {{
  %p.2 = s32[] parameter(0)
  %p.3 = s32[] parameter(1)
  ROOT %fused = pred[] compare(%p.2, %p.3), direction=LT
}}

%body (arg: (s32[], s32[], pred[])) -> (s32[], s32[], pred[]) {{
  %arg = (s32[], s32[], pred[]) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %n = s32[] get-tuple-element(%arg), index=1
  %flag = pred[] get-tuple-element(%arg), index=2
  %step = s32[] constant({step})
  %next = {next}
  ROOT %out = (s32[], s32[], pred[]) tuple(%next, %n, %flag)
}}

%condition (given: (s32[], s32[], pred[])) -> pred[] {{
  %given = (s32[], s32[], pred[]) parameter(0)
  %j = s32[] get-tuple-element(%given), index=0
  %m = s32[] get-tuple-element(%given), index=1
  %more = pred[] get-tuple-element(%given), index=2
  %bound = s32[] constant({bound})
  %less = {less}
  ROOT %both = pred[] and(%less, %more)
}}

ENTRY %main (end: pred[]) -> s32[] {{
  %end = pred[] parameter(0)
  %first = s32[] constant({first})
  %unknown = s32[] get-tuple-element(%end), index=0
  %copied = {start}
  %last = s32[] constant(30)
  %start = (s32[], s32[], pred[]) tuple(%copied, %last, %end)
  %loop = (s32[], s32[], pred[]) while(%start), condition=%condition, body=%body{attributes}
  ROOT %done = s32[] get-tuple-element(%loop), index=0
}}
"""
ADDED = "s32[] add(%i, %step)"
START = "s32[] copy(%first)"
LESS = "pred[] compare(%j, %bound), direction=LT"


def found(**changes):
    given = {"step": 1, "bound": 10, "first": 0, "next": ADDED, "less": LESS, "attributes": "", "start": START}
    module = parse(PROGRAM.format(**given | changes))
    main = module.computations["main"]
    return trips(module, main, main.instructions["loop"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 10),
        ({"step": 3}, 4),
        ({"first": 4}, 6),
        ({"first": 12}, 0),
        ({"bound": "{8}"}, 8),
        ({"less": "pred[] compare(%j, %bound), direction=LE"}, 11),
        ({"less": "pred[] compare(%bound, %j), direction=GT"}, 10),
        ({"less": "pred[] compare(%j, %bound), direction=NE"}, 10),
        ({"less": "pred[] compare(%j, %m), direction=LT"}, 30),
        ({"less": "pred[] fusion(%j, %bound), kind=kLoop, calls=%compared"}, 10),
        ({"step": -1, "first": 9, "bound": 0, "less": "pred[] compare(%j, %bound), direction=GE"}, 10),
        ({"step": -2, "first": 9, "bound": 0, "less": "pred[] compare(%j, %bound), direction=GT"}, 5),
        ({"next": "s32[] add(%step, %i)"}, 10),
        ({"next": "s32[] fusion(%i, %step), kind=kLoop, calls=%grown"}, 10),
        ({"next": "s32[] subtract(%i, %step)", "step": -2}, 5),
        ({"attributes": ', backend_config={"known_trip_count":{"n":"7"}}'}, 7),
        ({"less": "pred[] compare(%i.unknown, %bound), direction=LT".replace("i.unknown", "more")}, None),
        ({"next": "s32[] fusion(%i), kind=kLoop, calls=%same"}, None),
        ({"step": -1}, None),
        ({"start": "s32[] add(%first, %unknown)"}, None),
    ],
)
def test_the_most_that_a_loop_runs(changes, expected):
    assert found(**changes) == expected
