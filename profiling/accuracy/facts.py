"""Undisputed facts, as questions with every answer that counts.

A question stands here only if its answer is the same in every school book and is one short phrase.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """A question of general knowledge.

    Attributes:
        answers: Accepted phrases; one of them has to be named.
    """

    question: str
    answers: tuple[str, ...]


CAPITALS = {
    "France": ("Paris",),
    "Germany": ("Berlin",),
    "Italy": ("Rome",),
    "Spain": ("Madrid",),
    "Japan": ("Tokyo",),
    "Egypt": ("Cairo",),
    "Norway": ("Oslo",),
    "Greece": ("Athens",),
    "Portugal": ("Lisbon",),
    "Canada": ("Ottawa",),
    "Australia": ("Canberra",),
    "Peru": ("Lima",),
    "Kenya": ("Nairobi",),
    "Thailand": ("Bangkok",),
    "Hungary": ("Budapest",),
    "Vietnam": ("Hanoi",),
}

FACTS = (
    *(Fact(f"What is the capital of {land}?", city) for land, city in CAPITALS.items()),
    Fact("How many days are in a week?", ("7", "seven")),
    Fact("How many months are in a year?", ("12", "twelve")),
    Fact("How many legs does a spider have?", ("8", "eight")),
    Fact("How many sides does a triangle have?", ("3", "three")),
    Fact("How many minutes are in one hour?", ("60", "sixty")),
    Fact("How many letters are in the English alphabet?", ("26", "twenty six")),
    Fact("How many centimetres are in one metre?", ("100", "hundred")),
    Fact("In which year did the Second World War end?", ("1945",)),
    Fact("In which year did a human first walk on the Moon?", ("1969",)),
    Fact("What is the chemical formula of water?", ("H2O",)),
    Fact("What is the chemical symbol of gold?", ("Au",)),
    Fact("What is the chemical symbol of oxygen?", ("O", "O2")),
    Fact("Which planet is closest to the Sun?", ("Mercury",)),
    Fact("Which planet is the largest in the Solar System?", ("Jupiter",)),
    Fact("Which planet is known as the Red Planet?", ("Mars",)),
    Fact("Around which star does the Earth orbit?", ("Sun",)),
    Fact("What is the largest ocean on Earth?", ("Pacific",)),
    Fact("On which continent is Egypt?", ("Africa",)),
    Fact("On which continent is Brazil?", ("South America",)),
    Fact("What is the highest mountain on Earth above sea level?", ("Everest",)),
    Fact("Who wrote the play Romeo and Juliet?", ("Shakespeare",)),
    Fact("Who painted the Mona Lisa?", ("Leonardo", "da Vinci")),
    Fact("Who developed the theory of general relativity?", ("Einstein",)),
    Fact("Who was the first president of the United States?", ("Washington",)),
    Fact("What is the largest animal on Earth?", ("blue whale", "blue whales")),
    Fact("What do bees make that people eat?", ("honey",)),
    Fact("Which organ pumps blood through the human body?", ("heart",)),
    Fact("Which gas do humans need to breathe to live?", ("oxygen", "O2")),
    Fact("What is frozen water called?", ("ice",)),
    Fact("What is the opposite of hot?", ("cold",)),
    Fact("What colour do you get by mixing blue and yellow paint?", ("green",)),
    Fact("What is the square root of 81?", ("9", "nine")),
)
