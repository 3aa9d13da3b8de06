"""The default phrases of transition, reflection and backtracking; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CALCULATE, END, FORMULA, HERE, MATHS, NO_STORY, do

_APPROACH = (
    r"(?:approach|method|strategy|technique|line of attack|tack|avenue|formulation|proof|perspective|argument|substitution"
    r"|view|viewpoint)"
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

_THIS = r"(?:that|this|it|my (?:\w+ )?answer|the (?:answer|result)|my reasoning)"
_SLIP = r"(?:mistake|error|slip|flaw|typo)"
REFLECTION = (
    Opening(
        "clause",
        "wait",
        r"(?! (?:for|until|till|here|there|times?|lists?|staff|in|at|on|outside|inside|by|your|his|her|their)\b)"
        r"(?! (?!a (?:minute|second|sec|moment)\b)(?:[\w-]+ ){0,3}?(?:second|minute|min|hour|day|week|month|year)s?\b)",
    ),
    Opening("clause", "hold (?:on|up|it) / hang on", rf"(?= a (?:second|sec|minute|moment|bit)\b|\s*[^\w\s]|\s*{END})"),
    Opening(
        "clause",
        "hm / hmm / hmmm / hmmmm / hmmmmm / huh / uh / um / er / erm / eh / oops / whoops / argh / ugh / yikes / whoa",
    ),
    Opening(
        "clause",
        r"my bad / my mistake / not so fast / hold your horses / oh dear / no,? no\b / come to think of it"
        r" / careful[,:!]",
    ),
    Opening(
        "clause", "not (?:so |quite |really |entirely )?sure / unsure", r"(?=[^\w\s]| (?:about|if|whether|how|why)\b)"
    ),
    Opening("speaker", "pause / stop", rf"(?=[^\w\s]|{END}| (?:here|and|for a (?:second|moment|minute))\b)"),
    Opening("clause", "is / are", rf" (?:this|that|it|they|these) (?:really|actually) [^.!?{HERE}]{{1,60}}\?"),
    Opening("clause", "strange / odd / weird / curious", "(?=[.,!:])"),
    Opening("clause", r"actually(?:,|(?= (?:i|we|no|let|that|this|it|wait)\b))", NO_STORY),
    Opening("clause", r"sorry,? (?:i (?:meant|mean)|that should|it should|no|wrong)\b"),
    Opening(
        "clause",
        "on / upon",
        rf" (?:second thoughts?|(?:closer|further) (?:inspection|reflection|look)|reflection(?=,)){NO_STORY}",
    ),
    *do(
        "rethink / re-think / reconsider / re-consider / reexamine / re-examine / reevaluate / re-evaluate / reassess"
        " / think again / look again / slow down / double back",
        NO_STORY,
    ),
    *do(
        "reread / re-read / revisit / go over",
        rf"(?= (?:it|that|this|carefully)\b|[^\w\s]| (?:the|this|that|my) (?:\w+ )?{MATHS}\b)",
    ),
    *do("take (?:another|a second|a closer) look", r"(?! at (?:his|her|their|a)\b)"),
    *do("take a step back / think (?:about (?:it|this|that) )?(?:again|more carefully|harder)"),
    Opening("speaker", "be (?:more |very )?careful"),
    Opening(
        "speaker",
        "added / counted / subtracted / included / used / multiplied / divided / squared / applied",
        rf" [^.!?{HERE}]{{1,40}}? (?:twice|incorrectly|wrongly|by mistake|too many times|the wrong way)",
    ),
    Opening(
        "speaker",
        "made / make",
        rf" (?:an?|some) (?:\w+ )?{_SLIP}s?(?! (?:in|on|with|at) (?:his|her|\d|the (?!{MATHS}\b)))",
    ),
    Opening(
        "speaker",
        "misread / misunderstood / misinterpreted / misapplied / misremembered / mistook / miswrote / mixed up"
        " / keep mixing"
        " / confused / confusing",
        rf"(?= (?:the|that|this|my) (?:\w+ )?{MATHS}\b|[^\w\s]| (?:it|as|up|sine|x|a and)\b|{END})",
    ),
    Opening(
        "speaker",
        "overlook / overlooked / miscounted / miscalculated / double[- ]count(?:ed)? / overcount(?:ed)?"
        " / undercount(?:ed)?"
        " / swapped / messed up / botched / slipped / got (?:that|it|this) (?:wrong|backwards)",
        rf"(?! (?:his|her|the (?!(?:\w+ )?{MATHS}\b)))",
    ),
    Opening("speaker", "used / wrote / took / applied / copied", rf" the wrong (?:\w+ )?{MATHS}"),
    Opening(
        "speaker",
        "think / suspect / believe / fear",
        rf" (?:there's|there is|there may be|there might be) an? (?:\w+ )?{_SLIP}",
    ),
    Opening(
        "speaker",
        "drop / dropped / lost / missed / skipped",
        r" (?:an?|the|one) (?:\w+ )?(?:sign|minus|factor|term|digit|zero|carry|case|step|condition|constraint|negative"
        r"|possibility|root|solution)s?",
    ),
    Opening(
        "speaker",
        "forgot / forgotten / neglected",
        rf" (?:about |to (?:\w+ )?)?(?:carry|account|halve|the (?:\w+ )?{MATHS}|(?:add|include|count|divide"
        rf"|multiply|subtract"
        r"|convert|square|take|apply|use|distribute|flip|check|consider)(?= (?:by|back|(?:the|that|this|a|an|both"
        r"|all|one|in)"
        rf" (?:\w+ )?{MATHS}|it)\b| {FORMULA}|[^\w\s]))",
    ),
    Opening(
        "clause",
        "is / was / isn't",
        rf" {_THIS}(?: \w+)? (?:right|correct|true|possible|consistent|okay|plausible|enough|valid)"
        rf"(?! (?:to|angle|triangle|of|for) )(?=[^.!?{HERE}]{{0,40}}\?)",
    ),
    Opening(
        "clause", "is / are", rf" (?:\S+ ){{1,3}}?(?:allowed|counted|guaranteed|included)\b(?=[^.!?{HERE}]{{0,40}}\?)"
    ),
    Opening("clause", "should / shouldn't", rf" (?:it|that|this|the (?:\w+ )?{MATHS}) be(?=[^.!?{HERE}]{{0,60}}\?)"),
    Opening("clause", "where", r" did (?:i|we|it|this) go wrong"),
    Opening(
        "clause",
        "does / do / did / am / are / have",
        rf" (?:{_THIS}|i|we) (?:\w+ )?(?:make sense|miss(?:ed|ing)?|sure|certain|forget|forgot|forgotten|forgetting"
        rf"|right"
        r"|over-?count\w*|double-?count\w*|overlook\w*|consider|considered|sound right|look right|misread|use|apply"
        r"|account"
        rf"|include|handle|assume|divide|subtract|add|multiply|actually)(?=[^.!?{HERE}]{{0,80}}\?)",
    ),
    Opening(
        "clause",
        "something",
        r"(?:'s|'s gone| is| seems| looks| must be| feels| has gone| went| doesn't| isn't) (?:off|wrong|amiss|fishy"
        rf"|not right|add(?:ing)? up|right|odd)(?! with (?:his|her|the (?!{MATHS}\b)))",
    ),
    Opening(
        "clause",
        "that / this / it / which / the / my",
        r"(?: (?:answer|result))?(?:'s| is| seems| looks| feels| sounds) (?:\w+ )?(?:too (?:big|large|small|high"
        r"|low|easy|good"
        r"|simple)|strange|weird|off|suspicious|fishy)(?=[.?!,;:]| (?:though|to me|because|since|given)\b|\s*"
        rf"{END})",
    ),
    Opening("clause", "that", r"(?:'s| seems| looks) (?:\w+ )?odd(?=[.,:!])"),
    Opening("clause", "my", r" (?:sum|total|count) (?:is|was|seems|must be) (?:off|wrong)"),
    Opening("clause", "that / this / which", " contradicts (?:what|my|our|the (?:earlier|previous|first))"),
    Opening(
        "anywhere",
        "i(?:'m| am)",
        r" (?:(?:not|so|really|quite|entirely|getting|probably|still|a bit|a little|slightly) ){0,2}(?:sure"
        r"|convinced|certain|unsure|confused|doubtful"
        r"|overcomplicating|overthinking)(?! (?:which|that he|that she))",
    ),
    Opening(
        "clause", "there's / there (?:is|must be) / i see / i found / i spot", rf" (?:an?|the|my) (?:\w+ )?{_SLIP}"
    ),
    Opening("anywhere", "i was (?:wrong|mistaken) / i doubt"),
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
        "isn't / is not / not / leads / goes / gets / going",
        r" (?:(?:us|getting|going|us getting|leading) ){0,2}(?:nowhere|anywhere|in circles)(?=[^\w\s]|\s*\x1c|$)",
    ),
    Opening("sentence", "no good / no luck / no dice / nope / wrong / incorrect / dead end", "(?=[.,!:\u2014])"),
    Opening("speaker", "hit / reached", " an? (?:\w+ )?(?:wall|dead end|snag|roadblock|impasse)"),
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
