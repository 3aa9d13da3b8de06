"""The default patterns of thoughts: regular expressions for what a response says about its own reasoning, in English.

    transition      turns to another line of thought: "alternatively", "however", "another approach"
    reflection      doubts its own reasoning: "wait", "hmm", "let me reconsider", "I made a mistake"
    subgoal         sets an intermediate goal: "Step 1:", "first, we ...", "we need to find ...", "break this down"
    enumeration     goes through cases: "Case 1:", "list all ...", "consider the case where", "try n = 3"
    verification    checks a result: "let me verify", "check:", "substituting back", "sanity check"
    backtracking    abandons a line of thought: "that's not right", "let's start over", "this approach fails"

arXiv 2604.14142 counts transitions and reflections, and compares the other four behaviours. Its lists of patterns are
not published, so these are our own. Counts can be compared between models, but not with the paper's numbers.

The patterns prefer precision, because word problems tell stories: of waiters, of checks for $20, of what the baker sold
first. A word with an everyday meaning counts only where it begins a clause, and only where no story goes on after it.
"""

from __future__ import annotations

import dataclasses

from prerl_jax.analysis.openings import Opening, Openings
from prerl_jax.analysis.thought_words import CALCULATE, FORMULA, MATHS, NO_STORY, do

Strings = tuple[str, ...]
METRICS = "eval/thoughts/"
"""The beginning of the names of the metrics of thoughts."""


@dataclasses.dataclass(frozen=True)
class Thought:
    """A kind of thought.

    Attributes:
      name: the name of the kind; its metric is `eval/thoughts/NAME`.
      patterns: regular expressions; each match of one of them in a text is one thought.
      openings: phrases that begin a sentence or a clause (`openings.py`); those in one sentence are one thought together.

    Raises:
      ValueError: the name is empty, or there is neither a pattern nor an opening.
    """

    name: str
    patterns: Strings = ()
    openings: Openings = ()

    def __post_init__(self) -> None:
        if not self.name or not (self.patterns or self.openings):
            raise ValueError(f"{self} needs a name, and at least one pattern or opening.")

    @property
    def metric(self) -> str:
        """The name of its metric: the mean number of such thoughts in a response of an evaluation."""
        return METRICS + self.name


_APPROACH = r"(?:approach|method|strategy|technique|line of attack|tack|avenue|formulation|proof|perspective|argument)"
_THINK = (
    r"(?:solve|solving|think|thinking|look|looking|see|seeing|do|doing|check|checking|approach|find|compute|count|counting"
    r"|view|verify|tackle|express|calculate|derive|prove|phrase|put|write|get|attack|evaluate|reason|confirm|show)"
)
_OTHER = ("another", "different", "alternative", "other", "second", "cleaner", "nicer", "simpler", "smarter", "quicker")
_OTHERS = "|".join(_OTHER)
TRANSITION = (
    Opening("clause", ("alternatively", "on the other hand", "conversely", "by contrast"), NO_STORY),
    Opening("clause", ("however(?! (?:many|much|long|often|far|big|large|small|hard|fast|you)\\b)",), NO_STORY),
    Opening("sentence", (rf"instead,? (?:we|i|let|let's|{CALCULATE})\b",), NO_STORY),
    Opening(
        "sentence",
        ("rather than", "instead of"),
        r" (?:\w+ )?(?:computing|calculating|counting|solving|expanding|multiplying|adding|guessing|listing|enumerating"
        r"|integrating|working|doing|going)(?![^\x1c]{0,60}\b(?:he|she|they|his|her)\b)",
    ),
    Opening("clause", (r"what (?:if|about) (?:we|i|using|trying|treating|working)\b",), NO_STORY),
    *do(
        ("try", "consider", "use", "think about", "look at", "take", "attempt", "switch", "change"),
        rf" (?:\w+ ){{0,2}}?(?:something (?:else|different)|(?:(?:a|an|the) )?(?:{_OTHERS}) (?:way|idea|angle|{_APPROACH})"
        r"|differently|tack|approach(?:es)?|gears)",
    ),
    Opening("anywhere", _OTHER, rf" {_APPROACH}(?! of (?:payment|transport|travel))"),
    Opening(
        "anywhere", _OTHER[:4] + _OTHER[5:], rf" (?:way|angle|idea|thought|option)(?:[,:]| (?:to|of) {_THINK}| is to)"
    ),
    *do(tuple(_THINK[3:-1].split("|")), r" (?:\w+ ){0,3}?(?:in (?:a different|another) way|differently)"),
    Opening("clause", ("in (?:a different|another) way(?=[:,])",)),
)

