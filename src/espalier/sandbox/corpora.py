"""Texts of the sandbox: corpora for training, chat, calibration and perplexity, and the task documents.

Each corpus is drawn from its own random stream. All corpora use the same facts, because the models must know them. They
differ in wording, passages and wrong choices.
"""

from __future__ import annotations

import random

from espalier.errors import UserError
from espalier.sandbox.tasks import TASKS, Document, draw_fact, statement
from espalier.sandbox.world import World

# Tasks that are harder to learn occur more often in the training text; all other tasks have weight 1.
TASK_WEIGHTS = {"boolq": 6, "winogrande": 2, "arc_challenge": 3}
STATEMENT_SHARE = 0.3
MAX_TRIES = 2000  # stop after this many draws in a row without a new document


def make_task_documents(world: World, task: str, split: str, count: int, seed: int) -> list[Document]:
    """Draw `count` distinct documents of one task.

    Args:
        world: The facts.
        task: Name of the task.
        split: Name of the split; each split has its own random stream.
        count: Number of documents.
        seed: Seed of the random stream.

    Raises:
        UserError: If the world has too few distinct documents of this task.
    """
    rng = random.Random(f"{task}-{split}-{seed}")
    documents: list[Document] = []
    seen: set[str] = set()
    tries = 0
    while len(documents) < count and tries < MAX_TRIES:
        document = TASKS[task].make(rng, world, len(documents))
        key = solved_key(document, task)
        tries += 1
        if key not in seen:
            seen.add(key)
            documents.append(document)
            tries = 0
    if len(documents) == count:
        return documents
    raise UserError(
        f"sandbox.documents_per_task: {count} asked for, but the world has only about {len(documents)} different "
        f"{task} documents; ask for fewer"
    )


def solved_key(document: Document, task: str) -> str:
    """Return a string that identifies a document by its prompt, answer and choices."""
    prompt, answer = TASKS[task].solve(document)
    choices = document.get("choices", {}).get("text") or document.get("endings") or ()
    return "|".join((prompt, answer, *choices))


def make_paragraph(rng: random.Random, world: World) -> str:
    """Write a paragraph of two to five statements."""
    return " ".join(statement(rng, draw_fact(rng, world)) for _ in range(rng.randint(2, 5)))


def make_solved_item(rng: random.Random, world: World) -> tuple[str, str]:
    """Draw a solved document of a random task, as (prompt, answer)."""
    names = list(TASKS)
    task = rng.choices(names, weights=[TASK_WEIGHTS.get(name, 1) for name in names])[0]
    return TASKS[task].solve(TASKS[task].make(rng, world, 0))


def make_pages(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write pages of six to twelve parts (paragraphs and solved documents), separated by blank lines."""
    rng = random.Random(f"{stream}-{seed}")
    return ["\n\n".join(_part(rng, world) for _ in range(rng.randint(6, 12))) for _ in range(count)]


def make_chats(world: World, count: int, seed: int) -> list[tuple[str, str]]:
    """Write (user, assistant) turns: the prompts and answers of solved documents."""
    rng = random.Random(f"chat-{seed}")
    return [make_solved_item(rng, world) for _ in range(count)]


def make_lines(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write lines, each a paragraph of statements."""
    rng = random.Random(f"{stream}-{seed}")
    return [make_paragraph(rng, world) for _ in range(count)]


def _part(rng: random.Random, world: World) -> str:
    if rng.random() < STATEMENT_SHARE:
        return make_paragraph(rng, world)
    return " ".join(make_solved_item(rng, world))
