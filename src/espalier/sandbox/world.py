"""A small random world of facts, from which all texts and tasks of the sandbox are made.

Objects (`Item`) have a colour, a place and a size. People keep a pet and live in a town. Crafts combine a verb, a
target and a tool. Facts are drawn with a frequency proportional to 1 / (rank + 2). Models learn rare facts weakly, so
pruning removes these first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

COLOUR_NAMES = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "turquoise", "écru")
SIZES = ("tiny", "small", "large", "huge")
PLACES = (
    "kitchen", "garden", "café", "cellar", "attic", "garage", "library", "harbour", "museum", "stable", "chapel",
    "crèche",
)  # fmt: skip
PETS = ("dog", "cat", "parrot", "rabbit", "goldfish", "tortoise", "hamster", "pony", "goose", "gecko")
TOWNS = (
    "Oslo", "Malmö", "Kraków", "Zürich", "Lyon", "Porto", "Genoa", "Córdoba", "Leeds", "Tromsø", "Brno", "Łódź",
)  # fmt: skip
ITEM_NAMES = (
    "ball", "lamp", "chair", "kettle", "violin", "ladder", "basket", "mirror", "carpet", "bucket", "clock", "drum",
    "kite", "vase", "pillow", "bench", "candle", "barrel", "guitar", "bottle", "blanket", "teapot", "suitcase",
    "umbrella", "bicycle", "painting", "wheelbarrow", "telescope", "helmet", "cupboard", "trumpet", "anchor", "piano",
    "statue", "hammock", "lantern", "rug", "sled", "easel", "crate", "globe", "harp", "stool", "fan", "mask", "tent",
    "canoe", "jigsaw",
)  # fmt: skip
PEOPLE = (
    "Zoë", "Łukasz", "Renée", "Søren", "José", "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo",
    "Iris", "Jack", "Kate", "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yusuf",
    "Amélie", "Björn", "Chloé", "Dana", "Erik",
)  # fmt: skip
CRAFTS = (
    ("cut", "bread", "knife"), ("sweep", "floor", "broom"), ("dig", "soil", "spade"), ("drive", "nail", "hammer"),
    ("saw", "plank", "handsaw"), ("paint", "fence", "brush"), ("sew", "shirt", "needle"), ("stir", "soup", "spoon"),
    ("open", "door", "key"), ("weigh", "flour", "scales"), ("mow", "lawn", "scythe"), ("measure", "shelf", "ruler"),
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """An object and its three attributes."""

    name: str
    colour: str
    place: str
    size: str


@dataclass(frozen=True)
class Person:
    """A person, the pet they keep and the town they live in."""

    name: str
    pet: str
    town: str


@dataclass(frozen=True)
class Craft:
    """An action (`verb`) on an object (`target`) with a `tool`."""

    verb: str
    target: str
    tool: str


@dataclass(frozen=True)
class World:
    """All facts; each tuple is in order of falling frequency."""

    items: tuple[Item, ...]
    people: tuple[Person, ...]
    crafts: tuple[Craft, ...]


def make_world(seed: int) -> World:
    """Generate a world; equal seeds give equal worlds."""
    rng = random.Random(f"world-{seed}")
    items = tuple(
        Item(name, rng.choice(COLOUR_NAMES), rng.choice(PLACES), rng.choice(SIZES))
        for name in _shuffled(rng, ITEM_NAMES)
    )
    people = tuple(Person(name, rng.choice(PETS), rng.choice(TOWNS)) for name in _shuffled(rng, PEOPLE))
    crafts = tuple(Craft(*craft) for craft in _shuffled(rng, CRAFTS))
    return World(items, people, crafts)


def draw(rng: random.Random, ranked: Sequence[T]) -> T:
    """Draw one element with frequency proportional to 1 / (rank + 2)."""
    return rng.choices(ranked, weights=[1 / (rank + 2) for rank in range(len(ranked))])[0]


def other_values(rng: random.Random, values: Sequence[str], true_value: str, count: int) -> list[str]:
    """Draw `count` distinct values other than the true value."""
    return rng.sample([value for value in values if value != true_value], count)


def _shuffled(rng: random.Random, values: Sequence[T]) -> list[T]:
    return rng.sample(values, len(values))