_THIS = r"(?:that|this|it|my (?:\w+ )?answer|the (?:answer|result)|my reasoning)"

REFLECTION = (
    Opening(
        "clause",
        ("wait",),
        r"(?! (?:for|until|till|here|there|times?|lists?|staff|in|at|on|outside|inside|by|your|his|her|their)\b)"
        r"(?! (?!a (?:minute|second|sec|moment)\b)(?:[\w-]+ ){0,3}?(?:second|minute|min|hour|day|week|month|year)s?\b)",
    ),
    Opening("clause", (r"hold (?:on|up)(?= a (?:second|sec|minute|moment)\b|\s*[^\w\s]|\s*$|\x1c)",)),
    Opening("clause", ("hm", "hmm", "hmmm", "hmmmm", "hmmmmm", "oops", "whoops", "argh", "ugh", "uh[- ]oh")),
    Opening("clause", ("my bad", "my mistake", "not so fast")),
    Opening("clause", ("actually(?:,|(?= (?:i|we|no|let|that|this|it|wait)\\b))",), NO_STORY),
    Opening(
        "clause", ("on", "upon"), rf" (?:second thoughts?|(?:closer|further) (?:inspection|reflection|look)){NO_STORY}"
    ),
    *do(
        ("rethink", "re-think", "reconsider", "re-consider", "reexamine", "re-examine", "reevaluate", "re-evaluate")
        + ("reassess", "think again", "look again", "slow down"),
        NO_STORY,
    ),
    *do(
        ("reread", "re-read", "revisit", "go over"),
        rf"(?= (?:it|that|this|carefully)\b|[^\w\s]| (?:the|this|that|my) (?:\w+ )?{MATHS}\b)",
    ),
    *do(("take (?:another|a second|a closer) look",), r"(?! at (?:his|her|their|a)\b)"),
    *do(
        (
            "take a step back",
            "think (?:about (?:it|this|that) )?(?:again|more carefully|harder)",
            "be (?:more )?careful",
        )
    ),
    Opening(
        "speaker",
        (r"made", r"make"),
        rf" (?:an?|some) (?:\w+ )?(?:mistake|error|slip)s?(?! (?:in|on|with|at) (?:his|her|the (?!{MATHS}\b)))",
    ),
    Opening(
        "speaker",
        (r"misread", r"misunderstood", r"misinterpreted"),
        rf"(?= (?:the|that|this|my) (?:\w+ )?{MATHS}\b|[^\w\s]| (?:it|as)\b)",
    ),
    Opening(
        "speaker",
        (
            r"overlook",
            r"overlooked",
            r"miscounted",
            r"miscalculated",
            "double[- ]count(?:ed)?",
            "overcount(?:ed)?",
            "undercount(?:ed)?",
            r"mixed up",
            r"swapped",
            r"messed up",
            r"botched",
            r"slipped",
            r"got (?:that|it|this) (?:wrong|backwards)",
        ),
        rf"(?! (?:his|her|the (?!(?:\w+ )?{MATHS}\b)))",
    ),
    Opening(
        "speaker",
        (r"drop", r"dropped", r"lost", r"missed", r"skipped"),
        r" (?:an?|the|one) (?:\w+ )?(?:sign|minus|factor|term|digit|zero|carry|case|step|condition|constraint|negative"
        r"|possibility|root|solution)s?",
    ),
    Opening(
        "speaker",
        (r"forgot", r"forgotten", r"neglected"),
        rf" (?:about |to (?:\w+ )?)?(?:carry|account|halve|the (?:\w+ )?{MATHS}|(?:add|include|count|divide|multiply|subtract"
        rf"|convert|square|take|apply|use|distribute|flip|check|consider)(?= (?:by|back|(?:the|that|this|a|an|both|all|one|in)"
        rf" (?:\w+ )?{MATHS}|it)\b| {FORMULA}|[^\w\s]))",
    ),
    Opening(
        "clause",
        ("is", "was", "isn't"),
        rf" {_THIS}(?: \w+)? (?:right|correct|true|possible|consistent|okay|plausible|enough|valid)(?! (?:to|angle|triangle|of|for) )(?=[^.!?\x1c]{{0,40}}\?)",
    ),
    Opening(
        "clause",
        ("does", "do", "did", "am", "are", "have"),
        rf" (?:{_THIS}|i|we) (?:\w+ )?(?:make sense|miss(?:ed|ing)?|sure|certain|forget|forgot|forgotten|forgetting|right"
        r"|over-?count\w*|double-?count\w*|overlook\w*|considered|sound right|look right|allowed|misread)"
        r"(?=[^.!?\x1c]{0,80}\?)",
    ),
    Opening(
        "clause",
        (r"something(?:'s|'s gone| is| seems| looks| must be| feels| has gone| went| doesn't| isn't)",),
        rf" (?:off|wrong|amiss|fishy|not right|add(?:ing)? up|right|odd)(?! with (?:his|her|the (?!{MATHS}\b)))",
    ),
    Opening(
        "clause",
        ("that", "this", "it", "which", "the (?:answer|result)"),
        r"(?:'s| is| seems| looks| feels| sounds) (?:\w+ )?(?:too (?:big|large|small|high|low|easy|good|simple)|odd|strange"
        r"|weird|off|suspicious|fishy)(?=[.?!,;:]| (?:though|to me|because|since|given)\b|\s*$|\x1c)",
    ),
    Opening(
        "anywhere",
        ("i(?:'m| am)",),
        r" (?:(?:not|so|really|quite|entirely|getting|probably) ){0,2}(?:sure|convinced|certain|unsure|confused|doubtful"
        r"|overcomplicating|overthinking)(?! (?:which|that he|that she))",
    ),
    Opening(
        "clause",
        ("there's", "there is", "there must be", "i see", "i found", "i spot"),
        r" (?:an?|the|my) (?:\w+ )?(?:mistake|error|slip|flaw)",
    ),
    Opening("anywhere", ("i was (?:wrong|mistaken)", "i doubt")),
)

