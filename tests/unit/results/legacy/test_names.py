"""Parsing of the names of search folders and experiment folders."""

import pytest

from espalier.results.legacy.names import FolderNameError, SearchName, parse_experiment, parse_search

METHODS = ("taylor", "layerwise", "blockwise", "Wanda")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("search_Llama_20", SearchName("Llama", "taylor", 0.2)),
        ("search_Qwen_layerwise_20", SearchName("Qwen", "layerwise", 0.2)),
        ("search_Qwen2.5-7B_blockwise_50", SearchName("Qwen2.5-7B", "blockwise", 0.5)),
        ("search_Llama-Instruct_taylor_12.5", SearchName("Llama-Instruct", "taylor", 0.125)),
        ("search_Qwen_wanda_20", SearchName("Qwen", "Wanda", 0.2)),
        # Llama_Instruct is the name of a model, so Instruct is not taken for a method.
        ("search_Llama_Instruct_20", SearchName("Llama_Instruct", "taylor", 0.2)),
        ("search_Llama_Instruct_Blockwise_20", SearchName("Llama_Instruct", "blockwise", 0.2)),
    ],
)
def test_search_folders(name: str, expected: SearchName) -> None:
    assert parse_search(name, METHODS, ["Llama-Instruct", "Llama"]) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("search_Qwen", "is not of the form search_"),
        ("search_Qwen_0", "is not of the form"),
        ("search_Qwen_200", "is not of the form"),
        ("Qwen_20", "is not of the form"),
        ("search_20", "is not of the form"),
        ("search_Qwen_magic_20", "has 'magic' where a method may stand; known methods: Wanda, blockwise, layerwise"),
        # The method does not come last, so the meaning of v2 is unclear.
        ("search_Qwen_blockwise_v2_20", "has 'v2' where a method may stand"),
        ("search_Qwen_layerwise_blockwise_20", r"has several methods \(layerwise, blockwise\)"),
        # This could be 12.5%, or a method named 12 at 5%.
        ("search_Qwen_12_5", "has '12' where a method may stand"),
    ],
)
def test_unclear_search_folders(name: str, reason: str) -> None:
    with pytest.raises(FolderNameError, match=reason):
        parse_search(name, METHODS, ["Qwen"])


@pytest.mark.parametrize("middle", ["001", "1", "045_retry"])
def test_experiments(middle: str) -> None:
    assert parse_experiment(f"exp_{middle}_taylor_seq_len64_taylor_num_samples128") == (64, 128)


@pytest.mark.parametrize(
    "name",
    [
        "exp_001_taylor_seq_len64",
        "exp_001_taylor_seq_len_taylor_num_samples128",
        "exp_001_taylor_seq_len64_taylor_num_samples128_old",
        "exp_001_taylor_seq_len64_taylor_seq_len32_taylor_num_samples128",
        "exp_001_taylor_seq_len1_taylor_num_samples128",
        "exp_001_taylor_seq_len64_taylor_num_samples0",
        "exp_001_taylor_seq_len64_taylor_num_samples128\n",
        "exp_taylor_seq_len64_taylor_num_samples-1",
        "exp_{x}_taylor_seq_len64_taylor_num_samples128",
        "exp_<b>_taylor_seq_len64_taylor_num_samples128",
    ],
)
def test_unclear_experiments(name: str) -> None:
    with pytest.raises(FolderNameError, match="its name"):
        parse_experiment(name)
