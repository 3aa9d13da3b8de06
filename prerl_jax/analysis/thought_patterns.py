"""The default patterns of thoughts: regular expressions for what a response says about its own reasoning, in English.

    transition      turns to another line of thought: "alternatively", "however", "another approach"
    reflection      doubts its own reasoning: "wait", "hmm", "let me reconsider", "I made a mistake"
    subgoal         sets an intermediate goal: "Step 1:", "first, we ...", "we need to find ...", "break this down"
    enumeration     goes through cases: "Case 1:", "list all ...", "consider all possible cases", "try n = 3"
    verification    checks a result: "let me verify", "check:", "substituting back", "sanity check"
    backtracking    abandons a line of thought: "that's not right", "let's start over", "this approach fails"

arXiv 2604.14142 counts transitions and reflections, and compares the other four behaviours. Its lists of patterns are
not published, so these are our own. Counts can be compared between models, but not with the paper's numbers.

The patterns prefer precision, because word problems mention waiters, checks for $20 and cases of soda. A word with an
everyday meaning counts only where it cannot have that meaning, which is mostly at the beginning of a clause.
`thoughts.py` explains how matches are counted and how to write your own patterns.
"""

from __future__ import annotations

import dataclasses
import re

Strings = tuple[str, ...]
METRICS = "eval/thoughts/"
"""The beginning of the names of the metrics of thoughts."""


@dataclasses.dataclass(frozen=True)
class Thought:
    """A kind of thought.

    Attributes:
      name: the name of the kind; its metric is `eval/thoughts/NAME`.
      patterns: regular expressions, at least one; each match of one of them in a text is one thought.

    Raises:
      ValueError: the name is empty, or there is no pattern.
    """

    name: str
    patterns: Strings

    def __post_init__(self) -> None:
        if not self.name or not self.patterns:
            raise ValueError(f"{self} needs a name, and at least one pattern.")

    @property
    def metric(self) -> str:
        """The name of its metric: the mean number of such thoughts in a response of an evaluation."""
        return METRICS + self.name


_START = r"^[ \t#*>_-]*(?:\d+[.)][ \t]*)?|</?[a-z]+>\s*|\\(?:text(?:bf|it)|emph)\{"
SENTENCE = rf"(?:{_START}|[.!?:…][\"')\]*_]*\s+)"
"""The beginning of a sentence, of a line, after a tag such as <think>, or of text that LaTeX emphasises."""
CLAUSE = rf"(?:{_START}|[.!?:;,…—\u2013(][\"')\]*_]*\s*|\s--?\s+)"
"""The beginning of a clause: as `SENTENCE`, or after a comma, a bracket or a dash."""
OPENING = rf"(?:{CLAUSE}|\b(?:but|and|oh|no|so|ah|ok|okay|well|yes|hm+)\s+)"
"""The beginning of a thought: as `CLAUSE`, or after one of these words."""
_WE = r"(?:let me|let us|let's|lets|(?:I|we)(?:'ll| will| can| could| should| must| need to| have to| want to)?)"
_NUMBER = r"(?:\d+|one|two|three|four|five|\(?[ivx]+\)?|[a-e])"
_WAITED_FOR = (
    r"(?! (?:for|until|till|here|there|times?|lists?|staff)\b)"
    r"(?! (?!a (?:minute|second|sec|moment)\b)(?:\w+ ){0,2}(?:second|minute|min|hour|day|week|month|year)s?\b)"
)


def _spaced(*patterns: str) -> Strings:
    """The patterns, in which each space outside of character classes matches any white space, also line breaks."""
    return tuple(re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], p) for p in patterns)


TRANSITION = _spaced(
    rf"{CLAUSE}alternatively",
    rf"{CLAUSE}(?:but )?however(?! (?:many|much|long|often|far|big|large|small|hard|you|we|he|she|they|it)\b)",
    rf"{CLAUSE}(?:but )?on the other hand",
    rf"{CLAUSE}(?:but )?conversely",
    rf"{SENTENCE}instead(?=,)",
    rf"{OPENING}what if (?:we|I)",
    r"(?:let me|let us|let's|(?:I|we)(?:'ll| will| can| could| should)) (?:\w+ )?"
    r"(?:try|consider|use|think about|look at) (?:it |this )?"
    r"(?:something else|another|a different|an alternative|differently|the other)",
    r"(?:another|a different|an alternative) (?:approach|method|strategy|idea|angle|perspective)",
    r"(?:another|a different) way (?:to (?:solve|think|look|see|do|check|approach|find|compute|count|view|verify)"
    r"|of (?:solving|thinking|looking|seeing|doing|counting))",
)

_DID = r"(?:I|we)(?: may| might| must| could| think I| seem to)?(?: have)?"
REFLECTION = _spaced(
    rf"{OPENING}wait{_WAITED_FOR}",
    rf"{OPENING}hold on(?! (?:to|for))",
    rf"{OPENING}hm+",
    rf"{SENTENCE}actually(?=,)",
    r"(?:on|upon) (?:second thought|(?:closer|further) (?:inspection|reflection|examination))",
    rf"{_WE} (?:re-?think|re-?consider|re-?examine|re-?evaluate|re-?assess|re-?read|re-?visit|think again)",
    rf"{_WE} (?:take another look|look again|think (?:about (?:it|this|that) )?(?:again|more carefully))",
    rf"{_DID} ma[dk]e an?(?: \w+)? (?:mistake|error)",
    rf"{_DID} (?:misread|misunderstood|overlooked|miscounted|miscalculated)",
    rf"{_DID} forgot(?:ten)? to (?:add|carry|include|count|divide)",
    r"(?:is|was) (?:that|this|it|my (?:answer|reasoning)) (?:really |actually )?(?:right|correct|true)(?=\s*\?)",
    r"(?:does|do|did) (?:that|this|it|I) (?:really |actually )?(?:make sense|miss anything|miss something)(?=\s*\?)",
    r"am I (?:sure|missing)",
)