_AIM = r"(?:find|compute|calculate|determine|figure out|work out|show|prove|solve|know|get|establish|maximi[sz]e|minimi[sz]e)"
_NEED = (
    r"(?:'ll| will)?(?: now| then| first| next| just| only| still| also)? (?:need|have|want|would like)"
    rf" (?:to (?:first )?{_AIM}(?! (?:out )?(?:his|her|their|my|him|to|on|off)\b)|the (?:total|value|sum)\b)"
)
SUBGOAL = (
    Opening(
        "anywhere", (r"step (?:\d+|one|two|three|four|five)",), r"(?:(?=[:.,)*\u2014])|(?= ?[-\u2013\u2014(\x1c]|$))"
    ),
    Opening("sentence", (r"step (?:\d+|one|two|three|four|five)(?! (?:and|is|we|was|gives|shows)\b)",)),
    Opening(
        "sentence",
        ("first", "firstly", "second", "secondly", "third", "thirdly", "next", "then", "finally", "first of all")
        + ("to (?:begin|start)(?: with)?",),
        rf",? (?:we|i|we'll|i'll|let|let's|lets|{CALCULATE}|to {CALCULATE})\b{NO_STORY}",
    ),
    Opening("speaker", ("start by", "begin by", "begin with", "start with")),
    Opening("speaker", ("first",), rf" (?:{CALCULATE}|\w+ing)"),
    Opening(
        "sentence",
        ("start", "begin", "starting", "beginning"),
        rf" (?:by|with) (?:the (?:\w+ )?{MATHS}\b|(?:find|comput|calculat|determin|solv|not|factor|isolat|writ|expand|sett|list"
        r"|count|work|convert)ing)",
    ),
    Opening(
        "clause",
        ("the", "my", "our"),
        r" (?:first|second|next|final|last|remaining) (?:step|thing|task|job|goal|move)(?: \w+)? (?:is|will be|would be) (?:to|now)",
    ),
    Opening(
        "clause",
        ("the", "our", "my"),
        rf"(?: \w+)? (?:sub-?goal|goal|aim|plan|strategy|objective)(?: here| now)? is (?::|now|to (?:\w+ )?(?:{CALCULATE}"
        r"|maximi[sz]e|minimi[sz]e|reach|get))",
    ),
    Opening("clause", ("plan", "roadmap", "outline", "strategy", "sub-goals?", "subgoal", "subgoals", "goal"), r"\s?:"),
    Opening(
        "anywhere",
        ("break", "breaking", "split", "splitting"),
        rf" (?:this|it|that|things|the (?:\w+ )?{MATHS})(?: \w+)? (?:down|up|into)",
    ),
    Opening("anywhere", (f"we{_NEED}", f"i{_NEED}")),
    Opening(
        "clause",
        ("it (?:remains|suffices|is enough) to", "all that remains is to", "what remains is to"),
        f" {CALCULATE}",
    ),
)

