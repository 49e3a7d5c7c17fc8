"""Training of a tiny decoder on the sandbox text.

With one thread and one seed, two runs on the same machine give bit-identical models; the job sets the number of
threads. docs/log.md lists the training settings that were tried, such as the size of the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen2 import Qwen2Config

from espalier.errors import UserError
from espalier.files import atomic_folder
from espalier.models.loading import load_model
from espalier.progress import Progress

ROW_TOKENS = 128
BATCH_ROWS = 12
CONFIG_CLASSES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a sandbox model; the names are those of the transformers config."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    initializer_range: float

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ModelShape:
        """Select the sizes from the settings of a sandbox model."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class SandboxSchedule:
    """Length, learning rate and seed of a training run.

    Attributes:
        steps: Number of optimizer steps.
        peak_learning_rate: Highest learning rate of the one-cycle schedule (10% warm-up).
        seed: Seed of the order of the rows.
    """

    steps: int
    peak_learning_rate: float
    seed: int

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SandboxSchedule:
        """Select the schedule from the settings of a sandbox model."""
        return cls(settings["steps"], settings["peak_learning_rate"], settings["seed"])


def new_model(
    architecture: str, shape: ModelShape, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> PreTrainedModel:
    """Create an untrained float32 model.

    Args:
        architecture: A key of `CONFIG_CLASSES`.
        shape: Sizes of the model.
        tokenizer: Tokenizer that defines the vocabulary size and the special tokens.
        seed: Seed of the initial weights.
    """
    config = CONFIG_CLASSES[architecture](
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        **asdict(shape),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def load_for_training(folder: Path) -> PreTrainedModel:
    """Load a trained model in float32 on the CPU, to continue its training."""
    return load_model(folder, dtype="float32", device=torch.device("cpu"))


def rows_of_pages(tokenizer: PreTrainedTokenizerFast, pages: Sequence[str]) -> torch.Tensor:
    """Tokenise pages and pack them into rows: (n_rows, ROW_TOKENS)."""
    return pack_rows(tokenizer(list(pages), verbose=False)["input_ids"], tokenizer.eos_token_id)


def rows_of_chats(
    tokenizer: PreTrainedTokenizerFast, chats: Sequence[dict[str, str]], page_rows: torch.Tensor
) -> torch.Tensor:
    """Pack chats into rows and append up to as many rows of pages, so that the model does not forget plain text.

    Args:
        tokenizer: Tokenizer with a chat template.
        chats: Chats, each with `prompt` and `answer`.
        page_rows: Rows of pages, (n_rows, ROW_TOKENS).

    Returns:
        Token rows, (n_rows, ROW_TOKENS).
    """
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": chat["prompt"]}, {"role": "assistant", "content": chat["answer"]}],
            tokenize=False,
        )
        for chat in chats
    ]
    rows = pack_rows(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id)
    return torch.cat([rows, page_rows[: len(rows)]])


def pack_rows(token_lists: Sequence[list[int]], eos_token_id: int) -> torch.Tensor:
    """Join texts with end-of-text tokens and cut them into full rows: (n_rows, ROW_TOKENS)."""
    stream = [token for tokens in token_lists for token in (*tokens, eos_token_id)]
    n_rows = len(stream) // ROW_TOKENS
    return torch.tensor(stream[: n_rows * ROW_TOKENS], dtype=torch.long).view(n_rows, ROW_TOKENS)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights, config and tokenizer in the transformers format. The folder appears once all files are written."""
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def train(model: PreTrainedModel, rows: torch.Tensor, schedule: SandboxSchedule, name: str) -> float:
    """Train in place with AdamW and a one-cycle schedule.

    Args:
        model: The model, changed in place.
        rows: Token rows, (n_rows, ROW_TOKENS).
        schedule: Length, learning rate and seed of the run.
        name: Name of the model in the progress log.

    Returns:
        Mean token loss (nats) over the last 20 steps.

    Raises:
        UserError: If there are too few rows for one batch.
    """
    if len(rows) < BATCH_ROWS:
        raise UserError(
            f"sandbox.training_pages: the training text fills {len(rows)} rows of {ROW_TOKENS} tokens, but a batch has"
            f" {BATCH_ROWS}; ask for more pages"
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.peak_learning_rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=schedule.peak_learning_rate, total_steps=schedule.steps, pct_start=0.1
    )
    losses: list[float] = []
    model.train()
    batches = _batches(rows, schedule)
    with Progress(f"training {name}", total=schedule.steps * BATCH_ROWS * ROW_TOKENS, unit="tokens") as bar:
        for _, batch in zip(range(schedule.steps), batches, strict=False):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            cycle.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            bar.advance(batch.numel(), loss=losses[-1])
    model.eval()
    tail = losses[-20:]
    return sum(tail) / len(tail)


def _batches(rows: torch.Tensor, schedule: SandboxSchedule) -> Iterator[torch.Tensor]:
    """Yield batches without end, in a new order for each pass over the rows; at least `BATCH_ROWS` rows are needed."""
    generator = torch.Generator().manual_seed(schedule.seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - BATCH_ROWS + 1, BATCH_ROWS):
            yield rows[order[start : start + BATCH_ROWS]]
