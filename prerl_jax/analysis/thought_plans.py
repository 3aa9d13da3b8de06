"""The default phrases of subgoals and enumeration; see `thought_patterns.py`."""

from __future__ import annotations

from prerl_jax.analysis.marked_text import SENTENCE
from prerl_jax.analysis.openings import Opening
from prerl_jax.analysis.thought_words import CALCULATE, END, MATHS, NO_PLACE, OBJECT, WE, do

_NEED = "(?: am| are| will|'ll|'m|'re)?(?: (?:also|first|just|next|now|only|still|then))? (?:aim|have|need|trying|want)"
_THING = rf"(?:\**\s*\$?\d[\d.,]*%?(?: [a-z-]+){{0,3}}(?:[.,;!]|\s*{END}))"
_AIM = (
    "(?:bound|calculate|compute|determine|figure out|find|get|isolate|know|maximise|minimise"
    f"|rewrite|show|simplify|solve|work out){OBJECT}"
)
_GOAL = "(?:aim|goal|objective|plan|strategy)"
SUBGOAL = (
    Opening("anywhere", "step", rf" (?:\d+|one|two|three|four)(?:(?=[:.,)*\u2014])|(?= ?[-\u2013\u2014(]){END})"),
    Opening("sentence", "step", r" (?:\d+|one|two|three|four)(?! (?:and|is(?! to)|we|was|gives|shows|of|from)\b)"),
    Opening("sentence", "part", rf" (?:\d|one|two|three|i|ii|a|b)\s?:(?!{_THING})"),
    Opening(
        "sentence",
        "before (?:anything else|that) / finally / first / next / next up / second / to begin / to start",
        rf",?{WE} {CALCULATE}",
    ),
    Opening("sentence", "first things first"),
    Opening("sentence", "then", rf",? (?:we )?{CALCULATE}"),
    Opening(
        "sentence",
        "to (?:calculate|compute|determine|figure out|find|get|solve|work out)",
        rf"{OBJECT} [^,.!?{SENTENCE}]{{1,60}},(?: first,?)?{WE} {CALCULATE}",
    ),
    Opening(
        "speaker",
        "define the variables / set the goal / start by / start with",
    ),
    Opening("speaker", "first", f" (?:need|want|{CALCULATE}|(?!thing)[a-z]+ing)"),
    Opening(
        "speaker",
        "find / tackle",
        rf" [^,.!?{SENTENCE}]{{1,40}}? first(?=[^\w\s]|{END})",
    ),
    Opening(
        "sentence",
        "start",
        rf" (?:by|with) (?:the (?:\w+ )?{MATHS}\b|(?:calculat|comput|convert|count|determin|factor|find"
        "|isolat|list|not|solv|work|writ)ing)",
    ),
    Opening(
        "clause",
        "our / the",
        " (?:final|first|key|last|next|remaining|second) (?:goal|job|move|step|sub-?problem|thing)(?:"
        r" (?!is)\w+){0,2} (?:is|would be) (?:to|now)",
    ),
    Opening(
        "clause",
        "my / our / the",
        rf"(?: \w+)? {_GOAL}(?: here| now)? is (?::|now|to (?:\w+ )?(?:{CALCULATE}|maximi[sz]e"
        "|minimi[sz]e|get|work (?:backwards?|out|with)))",
    ),
    Opening("clause", "goal", rf"\s?:(?!{_THING})"),
    Opening("clause", "our / the", rf" {_GOAL}\s?:(?!{_THING})"),
    Opening(
        "clause",
        "what / what we",
        r"(?: am| are|'m|'re)? (?:after|left|need|remains|want)(?: (?:now|first|next|to \w+))? is\b",
    ),
    Opening(
        "clause",
        "the (?:problem|proof|question)",
        " (?:reduces|boils down|comes down) to",
    ),
    Opening("clause", "it (?:is enough|remains) to", f" {CALCULATE}"),
    Opening(
        "anywhere",
        "break / breaking / split",
        rf" (?:(?:down|up) (?:this|it|the (?:\w+ )?{MATHS})|(?:this|it|that|things|the"
        rf" (?:\w+ )?{MATHS})(?: \w+)? (?:down|into|up))",
    ),
    Opening(
        "anywhere",
        f"i{_NEED} / we{_NEED}",
        rf" to (?:first )?{_AIM}(?! (?:out )?(?:her|him|his|my|off|on|their|to)\b)",
    ),
    Opening("anywhere", f"i{_NEED} / we{_NEED}", rf" the{OBJECT}"),
    Opening("anywhere", "we", rf" (?:must|now|should) (?:first |now )?{_AIM}(?! (?:it|that|them|this)\b)"),
    Opening(
        "anywhere",
        "let(?: me| us|'s)",
        rf" (?:(?:also|first|next|now) )?{_AIM}(?! (?:it|that|them|this)\b)(?![^.!?{SENTENCE}]{{0,60}}"
        r" (?:differently|instead|way)\b)",
    ),
)

