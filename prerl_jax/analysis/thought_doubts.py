"""The default phrases of reflection and verification; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import END, FORMULA, HERE, MATHS, NO_STORY, do

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
        r"my bad / my mistake / not so fast / hold your horses / come to think of it"
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

_CHECKED = (
    rf"(?! (?:in|out|off)\b)(?!:\s*\$\d)(?=\s*(?:[^\w\s$]|{END})|,? (?:that|this|it|if|whether|again|by|with|how"
    rf"|against"
    r"|everything|once|using|quickly|some|what|these|those|we|i|there|both (?:sides|answers|equations)"
    rf"|for (?!his|her|my|a)\w+|(?:the|my|our|your|its|each|all) (?:[\w-]+ ){{0,2}}?{MATHS}|[a-z]\s?[=<>+])\b)"
)
_CHECK = (
    "check / recheck / re-check / verify / re-verify / confirm / validate / make sure / make certain / ensure"
    " / doublecheck"
    " / double[- ](?:check|verify) / cross[- ]check / sanity[- ]check"
)
_AGAIN = r"(?:again|once more|one more time|a second time)"
VERIFICATION = (
    *do(_CHECK, _CHECKED + NO_STORY),
    Opening("speaker", _CHECK, rf" (?:{FORMULA}|(?:[\w-]+ )?{MATHS}\b)"),
    Opening("anywhere", "and (?:(?:then|now|also) )?(?:check|verify|double[- ]check)", _CHECKED),
    Opening("speaker", "see (?:if|whether) / recount"),
    Opening(
        "speaker",
        "run through / go through / count / compute / calculate / add / do",
        rf" [^,.!?{HERE}]{{0,40}}?{_AGAIN}",
    ),
    Opening(
        "speaker",
        "plug / substitute / put / insert / test / try / differentiate / expand / multiply",
        rf" [^,.!?{HERE}]{{0,40}}? (?:to|and) (?:see|check|verify|confirm|make sure)",
    ),
    *do(
        "test",
        rf" (?:this|that|it|the (?:formula|result|answer|claim)|our \w+|my \w+)(?=[^\w\s]| (?:with|on|by|for"
        rf"|against|in|out)\b|{END})",
    ),
    Opening(
        "clause",
        "to (?:(?:double|cross)[- ]?check|verify|check|confirm|make sure)",
        rf"(?! (?:his|her|their)\b){_CHECKED}",
    ),
    Opening("clause", "to be (?:safe|sure|certain),"),
    Opening(
        "clause",
        "check / quick check / final check / sanity check / numerical check / verification / verify",
        r"\s?:(?!\s*\$\d)",
    ),
    Opening(
        "clause",
        "checking / verifying / confirming / rechecking / double[- ]checking / cross[- ]checking",
        _CHECKED + NO_STORY,
    ),
    Opening(
        "clause",
        "for a (?:(?:quick|final|sanity) )?check / as a (?:(?:quick|final|sanity) )?(?:check|test)"
        " / as (?:a )?verification / for verification",
    ),
    Opening("clause", "a quick check / quick check / one last check", " (?:of|on|that|confirms|shows)"),
    Opening("anywhere", "sanity[- ]check"),
    Opening(
        "clause",
        "the / our / this",
        r" (?:answer|solution|result|identity|claim|formula) (?:is|checks out|has been"
        r"|is indeed)(?: \w+)? (?:verified|confirmed|consistent)",
    ),
    Opening(
        "anywhere",
        "plug / plugging / plugged / substitute / substituting",
        r" (?:\S+ ){0,4}?(?:back|into the original)",
    ),
    Opening("clause", "this / that / which", " (?:confirms|verifies|validates|is consistent with|agrees with|matches)"),
    Opening(
        "clause",
        "it is / it's / one / you",
        r"(?: (?:easy|straightforward|simple) to| can| may)(?: \w+)? (?:check|verify|confirm)",
    ),
    Opening(
        "clause",
        "this / that / it / which / everything / the answer / all",
        rf" (?:checks out|adds up|matches|agrees|works)(?=[^\w\s]| (?:with|to)\b|{END})",
    ),
    Opening(
        "clause",
        "does / do",
        rf" (?:this|that|it|they|the \w+|\S+) (?:check out|satisfy|agree with|match|add up|hold|work"
        rf"|fit)(?=[^.!{HERE}]{{0,60}}\?)",
    ),
    Opening(
        "clause",
        "both (?:methods|approaches|ways|answers|calculations) / the two (?:methods|answers|results)",
        " (?:agree|give|match)",
    ),
    Opening(
        "clause",
        "this / that / which / it / we",
        r" (?:also )?(?:gives?|gets?|yields?) the same (?:answer|result|value|number|thing)",
    ),
    Opening("clause", "indeed", rf",? {FORMULA}"),
)
