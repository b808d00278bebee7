"""Write English out in words: dates, times, telephone numbers, money, signs and short forms."""

# ruff: noqa: RUF001 (characters that look alike are intended)

from __future__ import annotations

import re
import unicodedata

#: Words that begin sentences: after a short form, they show that its period ended the sentence.
_STARTER = (
    "(?:The|This|That|These|Those|There|Then|They|He|She|It|We|You|I|My|His|Her|Our|Your|Their|Its|An?|And|But|So|Or|"
    "If|When|While|What|Who|Why|Where|How|In|On|At|After|Before|As|For|From|With|To|Now|Yes|Here|Once|Some|However|"
    r"Although|Because|Since|Until|Is|Are|Was|Were|Did|Does|Has|Have|Can|Could|Would|Should|Let|Please)\b"
)
#: Names of saints: "St." before one of them is "saint", also after another name (East St. Louis).
_SAINT = (
    "(?:Albans?|Andrews?|Anne|Anthony|Augustine|Bernard|Catherines?|Charles|Clair|Cloud|Croix|Francis|George|Germain|"
    "Helena|Helens|Ives|James|Johns?|Joseph|Jude|Kitts|Lawrence|Louis|Lucia|Lucie|Luke|Mark|Martin|Mary|Matthew|"
    r"Michael|Moritz|Nicholas|Nick|Pancras|Patrick|Pauls?|Peters?|Petersburg|Stephens?|Thomas|Tropez|Vincent)\b"
)
#: The name of a street: a capitalized word that begins no sentence, or a number.
_NAME = rf"(?!{_STARTER})(?:[A-Z][\w'-]*|\d+\w{{0,2}})"
_MONTHS = ["January", "February", "March", "April", "May", "June"]
_MONTHS += ["July", "August", "September", "October", "November", "December"]

#: Patterns of short forms whose period never ends a sentence, and the words to read.
_SHORT_FORMS = {
    r"[Mm]r\.": "mister",
    r"[Mm]rs\.": "missus",
    r"[Mm]s\.": "miz",
    r"[Dd]r\.": "doctor",
    r"[Pp]rof\.": "professor",
    r"[Rr]ev\.": "reverend",
    r"[Gg]en\.": "general",
    r"[Cc]apt\.": "captain",
    r"[Ll]t\.": "lieutenant",
    r"[Ss]gt\.": "sergeant",
    r"[Gg]ov\.": "governor",
    r"[Mm]t\.(?= [A-Z])": "mount",
    r"[Nn]o\.(?= ?\d)": "number",
    r"[Vv]s\.": "versus",
    r"[Ee]\.g\.": "for example",
    r"[Ii]\.e\.": "that is",
    r"[Aa]pprox\.": "approximately",
    **{rf"{month[:3]}t?\.(?= \d)": month for month in _MONTHS},
}
#: Short forms whose period also ends the sentence at the end of the text or before a word that begins a sentence.
_FINAL_FORMS = {
    r"[Ss]t\.": "street",
    r"[Jj]r\.": "junior",
    r"[Ss]r\.": "senior",
    r"[Ii]nc\.": "incorporated",
    r"[Ll]td\.": "limited",
    r"[Cc]orp\.": "corporation",
    r"Co\.": "company",
    r"[Aa]ve\.": "avenue",
    r"[Bb]lvd\.": "boulevard",
    r"[Rr]d\.": "road",
    r"[Ee]tc\.": "et cetera",
    r"Ph\.D\.": "P H D",
    r"M\.Sc\.": "M S C",
    r"B\.Sc\.": "B S C",
}
#: These, and in any language initials (J. Smith; but not I, which is a word) and letters with periods (U.S., a.m.,
#: z.B.).
_MAY_END = "|".join([*_FINAL_FORMS, r"[A-HJ-Z]\.", r"(?:[^\W\d_]\.){2,}"])
_NEXT = rf"[^\w\s]*\s+{_STARTER}"
#: Text whose periods end no sentence.
ABBREVIATED = (
    rf"{_NAME} Dr(?=\.{_NEXT})|{'|'.join(_SHORT_FORMS)}|(?:{'|'.join(_FINAL_FORMS)})(?!{_NEXT})|"
    rf"[A-HJ-Z]\.(?=\s+\w)(?!{_NEXT})|(?:[^\W\d_]\.){{2,}}(?=\W*\w)(?!{_NEXT})"
)

