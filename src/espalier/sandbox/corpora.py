"""Texts of the sandbox: corpora for training, chat, calibration and perplexity, and the task documents.

Each corpus is drawn from its own random stream. All corpora use the same facts, because the models must know them. They
differ in wording, passages and wrong choices.
"""

from __future__ import annotations

import random

from espalier.errors import UserError
from espalier.sandbox.tasks import TASKS, SandboxDocument, SolvedDocument, draw_fact, statement
from espalier.sandbox.world import World

# Tasks that are harder to learn occur more often in the training text; all other tasks have weight 1.
TASK_WEIGHTS = {"boolq": 6, "winogrande": 2, "arc_challenge": 3}
STATEMENT_SHARE = 0.3
MAX_TRIES = 2000  # stop after this many draws in a row without a new document


def make_task_documents(world: World, task: str, split: str, count: int, seed: int) -> list[SandboxDocument]:
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
    documents: list[SandboxDocument] = []
    seen: set[str] = set()
    n_tries = 0
    while len(documents) < count and n_tries < MAX_TRIES:
        document = TASKS[task].make(rng, world, len(documents))
        key = document_key(document, task)
        n_tries += 1
        if key not in seen:
            seen.add(key)
            documents.append(document)
            n_tries = 0
    if len(documents) == count:
        return documents
    raise UserError(
        f"sandbox.documents_per_task: {count} asked for, but the world has only about {len(documents)} different "
        f"{task} documents; ask for fewer"
    )


def document_key(document: SandboxDocument, task: str) -> str:
    """Return a string that identifies a document by its prompt, answer and choices."""
    prompt, answer = TASKS[task].solve(document)
    choices = document.get("choices", {}).get("text") or document.get("endings") or ()
    return "|".join((prompt, answer, *choices))


def make_paragraph(rng: random.Random, world: World) -> str:
    """Write a paragraph of two to five statements."""
    return " ".join(statement(rng, draw_fact(rng, world)) for _ in range(rng.randint(2, 5)))


def draw_solved_document(rng: random.Random, world: World) -> SolvedDocument:
    """Draw a document of a random task and solve it."""
    names = list(TASKS)
    task = rng.choices(names, weights=[TASK_WEIGHTS.get(name, 1) for name in names])[0]
    return TASKS[task].solve(TASKS[task].make(rng, world, 0))


def make_pages(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write pages of six to twelve parts (paragraphs and solved documents), separated by blank lines."""
    rng = random.Random(f"{stream}-{seed}")
    return ["\n\n".join(_page_part(rng, world) for _ in range(rng.randint(6, 12))) for _ in range(count)]


def make_chats(world: World, count: int, seed: int) -> list[SolvedDocument]:
    """Draw solved documents, whose prompts and answers are the turns of user and assistant."""
    rng = random.Random(f"chat-{seed}")
    return [draw_solved_document(rng, world) for _ in range(count)]


def make_lines(world: World, stream: str, count: int, seed: int) -> list[str]:
    """Write lines, each a paragraph of statements."""
    rng = random.Random(f"{stream}-{seed}")
    return [make_paragraph(rng, world) for _ in range(count)]


def _page_part(rng: random.Random, world: World) -> str:
    if rng.random() < STATEMENT_SHARE:
        return make_paragraph(rng, world)
    return " ".join(draw_solved_document(rng, world))
