"""What stands in the templates of `task_templates`; some fillings have slots themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


SLOTS: Mapping[str, Sequence[str]] = {
    "name": _words(
        "Anna, Ben, Carla, Deniz, Elif, Farid, Greta, Hugo, Ines, Jonas, Kenji, Lena, Mateo, Nadia, Olu,"
        " Petra, Quentin, Rosa, Samir, Tomas, Ursula, Vera, Wanda, Yusuf, Zoe, Mr. Brown, Mrs. Klein"
    ),
    "day": _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "daytime": _words("morning, afternoon, evening"),
    "color": _words("red, blue, green, yellow, black, white, purple, brown, orange"),
    "thing": _words(
        "lamp, bicycle, ticket, candle, notebook, chair, kite, violin, basket, clock, ladder, bottle, sofa,"
        " parrot, rabbit, umbrella, mirror, tomato, cookie, stone, ring, camera, drum, carpet, bucket"
    ),
    "things": _words(
        "apples, pencils, stickers, marbles, books, cups, flowers, shirts, eggs, cards, tickets, coins, tiles,"
        " cookies, chairs, balloons, fish, stamps, bags, bricks, seeds, toys, lemons, batteries, tomatoes"
    ),
    "place": _words(
        "kitchen, garden, station, forest, cellar, harbor, school, museum, desert, market, lake"
    ),
    "topic": _words(
        "photosynthesis, inflation, the French Revolution, cognitive dissonance, plate tectonics, opportunity cost,"
        " utilitarianism, osmosis, sovereignty, natural selection, jazz, conditioning, federalism, globalization,"
        " gravity, the Renaissance, demand elasticity, attachment, mitosis, brand loyalty, free will, climate change,"
        " socialization, the Cold War, public opinion, aging, migration, black holes, vaccination, encryption"
    ),
    "country": _words(
        "Portugal, Kenya, Peru, Japan, Norway, Egypt, Canada, Vietnam, Poland, Turkey, Chile, India, Greece, Mali"
    ),
    "language": _words(
        "German, French, Spanish, Italian, Polish, Turkish, Japanese, Chinese, Arabic, Portuguese, Dutch, English"
    ),
    "foreign": (
        "Guten Morgen, wie geht es dir?",
        "Je ne sais pas où est la gare.",
        "Mañana vamos a la playa.",
        "Il gatto dorme sul divano.",
        "Dziękuję bardzo za pomoc.",
        "明日は雨です。",
    ),
    "phrase": _words(
        "good luck, where is the station, see you tomorrow, I would like to pay, happy birthday, save changes,"
        " log in, my house is small, thank you very much, the bill please, delete account"
    ),
    "profession": _words(
        "physician, teacher, lawyer, manager, nurse, pilot, baker, judge, painter, engineer, pirate, farmer, scientist"
    ),
    "scholar": _words(
        "Kant, Freud, Piaget, Keynes, Marx, Weber, Aristotle, Mill, Darwin, Skinner, Hume, Rawls"
    ),
    "organ": _words(
        "heart, liver, kidney, lungs, brain, skin, pancreas, stomach, thyroid gland, spleen, retina"
    ),
    "illness": _words(
        "fever, chest pain, diabetes, a rash, infection, a persistent cough, anemia, fatigue, high blood pressure"
    ),
    "resource": _words(
        "population, production of coffee, area, reserves of oil, number of lakes, army"
    ),
    "nature": _words(
        "the tide rises, leaves turn red, water boils earlier on a mountain, the moon changes its shape, ice floats,"
        " birds fly south, the sky is blue, the earth rotates faster"
    ),
    "nature noun": _words(
        "climate, rock, forest, soil, pollution, bacteria, erosion, temperature, rainfall"
    ),
    "event": _words(
        "the war end, the first railway open, the empire fall, women get the vote, the city become independent,"
        " man land on the moon, the king die, the constitution pass, the wall come down"
    ),
    "event noun": _words(
        "the war, the revolution, the drought, industrialization, the plague, the treaty, the strike"
    ),
    "did famous": _words(
        "discovered penicillin, painted the ceiling of the chapel, wrote the national anthem, invented the telephone,"
        " won the cup in <year>, was president of <country> in <year>, sang the title song, played the main role"
    ),
    "described": _words(
        "an example of <topic>, a symptom of <illness>, true of <topic>, a function of the <organ>, a renewable source"
        " of energy, NOT a cause of <event noun>, the best explanation of <topic>, a characteristic of <country>"
    ),
    "option": (
        "<topic>",
        "<country>",
        "<scholar>",
        "the <organ>",
        "It increases <topic> and lowers <topic>.",
        "because the <profession> knew of it",
        "Wrong, Not wrong",
        "<year>",
        "True, False",
        "A and B only",
        "the <thing> of <name>",
        "<topic> and <topic>",
        "<profession>s in <country>",
        "will be higher, because there are fewer <things>.",
        "the <profession>, because the <thing> belonged to <name>.",
        "a decline of <topic> after <event noun>",
        "Start treatment of the <illness>",
        "<nature noun>",
        "none of the above",
        "a change of the <nature noun> in <country>",
    ),
    "number option": (
        "<n>",
        "<x>",
        "<n>/<n>",
        "<n>x + <n>",
        "-<n>",
        "$<n>$",
        "<n> cm",
        "It cannot be known.",
    ),
    "sentence": (
        "The <profession> from <country> bought a <color> <thing> at the <place>.",
        "In <year> the government of <country> changed its policy on <topic>.",
        "<name> said that the <things> had arrived late on <day>.",
        "Researchers found that <topic> is linked to <nature noun>.",
        "The meeting on <date> was about <topic> and <things>.",
        "Nobody knew why the <thing> was in the <place>.",
        "More than <n> people came to see the <profession>.",
        "We will send the <things> as soon as possible, <name> added.",
        "It was a quiet <daytime> in <country>, and the <place> was empty.",
        "Prices of <things> rose by <n> percent in <country> after <event noun>.",
        "The old <place> will be closed until <day>.",
    ),
    "story": (
        "<name> has <n> <things> at home and brings <n> more from the <place>.",
        "Each <thing> costs <n> dollars, but every second one is <n>% cheaper.",
        "On <day> <name> works <n> hours, and on <day> twice as long.",
        "<name> loves <things> and decides to make <n> of them every <daytime>.",
        "There are <n> friends, and each of them gets <n> <things>.",
        "It takes <n> minutes to carry a <thing> to the <place>.",
        "A third of the <things> are <color>, the rest are <color>.",
        "<name> gave half of the <things> to <name> and kept <n>.",
        "A pack of <things> weighs <n> pounds and holds <n> pieces.",
        "In the first week <name> sold <n> <things> and in the second week three times as many.",
        "<name> is <n> years old and walks <n> miles a day.",
        "The <place> has <n> rows with <n> seats in each.",
    ),
    "record": (
        "<name>, <country>, <n> <things>, $<x>",
        "Order <n>: <n> x <thing>, <date>, <name>",
        "<date> <n>:<n> ERROR <error>",
        "Contact: <name>, phone 0<n>-<n>, <name>@example.org",
        "Invoice no. <n> of <date>, total <x> EUR",
        "I am not happy with the <thing>, it broke on <day>!",
        "name=<name>; city=<country>; amount=<n>",
    ),
    "clue": (
        "The person with the <thing> lives next to the <profession>.",
        "<name> does not like <things>.",
        "The <color> house is to the left of the <color> one.",
        "Whoever owns the <thing> is older than <name>.",
    ),
    "plang": _words(
        "Python, JavaScript, Java, C++, Rust, Go, TypeScript, C#, Ruby, PHP, Kotlin, Bash"
    ),
    "program": _words(
        "sorts a list of <things>, counts the words of a file, checks whether a string is a palindrome,"
        " finds duplicates in an array, reverses a linked list, reads a CSV file, merges two dictionaries,"
        " removes all spaces of a string, prints the first <n> primes, downloads a web page, parses a date"
    ),
    "do program": _words(
        "sort a list of tuples by the second element, count vowels in a string, find the largest element of an array,"
        " check if two strings are anagrams, remove duplicates of a list, flatten a nested list, merge two arrays,"
        " convert a list into a dictionary, find the second smallest number, rotate a matrix, read a file by lines"
    ),
    "algorithm": _words(
        "quicksort, binary search, Dijkstra's algorithm, a hash table, merge sort, breadth-first search, an LRU cache"
    ),
    "sql": _words(
        "the total amount per month, the newest row of each name, all names that occur twice, the top <n>"
    ),
    "table": _words("orders, users, payments, events"),
    "pattern": _words("phone numbers, dates, IPv4 addresses, hex colors, email addresses"),
    "error": _words(
        "KeyError: 'name', undefined is not a function, Segmentation fault, NullPointerException, connection refused,"
        " IndexError: list index out of range, cannot borrow as mutable, missing semicolon, timeout after <n> ms"
    ),
    "code": (
        "def total(items):\n    result = 0\n    for item in items:\n        result += item.price * <n>\n    return result",
        "for (let i = 0; i < <n>; i++) {\n  console.log(items[i].name);\n}",
        "public int count(List<String> names) {\n    return names.size() + <n>;\n}",
        "import os\n\nfor name in os.listdir('.'):\n    print(name, <n>)",
        "int main() {\n    int a[<n>];\n    a[<n>] = 1;\n    return a[0];\n}",
        "fn add(a: i32, b: i32) -> i32 {\n    a + b + <n>\n}",
        "SELECT name, SUM(amount) FROM orders GROUP BY name HAVING SUM(amount) > <n>;",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, x):\n        pass",
    ),
}
"""Fillings by slot; numbers, dates and passages are made by `task_prompts`."""
