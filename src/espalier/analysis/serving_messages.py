"""English messages of the verdicts on serving. Other languages are in `espalier.reports.messages`."""

SERVING_ENGLISH = {
    "other_type": "its export is known for models of type {known}, not {model_type}",
    "has_block_norms": "the model has norms inside its blocks ({names}), for which the format has no place",
    "sliding_window": "the sliding window of {window:,} tokens is shorter than the context of {context:,}",
    "shapes_differ": "layers differ: {n_kv} different numbers of KV groups, {n_mlp} different MLP widths",
    "uniform_padding": (
        "padded with zeros to {kv_groups:,} KV groups and {channels:,} channels in every layer it would load, and"
        " {fraction:.1%} of the parameters would still be removed"
    ),
    "derives_head_dim": (
        "its own class of {model_type} computes the head size from the number of heads, which is smaller now; load it"
        " with --model-impl transformers"
    ),
    "stock_kv_groups": "{n} different numbers of KV groups (number: layers; {sizes})",
    "stock_mlp_channels": "{n} different MLP widths (width: layers; {sizes})",
    "stock_no_attention": "no attention in layers {layers}",
    "stock_no_mlp": "no MLP in layers {layers}",
    "stock_heads": "the stock config does not accept this number of heads (KV groups: layers; {sizes})",
    "query_heads_dropped": "query heads are gone where the format has the same number in each layer (layers {layers})",
    "no_layer_left": "no layer keeps a block",
    "round_widths": "MLP widths up to multiples of {multiple} ({n} layers: {layers})",
    "attention_stubs": "attention of zeros (layers {layers})",
    "mlp_stubs": "an MLP of {channels} channels of zeros (layers {layers})",
    "left_out": "what keeps no block is left out (layers {layers})",
    "wide_o_proj": "o_proj stays in a larger type, as its inputs are no multiple of {multiple} (layers {layers})",
    "ragged_widths": (
        "slow on GPUs: the MLP widths of {n} layers are no multiples of {multiple}. With such widths, an 8B model in"
        " bfloat16 ran 2.4 times slower than the unpruned one on an H100"
    ),
    "old_manifest": "the manifest is of an older version; run `snakemake` again",
    "no_plan": "the layers table does not say what this experiment keeps",
    "advice_aligned": "All MLP widths are multiples of {multiple} already.",
    "advice_plan": (
        "For a model that will be served, plan with selection.mlp_multiple_of: 8 or more (32 for GGUF Q8_0 and Q4_0,"
        " 256 for its k-quants), which keeps the ratio. Padding this plan to multiples of 8 adds {added:,} parameters"
        " in {n} layers and leaves {fraction:.2%} removed."
    ),
    "advice_coarse": (
        "For MLPs of {channels:,} channels multiples of 8 are coarse: padding this plan to them gives back {share:.0%}"
        " of what was removed. Targets that take any width serve it as it is; for the others plan with the smallest"
        " selection.mlp_multiple_of that they take."
    ),
}
