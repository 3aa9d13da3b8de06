"""Words that the default patterns of thoughts share: how a story goes on, who acts, and what a calculation is about.

All are parts of regular expressions for the phrases of `openings.py`.
"""

from __future__ import annotations

from prerl_jax.analysis.marked_text import CAPITAL, SENTENCE
from prerl_jax.analysis.openings import Opening, Openings, one_of

HERE = SENTENCE
"""In a class of characters: the end of the sentence, where the mark of the next one is."""
END = rf"(?:{SENTENCE}|$)"

_CALCULATED = one_of(
    "need|use|bas|exceed|proceed|succeed|indeed|deriv|obtain|assum|comput|calculat|defin|count|factor|squar|multipli"
    "|subtract|divid|add|miss|overlook|ignor|ask|simplifi|swap|conver|expand|requir|expect|includ|doubl"
)
_STATE = r" (?:late|closed|open|full|empty|sold|gone|sick|tired|hungry|broken|cheaper|given|able|too)"
_DEED = (
    one_of(
        "went|drove|bought|sold|gave|took|ate|ran|paid|spent|left|kept|won|began|lost|met|rode|swam|flew"
        "|built|sent|drank|slept|threw|caught|fed|brought|said|grew|hid|wore|felt|had to|walk|drive|buy|sell"
        "|bake|pour|eat|put on|get on|get off|get to|get home|sells|buys|pays|offers|charges|opens|closes"
        "|bakes|eats|drives|walks|travels|works|earns|spends|saves|picks|drops|wins|loses|reads|goes|rides"
        "|runs|swims|cuts|pours|sends|grows|visits|rains|plays|yesterday|last week|last month|last year"
        "|last night|on monday|on tuesday|on wednesday|on thursday|on friday|on saturday|on sunday"
    )
    + f"|(?:is|are|was|were){_STATE}"
)
_PEOPLE = one_of(
    "he|she|they|his|her|hers|their|him|them|someone|everyone|nobody|customers|students|children|guests|visitors|members"
    "|workers|people|players|passengers|shoppers|farmers"
)
_FORMAL = (
    "(?:we|if|let|this|that|the|since|it|note|step|case|use|using|for|when|so|what|by|add|find|fermat|euler|bayes)"
)
_DETERMINER = one_of("the|a|an|my|our|each|every|some|both|half|all|most|i|we|it|you|one")
NO_STORY = (
    rf"(?!,?{CAPITAL}(?!{_FORMAL}\b)[a-z]{{2}}"
    rf"|,? (?:(?:\d+ )?{_PEOPLE}|[a-z]+'s (?:mother|father|brother|sister|friend)"
    rf"|(?:(?:{_DETERMINER}|\d+) (?:[a-z-]+ ){{0,3}}?)?"
    rf"(?:{_DEED}|(?=[a-z]{{3,}}ed\b)(?!{_CALCULATED}\w*ed\b)[a-z]+))\b)"
)
"""Follows what may open a thought: no person and no deed comes next, as in "However, he" or "First, the baker sold"."""

MATHS = (
    r"(?:answers?|work|results?|solutions?|calculations?|computations?|arithmetic|reasoning|maths?|steps?|conditions?"
    r"|equations?|constraints?|cases?|sums?|values?|units?|formulas?|identity|claims?|discriminant|remainders?|totals?"
    r"|problem|question|words?|statement|prompt|wording|products?|factors?|roots?|algebra|signs?|logic|counts?|counting"
    r"|divisibility|limits?|digits?|terms?|denominators?|numerators?|exponents?|expressions?|inequality|function"
    r"|integral"
    r"|derivative|proof|argument|bounds?|ratios?|differences?|perimeter|endpoints?|boundary|assumptions?|parity"
    r"|figures?"
    r"|candidates?|probability|average|polynomial|matrix|pattern|output|original|vertices|coefficients?|angles?"
    r"|magnitude"
    r"|dimensions?|requirements?|definitions?|numbers?|percentages?|fractions?|lemma|theorem|hypothesis|substitution"
    r"|multiplication|division|addition|subtraction|decimals?|area|volume|parts?)"
)
"""What a calculation is about."""
FORMULA = r"(?=[\d$\\(|-]|[a-z]\s?[=(<>+*/^-])"
"""The beginning of a number or of a formula."""
CALCULATE = (
    r"(?:find|compute|calculate|determine|solve|simplify|add|subtract|multiply|divide|convert|count|factor|factorise"
    r"|expand|rewrite|express|set (?:up|the|each|both|it|x|y|f)|write|note|notice|observe|identify|define|isolate"
    r"|evaluate"
    r"|substitute|plug|work out|figure out|use|apply|look at|consider|recall|check|draw|list|square|sum|estimate"
    r"|understand"
    r"|differentiate|integrate|prove|show|establish|translate|reduce|combine|collect|distribute|label"
    r"|denote|test|handle|treat|derive|pin down|get the (?:total|value|cost|number)|deal with|model|bound|normalise"
    r"|take the (?:log|derivative|square|sum|difference|product|limit|gradient|determinant))"
)
"""What one does in a calculation."""


def do(verbs: str, then: str = "") -> Openings:
    """What the speaker does or is about to do ("we VERB", "let me VERB"), and orders ("VERB ...")."""
    return (Opening("speaker", verbs, then), Opening("sentence", verbs, then))
