"""The default phrases of transition and backtracking; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CALCULATE, END, HERE, MATHS, NO_STORY, do

_APPROACH = (
    r"(?:approach|method|strategy|technique|line of attack|tack|avenue|formulation|proof|perspective|argument|view"
    r"|viewpoint|substitution)"
)
_THINK = (
    "solve / solving / think / thinking / look / looking / see / seeing / do / doing / check / approach / find"
    " / compute / count"
    " / counting / view / verify / tackle / express / calculate / derive / prove / phrase / put / write / get / attack"
    " / evaluate / reason / confirm / show"
)
_THINKING = f"(?:{_THINK.replace(' / ', '|')})"
_OTHER = "another / different / alternative / other / second"
_BETTER = (
    "cleaner / nicer / simpler / smarter / quicker / slicker / easier / neater / faster / better / shorter"
    " / more (?:elegant|direct|efficient|clever|general|systematic)"
)
_OTHERS = f"(?:{(_OTHER + ' / ' + _BETTER).replace(' / ', '|')})"
TRANSITION = (
    Opening(
        "clause",
        "alternatively / on the other hand / conversely / by contrast / in contrast / that said, / then again",
        NO_STORY,
    ),
    Opening("clause", r"however(?! (?:many|much|long|often|far|big|large|small|hard|fast|you)\b)", NO_STORY),
    Opening("sentence", rf"instead,? (?:we|i|let|let's|{CALCULATE})\b", NO_STORY),
    Opening(
        "sentence",
        "rather than / instead of",
        r" (?:\w+ )?(?:computing|calculating|counting|solving|expanding|multiplying|adding|guessing|listing|enumerating"
        rf"|integrating|working|doing|going)(?![^{HERE}]{{0,60}}\b(?:he|she|they|his|her)\b)",
    ),
    Opening("clause", r"what (?:if|about) (?:we|i|using|trying|treating|working)\b", NO_STORY),
    Opening("clause", "what about / how about", rf" [^.!?{HERE}]{{1,60}}\?"),
    *do(
        "try / consider / use / think about / look at / take / attempt / switch / change",
        rf" (?:\w+ ){{0,2}}?(?:something (?:else|different)|(?:(?:a|an|the) )?{_OTHERS} (?:way|idea|angle|{_APPROACH})"
        r"|differently|tack|approach(?:es)?|gears)",
    ),
    Opening(
        "speaker",
        "try / use / count / complete / compute / consider / work / look / think / solve / apply / go / do / take"
        " / write / find"
        " / set / treat / integrate / expand / focus / start",
        rf" [^.!?{HERE}]{{1,60}}? instead(?=[^\w\s]|{END})",
    ),
    Opening(
        "anywhere",
        f"{_OTHER} / {_BETTER}",
        rf" {_APPROACH}(?! of (?:payment|transport|travel)| to the (?!(?:\w+ )?{MATHS}\b))",
    ),
    Opening("anywhere", f"{_BETTER} / alternative", " (?:solution|trick|derivation)"),
    Opening(
        "anywhere",
        f"another / different / alternative / other / {_BETTER}",
        rf" (?:way|idea|option)(?:[,:?]| (?:to|of) {_THINKING}| is to| would be)",
    ),
    Opening(
        "clause",
        "another / there's another / there (?:is|may be|might be) another",
        " (?:possibility|thought|angle)(?=[:.,])",
    ),
    Opening(
        "clause",
        "it",
        rf"(?:'s| is| may be| might be| would be) (?:\w+ )?(?:easier|simpler|better|quicker|cleaner"
        rf"|nicer) to {CALCULATE}",
    ),
    Opening(
        "clause",
        "or / one / we / i / you",
        rf"(?: (?:we|i|you|one|perhaps we|maybe we))? (?:could|can|might) (?:(?:also|instead|alternatively) {_THINKING}"
        r"|(?:go about|attack) )",
    ),
    Opening("clause", "or (?:we|one) (?:could|can|might) / or, (?:using|by) / on the flip side", NO_STORY),
    *do("pivot / switch gears / shift gears / change tack"),
    *do(
        "look / view / think / attack / approach / see / come at",
        r" (?:\w+ ){0,3}?from (?:another|a different|the other) (?:angle|perspective|side|viewpoint|direction|end)",
    ),
    *do(_THINK, r" (?:\w+ ){0,3}?(?:in (?:a different|another) way|differently)"),
    Opening("clause", "in (?:a different|another) way(?=[:,])"),
)

_SCRAP = "scrap / scratch / strike / forget / ignore / erase"
_SCRAPPED = rf"(?=[^\w\s]| (?:and|idea|approach|last|attempt)\b|\s*{END})"
_ASIDE = "that / this / it / which"
_FAILS = (
    r"(?:is not|isn't|fails|failed|doesn't|does not|won't|will not|didn't|did not|can't|cannot|breaks down|is wrong"
    r"|was wrong"
    r"|is flawed|was too|was flawed|turned out|is hopeless|is going nowhere|leads nowhere|is too)"
)
BACKTRACKING = (
    Opening(
        "clause",
        _ASIDE,
        r"(?:'s| is| was| seems| looks)(?: (?:all|clearly|also|obviously|definitely|just))? (?:not (?:right|correct"
        r"|true|possible"
        r"|it|what we (?:want|need)|going to work|working|helpful)|wrong|incorrect|false|invalid|inconsistent"
        r"|no good|a mistake"
        r"|an error|impossible|nonsense|absurd)(?! (?:to|for|with|of|on (?:his|her|the)|by)\b)",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:isn't|wasn't|can't be|cannot be|couldn't be|doesn't (?:look|seem|sound)) (?:right|correct|true"
        r"|possible|working)",
    ),
    Opening(
        "clause",
        _ASIDE,
        r" (?:doesn't|does not|didn't|did not|won't|will not|can't) (?:work|hold|help|make sense|add up)(?=[^\w\s]"
        rf"|\s*{END}| (?:because|since|as|here|either|when|if|unless|with|though|for (?:all|every|n|x|negative|us)"
        rf"|us|much|out)\b)",
    ),
    Opening(
        "clause",
        f"{_ASIDE} / all this",
        r"(?:'s| is| was| turned out to be| looks like| leads to| leads us to)(?: \w+)? (?:red herring|dead end"
        r"|wrong turn"
        r"|blind alley|false start)",
    ),
    Opening(
        "clause",
        "this / that / my / our / the",
        rf" (?:(?!of)\w+ )?(?:approach|line|idea|guess|attempt|assumption|ansatz|conjecture) {_FAILS}",
    ),
    Opening("clause", _ASIDE, r" (?:fails|failed|breaks down|falls apart|is no use)(?! (?:the|his|her)\b)"),
    Opening(
        "clause",
        "this / that / my / our",
        r" \w+ (?:is|was|turned out to be|looks like) an? (?:dead end|red herring|wrong turn)",
    ),
    Opening(
        "clause",
        "my / our / that / this",
        r" (?:(?:previous|earlier|first|last|initial) )?(?:computation|calculation|answer|result|reasoning|argument"
        r"|claim)"
        r" (?:is|was|must be|seems) (?:wrong|incorrect|flawed|invalid|off)",
    ),
    Opening("clause", "this / that / my / our", rf" (?:\w+ )?(?:method|path|strategy|route) {_FAILS}"),
    Opening(
        "anywhere",
        "isn't / leads / goes / gets",
        r" (?:(?:us|getting|going|us getting|leading) ){0,2}(?:nowhere|anywhere|in circles)(?=[^\w\s]|\s*\x1c|$)",
    ),
    Opening("sentence", "no good / no luck / no dice / nope / wrong / incorrect / dead end", "(?=[.,!:\u2014])"),
    Opening("speaker", "hit / reached", r" an? (?:\w+ )?(?:wall|dead end|snag|roadblock|impasse)"),
    Opening("anywhere", "i(?:'m| am) stuck / we(?:'re| are) stuck", rf"(?=[^\w\s]|{END})"),
    *do(
        "start (?:over|again|afresh|anew|fresh|from scratch|from the (?:beginning|top)) / begin (?:anew|again)"
        " / restart / backtrack / rewind",
        NO_STORY,
    ),
    *do("try again", rf"(?=[^\w\s]| (?:with|from|using|but)\b|\s*{END})"),
    *do(
        "redo / re-do / recalculate / re-calculate / recompute / re-compute / rework / re-derive / rederive",
        rf"(?= (?:this|that|it|(?:the|my) (?:\w+ )?{MATHS}|everything|from|with|carefully)\b|[^\w\s])",
    ),
    *do(
        "go back / going back / step back",
        rf"(?= and (?:re|check|fix|correct|look|try)|[^\w\s]| to (?:(?:the|our|my|that) )?(?:\w+ )?(?:{MATHS}|start"
        rf"|beginning"
        r"|drawing board|where we|square one)\b| to step)",
    ),
    Opening("clause", "go back", rf" to (?:(?:the|our|my) )?(?:\w+ )?(?:{MATHS}|square one|where we)"),
    Opening("clause", "back to (?:square one|the drawing board|the start)"),
    *do(
        "correct / fix / undo",
        rf" (?:that|this|it|my|the (?:\w+ )?(?:mistake|error|calculation|equation"
        rf"|step))(?=\W|{END})",
    ),
    *do(
        "discard / abandon / drop / ditch / give up on",
        rf" (?:this|that|it|the (?:\w+ )?(?:approach|idea|attempt"
        rf"|guess|line))(?=[^\w\s]| (?:\w+ )?(?:approach|idea|attempt|guess|line|assumption|method|path|and)\b"
        rf"|{END})",
    ),
    Opening("speaker", "take", " (?:that|this|it) back"),
    *do(
        "throw / toss / set / put / leave", rf" (?:this|that|it|the \w+) (?:out|away|aside)(?=[^\w\s]| and\b|\s*{END})"
    ),
    Opening("clause", _SCRAP, rf" (?:that|this){_SCRAPPED}"),
    Opening("speaker", _SCRAP, rf" (?:that|this|it|the \w+){_SCRAPPED}"),
    Opening("speaker", "undo / step back and undo / retract / revert", " (?:that|this|it|the|my)"),
    Opening("clause", "never mind(?! the) / nevermind / backtracking"),
)