_NUMBER = r"(?:\d+|one|two|three|four|five|six|\(?[ivx]+\)?|[a-e])"
_CASES = r"(?:cases|possibilities|combinations|scenarios|outcomes)"
_VALUES = r"(?:\$?[a-z]\s*=\s*-?\d|(?:small|a few|some|different|several|various|other) (?:\w+ )?(?:values|cases|numbers|examples))"
_EACH = ("consider", "examine", "check", "try", "list", "enumerate", "go through", "look at", "test", "run through")
_EACH += ("work through", "handle", "treat", "cover")
ENUMERATION = (
    Opening("anywhere", (rf"case {_NUMBER}(?=\s*[:)\u2014])",)),
    Opening("sentence", (rf"case {_NUMBER},?(?! (?:of|weighs|is labelled|holds|contains|costs|has)\b)(?=\W)",)),
    *do(_EACH, rf" (?:\w+ ){{0,4}}?(?:{_CASES}|case (?:where|when|that|of|for|[a-z] ?[=<>]))(?! of\b)"),
    *do(_EACH, r" (?:\w+ ){0,4}?(?:one by one|in turn|one at a time|individually)"),
    Opening(
        "clause",
        ("considering", "checking", "trying", "listing", "testing", "going through"),
        rf" (?:\w+ ){{0,4}}?{_CASES}",
    ),
    Opening(
        "clause",
        ("there are",),
        r" (?:(?:only|exactly|just) )?(?:\w+ ){1,2}?(?:cases|possibilities|scenarios)(?=\s*[:.,;]| to (?:consider|check)\b| here\b)",
    ),
    Opening("anywhere", ("enumerate", "enumerating", "brute[- ]forc(?:e|ing)", "trial and error")),
    Opening("clause", ("by (?:exhaustion|brute force|enumeration|cases)",)),
    Opening(
        "speaker",
        ("list", "tabulate", "write out", "write down"),
        r" (?:out )?(?:all|each|every|them|the|some|both|these|those|pairs|possible|what)",
    ),
    *do(
        ("list", "tabulate", "write out"),
        r" (?:out )?(?:all|each|every|the (?:possible|factors|divisors|multiples|pairs|primes|first|squares))",
    ),
    Opening("sentence", ("listing",), " (?:out )?(?:all|each|every|the|them|these)"),
    Opening("clause", ("try", "trying", "test", "testing", "taking", "setting"), rf" {_VALUES}"),
    Opening("speaker", ("try", "test"), rf" (?:out )?{_VALUES}"),
    Opening("sentence", ("for", "if", "when", "with"), r" \$?[a-z]\s*=\s*-?\d+\$?(?=[,:])"),
)

_CHECKED = (
    r"(?! (?:in|out|off)\b)(?!:\s*\$\d)(?=\s*(?:[^\w\s$]|$|\x1c)|,? (?:that|this|it|if|whether|again|by|with|how|against"
    r"|everything|once|using|quickly|some|what|these|those|we|i|there|both (?:sides|answers|equations)|for (?!his|her|my|a)\w+"
    rf"|(?:the|my|our|your|its|each|all) (?:[\w-]+ ){{0,2}}?{MATHS}|[a-z]\s?[=<>+])\b)"
)
_CHECK = (
    "check",
    "recheck",
    "re-check",
    "verify",
    "re-verify",
    "confirm",
    "validate",
    "make sure",
    "make certain",
    "ensure",
)
_CHECK += ("double[- ]check", "doublecheck", "double[- ]verify", "cross[- ]check", "sanity[- ]check")
VERIFICATION = (
    *do(_CHECK, _CHECKED + NO_STORY),
    Opening("speaker", _CHECK, rf" (?:{FORMULA}|(?:[\w-]+ )?{MATHS}\b)"),
    Opening("speaker", ("see (?:if|whether)",)),
    Opening(
        "clause",
        (r"to (?:(?:double|cross)[- ]?check|verify|check|confirm|make sure)",),
        rf"(?! (?:his|her|their)\b){_CHECKED}",
    ),
    Opening("clause", ("to be (?:safe|sure|certain),",)),
    Opening(
        "clause",
        ("check", "quick check", "final check", "sanity check", "numerical check", "verification", "verify"),
        r"\s?:(?!\s*\$\d)",
    ),
    Opening("clause", ("checking", "verifying", "confirming", "rechecking", "double[- ]checking"), _CHECKED + NO_STORY),
    Opening("anywhere", ("sanity[- ]check",)),
    Opening("clause", ("a quick check", "quick check", "one last check"), " (?:of|on|that|confirms|shows)"),
    Opening("anywhere", ("plug", "plugging", "plugged", "substitute", "substituting"), r" (?:\S+ ){0,4}?back"),
    Opening(
        "clause",
        ("this", "that", "it", "which", "everything", "the answer", "all"),
        r" (?:checks out|adds up|matches|agrees)(?=[^\w\s]| (?:with|to)\b|\s*$|\x1c)",
    ),
    Opening(
        "clause",
        ("does", "do"),
        r" (?:this|that|it|they|the \w+) (?:check out|satisfy|agree with|match|add up|hold|work)(?=[^.!\x1c]{0,60}\?)",
    ),
)

