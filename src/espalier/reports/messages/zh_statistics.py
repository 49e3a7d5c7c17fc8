"""Chinese texts of the messages of statistics and analysis (`espalier.analysis.message_json`)."""

STATISTICS = {
    "no_values": "没有实验具有 {name}",
    "no_windows": "没有保存各窗口的损失",
    "too_few_windows": "{n} 个窗口组成的块少于 {needed} 个",
    "too_few": "只有 {n} 个实验, 至少需要 {needed} 个",
    "constant": "{name} 的值全部相等",
    "too_close": "{name} 的值相差太小, 无法计算",
    "no_spread": "所有实验的准确率相同",
    "one_level": "{axis} 只有一个取值",
    "aliased": "{axis} 无法与其他因素区分",
    "all_noise": "差异不大于评测噪声",
    "axes_in_noise": "各因素的解释量不大于其评测噪声",
    "no_replicates": "每个设置只运行了一次",
    "no_interaction": "各因素之外没有剩余的交互",
    "no_baseline": "未剪枝模型没有结果",
    "zero_baseline": "未剪枝模型的值为 0",
    "not_finite": "{name} 不是有限值",
    "no_common_settings": "两个模型没有共同的设置",
    "zero_base": "Base 模型的准确率为 0",
    "one_seed": "只有 {n} 个校准种子; 至少需要 2 个",
    "no_setting_at_every_seed": "没有设置在每个校准种子下都运行过",
    "no_seed_variation": "各校准种子下的效应相同",
    "from_documents": "{level:.0%} 区间来自对文档的 {n_draws:,} 次自助抽样。",
    "from_counts": (
        "没有逐文档的结果: {level:.0%} 区间由文档数推出, 相当于每个实验各自回答不同的文档。"
        "实验之间的差异看起来比实际更不确定。"
    ),
    "set_alone": "集合中只有 {best}: 在 {level:.0%} 水平上其余 {others} 个实验均可与最佳区分。",
    "set_all": "在 {level:.0%} 水平上 {total} 个实验都与最佳无法区分: 没有证据表明 {best} 更好。",
    "set_some": "在 {level:.0%} 水平上 {total} 个实验中有 {members} 个与最佳 ({best}) 无法区分。",
    "set_one_experiment": "只有一个实验, 因此没有可比较的。",
    "set_simultaneous": "要在 {level:.0%} 的研究中不遗漏任何真正最佳的实验, 须保留 {total} 个中的 {members} 个。",
    "every_method_in_set": "每种方法都有实验在集合中: 哪种方法给出最佳实验尚无定论。",
    "one_method": "只有一种方法, 因此无法比较方法。",
    "method_in_set": "{method} 与最佳无法区分: 其 {total} 个实验中有 {members} 个在集合中。",
    "method_not_in_set": "{method} 可与最佳区分: 其 {total} 个实验都不在集合中。",
    "optimism_shrinkage": (
        "作为 {n} 个中的最佳, {best} 看起来可能比实际好 {optimism:.4f}; 扣除后其准确率为 {corrected:.4f}。"
    ),
    "optimism_split_half": (
        "在一半文档上选出的最佳, 在另一半上低 {optimism:.4f} ({n_splits:,} 次划分的平均, 按一半文档计);"
        " {best} 在其中 {share:.0%} 被选中。"
    ),
    "optimism_undefined": "优胜者的乐观偏差未定义: {reason}。",
    "correlation_none": "{name}: 方法内无线性相关 ({n_methods} 种方法的平均相关系数 {r:.2f})。",
    "correlation_moderate": "{name}: 方法内中等线性相关 ({n_methods} 种方法的平均相关系数 {r:.2f})。",
    "correlation_strong": "{name}: 方法内强线性相关 ({n_methods} 种方法的平均相关系数 {r:.2f})。",
    "correlation_undefined": "{name}: 方法内相关系数未定义: {reason}。",
    "correlation_sign_differs": "{name}: 各方法合并的相关系数为 {pooled:.2f}, 符号相反: 它比较的是方法之间。",
    "correlation_mixed": "{name}: 各方法的符号不一致 ({lowest:.2f} 至 {highest:.2f})。",
    "axis_largest": "{axis} 解释的差异最多: {share:.0%} (已扣除评测噪声)。",
    "axis_none": "没有证据表明任何因素能解释差异: {reason}。",
    "axis_interaction": "{share:.0%} 的差异是交互: 一个因素的效应取决于其他因素。",
    "axis_noise": "观察到的差异中 {share:.0%} 是评测噪声。",
    "axis_beyond_seeds": "{axis} 的影响超出校准种子之间的差异 (F {f:.1f}, p {p:.2g}, {n_seeds} 个种子)。",
    "axis_within_seeds": "没有证据表明 {axis} 的影响超出校准种子之间的差异 (F {f:.1f}, p {p:.2g}, {n_seeds} 个种子)。",
    "one_seed_only": "只有一个校准种子: 各因素的效应在多大程度上取决于所抽样本尚不清楚。",
    "kinds_differ": (
        "在双方都有的 {n} 个设置上, Instruct 与 Base 相差 {difference:+.4f} ({lower:+.4f} 至 {upper:+.4f})。"
    ),
    "kinds_not_told": (
        "在双方都有的 {n} 个设置上, Instruct 与 Base 无法区分: {difference:+.4f} ({lower:+.4f} 至 {upper:+.4f})。"
    ),
    "kinds_undefined": "Instruct 无法与 Base 比较: {reason}。",
    "no_valid_experiment": "没有有效实验",
    "no_counts": "既没有逐文档的结果, 也没有文档数",
    "no_draws": "{error}",
    "no_perplexity": "没有测量 PPL",
    "no_structure": "未剪枝模型的大小未知",
    "no_layers": "层表中没有剪枝方案",
    "no_cache_dtype": "KV 缓存大小未知, 因为模型配置中没有已知的数据类型 ({dtype})",
    "unknown_protocol": "某个模型的评测协议未知",
    "other_protocols": "各模型的评测协议不同",
    "other_tasks": "各模型的评测任务或平均规则不同",
    "setting_twice": "同一设置出现两次",
    "tokens_told": (
        "在 {tokens:,} 个 token 下, 长度 {longest} 的序列与长度 {shortest} 的相差 {difference:+.4f}"
        " ({lower:+.4f} 至 {upper:+.4f})。"
    ),
    "tokens_not_told": (
        "在 {tokens:,} 个 token 下, 长度 {longest} 的序列与长度 {shortest} 的无法区分: {difference:+.4f}"
        " ({lower:+.4f} 至 {upper:+.4f})。"
    ),
    "no_documents": "没有逐文档的结果",
    "ranking_none": "计入的恢复实验数: {n}。排名需要多个实验: 请在 recovery.experiments 中列出更多。",
    "ranking_undefined": "恢复前后的顺序无法比较: {reason}。",
    "ranking_kept": "恢复后的顺序与恢复前一致: {n} 个实验的 Kendall tau 为 {tau:.2f} (p {p:.2g})。",
    "ranking_reversed": "恢复颠倒了顺序: {n} 个实验的 Kendall tau 为 {tau:.2f} (p {p:.2g})。",
    "ranking_open": "没有证据表明恢复后的顺序与恢复前一致: {n} 个实验的 Kendall tau 为 {tau:.2f} (p {p:.2g})。",
    "ranking_interval": (
        "换用其他文档时 tau 在 {lower:.2f} 与 {upper:.2f} 之间 ({level:.0%}); 其中不含换用其他恢复种子或文本的影响。"
    ),
    "ranking_few": "{n} 个实验太少, 无法证明: 即使两个顺序相同, p 也为 {p:.2g}。",
    "ranking_part": "{total} 个实验中恢复了 {n} 个; 其余实验恢复后的名次未知。",
    "best_stays": "恢复前的最佳在 {n} 个恢复的实验中仍为最佳: {before}。",
    "best_stays_alone": "恢复后在 {level:.0%} 水平上其余实验均可与其区分。",
    "best_stays_among": "恢复后在 {level:.0%} 水平上 {n} 个实验中有 {members} 个与最佳无法区分。",
    "best_changes": "恢复前最佳为 {before}, 恢复后为 {after} ({difference:+.4f})。",
    "best_changes_told": (
        "最佳改变: 恢复前为 {before}, 恢复后为 {after}, {before} 已可与之区分"
        " ({difference:+.4f}; {lower:+.4f} 至 {upper:+.4f})。"
    ),
    "best_changes_open": (
        "恢复前最佳为 {before}, 恢复后为 {after}, 但 {before} 与之无法区分"
        " ({difference:+.4f}; {lower:+.4f} 至 {upper:+.4f})。"
    ),
}
