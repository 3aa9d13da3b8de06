"""The default phrases of subgoals and enumeration; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.marked_text import SENTENCE
from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CALCULATE, END, FORMULA, MATHS, NO_PLACE, OBJECT, WE, do

_NEED = (
    r"(?:'ll| will|'re|'m| are| am)?(?: (?:now|then|first|next|just|only|still|also))?"
    r" (?:need|have|want|would like|are trying|trying|ought|aim|intend|wish)"
)
_THING = rf"(?:\**\s*\$?\d[\d.,]*%?(?: [a-z-]+){{0,3}}(?:[.,;!]|\s*{END}))"
_AIM = (
    "(?:find|compute|calculate|determine|figure out|work out|show|prove|solve|get|establish|maximise|minimise|isolate"
    rf"|eliminate|express|simplify|rewrite|evaluate|bound|know){OBJECT}"
)
_GOAL = r"(?:sub-?goal|goal|aim|plan|strategy|objective|task)"
SUBGOAL = (
    Opening("anywhere", "step", rf" (?:\d+|one|two|three|four|five)(?:(?=[:.,)*\u2014])|(?= ?[-\u2013\u2014(]){END})"),
    Opening("sentence", "step", r" (?:\d+|one|two|three|four|five)(?! (?:and|is(?! to)|we|was|gives|shows|of|from)\b)"),
    Opening("sentence", "part / stage / phase", rf" (?:\d|one|two|three|i|ii|iii|a|b)\s?:(?!{_THING})"),
    Opening(
        "sentence",
        "first / firstly / second / secondly / third / thirdly / next / finally / first of all / next up / to begin"
        " / to start / to begin with / to start with / before (?:anything else|that|doing this)"
        " / to do (?:this|that|so)",
        rf",?{WE} {CALCULATE}",
    ),
    Opening("sentence", "first things first"),
    Opening("sentence", "then", rf",? (?:we )?{CALCULATE}"),
    Opening(
        "sentence",
        "to (?:find|compute|determine|calculate|get|solve|work out|figure out)",
        rf"{OBJECT} [^,.!?{SENTENCE}]{{1,60}},(?: first,?)?{WE} {CALCULATE}",
    ),
    Opening(
        "speaker",
        "start by / begin by / begin with / start with / set out to / aim (?:to|for) / set the goal / set up"
        " / define the variables / introduce (?:a|some|the) (?:variable|notation)",
    ),
    Opening("speaker", "first", rf" (?:need|want|{CALCULATE}|(?!thing)[a-z]+ing)"),
    Opening(
        "speaker",
        "tackle / handle / deal with / find / compute / calculate / simplify / solve / look at / do / work out / count",
        rf" [^,.!?{SENTENCE}]{{1,40}}? first(?=[^\w\s]|{END})",
    ),
    Opening(
        "sentence",
        "start / begin / starting / beginning",
        rf" (?:by|with) (?:the (?:\w+ )?{MATHS}\b|(?:find|comput|calculat|determin|solv|not|factor|isolat|writ"
        rf"|expand|sett"
        r"|list|count|work|convert)ing)",
    ),
    Opening(
        "clause",
        "the / my / our",
        r" (?:first|second|next|final|last|remaining|key|main|crucial) (?:step|thing|task|job|goal|move|sub-?problem)"
        r"(?: (?!is)\w+){0,2} (?:is|will be|would be) (?:to|now)",
    ),
    Opening(
        "clause",
        "the / our / my",
        rf"(?: \w+)? {_GOAL}(?: here| now)? is (?::|now|to (?:\w+ )?(?:{CALCULATE}|maximi[sz]e|minimi[sz]e|reach"
        rf"|get|work (?:backwards?|out|with)))",
    ),
    Opening(
        "clause", "plan / roadmap / outline / strategy / goal / subgoal / subgoals / sub-goals?", rf"\s?:(?!{_THING})"
    ),
    Opening("clause", "the / my / our", rf" {_GOAL}\s?:(?!{_THING})"),
    Opening(
        "clause",
        "what we / what i / all we / what / what's",
        r"(?:'re| are|'m| am)? (?:after|looking for|need|want|left|remains)(?: (?:now|first|next|to \w+))? is\b",
    ),
    Opening(
        "clause",
        "this / it / the (?:problem|question|task|proof) / our task / everything",
        r" (?:reduces|boils down|comes down) to",
    ),
    Opening(
        "clause", "it (?:remains|suffices|is enough) to / all that remains is to / what remains is to", f" {CALCULATE}"
    ),
    Opening(
        "anywhere",
        "break / breaking / split / splitting",
        rf" (?:(?:down|up) (?:this|it|the (?:\w+ )?{MATHS})|(?:this|it|that|things"
        rf"|the (?:\w+ )?{MATHS})(?: \w+)? (?:down|up|into))",
    ),
    Opening(
        "anywhere",
        f"we{_NEED} / i{_NEED}",
        rf" to (?:first )?{_AIM}(?! (?:out )?(?:his|her|their|my|him|to|on|off)\b)",
    ),
    Opening("anywhere", f"we{_NEED} / i{_NEED}", rf" the{OBJECT}"),
    Opening("anywhere", "we / i", rf" (?:must|should|now) (?:first |now )?{_AIM}(?! (?:it|that|them|this)\b)"),
    Opening(
        "anywhere",
        "let(?:'s| me| us)",
        rf" (?:(?:now|next|also|first) )?{_AIM}(?! (?:it|that|them|this)\b)(?![^.!?{SENTENCE}]{{0,60}} (?:instead|way|differently)\b)",
    ),
)

_NUMBER = r"(?:\(?(?:\d+|[ivx]+|[a-e])\)?|one|two|three|four|five|six)"
_CASES = r"(?:cases|possibilities|combinations|scenarios|outcomes)"
_OPTIONS = rf"(?:{_CASES}|divisors|factors|multiples|values|options|candidates|choices)"
_EVERY = (
    r"(?:every|each|all)(?: (?:the|of|possible|remaining|other)){0,2} (?:\w+ )?(?:value|option|possibility|choice"
    r"|number"
    r"|divisor|integer|pair|combination|candidate|digit|prime|factor|case|possibilitie|scenario)s?"
)
_VALUES = (
    r"(?:\$?[a-z]\s*=\s*-?\d|(?:small|a few|some|different|several|various|other|specific) (?:\w+ )?(?:values|cases"
    r"|numbers|examples))"
)
_EACH = (
    "consider / examine / check / try / list / enumerate / go through / look at / test / run through"
    " / work through / handle"
    " / treat / cover / go over / loop over / loop through / iterate over / iterate through / scan / tabulate"
)
_PARITY = r"(?: is (?:even|odd|positive|negative|zero|prime|not)\b|\s?[<>\u2264\u2265]|\s?=\s?-?\d)"
ENUMERATION = (
    Opening("anywhere", "case", rf" {_NUMBER}(?=\s*[:)\u2014])(?!\s*:{_THING})"),
    Opening(
        "sentence",
        "case",
        rf" {_NUMBER},?(?! (?:of|weighs|is labelled|holds|contains|costs|has)\b)(?=\W)(?!\s*:{_THING})",
    ),
    Opening("speaker", "two / three / four / five / several", r" (?:\w+ )?(?:cases|possibilities|scenarios)(?! of\b)"),
    Opening("sentence", "in case", rf" {_NUMBER}[,:]"),
    Opening("sentence", "the / in the", r" (?:first|second|third|other|last|remaining) case(?=[,:]| is\b)"),
    *do(_EACH, rf" (?:\w+ ){{0,4}}?(?:{_CASES}|case (?:where|when|that|of|for|[a-z] ?[=<>]))(?! of\b)"),
    *do(_EACH, r" (?!(?:my|his|her|their|our)\b)[^.!?\x1c]{0,40}?(?:one by one|in turn|one at a time|individually)"),
    *do(_EACH, rf" {_EVERY}(?! of (?:the|his|her|our|my)\b)"),
    Opening(
        "clause",
        "considering / checking / trying / listing / testing / going through / running through",
        rf" (?:\w+ ){{0,4}}?{_OPTIONS}",
    ),
    Opening(
        "clause",
        "there are",
        r" (?:(?:only|exactly|just) )?(?:\w+ ){1,2}?(?:cases|possibilities|scenarios)(?=\s*[:.,;]"
        r"| to (?:consider|check)\b"
        r"| here\b| for (?:the|x|n|k|each)\b)",
    ),
    Opening(
        "anywhere", "enumerate / enumerating / brute[- ]forc(?:e|ing) / trial and error / casework / case analysis"
    ),
    Opening("anywhere", "case[- ]by[- ]case"),
    Opening("clause", "by (?:exhaustion|brute force|enumeration|cases)"),
    Opening(
        "speaker",
        "proceed / argue / work / go / split / break / divide / distinguish",
        r" (?:\w+ ){0,2}?(?:(?:by|into|between) )?(?:\w+ )?cases",
    ),
    *do(
        "list / tabulate / write out / write down / write",
        rf"(?= (?:out |down )?(?:all|both|each|every|pairs|possible|some|them|the|these|those|what)\b)(?!.{{0,20}} (?:in terms|as)\b){OBJECT}(?![^.!?{SENTENCE}]{{0,40}}?(?!{NO_PLACE}) )",
    ),
    Opening("sentence", "listing", " (?:out )?(?:all|each|every|the|them|these)"),
    Opening("clause", "try / trying / test / testing / taking / setting", rf" {_VALUES}"),
    Opening("speaker", "try / test", rf" (?:out )?{_VALUES}"),
    Opening("sentence", "for / if / when / with", rf" \$?[a-z]{_PARITY}[^.!?{SENTENCE}]{{0,30}}?[,:]"),
    Opening("sentence", "suppose (?:first|next|now|instead) / first suppose / next suppose / assume (?:first|next)"),
    Opening(
        "sentence",
        " / ".join("abcdkmnpqrstxyz"),
        r"\s?=\s?-?\d+\$?\s?(?:(?::|\u2192|->)(?!\s*&)|(?:gives|yields|works|fails)\b)",
    ),
    Opening("clause", "the", r" (?:options|possibilities|candidates|choices|possible \w+) (?:are|to check)\b"),
)