_ASIDE = ("that", "this", "it", "which")
_FAILS = (
    r"(?:is not|isn't|fails|failed|doesn't|does not|won't|will not|didn't|did not|can't|cannot|breaks down|is wrong|is flawed"
    r"|is hopeless|is going nowhere|leads nowhere|is too)"
)
_AGAIN = ("redo", "re-do", "recalculate", "re-calculate", "recompute", "re-compute", "rework", "re-derive", "rederive")
BACKTRACKING = (
    Opening(
        "clause",
        _ASIDE,
        r"(?:'s| is| was| seems| looks)(?: (?:all|clearly|also|obviously|definitely|just))? (?:not (?:right|correct|true|possible"
        r"|what we (?:want|need)|going to work|working)|wrong|incorrect|a mistake|an error|impossible|nonsense|absurd)"
        r"(?! (?:to|for|with|of)\b)",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:isn't|wasn't|can't be|cannot be|couldn't be|doesn't (?:look|seem|sound)) (?:right|correct|true|possible|working)",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:doesn't|does not|didn't|did not|won't|will not|can't) (?:work|hold|help|make sense|add up)(?! (?:on|in the|at|for him"
        r"|for her)\b)",
    ),
    Opening(
        "clause",
        ("this", "that", "my"),
        rf" (?:\w+ )?(?:approach|method|path|line|idea|guess|attempt|assumption|strategy|ansatz|route) {_FAILS}",
    ),
    *do(("start (?:over|again|afresh|from scratch|from the beginning)", "backtrack", "try again"), NO_STORY),
    *do(_AGAIN, rf"(?= (?:this|that|it|(?:the|my) (?:\w+ )?{MATHS}|everything|from|with|carefully)\b|[^\w\s])"),
    *do(
        ("go back", "going back", "step back"),
        rf"(?= and (?:re|check|fix|correct|look|try)|[^\w\s]| to (?:(?:the|our|my|that) )?(?:\w+ )?(?:{MATHS}|start|beginning"
        r"|drawing board|where we|square one)\b| to step)",
    ),
    Opening("clause", ("back to (?:square one|the drawing board|the start)",)),
    *do(
        ("correct", "fix", "undo", "discard", "abandon", "drop", "give up on"),
        rf" (?:this|that|it|my|the)(?=[^\w\s]|\s*$|\x1c| (?:\w+ )?(?:{MATHS}|approach|idea|method|mistake|attempt|error|line)\b)",
    ),
    Opening(
        "clause",
        ("scrap", "scratch", "strike", "forget", "ignore"),
        r" (?:that|this)(?=[^\w\s]| (?:idea|approach|last|attempt)\b|\s*$|\x1c)",
    ),
    Opening("clause", ("never mind(?! the)", "nevermind", "backtracking")),
    Opening(
        "clause",
        (*_ASIDE, "we", "we've", "i've"),
        " (?:is|leads to|leads us to|hit|reached|have hit) a (?:dead end|brick wall)",
    ),
)

THOUGHTS = (
    Thought("transition", openings=TRANSITION),
    Thought("reflection", openings=REFLECTION),
    Thought("subgoal", openings=SUBGOAL),
    Thought("enumeration", openings=ENUMERATION),
    Thought("verification", openings=VERIFICATION),
    Thought("backtracking", openings=BACKTRACKING),
)
"""The kinds that are counted by default."""
