"""Texts for comparing the token ids of llama.cpp with those of the tokenizer.

No text begins with a space, contains a special token or is changed by Unicode's NFC normalisation. For such texts
llama.cpp is known to give other ids; `vocabulary` and `metaspace` describe these cases.
"""

from __future__ import annotations

import random
import unicodedata

from transformers import PreTrainedTokenizerBase

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'll say it's what we've DONE, WON'T they? He'd, you're; SHE'S",
    "In 1984 there were 1234567 of 0.001, 3.14159e-10, 100% and 2024-01-31 12:34:56.",
    "a  b   c    d     e\tf\t\tg \t h",
    "first\nsecond\n\nthird\r\nfourth\n\n\n  fifth \n sixth",
    "ends with spaces   ",
    "ends with a line\n",
    "def f(x: int) -> list[str]:\n    if x >= 10 and x != 11:\n\t\treturn [f'{x:02d}'] * (x // 2)  # half\n    return",
    '<html><body class="a b">&amp; {"key": [1, 2.5, null]}</body></html> https://example.org/a?b=c&d=%20#e',
    "!!! ??? ... --- *** ((( ))) [[ ]] {{ }} << >> == != && || ;; :: ## $$ @@ ~~ `` ^^ ++",
    "café naïve Übergröße señor Łódź ¿qué? ¡sí!",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587\u3002\u4f60\u597d\uff0c\u4e16\u754c\uff01 \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u05e9\u05dc\u05d5\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f\U0001f44d\U0001f3fd",
    "\u201cquoted\u201d \u2018single\u2019 \u2013 \u2014 \u2026 \u20ac5 \u00b12\u00b0 \u2211\u2260\u221e \u2192",
    "non\u00a0breaking\u3000wide\u200bzero \u00bd \u2167 \u0661\u0662\u0663 \u2460 \ufb01",
    "AaBbCc camelCase snake_case kebab-case HTTPServer x86_64 v1.2.3-rc4 C++ C# .NET 3D",
)


def vocabulary_texts(tokenizer: PreTrainedTokenizerBase, n_ids: int, *, n_texts: int) -> list[str]:
    """Return texts made of random tokens.

    The texts have no meaning, but they contain rare tokens of a large vocabulary that ordinary texts do not.

    Args:
        tokenizer: The tokenizer.
        n_ids: Only ids below this number are drawn.
        n_texts: Number of texts; fewer are returned if too few draws give a usable text.
    """
    draw = random.Random(0)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ordinary = [index for index in range(min(n_ids, len(tokenizer))) if index not in special]
    texts: list[str] = []
    for _ in range(20 * n_texts):  # if most tokens are single bytes, many draws are invalid UTF-8
        text = tokenizer.decode(draw.choices(ordinary, k=12)).lstrip()
        if len(texts) < n_texts and text and "\ufffd" not in text and unicodedata.is_normalized("NFC", text):
            texts.append(text)
    return texts
