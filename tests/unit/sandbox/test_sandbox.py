"""The sandbox: its world, task documents in the real schemas, disjoint corpora, three types of tokenizer, training."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from lm_eval.tasks.manager import TaskDict
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from espalier.errors import UserError
from espalier.evaluation.tasks import load_tasks
from espalier.files import write_parquet
from espalier.sandbox.corpora import make_chats, make_lines, make_pages, make_task_documents, solved_key
from espalier.sandbox.splits import splits
from espalier.sandbox.tasks import TASKS
from espalier.sandbox.training import (
    ROW_TOKENS,
    Schedule,
    chat_rows,
    new_model,
    pack_rows,
    page_rows,
    train,
)
from espalier.sandbox.world import World, make_world


@pytest.fixture(scope="module")
def tasks(world: World, tmp_path_factory: pytest.TempPathFactory) -> TaskDict:
    """Write the documents of the seven tasks and load them with lm-eval's packaged definitions."""
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        for split in splits(task):
            documents = make_task_documents(world, task, split, 40, 0)
            write_parquet(folder / task / f"{split}.parquet", pa.Table.from_pylist(documents))
    return load_tasks(list(TASKS), folder, folder / "scratch")


def test_equal_seeds_give_equal_worlds_and_texts() -> None:
    assert make_world(3) == make_world(3) != make_world(4)
    assert make_pages(make_world(3), "x", 5, 3) == make_pages(make_world(3), "x", 5, 3)


def test_world_has_its_size(world: World) -> None:
    assert (len(world.things), len(world.people), len(world.crafts)) == (48, 32, 12)


@pytest.mark.parametrize("task", list(TASKS))
def test_solved_text_is_what_lm_eval_builds(task: str, tasks: TaskDict) -> None:
    """The text that models are trained on equals lm-eval's prompt + delimiter + right choice."""
    definition = tasks.leaves[task]
    docs = list(definition.test_docs() if definition.has_test_docs() else definition.validation_docs())
    assert len(docs) == 40
    for doc in docs:
        choices = definition.doc_to_choice(doc)
        assert len(choices) == TASKS[task].n_choices
        if task == "winogrande":
            prompt, answer = choices[definition.doc_to_text(doc)], definition.doc_to_target(doc)
        else:
            gold = definition.doc_to_target(doc)
            prompt, answer = definition.doc_to_text(doc), choices[int(gold)]
        assert " ".join(TASKS[task].solve(doc)) == prompt + definition.config.target_delimiter + answer


@pytest.mark.parametrize("task", list(TASKS))
def test_documents_differ_and_right_choices_are_spread(task: str, world: World) -> None:
    docs = make_task_documents(world, task, "test", 300, 0)
    assert len({solved_key(doc, task) for doc in docs}) == 300
    label = next(column for column in ("label", "answer", "answerKey") if column in docs[0])
    counts = [sum(str(doc[label]) == value for doc in docs) for value in {str(doc[label]) for doc in docs}]
    assert len(counts) == TASKS[task].n_choices
    # 300 fair draws: the counts are within 5 standard deviations of 300 / n.
    expected = 300 / TASKS[task].n_choices
    assert all(abs(count - expected) < 5 * (300 * 0.25) ** 0.5 for count in counts)


def test_no_right_answer_is_also_a_wrong_one(world: World) -> None:
    things = {thing.name: thing for thing in world.things}
    for doc in make_task_documents(world, "arc_challenge", "test", 200, 0):
        _, colour, _, _, _, _, place = doc["question"].rstrip("?").split()
        right = doc["choices"]["label"].index(doc["answerKey"])
        for i, choice in enumerate(doc["choices"]["text"]):
            thing = things[choice.removeprefix("the ")]
            assert (thing.colour == colour and thing.place == place) == (i == right)


def test_too_many_documents_are_refused_with_the_number(world: World) -> None:
    with pytest.raises(UserError, match=r"sandbox.documents_per_task: 100000 asked for, but the world has only about"):
        make_task_documents(World(world.things[:1], world.people, world.crafts), "arc_easy", "test", 100_000, 0)