# ---- numbers ---------------------------------------------------------------------------------------------------------

_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d[\d ().-]{6,18}\d|(?:1[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-. ]\d{4}|\d{3}-\d{4})(?![\w-])"
)
_ISO_DATE = re.compile(r"(?<![\d-])(?P<year>\d{4})-(?P<one>\d\d)-(?P<two>\d\d)(?![\d-])")
_DATE = re.compile(
    r"(?<![\d/.])(?P<one>\d{1,2})(?:/(?P<two>\d{1,2})/(?P<year>\d{4}|\d\d)|\.(?P<month>\d{1,2})\.(?P<full>\d{4}))(?![\d/])"
)
_BY_THREE = {month[:3]: month for month in _MONTHS}
_DAY = re.compile(rf"\b({'|'.join(_MONTHS)}|(?:{'|'.join(_BY_THREE)})t?\.) (\d{{1,2}})(?![\w:]|[.,:/]\d)")
_TIME = re.compile(r"(?<![\d:.,/])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])(?= ?([AaPp]\.?[Mm]\b)?)")
_YEAR = re.compile(r"(?<![\d.,/:$£€¥+])(1(?:0[1-9]|[1-9]\d)|20[1-9])(\d)(?![\d%]|[.,:/]\d)")


def spell_out_dates(text: str, day_first: bool) -> str:
    """Replace telephone numbers, dates, times and years by words and short numbers.

    Call it before digit groups are joined. day_first: 5/1/2024 is January 5th.
    """
    text = _PHONE.sub(_phone, text)
    text = _ISO_DATE.sub(lambda m: _date(m[0], m["two"], m["one"], m["year"]), text)

    def written(found: re.Match[str]) -> str:
        if found["month"]:  # dates with periods have the day first
            return _date(found[0], found["one"], found["month"], found["full"])
        day, month = (found["one"], found["two"]) if day_first else (found["two"], found["one"])
        return _date(found[0], *((month, day) if int(month) > 12 else (day, month)), found["year"])

    text = _DATE.sub(written, text)
    text = _DAY.sub(lambda m: f"{_BY_THREE[m[1][:3]]} {_ordinal(int(m[2]))}", text)
    text = _TIME.sub(_time, text)
    return _YEAR.sub(_year, text)


def _phone(found: re.Match[str]) -> str:
    groups = ", ".join(" ".join(digits) for digits in re.findall(r"\d+", found[0]))
    return f"plus {groups}" if found[0].startswith("+") else groups


def _date(written: str, day: str, month: str, year: str) -> str:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return written
    return f"{_MONTHS[int(month) - 1]} {_ordinal(int(day))} {year}"


def _ordinal(number: int) -> str:
    last = 0 if number // 10 == 1 else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def _time(found: re.Match[str]) -> str:
    hour, minute, second, half = found.groups()
    hour = str(int(hour))
    if minute != "00" or second:
        words = f"{hour} oh {int(minute)}" if minute[0] == "0" else f"{hour} {minute}"
        return f"{words} and {int(second)} seconds" if second else words
    return hour if half else f"{hour} o'clock" if 1 <= int(hour) <= 12 else f"{hour} hundred"


def _year(found: re.Match[str]) -> str:
    """Read 1984 as 19 84. Counts in that range are read the same way."""
    first, rest = found[1][:2], found[1][2:] + found[2]
    return f"{first} hundred" if rest == "00" else f"{first} oh {rest[1]}" if rest[0] == "0" else f"{first} {rest}"


# ---- words -----------------------------------------------------------------------------------------------------------

_PARTS = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_FRACTION = re.compile(r"(?:(?<!\d)(\d{1,9}) {1,2})?(?<![\d/.,⁄])([1-9])[/⁄]([2-9]|10)(?![\d/⁄])")
_POWER = re.compile("([^\\W⁰¹²³⁴-⁹]{0,3}|\\)) ?(⁻?[⁰¹²³⁴-⁹]+)")
_SIGNS = {
    "±": "plus or minus",
    "×": "times",
    "÷": "divided by",
    "≥": "greater than or equal to",
    "≤": "less than or equal to",
    "≠": "not equal to",
    "≈": "approximately",
    "√": "square root of",
    "∞": "infinity",
    "<": "less than",
    ">": "greater than",
    "+": "plus",
    "=": "equals",
    "%": "percent",
    "&": "and",
    "/": "",
}
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_THOUSANDS = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion"}
_AMOUNT = re.compile(
    r"(?<![\d.,])(\d+)(?:([.,])(\d+))?(?: ?(hundred|thousand|[mb]illion|trillion|[KkMmBbTt]n?)\b)? ?([$£€¥₹])"
)


