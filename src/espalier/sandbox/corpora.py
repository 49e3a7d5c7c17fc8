"""The sandbox's texts: training, chat, calibration and perplexity corpora, and the task documents.

Every corpus has its own random stream and no two share a document. The facts are the same everywhere: a model
is meant to know them, and what is held out is the wording, the passage and the wrong choices.
"""

from __future__ import annotations

import random

from espalier.errors import UserError
from espalier.sandbox.tasks import TASKS, Document, draw_fact, statement
from espalier.sandbox.world import World

# Reading a passage and finding a thing by its attributes are the hardest to learn.
TASK_WEIGHTS = {"boolq": 6, "winogrande": 2, "arc_challenge": 3}
STATEMENT_SHARE = 0.3
MAX_TRIES = 2000  # draws without a new document after which a world counts as exhausted


def make_task_documents(world: World, task: str, split: str, count: int, seed: int) -> list[Document]:
    """Draw `count` different documents of one task.

    Raises:
        UserError: If the world has too few different documents.
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
    """Identify a document by all that a reader sees: prompt, answer and choices."""
    prompt, answer = TASKS[task].solve(document)
    choices = document.get("choices", {}).get("text") or document.get("endings") or ()
    return "|".join((prompt, answer, *choices))


def make_paragraph(rng: random.Random, world: World) -> str:
    """Write two to five statements."""
    return " ".join(statement(rng, draw_fact(rng, world)) for _ in range(rng.randint(2, 5)))


def make_solved_item(rng: random.Random, world: World) -> tuple[str, str]:
    """Draw a solved item of any task as (prompt, answer)."""
    names = list(TASKS)
    task = rng.choices(names, weights=[TASK_WEIGHTS.get(name, 1) for name in names])[0]
    return TASKS[task].solve(TASKS[task].make(rng, world, 0))


def make_pages(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write pages of six to twelve parts (statements and solved items), separated by blank lines."""
    rng = random.Random(f"{stream}-{seed}")
    return ["\n\n".join(_part(rng, world) for _ in range(rng.randint(6, 12))) for _ in range(count)]


def make_chats(world: World, count: int, seed: int) -> list[tuple[str, str]]:
    """Write (user, assistant) turns: the prompts and answers of solved items."""
    rng = random.Random(f"chat-{seed}")
    return [make_solved_item(rng, world) for _ in range(count)]


def make_lines(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write lines of plain statements, one paragraph each."""
    rng = random.Random(f"{stream}-{seed}")
    return [make_paragraph(rng, world) for _ in range(count)]


def _part(rng: random.Random, world: World) -> str:
    if rng.random() < STATEMENT_SHARE:
        return make_paragraph(rng, world)
    return " ".join(make_solved_item(rng, world))
