"""A language small enough to be learned in minutes, whose every text can be checked.

    python -m seqgen_text.corpus -o tales.txt --count 60000 --seed 0

A document is one tale of a sentence or three: sums, days, comparisons, counting, sorting, spelling,
repeating, and plain sentences with agreement. `is_true` says whether a text is one of them and
right: an exact measure of what a model has learned, beside bits per character. Of most tales the
end follows from the beginning (`Tale.given`).

All of it is made by rules from the lists below; the texts are ours (Apache-2.0).
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHE, HE = ("anna", "emma", "lucy", "mary", "rosa"), ("ben", "carl", "jack", "paul", "tom")
THINGS = ("apple", "book", "coin", "egg", "hat", "key", "nut", "pear", "pen", "plum")
ANIMALS = ("bear", "bird", "cat", "cow", "dog", "duck", "frog", "goat", "horse", "pig")
LOOKS = ("big", "black", "brown", "old", "quick", "red", "small", "white", "young")
VERBS = ("chase", "follow", "hear", "like", "meet", "see")
NUMBERS = ("two", "three", "four", "five", "six")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = {
    "january": 31, "february": 28, "march": 31, "april": 30, "may": 31, "june": 30,
    "july": 31, "august": 31, "september": 30, "october": 31, "november": 30, "december": 31,
}  # fmt: skip
COMPARISONS = ("older", "taller", "faster", "richer")
MORE, FEWER = ("buys", "finds", "gets"), ("loses", "sells", "gives away")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Tale:
    """A true text.

    Attributes:
        given: characters from which the rest follows; 0 where nothing follows.
    """

    text: str
    given: int = 0


def tales(seed: int, count: int) -> Iterator[Tale]:
    """Tales drawn at random: a function of its arguments."""
    chance = random.Random(seed)
    kinds = list(_KINDS.values())
    for _ in range(count):
        yield chance.choice(kinds).draw(chance)


def is_true(text: str) -> bool:
    """Whether the text is a tale, whole and right."""
    for kind in _KINDS.values():
        found = re.fullmatch(kind.pattern, text)
        if found and kind.holds(*found.groups()):
            return True
    return False


@dataclass(frozen=True)
class _Kind:
    """How tales of a kind are drawn, what they look like, and when they hold."""

    draw: Callable[[random.Random], Tale]
    pattern: str
    holds: Callable[..., bool]


def _draw_sum(chance: random.Random) -> Tale:
    who = chance.choice(SHE + HE)
    thing = chance.choice(THINGS)
    first, change = chance.randint(2, 60), chance.randint(1, 39)
    more = chance.random() < 0.5 or change > first - 2
    verb = chance.choice(MORE if more else FEWER)
    last = first + change if more else first - change
    pronoun = "she" if who in SHE else "he"
    start = f"{who} has {first} {thing}s. {pronoun} {verb} {change}{' more' * more}."
    return Tale(f"{start} now {who} has {last} {thing}s.", len(start) + len(" now"))


def _sum_holds(*parts: str) -> bool:
    who, first, thing, pronoun, verb, change, more, again, last, same = parts
    sign = 1 if more else -1
    return (
        (who in SHE) == (pronoun == "she")
        and (verb in MORE) == bool(more)
        and (again, same) == (who, thing)
        and int(last) == int(first) + sign * int(change) >= 2
    )


def _draw_day(chance: random.Random) -> Tale:
    day, month = chance.choice(DAYS), chance.choice(list(MONTHS))
    date = chance.randint(1, MONTHS[month])
    start = f"today is {day}, {date} {month}. tomorrow"
    return Tale(f"{start} is {_tomorrow(day, date, month)}.", len(start))


def _tomorrow(day: str, date: int, month: str) -> str:
    names = list(MONTHS)
    if date == MONTHS[month]:
        date, month = 0, names[(names.index(month) + 1) % 12]
    return f"{DAYS[(DAYS.index(day) + 1) % 7]}, {date + 1} {month}"


def _day_holds(day: str, date: str, month: str, tomorrow: str) -> bool:
    return 1 <= int(date) <= MONTHS[month] and tomorrow == _tomorrow(day, int(date), month)


def _draw_comparison(chance: random.Random) -> Tale:
    a, b, c = chance.sample(SHE + HE, 3)
    how = chance.choice(COMPARISONS)
    start = f"{a} is {how} than {b}. {b} is {how} than {c}. so"
    return Tale(f"{start} {a} is {how} than {c}.", len(start))


def _comparison_holds(*parts: str) -> bool:
    a, how, b, b_again, how_again, c, a_again, how_last, c_again = parts
    return (
        len({a, b, c}) == 3
        and (a, b, c) == (a_again, b_again, c_again)
        and how == how_again == how_last
    )


def _draw_count(chance: random.Random) -> Tale:
    first, length = chance.randint(1, 90), chance.randint(3, 6)
    start = f"count from {first} to {first + length - 1}:"
    return Tale(f"{start} {_counted(first, length)}.", len(start))


def _counted(first: int, length: int) -> str:
    return ", ".join(str(first + i) for i in range(length))


def _count_holds(first: str, last: str, counted: str) -> bool:
    length = int(last) - int(first) + 1
    return length >= 3 and counted == _counted(int(first), length)


def _draw_sorted(chance: random.Random) -> Tale:
    digits = chance.sample(range(1, 10), chance.randint(3, 5))
    start = f"sort {_listed(digits)}:"
    return Tale(f"{start} {_listed(sorted(digits))}.", len(start))


def _listed(digits: list[int]) -> str:
    return " ".join(map(str, digits))


def _sorted_holds(given: str, result: str) -> bool:
    return result.split() == sorted(given.split()) and len(set(given.split())) >= 3


def _draw_spelled(chance: random.Random) -> Tale:
    word = chance.choice(ANIMALS + THINGS + DAYS + tuple(MONTHS))
    start = f"the word {word} is spelled"
    return Tale(f"{start} {'-'.join(word)}.", len(start))


def _spelled_holds(word: str, spelled: str) -> bool:
    return word in ANIMALS + THINGS + DAYS + tuple(MONTHS) and spelled == "-".join(word)


def _draw_repeated(chance: random.Random) -> Tale:
    code = "".join(chance.choices(LETTERS, k=chance.randint(3, 6)))
    start = f"the code is {code}. say it again:"
    return Tale(f"{start} {code}.", len(start))


def _draw_sentence(chance: random.Random) -> Tale:
    subject, plural = _draw_noun(chance)
    verb = chance.choice(VERBS)
    rest = _draw_noun(chance)[0]
    return Tale(f"{subject} {verb if plural else verb + 's'} {rest}.")


def _draw_noun(chance: random.Random) -> tuple[str, bool]:
    """A noun phrase, and whether it is plural."""
    plural = chance.random() < 0.5
    words = [chance.choice(("the", chance.choice(NUMBERS) if plural else "a"))]
    look = chance.choice((*LOOKS, "", "", ""))
    if words == ["a"] and look[:1] == "o":  # an old dog
        words = ["an"]
    words += [look] * bool(look) + [chance.choice(ANIMALS) + "s" * plural]
    return " ".join(words), plural


def _sentence_holds(*parts: str) -> bool:
    article, look, s, verb_s, article_2, look_2, s_2 = parts
    return (
        _noun_holds(article, look, s)
        and _noun_holds(article_2, look_2, s_2)
        and bool(s) != bool(verb_s)
    )


def _noun_holds(article: str, look: str | None, s: str) -> bool:
    vowel = bool(look) and str(look).startswith("o")
    if article in ("a", "an"):
        return not s and (article == "an") == vowel
    return article == "the" or bool(s)


def _one_of(words: tuple[str, ...]) -> str:
    return f"({'|'.join(words)})"


_WHO, _THING, _NUMBER = _one_of(SHE + HE), _one_of(THINGS), r"([1-9]\d*)"
_DAY, _MONTH, _HOW = _one_of(DAYS), _one_of(tuple(MONTHS)), _one_of(COMPARISONS)
_NOUN = f"{_one_of(('the', 'a', 'an', *NUMBERS))}(?: {_one_of(LOOKS)})? (?:{'|'.join(ANIMALS)})(s?)"

_KINDS = {
    "sum": _Kind(
        _draw_sum,
        f"{_WHO} has {_NUMBER} {_THING}s\\. (she|he) {_one_of(MORE + FEWER)} {_NUMBER}( more)?\\. "
        f"now {_WHO} has {_NUMBER} {_THING}s\\.",
        _sum_holds,
    ),
    "day": _Kind(
        _draw_day, f"today is {_DAY}, {_NUMBER} {_MONTH}\\. tomorrow is (.*)\\.", _day_holds
    ),
    "comparison": _Kind(
        _draw_comparison,
        f"{_WHO} is {_HOW} than {_WHO}\\. {_WHO} is {_HOW} than {_WHO}\\. so {_WHO} is {_HOW} than "
        f"{_WHO}\\.",
        _comparison_holds,
    ),
    "count": _Kind(_draw_count, f"count from {_NUMBER} to {_NUMBER}: (.*)\\.", _count_holds),
    "sorted": _Kind(_draw_sorted, r"sort ([1-9 ]+): ([1-9](?: [1-9])*)\.", _sorted_holds),
    "spelled": _Kind(_draw_spelled, r"the word ([a-z]+) is spelled ([a-z-]+)\.", _spelled_holds),
    "repeated": _Kind(
        _draw_repeated,
        r"the code is ([a-z]{3,6})\. say it again: ([a-z]+)\.",
        lambda code, again: code == again,
    ),
    "sentence": _Kind(
        _draw_sentence, f"{_NOUN} (?:{'|'.join(VERBS)})(s?) {_NOUN}\\.", _sentence_holds
    ),
}


def main() -> None:
    """Write a corpus: one document after the other, an empty line between them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, required=True, help="text file to write")
    parser.add_argument("--count", type=int, default=60_000, help="documents")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    text = "\n\n".join(tale.text for tale in tales(given.seed, given.count))
    given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
