"""Words that the default patterns of thoughts share: how a story goes on, who acts, and what a calculation is about.

All are parts of regular expressions for the phrases of `openings.py`.
"""

from __future__ import annotations

from prerl_jax.analysis.marked_text import CAPITAL, SENTENCE
from prerl_jax.analysis.openings import Opening, Openings, one_of

END = rf"(?:{SENTENCE}|$)"

_CALCULATED = one_of(
    "need|use|bas|exceed|proceed|succeed|indeed|deriv|obtain|assum|comput|calculat|defin|count|factor|squar|multipli"
    "|subtract|divid|add|miss|overlook|ignor|ask|simplifi|swap|conver|expand|requir|expect|includ|doubl"
)
_STATE = r" (?:late|closed|open|full|empty|sold|gone|sick|tired|hungry|broken|cheaper|given|able|too)"
DEED = (
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
    rf"(?:{DEED}|(?=[a-z]{{3,}}ed\b)(?!{_CALCULATED}\w*ed\b)[a-z]+))\b)"
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
_GOES_ON = "(?:and|as|by|for|from|in|into|is|minus|modulo|of|per|percent|plus|times|to|ways?|cases?|has|have|are|divides?|gives?)"
FORMULA = rf"(?=-?\d[\d.,]*+(?! ?(?!{_GOES_ON}\b)[a-z]{{3,}})|[$\\(|-]|[a-z]\s?[=(<>+*/^-]|[b-hj-z]\b)"
"""The beginning of a number or of a formula; a number of things, as in "40 chairs", is none."""
_QUANTITY = (
    "complement|constants?|coefficient|age|amount|balance|capacity|circumference|cost|debt|diameter|distance|duration|earnings|efficiency|expenses|fare"
    "|fee|height|income|interest|least|length|loss|mass|maximum|mean|median|minimum|most|pace|payment|percent|price"
    "|profit|radius|rate|revenue|savings|score|share|size|slope|smallest|largest|greatest|speed|savings|spending|tax"
    "|temperature|time|velocity|wage|weight|width|distribution|variables?|notation|generality|triangles?|circles?|points?|lines?|pairs?"
    "|primes?|divisors?|multiples?|squares?|integers?|ways?|options?|possibility|possibilities|subsets?|triples?|outcomes?|combinations?|permutations?|powers?|sequences?|series|sets?|graphs?|gradient|vectors?|intersections?|coordinates?|axis|recurrence|induction|contradiction|thing|edges?|sides?|diagonals?|tangent|chords?|gcd|lcm|logs?|logarithms?|approach|method|idea|strategy|bases?|rows?|columns?|modulus|residues?"
)
OBJECT = (
    rf"(?= (?:(?:out|up|down|at|for|into|by|with|on|over) )?(?:{FORMULA}|(?:how|if|it|that|them|these|this|those|what|when|where|whether|who|all of|both|everything|each)\b"
    rf"|(?:(?!(?:his|her|their|your|to|and)\b)[\w'-]+,? ){{0,4}}?(?:{MATHS}|{one_of(_QUANTITY)})\b"
    rf"|[^.!?{SENTENCE}]{{0,80}}?(?:[=+\u00d7\u00f7^\\]|\d/\d)))"
)
"""Follows a verb of everyday life, and makes it one of a calculation: a mathematical object comes next."""
CONTENT = (
    rf"(?=[^.!?{SENTENCE}]{{0,80}}?(?:[\d=$\\^<>]|\b(?:{MATHS}|{one_of(_QUANTITY)}|consistent|constant|correct|divisible"
    rf"|even|fits?|holds?|i|it|makes? sense|numerically|odd|prime|right|satisf\w+|these|this|those|true|we|works?|x|y|n|definition|injective|converges)\b))"
)
"""Follows a verb of checking: the sentence says something of mathematics, or of the work so far."""
NO_PLACE = rf"(?! (?:at|behind|from|in|inside|near|off|on|under) (?:a|an|her|his|my|our|the|their|your) (?!(?:\w+ )?{MATHS}\b))"
"""Follows a mathematical object: it is none in the world, as "the sign on the highway" is."""
_THINK = (
    "bound|break|calculate|compare|compute|consider|convert|deal with|define|denote|derive|determine|differentiate"
    "|divide|eliminate|establish|estimate|evaluate|expand|express|factor|factorise|factorize|figure out|identify|integrate|isolate"
    "|maximise|maximize|minimise|minimize|multiply|normalise|note|notice|observe|prove|recall|reduce|rewrite|simplify"
    "|solve|substitute|subtract|think|translate|understand|work out|parametrize|rearrange|set up|verify|restate|justify|clarify|pin down"
)
_HANDLE = (
    "add|apply|check|collect|combine|count|distribute|draw|find|get|give|handle|have|know|label|list|look|model|need"
    "|plug|show|square|sum|take|test|treat|use|want|write|set|work|do|start|look at|go|split|tackle|name|sketch|make|see|try|deal|put|group|place"
)
CALCULATE = rf"(?:{one_of(_THINK)}\b|{one_of(_HANDLE)}\b{OBJECT})"
"""What one does in a calculation: a verb of thought, or one of everyday life with a mathematical object."""

WE = (
    "(?: (?:we|i|let's|lets|let us|let me)(?:'ll| will| can| could| must| should| may| have to| need to| want to| now| just| also"
    "| first| then| try to| instead| simply)*| to)?"
)
"""Who acts: the speaker, or nobody in an order."""


def do(verbs: str, then: str = "") -> Openings:
    """What the speaker does or is about to do ("we VERB", "let me VERB"), and orders ("VERB ...")."""
    return (Opening("speaker", verbs, then), Opening("sentence", verbs, then))
