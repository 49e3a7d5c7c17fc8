"""The seven multiple-choice tasks about the sandbox world, in the schemas of the real datasets.

Each task makes documents with the columns that lm-eval's own task definition reads. For training, it also writes a
document as solved text (prompt, answer). A test compares the solved text with the text that lm-eval builds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from espalier.sandbox.world import (
    COLOUR_NAMES,
    PETS,
    PLACES,
    SIZES,
    TOWNS,
    Item,
    Person,
    World,
    draw,
    other_values,
)

SandboxDocument = dict[str, Any]
"""A document with the columns of the real dataset."""

LABELS = ("A", "B", "C", "D")


class SolvedDocument(NamedTuple):
    """A document as training text: `prompt + " " + answer`."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class SandboxTask:
    """A task of the sandbox.

    Attributes:
        make: Draws a document: `make(rng, world, index)`.
        solve: Returns the document as training text.
        eval_split: The split that lm-eval scores.
        n_choices: Number of choices of a document.
    """

    make: Callable[[random.Random, World, int], SandboxDocument]
    solve: Callable[[SandboxDocument], SolvedDocument]
    eval_split: str
    n_choices: int


def statement(rng: random.Random, fact: Item | Person) -> str:
    """Write a random attribute of an object or a person as a sentence."""
    if isinstance(fact, Item):
        return rng.choice(
            (
                f"The {fact.name} is {fact.colour}.",
                f"The {fact.name} is in the {fact.place}.",
                f"The {fact.name} is {fact.size}.",
            )
        )
    return rng.choice((f"{fact.name} keeps a {fact.pet}.", f"{fact.name} lives in {fact.town}."))


def draw_fact(rng: random.Random, world: World) -> Item | Person:
    """Draw an object or a person; those with a low rank are drawn most often."""
    return draw(rng, world.items) if rng.random() < 0.6 else draw(rng, world.people)


def _shuffle_choices(rng: random.Random, true_value: str, wrong: list[str]) -> tuple[list[str], int]:
    choices = [true_value, *wrong]
    rng.shuffle(choices)
    return choices, choices.index(true_value)


def _make_boolq(rng: random.Random, world: World, index: int) -> SandboxDocument:
    label = rng.randrange(2)
    if rng.random() < 0.5:
        item = draw(rng, world.items)
        asked = item.colour if label else other_values(rng, COLOUR_NAMES, item.colour, 1)[0]
        fact, question = f"The {item.name} is {item.colour}.", f"is the {item.name} {asked}"
    else:
        person = draw(rng, world.people)
        asked = person.pet if label else other_values(rng, PETS, person.pet, 1)[0]
        fact, question = f"{person.name} keeps a {person.pet}.", f"does {person.name} keep a {asked}"
    sentences = [fact] + [statement(rng, draw_fact(rng, world)) for _ in range(rng.randint(1, 2))]
    rng.shuffle(sentences)
    return {"question": question, "passage": " ".join(sentences), "idx": index, "label": label}


def _solve_boolq(doc: SandboxDocument) -> SolvedDocument:
    prompt = f"{doc['passage']}\nQuestion: {doc['question']}?\nAnswer:"
    return SolvedDocument(prompt, ("no", "yes")[doc["label"]])


def _make_piqa(rng: random.Random, world: World, index: int) -> SandboxDocument:
    craft = draw(rng, world.crafts)
    wrong = other_values(rng, [other.tool for other in world.crafts], craft.tool, 1)[0]
    filler = statement(rng, draw_fact(rng, world))
    solutions, label = _shuffle_choices(rng, f"use the {craft.tool}", [f"use the {wrong}"])
    goal = f"{filler} How do you {craft.verb} the {craft.target}?"
    return {"goal": goal, "sol1": solutions[0], "sol2": solutions[1], "label": label}


def _solve_piqa(doc: SandboxDocument) -> SolvedDocument:
    return SolvedDocument(f"Question: {doc['goal']}\nAnswer:", (doc["sol1"], doc["sol2"])[doc["label"]])


def _make_hellaswag(rng: random.Random, world: World, index: int) -> SandboxDocument:
    person, item = draw(rng, world.people), draw(rng, world.items)
    places, label = _shuffle_choices(rng, item.place, other_values(rng, PLACES, item.place, 3))
    ctx_a, ctx_b = f"{person.name} needs the {item.name}.", f"{person.name} looks"
    return {
        "ind": index,
        "activity_label": "Looking for things",
        "ctx_a": ctx_a,
        "ctx_b": ctx_b,
        "ctx": f"{ctx_a} {ctx_b}",
        "endings": [f"in the {place}." for place in places],
        "source_id": f"sandbox~{index}",
        "split": "val",
        "split_type": "indomain",
        "label": str(label),
    }