def spell_out(text: str) -> str:
    """Replace money, fractions, powers, signs and short forms by words. A short form at the end of a sentence keeps a
    period that ends the sentence."""
    text = re.sub(rf"(?<![\w.])({_NAME} Dr\.|{_MAY_END})(?=\s+{_STARTER})", r"\1.", text)
    text = re.sub(r"\.(\W*)$", r"..\1", text)
    text = _AMOUNT.sub(_money, text)
    text = re.sub("[$£€¥₹]", lambda m: f" {_MONEY[m[0]][1]} ", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
    text = _FRACTION.sub(_fraction, text)
    text = _POWER.sub(_power, text)
    text = re.sub(r"(?<=\d) ?([AaPp])(?:[Mm]\b|\.[Mm]\.)", lambda m: f" {m[1].lower()}.m.", text)
    text = re.sub(r"# ?(?=\d)", "number ", text)
    text = re.sub(r"(?<=\b[A-G])#", " sharp", text)
    text = re.sub(r"\b[A-Z]{1,2}&[A-Z]{1,2}\b", lambda m: _letters(m[0]), text)
    text = re.sub(r"(?<![\w)])-(?=\d)", "minus ", text)
    text = re.sub("|".join(map(re.escape, _SIGNS)), lambda m: f" {_SIGNS[m[0]]} ", text)
    text = re.sub(rf"(?<![\w.])[Ss]t\.(?= {_SAINT})", "saint", text)
    text = re.sub(rf"(?<![\w.])({_NAME}) [Ss]t\.", r"\1 street", text)
    text = re.sub(r"(?<![\w.])[Ss]t\.(?= [A-Z])", "saint", text)
    text = re.sub(rf"(?<![\w.])({_NAME}) Dr\.(?! [A-Z])", r"\1 drive", text)
    for form, words in {**_SHORT_FORMS, **_FINAL_FORMS}.items():
        text = re.sub(rf"(?<![\w.]){form}", words, text)
    return " ".join(text.split())


def _money(found: re.Match[str]) -> str:
    whole, point, rest, scale, sign = found.groups()
    one, many, cent, cents = _MONEY[sign]
    if scale:
        scale = _THOUSANDS.get(scale.lower(), scale)
    elif rest and len(rest) == 2 and cent:
        small = f"{int(rest)} {cent if int(rest) == 1 else cents}"
        large = f"{whole} {one if whole == '1' else many}"
        return f" {small} " if not int(whole) else f" {large} " if not int(rest) else f" {large} and {small} "
    number = f"{whole}{point}{rest}" if rest else whole
    return f" {number} {scale} {many} " if scale else f" {number} {one if number == '1' else many} "


def _fraction(found: re.Match[str]) -> str:
    whole, over, under = found.groups()
    if int(over) >= int(under):
        return found[0].replace("⁄", " over ")
    part = _PARTS[int(under) - 2] + ("s" if over != "1" else "")
    if not whole:
        return f"{'one' if over == '1' else over} {part}"
    return f"{whole} and {'a' if over == '1' else over} {part}"


def _power(found: re.Match[str]) -> str:
    """Read the power of a number or a unit (10², km²); after a longer word it is a footnote's number and is dropped."""
    base, power = found[1], unicodedata.normalize("NFKC", found[2]).replace("−", "minus ")
    if not base.isdigit() and base != ")" and len(base) > 2:
        return base
    return f"{base} " + {"2": "squared", "3": "cubed"}.get(power, f"to the power of {power}")


def _letters(written: str) -> str:
    """Write R&D as R and D, AT&T as A.T. and T: without periods, espeak-ng reads AT as a word and a single A as
    the article."""
    return " and ".join(name if len(name) == 1 else "".join(f"{c}." for c in name) for name in written.split("&"))
