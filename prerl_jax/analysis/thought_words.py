"""Words that the default patterns of thoughts share: how a story goes on, who acts, and what a calculation is about.

All are parts of regular expressions for the phrases of `openings.py`.
"""

from __future__ import annotations

from prerl_jax.analysis.marked_text import CAPITAL, SENTENCE
from prerl_jax.analysis.openings import Opening, Openings, one_of

END = f"(?:{SENTENCE}|$)"

_CALCULATED = one_of(
    "add|ask|assum|bas|calculat|comput|conver|count|defin|deriv|divid|doubl|exceed|expand|expect"
    "|factor|ignor|includ|indeed|miss|multipli|need|obtain|overlook|proceed|requir|simplifi|squar"
    "|subtract|succeed|swap|use"
)
_STATE = " (?:able|broken|cheaper|closed|empty|full|given|gone|hungry|late|open|sick|sold|tired|too)"
DEED = (
    one_of(
        "ate|bake|bakes|began|bought|brought|built|buy|buys|caught|charges|closes|cuts|drank|drive"
        "|drives|drops|drove|earns|eat|eats|fed|felt|flew|gave|get home|get off|get on|get to|goes"
        "|grew|grows|had to|hid|kept|last month|last night|last week|last year|left|loses|lost|met"
        "|offers|on friday|on monday|on saturday|on sunday|on thursday|on tuesday|on wednesday|opens"
        "|paid|pays|picks|plays|pour|pours|put on|rains|ran|reads|rides|rode|runs|said|saves|sell"
        "|sells|sends|sent|slept|sold|spends|spent|swam|swims|threw|took|travels|visits|walk|walks"
        "|went|wins|won|wore|works|yesterday"
    )
    + f"|(?:are|is|was|were){_STATE}"
)
_PEOPLE = one_of(
    "children|customers|everyone|farmers|guests|he|her|hers|him|his|members|nobody|passengers"
    "|people|players|she|shoppers|someone|students|their|them|they|visitors|workers"
)
_FORMAL = (
    "(?:add|bayes|by|case|euler|fermat|find|for|if|it|let|note|since|so|step|that|the|this|use|using|we|what|when)"
)
_DETERMINER = one_of("a|all|an|both|each|every|half|i|it|most|my|one|our|some|the|we|you")
NO_STORY = (
    rf"(?!,?{CAPITAL}(?!{_FORMAL}\b)[a-z]{{2}}|,? (?:(?:\d+ )?{_PEOPLE}|[a-z]+'s (?:brother|father"
    rf"|friend|mother|sister)|(?:(?:{_DETERMINER}|\d+) (?:[a-z-]+ ){{0,3}}?)?(?:{DEED}"
    rf"|(?=[a-z]{{3,}}ed\b)(?!{_CALCULATED}\w*ed\b)[a-z]+))\b)"
)
"""Follows what may open a thought: no person and no deed comes next, as in "However, he" or "First, the baker sold"."""

