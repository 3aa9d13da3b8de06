"""The default phrases of reflection and verification; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.marked_text import SENTENCE
from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CONTENT, END, FORMULA, MATHS, NO_PLACE, NO_STORY, OBJECT, do

_THIS = r"(?:that|this|it|my (?:\w+ )?answer|the (?:answer|result))"
_SLIP = "(?:error|mistake|slip)"
REFLECTION = (
    Opening("speaker", "took / used", rf" the wrong (?:\w+ )?{MATHS}"),
    Opening(
        "clause",
        "wait",
        r"(?! (?:at|by|for|her|here|his|in|lists?|on|staff|their|there|times?|until|your)\b)(?! (?!a"
        r" (?:minute|moment|sec|second)\b)(?:[\w-]+ ){0,3}?(?:day|hour|min|minute|month|second|week"
        r"|year)s?\b)",
    ),
    Opening("clause", "hang on / hold (?:it|on|up)", rf"(?= a (?:bit|minute|moment|sec|second)\b|\s*[^\w\s]|\s*{END})"),
    Opening(
        "clause",
        "hm / hmm / hmmm / huh / oops / uh / whoa",
    ),
    Opening(
        "clause",
        "hold your horses / my mistake",
    ),
    Opening("clause", "not (?:really |so )?sure", r"(?=[^\w\s]| (?:about|how|if|whether)\b)"),
    Opening("speaker", "pause", rf"(?=[^\w\s]|{END}| (?:and|here)\b)"),
    Opening("clause", "is", rf" (?:it|that|they|this) (?:really|actually) [^.!?{SENTENCE}]{{1,60}}\?"),
    Opening("clause", "one (?:minute|moment|sec|second)", r"(?=[,.!:\u2014])"),
    Opening("clause", "did (?:i|we)", rf" [a-z]+{OBJECT}[^.!?{SENTENCE}]{{1,60}}\?"),
    Opening("sentence", "odd", "(?=[.!:])"),
    Opening("clause", r"actually(?:,|(?= (?:i|it|let|no|that|this|wait|we)\b))", NO_STORY),
    Opening("clause", r"sorry,? (?:i (?:meant|mean)|no|wrong)\b"),
    Opening(
        "clause",
        "on",
        f" (?:second thoughts?|(?:closer|further) (?:inspection|look|reflection)|reflection(?=,)){NO_STORY}",
    ),
    *do(
        "double back / reconsider / rethink / think again",
        NO_STORY,
    ),
    Opening(
        "speaker",
        "reread",
        rf"(?= (?:carefully|it|that|this)\b|[^\w\s]| (?:my|that|the|this) (?:\w+ )?{MATHS}\b)",
    ),
    Opening("speaker", "take (?:a second|another) look", r"(?! at (?:a|her|his|their)\b)"),
    Opening("speaker", "think (?:about (?:it|that|this) )?(?:again|harder|more carefully)"),
    Opening("speaker", "be (?:more |very )?careful"),
    Opening(
        "speaker",
        "added",
        f"{OBJECT} [^.!?{SENTENCE}]{{1,40}}? (?:twice)",
    ),
    Opening(
        "speaker",
        "made / make",
        rf" (?:an?|some) (?:\w+ )?{_SLIP}s?(?! (?:at|in|on|with) (?:his|her|\d|the (?!{MATHS}\b)))",
    ),
    Opening(
        "speaker",
        "keep mixing / misinterpreted / misread / mixed up",
        rf"(?= (?:my|that|the|this) (?:\w+ )?{MATHS}\b|[^\w\s]| (?:as|it|sine|up|x)\b|{END})",
    ),
    Opening(
        "speaker",
        "overlooked",
        rf"(?! (?:his|her|the (?!(?:\w+ )?{MATHS}\b)))",
    ),
    Opening(
        "speaker",
        "think",
        rf" (?:there is|there may be|there's) an? (?:\w+ )?{_SLIP}",
    ),
    Opening(
        "speaker",
        "dropped",
        r" (?:an?|one|the) (?:\w+ )?(?:carry|case|condition|constraint|digit|factor|minus|negative"
        f"|possibility|root|sign|solution|step|term|zero)s?{NO_PLACE}",
    ),
    Opening(
        "speaker",
        "forgot",
        rf" (?:about |to (?:\w+ )?)?(?:carry|account|the (?:\w+ )?{MATHS}|(?:add|check|consider|convert"
        "|count|divide|flip|include|multiply|square|subtract|take|use)(?= (?:by|back|(?:a|all|an|both"
        rf"|in|one|that|the|this) (?:\w+ )?{MATHS}|it)\b| {FORMULA}|[^\w\s]))",
    ),
    Opening(
        "clause",
        "is",
        rf" {_THIS}(?: \w+)? (?:consistent|correct|enough|okay|possible|right|true|valid)(?! (?:angle"
        rf"|for|of|to|triangle) )(?=[^.!?{SENTENCE}]{{0,40}}\?)",
    ),
    Opening(
        "clause",
        "is",
        rf" (?:\S+ ){{1,3}}?(?:allowed|counted|included)\b(?=[^.!?{SENTENCE}]{{0,40}}\?)",
    ),
    Opening("clause", "should", rf" (?:it|that|this|the (?:\w+ )?{MATHS}) be(?=[^.!?{SENTENCE}]{{0,60}}\?)"),
    Opening("clause", "where", " did (?:i|it|this|we) go wrong"),
    Opening(
        "clause",
        "am / are / did / does",
        rf" (?:{_THIS}|i|we) (?:\w+ )?(?:make sense|miss(?:ed|ing)?|sure|forget|forgot|forgotten"
        r"|forgetting|right|over-?count\w*|double-?count\w*|overlook\w*|consider|misread|use|account"
        rf"|include|handle|divide|subtract|add|multiply|actually)(?=[^.!?{SENTENCE}]{{0,80}}\?)",
    ),
    Opening(
        "clause",
        "something",
        "(?: doesn't| is| isn't| looks| must be| seems| went|'s) (?:add(?:ing)? up|not right|odd|off"
        rf"|right|wrong)(?! with (?:his|her|the (?!{MATHS}\b)))",
    ),
    Opening(
        "clause",
        "that",
        r"(?: (?:answer|result))?(?: is| looks| seems|'s) (?:\w+ )?(?:too (?:easy|good|high|large|low"
        rf"|simple|small)|strange|off)(?=[.?!,;:]| (?:because|given|since|though|to me)\b|\s*{END})",
    ),
    Opening("clause", "my", " (?:count|sum|total) (?:is|must be|seems|was) (?:off|wrong)"),
    Opening("clause", "that", " contradicts (?:what|my|our|the (?:first|previous))"),
    Opening(
        "anywhere",
        "i(?:'m| am)",
        " (?:(?:a bit|getting|not|really|so|still) ){0,2}(?:confused|overcomplicating|sure)(?! (?:which))",
    ),
    Opening("clause", "i see", rf" (?:an?|my|the) (?:\w+ )?{_SLIP}"),
    Opening("anywhere", "i doubt"),
)

_CHECKED = (
    rf"(?! (?:in|off|out)\b)(?!:\s*\$\d)(?=\s*(?:[^\w\s$]|{END})|,? (?:(?:this|it|again|how|against"
    "|everything|once|using|some|we|i|there|both (?:equations|sides)|(?:all|each|my|our|the|your)"
    rf" (?:[\w-]+ ){{0,2}}?{MATHS}\b{NO_PLACE}|[a-z]\s?[=<>+])\b|that(?=[^\w\s]|{END})|(?:by|for|if"
    rf"|that|what|whether|with)\b(?! (?:her|his|my)\b){CONTENT}))"
)
_CHECK = "check / confirm / double[- ](?:check|verify) / make sure / recheck / sanity[- ]check / validate / verify"
_AGAIN = "(?:again|once more)"
VERIFICATION = (
    Opening("clause", "both (?:methods|ways) / the two (?:methods|answers)", " (?:agree|give|match)"),
    *do(_CHECK, _CHECKED + NO_STORY),
    Opening("speaker", _CHECK, rf" (?:{FORMULA}|(?:[\w-]+ )?{MATHS}\b)"),
    Opening("anywhere", "and (?:(?:also|now|then) )?(?:check|verify|double[- ]check)", _CHECKED),
    Opening("speaker", "see (?:if|whether)"),
    Opening(
        "speaker",
        "run through",
        f"(?: |{OBJECT}[^,.!?{SENTENCE}]{{0,40}}?){_AGAIN}",
    ),
    Opening(
        "speaker",
        "plug / test",
        f" [^,.!?{SENTENCE}]{{0,40}}? (?:to|and) (?:check|confirm|make sure|see|verify)",
    ),
    Opening(
        "speaker",
        "test",
        r" (?:this|that|it|the (?:answer|claim|formula|result)|our \w+|my \w+)(?=[^\w\s]| (?:against"
        rf"|by|for|in|on|out|with)\b|{END})",
    ),
    Opening(
        "clause",
        "to (?:(?:double|cross)[- ]?check|verify|check|confirm|make sure)",
        rf"(?! (?:her|his|their)\b){_CHECKED}",
    ),
    Opening("clause", "to be (?:safe|sure),"),
    Opening(
        "clause",
        "check / quick check / sanity check / verification",
        r"\s?:(?!\s*\$\d)",
    ),
    Opening(
        "clause",
        "checking / double[- ]checking",
        _CHECKED + NO_STORY,
    ),
    Opening(
        "clause",
        "as a (?:(?:final|quick|sanity) )?(?:check|test) / for a (?:(?:final|quick|sanity) )?check",
    ),
    Opening("clause", "a quick check", " (?:confirms|of|on|shows|that)"),
    Opening("anywhere", "sanity[- ]check"),
    Opening(
        "clause",
        "the",
        r" (?:answer|claim|formula|result|solution) (?:checks out|is)(?: \w+)? (?:confirmed|consistent"
        "|verified)",
    ),
    Opening(
        "anywhere",
        "plug / plugging / substitute / substituting",
        r" (?:\S+ ){0,4}?(?:back|into the original)",
    ),
    Opening(
        "clause",
        "this / which",
        f" (?:agrees with|confirms|matches|verifies){OBJECT}",
    ),
    Opening(
        "clause",
        "it is",
        r"(?: (?:easy|simple) to| can| may)(?: \w+)? (?:check|confirm|verify)",
    ),
    Opening(
        "clause",
        "it / this / which",
        rf" (?:agrees|checks out|matches|works)(?:(?=[^\w\s]|{END})| (?:for|to|with){OBJECT})",
    ),
    Opening(
        "clause",
        "does",
        r" (?:this|that|it|they|the \w+|\S+) (?:add up|check out|hold|match|satisfy|work)"
        rf"(?=[^.!{SENTENCE}]{{0,60}}\?)",
    ),
    Opening(
        "clause",
        "this",
        " (?:also )?(?:gets?|gives?|yields?) the same (?:answer|number|result|thing|value)",
    ),
    Opening("clause", "indeed", rf",? {FORMULA}"),
)