SUBGOAL = _spaced(
    r"^[ \t#*>_-]*step (?:\d+|one|two|three|four|five)\b",
    r"step \d+(?=\s*:)",
    rf"{SENTENCE}(?:first|firstly|second|secondly|third|thirdly|next)(?=,)",
    rf"{SENTENCE}(?:first|next|to begin|to start) (?:we|I|let|find|compute|calculate|determine|solve|simplify)\b",
    rf"{_WE} first (?!time|place|half)\w+",
    r"the (?:first|second|next|final|last) (?:step|thing|task) (?:is|will be|would be) to",
    r"(?:the|our|my) (?:sub-?goal|goal|aim|plan|strategy) is to",
    r"break(?:ing)? (?:this|it|that|the (?:problem|question|task|calculation)) (?:down|up|into)",
    r"(?:we|I)(?:'ll| will)?(?: now| then)? (?:need|have|want) to (?:find|compute|calculate|determine|figure out|show)",
)

ENUMERATION = _spaced(
    rf"{SENTENCE}case {_NUMBER}(?=[\s:.,)*])(?! of\b)",
    rf"case {_NUMBER}(?=\s*:)",
    r"(?:consider|considering|examine|check|checking|try|trying|list|enumerate|go through|look at|test|testing)"
    r" (?:\w+ ){0,4}?(?:cases|possibilities|combinations|scenarios|outcomes)",
    r"there are (?:\w+ ){1,2}cases(?! of)",
    r"enumerate|enumerating|enumeration|brute[- ]force|by exhaustion|trial and error",
    r"(?:let me|let us|let's|(?:I|we)(?:'ll| will| can| could| should)) list",
    rf"{SENTENCE}list(?:ing)? (?:out )?(?:all|each|every|the (?:possible|factors|divisors|multiples|pairs))",
    r"(?:check|test|try|go through|examine|consider|checking|testing|trying|going through) (?:\w+ ){0,4}?one by one",
    r"(?:try|trying|test|testing) \$?[a-z]\s*=\s*-?\d",
    rf"{SENTENCE}for \$?[a-z]\s*=\s*-?\d+\$?(?=[,:])",
)

_CHECK = r"(?:(?:double|cross)[- ]?check|(?:re-?)?check|(?:re-?)?verify|confirm|validate)"
_RESULT = r"(?:answer|work|result|solution|calculation|computation|arithmetic|reasoning|math|steps?)"
VERIFICATION = _spaced(
    rf"{_WE} (?:now |just |quickly |also |then )?{_CHECK}(?! (?:in|out|off)\b)",
    r"to (?:double[- ]?check|verify)(?! (?:his|her|their)\b)",
    rf"{_WE} see (?:if|whether)",
    rf"{SENTENCE}to (?:check|confirm)(?! (?:in|out|off)\b)",
    rf"{SENTENCE}(?:(?:quick )?check|verification|verify)\s*:(?!\s*\$\d)",
    rf"{SENTENCE}(?:checking|verifying|double[- ]checking)(?! (?:in|out|off)\b)",
    rf"{SENTENCE}(?:now )?(?:check|verify|confirm) (?:that|if|whether|this|it)",
    rf"{_CHECK} (?:my|our|the|this|that|your) (?:\w+ )?{_RESULT}",
    r"(?:plug|plugging|substitute|substituting) (?:\S+ ){0,4}?back in(?:to)?|substitut(?:e|ing) back",
    r"sanity[- ]check",
    rf"{OPENING}(?:this|that|it|which|everything) checks out(?! \w)",
    r"does (?:this|that|it) (?:check out|satisfy|agree with)",
)

_ASIDE = r"(?:that|this|it|which)"
BACKTRACKING = _spaced(
    rf"{OPENING}{_ASIDE}(?:'s| is| was| seems| looks)(?: (?:all|clearly|also))?"
    r" (?:not (?:right|correct|what we (?:want|need))|wrong|incorrect|a mistake|an error)(?! to\b)",
    rf"{OPENING}{_ASIDE} (?:isn't|wasn't|can't be|cannot be) (?:right|correct)",
    rf"{OPENING}{_ASIDE} (?:doesn't|does not|didn't|did not|won't|will not)"
    r" (?:work|hold|help|look right|seem right|make sense)",
    r"(?:this|that|my) (?:approach|method|path|line|idea|guess|attempt|assumption) "
    r"(?:is wrong|is incorrect|is not|isn't|fails|failed|doesn't|does not|won't|didn't|did not)",
    rf"{_WE} (?:start over|start again|start from scratch|go back|backtrack|try again|re-?do|re-?calculate|re-?start)",
    rf"{_WE} (?:correct (?:that|this|it|my|the)|fix (?:that|this|it|my)|undo|discard|abandon)",
    rf"{OPENING}(?:scrap|scratch|strike) (?:that|this)|{OPENING}never[ -]?mind|backtracking",
    rf"{_ASIDE} (?:is|leads to|leads us to) a dead end",
)

THOUGHTS = (
    Thought("transition", TRANSITION),
    Thought("reflection", REFLECTION),
    Thought("subgoal", SUBGOAL),
    Thought("enumeration", ENUMERATION),
    Thought("verification", VERIFICATION),
    Thought("backtracking", BACKTRACKING),
)
"""The kinds that are counted by default."""