MATHS = (
    "(?:addition|algebra|angles?|answers?|area|argument|arithmetic|assumptions?|average|boundary"
    "|bounds?|calculations?|candidates?|cases?|claims?|coefficients?|computations?|conditions?"
    "|constraints?|counting|counts?|decimals?|definitions?|denominators?|derivative|differences?"
    "|digits?|dimensions?|discriminant|divisibility|division|endpoints?|equations?|exponents?"
    "|expressions?|factors?|figures?|formulas?|fractions?|function|hypothesis|identity|inequality"
    "|integral|lemma|limits?|logic|magnitude|maths?|matrix|multiplication|numbers?|numerators?"
    "|original|output|parity|parts?|pattern|percentages?|perimeter|polynomial|probability|problem"
    "|products?|prompt|proof|question|ratios?|reasoning|remainders?|requirements?|results?|roots?"
    "|signs?|solutions?|statement|steps?|substitution|subtraction|sums?|terms?|theorem|totals?"
    "|units?|values?|vertices|volume|wording|words?|work)"
)
"""What a calculation is about."""
_GOES_ON = (
    "(?:and|are|as|by|cases?|divides?|for|from|gives?|has|have|in|into|is|minus|modulo|of|per"
    "|percent|plus|times|to|ways?)"
)
FORMULA = rf"(?=-?\d[\d.,]*+(?! ?(?!{_GOES_ON}\b)[a-z]{{3,}})|[$\\(|-]|[a-z]\s?[=(<>+*/^-]|[b-hj-z]\b)"
"""The beginning of a number or of a formula; a number of things, as in "40 chairs", is none."""
_QUANTITY = (
    "age|amount|approach|axis|balance|bases?|capacity|chords?|circles?|circumference|coefficient"
    "|columns?|combinations?|complement|constants?|contradiction|coordinates?|cost|debt"
    "|diagonals?|diameter|distance|distribution|divisors?|duration|earnings|edges?|efficiency"
    "|expenses|fare|fee|gcd|generality|gradient|graphs?|greatest|height|idea|income|induction"
    "|integers?|interest|intersections?|largest|lcm|least|length|lines?|logarithms?|logs?|loss"
    "|mass|maximum|mean|median|method|minimum|modulus|most|multiples?|notation|options?|outcomes?"
    "|pace|pairs?|payment|percent|permutations?|points?|possibilities|possibility|powers?|price"
    "|primes?|profit|radius|rate|recurrence|residues?|revenue|rows?|savings|score"
    "|sequences?|series|sets?|share|sides?|size|slope|smallest|speed|spending|squares?|strategy"
    "|subsets?|tangent|tax|temperature|thing|time|triangles?|triples?|variables?|vectors?"
    "|velocity|wage|ways?|weight|width"
)
OBJECT = (
    f"(?= (?:(?:at|by|down|for|into|on|out|over|up|with) )?(?:{FORMULA}|(?:all of|both|each"
    r"|everything|how|if|it|that|them|these|this|those|what|when|where|whether|who)\b|(?:(?!(?:and"
    rf"|her|his|their|to|your)\b)[\w'-]+,? ){{0,4}}?(?:{MATHS}|{one_of(_QUANTITY)})\b"
    rf"|[^.!?{SENTENCE}]{{0,80}}?(?:[=+\u00d7\u00f7^\\]|\d/\d)))"
)
"""Follows a verb of everyday life, and makes it one of a calculation: a mathematical object comes next."""
CONTENT = (
    rf"(?=[^.!?{SENTENCE}]{{0,80}}?(?:[\d=$\\^<>]|\b(?:{MATHS}|{one_of(_QUANTITY)}|consistent"
    "|constant|correct|divisible|even|fits?|holds?|i|it|makes? sense|numerically|odd|prime|right"
    r"|satisf\w+|these|this|those|true|we|works?|x|y|n|definition|injective|converges)\b))"
)
"""Follows a verb of checking: the sentence says something of mathematics, or of the work so far."""
NO_PLACE = (
    "(?! (?:at|behind|from|in|inside|near|off|on|under) (?:a|an|her|his|my|our|the|their|your)"
    rf" (?!(?:\w+ )?{MATHS}\b))"
)
"""Follows a mathematical object: it is none in the world, as "the sign on the highway" is."""
_THINK = (
    "bound|break|calculate|clarify|compare|compute|consider|convert|deal with|define|denote"
    "|derive|determine|differentiate|divide|eliminate|establish|estimate|evaluate|expand|express"
    "|factor|factorise|factorize|figure out|identify|integrate|isolate|justify|maximise|maximize"
    "|minimise|minimize|multiply|normalise|note|notice|observe|parametrize|pin down|prove"
    "|rearrange|recall|reduce|restate|rewrite|set up|simplify|solve|substitute|subtract|think"
    "|translate|understand|verify|work out"
)
_HANDLE = (
    "add|apply|check|collect|combine|count|deal|distribute|do|draw|find|get|give|go|group|handle"
    "|have|know|label|list|look|look at|make|model|name|need|place|plug|put|see|set|show|sketch"
    "|split|square|start|sum|tackle|take|test|treat|try|use|want|work|write"
)
CALCULATE = rf"(?:{one_of(_THINK)}\b|{one_of(_HANDLE)}\b{OBJECT})"
"""What one does in a calculation: a verb of thought, or one of everyday life with a mathematical object."""

WE = (
    "(?: (?:i|let me|let us|let's|lets|we)(?: also| can| could| first| have to| instead| just"
    "| may| must| need to| now| should| simply| then| try to| want to| will|'ll)*| to)?"
)
"""Who acts: the speaker, or nobody in an order."""


def do(verbs: str, then: str = "") -> Openings:
    """What the speaker does or is about to do ("we VERB", "let me VERB"), and orders ("VERB ...")."""
    return (Opening("speaker", verbs, then), Opening("sentence", verbs, then))
