"""Chinese texts on serving, including the messages of verdicts (`espalier.analysis.serving_messages`)."""

SERVING = {
    "s.deployment": "部署: 哪些程序可以加载",
    "deployment.none": "无法判断: {reason}。",
    "deployment.about": "针对 {experiment}。",
    "deployment.target": "目标",
    "deployment.verdict": "能否加载",
    "deployment.basis": "依据",
    "deployment.details": "{target}: {details}。",
    "deployment.multiple": "倍数",
    "deployment.n_layers": "受影响的层数",
    "deployment.added": "增加的参数量",
    "deployment.left": "仍去除",
    "deployment.rounding": "MLP 宽度以零填充 (结果不变); 该方案去除 {fraction}",
    "deployment.basis_about": ("依据: 导出后与剪枝模型实际比较, 阅读目标程序的代码, 或经验规则 (docs/serving.md)。"),
    "target.transformers": "transformers (导出的文件夹)",
    "target.vllm": "vLLM (Transformers 后端)",
    "target.gguf_f16": "llama.cpp, GGUF F16",
    "target.gguf_q8_0": "llama.cpp, GGUF Q8_0 或 Q4_0",
    "target.gguf_k": "llama.cpp, GGUF k-quants",
    "target.decilm": "vLLM (DeciLM, Nemotron-NAS)",
    "target.tensorrt": "各层形状相同 (TensorRT-LLM 类)",
    "verdict.as_is": "可直接加载",
    "verdict.needs_rounding": "需取整",
    "verdict.needs_stub": "需占位块",
    "verdict.needs_rounding_and_stub": "需取整和占位块",
    "verdict.cannot": "不能",
    "basis.run": "实测",
    "basis.read": "阅读代码",
    "basis.rule": "经验规则",
    "other_type": "其导出只针对类型 {known} 的模型, 而非 {model_type}",
    "has_block_norms": "模型的块内有归一化 ({names}), 该格式无处存放",
    "sliding_window": "滑动窗口 {window:,} 个 token, 短于上下文 {context:,}",
    "shapes_differ": "各层不同: {n_kv} 种 KV 组数, {n_mlp} 种 MLP 宽度",
    "derives_head_dim": "其自带的 {model_type} 类由头数计算头维度, 而头数已减少; 请用 --model-impl transformers 加载",
    "stock_kv_groups": "{n} 种 KV 组数 (组数: 层; {sizes})",
    "stock_mlp_channels": "{n} 种 MLP 宽度 (宽度: 层; {sizes})",
    "stock_no_attention": "第 {layers} 层没有注意力",
    "stock_no_mlp": "第 {layers} 层没有 MLP",
    "stock_heads": "标准配置不接受此头数 (KV 组数: 层; {sizes})",
    "deployment.stock": "剪枝后各层形状相同: 导出的是标准检查点, 无需本项目的代码即可加载。",
    "deployment.not_stock": "不是标准检查点的形状: {details}。",
    "uniform_padding": (
        "若每层以零填充到 {kv_groups:,} 个 KV 组和 {channels:,} 个通道则可加载, 此时仍去除 {fraction:.1%} 的参数"
    ),
    "query_heads_dropped": "第 {layers} 层去除了 query 头, 而该格式各层的数目相同",
    "no_layer_left": "没有保留任何块",
    "round_widths": "{n} 层 (第 {layers} 层) 的 MLP 宽度须补到 {multiple} 的倍数",
    "attention_stubs": "第 {layers} 层需要全零的 attention",
    "mlp_stubs": "第 {layers} 层需要 {channels} 个全零通道的 MLP",
    "left_out": "第 {layers} 层没有保留任何块, 因此略去",
    "wide_o_proj": "第 {layers} 层的 o_proj 以更大的类型存储: 其输入不是 {multiple} 的倍数",
    "ragged_widths": (
        "在 GPU 上慢: {n} 层的 MLP 宽度不是 {multiple} 的倍数。这样的宽度使 8B 模型 (bfloat16) 在 H100 上比未剪枝的模型"
        "慢 2.4 倍"
    ),
    "old_manifest": "清单由旧版本生成; 请重新运行 `snakemake`",
    "no_plan": "层表没有说明该实验保留什么",
    "advice_aligned": "所有 MLP 宽度已是 {multiple} 的倍数。",
    "advice_plan": (
        "要部署的模型, 规划时设 selection.mlp_multiple_of: 8 或更大 (GGUF 的 Q8_0 与 Q4_0 设 32, k-quants 设 256),"
        " 剪枝比例不变。若把该方案补到 8 的倍数,"
        " 会在 {n} 层增加 {added:,} 个参数, 仍去除 {fraction:.2%}。"
    ),
    "advice_coarse": (
        "对 {channels:,} 个通道的 MLP, 8 的倍数太粗: 补齐会退回所去除参数的 {share:.0%}。接受任意宽度的目标可直接使用;"
        " 对其他目标, 规划时设它所接受的最小 selection.mlp_multiple_of。"
    ),
    "s.inference": "{experiment} 的推理实测",
    "inference.about": (
        "设备 {device} ({name}{threads}), {dtype}, transformers 自带的生成: 提示 {prompt_tokens:,} 个 token, 生成"
        " {new_tokens:,} 个, 各版本轮流运行 {repeats} 次。数值为中位数, 括号内为最低与最高。"
    ),
    "inference.threads": ", {n} 个线程",
    "inference.sizes": "大小",
    "inference.speeds": "速度 (一批全部序列的 token/s) 与首个 token 的时间",
    "inference.gains": "同一次重复内的速度比, 及其中位数的至少 95% 区间 (各自独立: 二十个相等者中可有一个落在区间外)",
    "inference.version": "版本",
    "inference.weights": "权重 (字节)",
    "inference.batch": "批大小",
    "inference.prefill": "预填充 (token/s)",
    "inference.decode": "解码 (token/s)",
    "inference.first": "首个 token (秒)",
    "inference.cache": "KV 缓存 (字节)",
    "inference.peak": "权重之外的峰值 (字节)",
    "inference.compared": "比较",
    "inference.speed": "速度",
    "inference.ratio": "比值",
    "inference.interval": "区间",
    "inference.outcome": "结果",
    "inference.pair": "{of} / {to}",
    "version.unpruned": "未剪枝",
    "version.pruned": "剪枝后",
    "version.padded": "剪枝后, MLP 宽度补到 {multiple} 的倍数",
    "version.short.unpruned": "未剪枝",
    "version.short.pruned": "剪枝后",
    "version.short.padded": "补齐",
    "speed.prefill_tokens_per_s": "预填充",
    "speed.decode_tokens_per_s": "解码",
    "outcome.gain": "更快",
    "outcome.loss": "更慢",
    "outcome.not_told": "无法区分",
    "inference.pruned.gain": "批大小 {batch}, {speed}: 剪枝后速度为原来的 {ratio} 倍 ({low} 至 {high})。",
    "inference.pruned.loss": (
        "批大小 {batch}, {speed}: 没有收益: 剪枝后更慢, 速度为原来的 {ratio} 倍 ({low} 至 {high})。"
    ),
    "inference.pruned.not_told": "批大小 {batch}, {speed}: 看不出收益: 速度为原来的 {ratio} 倍 ({low} 至 {high})。",
    "inference.padded.gain": "批大小 {batch}, {speed}: 补齐宽度后速度为原方案的 {ratio} 倍 ({low} 至 {high})。",
    "inference.padded.loss": "批大小 {batch}, {speed}: 补齐宽度后更慢, 速度为原方案的 {ratio} 倍 ({low} 至 {high})。",
    "inference.padded.not_told": (
        "批大小 {batch}, {speed}: 补齐宽度与原方案无法区分: 速度为原方案的 {ratio} 倍 ({low} 至 {high})。"
    ),
    "inference.aligned": "所有 MLP 宽度已是 8 的倍数, 因此没有补齐。",
}