def test_corpora_share_no_document(world: World) -> None:
    corpora = [set(make_pages(world, name, 400, 0)) for name in ("training", "calibration")]
    corpora += [{"\n\n".join(make_lines(world, name, 400, 0))} for name in ("wikitext2", "ptb")]
    assert not corpora[0] & corpora[1]
    assert corpora[2] != corpora[3]


def test_calibration_shares_no_50_tokens_with_perplexity_text_or_tasks(
    world: World, tokenizer: PreTrainedTokenizerFast
) -> None:
    def grams(texts: list[str]) -> set[tuple[int, ...]]:
        lists = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return {tuple(ids[i : i + 50]) for ids in lists for i in range(len(ids) - 49)}

    calibration = grams(make_pages(world, "calibration", 600, 0))
    held_out = ["\n\n".join(make_lines(world, "wikitext2", 400, 0)), " ".join(make_lines(world, "ptb", 400, 0))]
    held_out += [
        " ".join(TASKS[task].solve(doc)) for task in TASKS for doc in make_task_documents(world, task, "test", 300, 0)
    ]
    assert len(calibration) > 10_000
    assert not calibration & grams(held_out)


def test_transformers_loads_the_tokenizer_that_was_trained(
    tokenizer: PreTrainedTokenizerFast, model_folder: Path, pages: list[str]
) -> None:
    """For some architectures transformers has own tokenizer classes, which might split texts differently."""
    texts = [*pages[:20], "It's 12,345 o'clock in Łódź -- isn't it?\n\n  Zoe\u0308 knows.", " x\ty\r\n"]
    loaded = AutoTokenizer.from_pretrained(model_folder)
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]


def test_tokenizers_are_of_their_familys_kind(architecture: str, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Zoë lives in Łódź.")["input_ids"])
    assert (tokens[0] == "<s>") == (architecture != "qwen2")
    assert (tokenizer.bos_token_id is None) == (architecture == "qwen2")
    marks = {"llama": "Ġ", "qwen2": "Ġ", "mistral": "▁"}
    assert any(token.startswith(marks[architecture]) for token in tokens)


@pytest.mark.parametrize("text", ["Zoë keeps a gecko.\n\nQuestion: où?", "Łódź 漢字 🙂", "a  b"])
def test_tokenizers_give_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_only_chat_models_have_a_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (tokenizer.bos_token or "") + "<|user|>\nHi<|end|>\n<|assistant|>\n"


def test_rows_hold_all_texts_with_ends_between() -> None:
    """`pack_rows` joins the texts with EOS tokens and cuts them into rows of `ROW_TOKENS`."""
    rows = pack_rows([[1] * 100, [2] * 100, [3] * 100], eos_token_id=9)
    assert rows.shape == (2, ROW_TOKENS)
    assert rows.flatten().tolist() == ([1] * 100 + [9] + [2] * 100 + [9] + [3] * 100 + [9])[:256]


def test_training_learns_and_repeats_to_the_bit(
    world: World, pages: list[str], tokenizer: PreTrainedTokenizerFast, architecture: str
) -> None:
    torch.set_num_threads(1)
    settings = {
        "architecture": architecture, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "max_position_embeddings": 128, "initializer_range": 0.08, "seed": 0,
    }  # fmt: skip
    rows = page_rows(tokenizer, pages)
    chats = [{"prompt": prompt, "answer": answer} for prompt, answer in make_chats(world, 50, 0)]
    assert len(chat_rows(tokenizer, chats, rows)) > len(chat_rows(tokenizer, chats[:10], rows)) > 0
    losses, weights = [], []
    for _ in range(2):
        model = new_model(settings, tokenizer)
        losses.append(train(model, rows, Schedule(40, 8e-3, 0), "test"))
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert losses[0] == losses[1]
    assert torch.equal(weights[0], weights[1])
    assert losses[0] < 4.5  # an untrained model has ln(600) = 6.4