def _solve_hellaswag(doc: SandboxDocument) -> SolvedDocument:
    prompt = f"{doc['activity_label']}: {doc['ctx_a']} {doc['ctx_b'].capitalize()}"
    return SolvedDocument(prompt, doc["endings"][int(doc["label"])])


def _make_winogrande(rng: random.Random, world: World, index: int) -> SandboxDocument:
    person = draw(rng, world.people)
    others = [p for p in world.people if p.town != person.town and p.pet != person.pet]
    other = draw(rng, others)
    names, label = _shuffle_choices(rng, person.name, [other.name])
    clue = f"lives in {person.town}." if rng.random() < 0.5 else f"keeps a {person.pet}."
    return {
        "sentence": f"{names[0]} and {names[1]} met, and we know that _ {clue}",
        "option1": names[0],
        "option2": names[1],
        "answer": str(label + 1),
    }


def _solve_winogrande(doc: SandboxDocument) -> SolvedDocument:
    before, after = doc["sentence"].split("_")
    return SolvedDocument(before + doc[f"option{doc['answer']}"], after.strip())


def _choices_document(
    rng: random.Random, identifier: str, stem: dict[str, str], true_value: str, wrong: list[str]
) -> SandboxDocument:
    texts, gold = _shuffle_choices(rng, true_value, wrong)
    choices = {"text": texts, "label": list(LABELS[: len(texts)])}
    return {"id": identifier, **stem, "choices": choices, "answerKey": LABELS[gold]}


def _make_arc_easy(rng: random.Random, world: World, index: int) -> SandboxDocument:
    item = draw(rng, world.items)
    if rng.random() < 0.5:
        question, true_value = f"Which colour is the {item.name}?", item.colour
        wrong = other_values(rng, COLOUR_NAMES, true_value, 3)
    else:
        question, true_value = f"Which size is the {item.name}?", item.size
        wrong = other_values(rng, SIZES, true_value, 3)
    return _choices_document(rng, f"easy-{index}", {"question": question}, true_value, wrong)


def _make_arc_challenge(rng: random.Random, world: World, index: int) -> SandboxDocument:
    """Ask for an object by two of its attributes. The wrong choices differ in both attributes."""
    item = draw(rng, world.items)
    others = [t.name for t in world.items if t.colour != item.colour and t.place != item.place]
    question = f"Which {item.colour} thing is in the {item.place}?"
    wrong = [f"the {name}" for name in rng.sample(others, 3)]
    return _choices_document(rng, f"challenge-{index}", {"question": question}, f"the {item.name}", wrong)


def _solve_arc(doc: SandboxDocument) -> SolvedDocument:
    return SolvedDocument(f"Question: {doc['question']}\nAnswer:", _gold_text(doc))


def _make_openbookqa(rng: random.Random, world: World, index: int) -> SandboxDocument:
    person = draw(rng, world.people)
    if rng.random() < 0.5:
        stem, true_value = f"The pet that {person.name} keeps is a", person.pet
        wrong = other_values(rng, PETS, true_value, 3)
    else:
        stem, true_value = f"The town in which {person.name} lives is", person.town
        wrong = other_values(rng, TOWNS, true_value, 3)
    return _choices_document(rng, f"book-{index}", {"question_stem": stem}, true_value, wrong)


def _solve_openbookqa(doc: SandboxDocument) -> SolvedDocument:
    return SolvedDocument(doc["question_stem"], _gold_text(doc))


def _gold_text(doc: SandboxDocument) -> str:
    return str(doc["choices"]["text"][doc["choices"]["label"].index(doc["answerKey"])])


TASKS: dict[str, SandboxTask] = {
    "boolq": SandboxTask(_make_boolq, _solve_boolq, "validation", 2),
    "piqa": SandboxTask(_make_piqa, _solve_piqa, "validation", 2),
    "hellaswag": SandboxTask(_make_hellaswag, _solve_hellaswag, "validation", 4),
    "winogrande": SandboxTask(_make_winogrande, _solve_winogrande, "validation", 2),
    "arc_easy": SandboxTask(_make_arc_easy, _solve_arc, "test", 4),
    "arc_challenge": SandboxTask(_make_arc_challenge, _solve_arc, "test", 4),
    "openbookqa": SandboxTask(_make_openbookqa, _solve_openbookqa, "test", 4),
}