_NUMBER = r"(?:\(?(?:\d+|[ivx]+|[a-e])\)?|one|two|three|four)"
_CASES = "(?:cases|combinations|outcomes|possibilities|scenarios)"
_OPTIONS = f"(?:{_CASES}|divisors|factors|multiples|values|options)"
_EVERY = (
    r"(?:all|each|every)(?: (?:of|other|possible|remaining|the)){0,2} (?:\w+ )?(?:candidate|case"
    "|combination|digit|divisor|factor|integer|number|option|pair|possibilitie|possibility|prime"
    "|scenario|value)s?"
)
_VALUES = (
    r"(?:\$?[a-z]\s*=\s*-?\d|(?:a few|different|other|small|some) (?:\w+ )?(?:cases|numbers"
    "|values))"
)
_EACH = (
    "check / consider / enumerate / examine / go over / go through / handle / list / look at"
    " / run through / test / treat / try"
)
_PARITY = r"(?: is (?:even|negative|not|odd|positive|prime|zero)\b|\s?[<>\u2264\u2265]|\s?=\s?-?\d)"
ENUMERATION = (
    Opening("anywhere", "case", rf" {_NUMBER}(?=\s*[:)\u2014])(?!\s*:{_THING})"),
    Opening(
        "sentence",
        "case",
        rf" {_NUMBER},?(?! (?:costs|has|holds|of|weighs)\b)(?=\W)(?!\s*:{_THING})",
    ),
    Opening("speaker", "two", r" (?:\w+ )?(?:cases|possibilities|scenarios)(?! of\b)"),
    Opening("sentence", "in the", r" (?:first|last|other|remaining|second|third) case(?=[,:]| is\b)"),
    *do(_EACH, rf" (?:\w+ ){{0,4}}?(?:{_CASES}|case (?:where|when|that|of|for|[a-z] ?[=<>]))(?! of\b)"),
    Opening("speaker", _EACH, r" (?!(?:her|his|my|our|their)\b)[^.!?\x1c]{0,40}?(?:in turn|one at a time|one by one)"),
    *do(_EACH, rf" {_EVERY}(?! of (?:her|his|my|our|the)\b)"),
    Opening(
        "clause",
        "going through",
        rf" (?:\w+ ){{0,4}}?{_OPTIONS}",
    ),
    Opening(
        "clause",
        "there are",
        r" (?:(?:just|only) )?(?:\w+ ){1,2}?(?:cases|possibilities|scenarios)(?=\s*[:.,;]| to"
        r" (?:consider|check)\b| here\b| for (?:each|k|n|the|x)\b)",
    ),
    Opening("anywhere", "brute[- ]forc(?:e|ing) / casework / enumerate"),
    Opening("anywhere", "case[- ]by[- ]case"),
    Opening("clause", "by (?:brute force|cases)"),
    Opening(
        "speaker",
        "proceed",
        r" (?:\w+ ){0,2}?(?:(?:between|by|into) )?(?:\w+ )?cases",
    ),
    *do(
        "list / write",
        rf"(?= (?:out |down )?(?:all|both|each|every|pairs|possible|some|the|them|what)\b)(?!.{{0,20}}"
        rf" (?:in terms|as)\b){OBJECT}(?![^.!?{SENTENCE}]{{0,40}}?(?!{NO_PLACE}) )",
    ),
    Opening("sentence", "listing", " (?:out )?(?:all|each|every|the|them)"),
    Opening("clause", "try / trying", rf" {_VALUES}"),
    Opening("speaker", "test / try", rf" (?:out )?{_VALUES}"),
    Opening("sentence", "for / if / when", rf" \$?[a-z]{_PARITY}[^.!?{SENTENCE}]{{0,30}}?[,:]"),
    Opening("sentence", "first suppose / suppose (?:first|instead|next|now)"),
    Opening(
        "sentence",
        " / ".join("abcdkmnpqrstxyz"),
        r"\s?=\s?-?\d+\$?\s?(?:(?::|\u2192|->)(?!\s*&)|(?:fails|gives|works|yields)\b)",
    ),
    Opening("clause", "the", r" (?:options|possibilities|possible \w+) (?:are|to check)\b"),
)
