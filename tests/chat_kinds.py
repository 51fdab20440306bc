"""Small tokenizers of the kinds that models come with, trained here, and chat templates of known models' kinds."""

import json
from collections.abc import Sequence
from itertools import product

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = (
    "<pad>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)
_WORDS = "how do i plant a tree ? use big shovel . of course 漢字 ünï im_end system user assistant <| |> </ < > [INST]"
TEXTS = [" ".join(words) for words in product(_WORDS.split(), repeat=2)] + ["plant a big tree", "shovels\n\nof trees"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN = CHATML.replace("m.content", "m.content.split('</think>')[-1].lstrip('\\n')")
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
    "{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}{% set text = first + m.content if loop.first else m.content %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = messages[0].content + '\\n\\n' %}{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TEMPLATES = {
    "none": None,
    "chatml": CHATML,
    "llama3": LLAMA3,
    "llama2": LLAMA2,
    "zephyr": ZEPHYR,
    "gemma": GEMMA,
}


def _wrapped(tokenizer: Tokenizer, specials: Sequence[str] = SPECIALS) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's kind: bytes, and control tokens beside the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _wrapped(tokenizer)


def whole_words() -> PreTrainedTokenizerFast:
    """Llama 3's kind: a word that stands in the vocabulary is never merged from its parts; here control tokens do."""
    tokenizer = byte_level()
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings["model"]["ignore_merges"] = True
    settings["model"]["vocab"] |= {entry["content"]: entry["id"] for entry in settings["added_tokens"]}
    settings["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    settings["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            settings["pre_tokenizer"],
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    return _wrapped(Tokenizer.from_str(json.dumps(settings)))


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """Llama 2's kind: a space before every stretch of text, unknown signs as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = [entry for entry in settings["added_tokens"] if entry["content"] not in bytes_]
    return _wrapped(Tokenizer.from_str(json.dumps(settings)))


def unigram() -> PreTrainedTokenizerFast:
    """T5's kind: control tokens are pieces of the vocabulary as well, which its model finds in any text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<unk>", *SPECIALS],
        unk_token="<unk>",
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _wrapped(tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's kind: lower case, unknown words, and control tokens that are words of the vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600,
        special_tokens=["[UNK]", *SPECIALS],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _wrapped(tokenizer)


KINDS = {
    "byte_level": byte_level,
    "whole_words": whole_words,
    "sentencepiece_bpe": sentencepiece_bpe,
    "unigram": unigram,
    "word_piece": word_piece,
}
