"""The task: how people write a date, and the ISO date that is meant. Pure Python, no files."""

from __future__ import annotations

import datetime
import random

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

FIRST = datetime.date(1900, 1, 1)
DAYS = 200 * 365  # to the end of the 21st century


def draw(chance: random.Random) -> tuple[str, str]:
    """A written date and its ISO form."""
    date = FIRST + datetime.timedelta(days=chance.randrange(DAYS))
    name = MONTHS[date.month - 1]
    name = name if chance.random() < 0.7 else name[:3]
    day = f"{date.day}{_ending(date.day) if chance.random() < 0.3 else ''}"
    written = chance.choice(
        (
            f"{day} {name} {date.year}",
            f"{name} {day}, {date.year}",
            f"{name} {day} {date.year}",
            f"{day} of {name}, {date.year}",
            f"{date.year} {name} {day}",
            f"{date.day}.{date.month}.{date.year}",
        )
    )
    return (written if chance.random() < 0.8 else written.lower()), date.isoformat()


def _ending(day: int) -> str:
    if 10 < day < 20:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
