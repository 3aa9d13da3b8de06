"""The default phrases of transition and backtracking; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.marked_text import SENTENCE
from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CALCULATE, DEED, END, MATHS, NO_STORY, OBJECT, WE, do

_APPROACH = "(?:approach|method|perspective|proof|strategy|substitution|tack)"
_THINK = (
    "approach / attack / calculate / check / compute / confirm / count / counting / do / find"
    " / get / look / looking / put / reason / see / seeing / show / solve / solving / tackle"
    " / think / verify / write"
)
_THINKING = f"(?:{_THINK.replace(' / ', '|')})"
_OTHER = "alternative / another / different / other / second"
_BETTER = "better / cleaner / easier / more (?:direct|elegant) / neater / simpler / slicker / smarter"
_OTHERS = f"(?:{(_OTHER + ' / ' + _BETTER).replace(' / ', '|')})"
_ONLY_OURS = rf"(?! of (?:payment|transport)| to the (?!(?:\w+ )?{MATHS}\b))"
TRANSITION = (
    Opening(
        "clause",
        "alternatively / conversely / on the other hand / that said,",
        NO_STORY,
    ),
    Opening("clause", r"however(?! (?:far|fast|hard|large|long|many|small|you)\b)", NO_STORY),
    Opening("sentence", rf"instead,?{WE} {CALCULATE}"),
    Opening(
        "sentence",
        "instead of",
        rf" (?:\w+ )?(?:adding|computing|counting|going|solving|working)(?![^{SENTENCE}]{{0,60}}\b(?:he"
        r"|her|his|she|they)\b)",
    ),
    Opening("clause", r"what (?:if|about) (?:i|treating|trying|using|we|working)\b", NO_STORY),
    Opening("clause", "what about", rf" [^.!?{SENTENCE}]{{1,60}}\?"),
    Opening(
        "speaker",
        "consider / look at / think about / try / use",
        rf" (?:\w+ ){{0,2}}?(?:(?:(?:a|an|the) )?{_OTHERS} (?:way|idea|angle|{_APPROACH})|differently"
        "|tack|approach(?:es)?)",
    ),
    Opening(
        "speaker",
        "complete / try",
        rf"{OBJECT} [^.!?{SENTENCE}]{{1,60}}? instead(?=[^\w\s]|{END})",
    ),
    Opening("clause", "let(?: me| us|'s)", rf"(?! (?:{DEED})\b) [^.!?{SENTENCE}]{{1,60}}? instead(?=[^\w\s]|{END})"),
    Opening("clause", "new", f" (?:{_APPROACH}|idea|plan|angle)(?=[,:.!])"),
    Opening("clause", f"new / {_BETTER} / {_OTHER}", rf" {_APPROACH}{_ONLY_OURS}"),
    Opening(
        "clause",
        "a",
        f" (?:far |whole ){{0,2}}{_OTHERS} {_APPROACH}{_ONLY_OURS}",
    ),
    Opening(
        "clause",
        "let(?: me| us|'s) / there",
        " (?:(?!(?:he|her|his|she|their"
        rf"|they)\b)[^\s.,:;!?]+ ){{0,6}}?{_OTHERS} {_APPROACH}{_ONLY_OURS}",
    ),
    Opening("anywhere", f"alternative / {_BETTER}", " (?:solution)"),
    Opening(
        "anywhere",
        f"alternative / another / different / other / {_BETTER}",
        f" (?:idea|option|way)(?:[,:?]| (?:to|of) {_THINKING}| is to| would be)",
    ),
    Opening(
        "clause",
        "another / there's another",
        " (?:angle|possibility|thought)(?=[:.,])",
    ),
    Opening(
        "clause",
        "it",
        rf"(?: is| may be| would be|'s) (?:\w+ )?(?:better|cleaner|easier|simpler) to {CALCULATE}",
    ),
    Opening(
        "clause",
        "or",
        f"(?: (?:i|one|we|you))? (?:can|could) (?:(?:also|alternatively|instead) {_THINKING}|(?:go about|attack) )",
    ),
    Opening("clause", "on the flip side / or (?:we|one) (?:can|could) / or, (?:using|by)", NO_STORY),
    Opening(
        "speaker",
        "approach / look / think",
        r" (?:\w+ ){0,3}?from (?:a different|another|the other) (?:angle|direction|end|perspective"
        "|side)",
    ),
    Opening("speaker", _THINK, r" (?:\w+ ){0,3}?(?:in (?:a different|another) way|differently)"),
    Opening("clause", "in (?:a different|another) way(?=[:,])"),
)

_SCRAP = "forget / ignore / scrap / scratch"
_SCRAPPED = rf"(?=[^\w\s]| (?:and|approach|attempt|idea|last)\b|\s*{END})"
_ASIDE = "it / that / this / which"
_FAILS = (
    "(?:can't|didn't|does not|doesn't|failed|fails|is not|is too|is wrong|isn't|leads nowhere|was too|was wrong|won't)"
)
BACKTRACKING = (
    Opening(
        "clause",
        _ASIDE,
        "(?: is| looks| seems| was|'s)(?: (?:all|also|clearly|just))? (?:not (?:correct|it|possible"
        "|right|true|working)|wrong|false|no good|a mistake|an error|impossible)(?! (?:to|for|with|of"
        r"|on (?:her|his|the)|by)\b)",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:can't be(?=[^\w\s])|(?:can't be|isn't) (?:correct|possible|right|true|working))",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:can't|didn't|does not|doesn't|won't) (?:add up|help|hold|make sense|work)(?=[^\w\s]"
        rf"|\s*{END}| (?:because|since|as|here|either|when|if|with|though|for (?:all|every|n|negative"
        r"|us|x)|us|out)\b)",
    ),
    Opening(
        "clause",
        f"{_ASIDE}",
        r"(?: is| was|'s)(?: \w+)? (?:dead end|red herring)",
    ),
    Opening(
        "clause",
        "our / that / this",
        rf" (?:(?!of)\w+ )?(?:approach|assumption|attempt|guess|idea|line) {_FAILS}",
    ),
    Opening("clause", _ASIDE, r" (?:failed|fails)(?! (?:her|his|the)\b)"),
    Opening(
        "clause",
        "this",
        r" \w+ (?:is|was) an? (?:dead end|red herring)",
    ),
    Opening(
        "clause",
        "my",
        " (?:(?:first|initial|last|previous) )?(?:answer|calculation|claim|computation|result) (?:is"
        "|must be|seems|was) (?:off|wrong)",
    ),
    Opening("clause", "this", rf" (?:\w+ )?(?:method|path|route|strategy) {_FAILS}"),
    Opening(
        "anywhere",
        "isn't / leads",
        r" (?:(?:getting|going|us) ){0,2}(?:anywhere|in circles|nowhere)(?=[^\w\s]|\s*\x1c|$)",
    ),
    Opening("sentence", "no good / nope", "(?=[.,!:\u2014])"),
    Opening("speaker", "hit", r" an? (?:\w+ )?(?:dead end|wall)"),
    Opening("anywhere", "i(?:'m| am) stuck", rf"(?=[^\w\s]|{END})"),
    Opening(
        "speaker",
        "backtrack / start (?:over|again|anew|from the (?:beginning|top))",
        f"(?! (?:at|in|on) ){NO_STORY}",
    ),
    Opening("speaker", "try again", rf"(?=[^\w\s]| (?:but|from|using|with)\b|\s*{END})"),
    Opening(
        "speaker",
        "recompute / redo",
        rf"(?= (?:this|that|it|(?:the|my) (?:\w+ )?{MATHS}|everything|from|with|carefully)\b|[^\w\s])",
    ),
    Opening(
        "speaker",
        "go back",
        r"(?= and (?:check|correct|fix|look|re|try)|[^\w\s]| to (?:(?:my|our|that"
        rf"|the) )?(?:\w+ )?(?:{MATHS}|start|beginning|drawing board|square one)\b)",
    ),
    Opening("clause", "go back", rf" to (?:(?:my|our|the) )?(?:\w+ )?(?:{MATHS}|square one)"),
    Opening("clause", "back to (?:square one|the drawing board)"),
    *do(
        "correct / undo",
        rf" (?:that|this|it|my|the (?:\w+ )?(?:calculation|equation|error|mistake|step))(?=\W|{END})",
    ),
    Opening(
        "speaker",
        "abandon / discard",
        r" (?:this|that|it|the (?:\w+ )?(?:approach|attempt|guess|idea|line))(?=[^\w\s]|"
        rf" (?:\w+ )?(?:and|approach|assumption|attempt|guess|idea|line|method|path)\b|{END})",
    ),
    Opening("speaker", "take", " (?:it|that|this) back"),
    *do("throw", rf" (?:this|that|it|the \w+) (?:away|out)(?=[^\w\s]| and\b|\s*{END})"),
    Opening("clause", _SCRAP, rf" (?:that|this|(?:my|the) (?:last|previous) \w+){_SCRAPPED}"),
    Opening("speaker", _SCRAP, rf" (?:that|this|it|the \w+){_SCRAPPED}"),
    Opening("speaker", "step back and undo / undo", " (?:it|my|that|the|this)"),
    Opening("clause", "never mind(?! the)"),
)
