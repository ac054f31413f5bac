"""What of a prompt a model does not hear: the words behind its last token, the syntax of other programs, and more.

``[V]`` stands for the subject; the model's rare token takes its place (``spelled_out``).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tokenizers

from core.hyperdreambooth.model.description import ModelDescription

_PLACEHOLDER = re.compile(r"\[v\]", re.IGNORECASE)
_WORD = re.compile(r"\[v\]|[^\s,;]+", re.IGNORECASE)
_NETWORKS = re.compile(r"<\w+:[^<>]*>|\bembedding:\S+", re.IGNORECASE)
_SYNTAX = re.compile(
    r"""
    (?<!\() \(+ [^()]* : \s* -? (?:\d+ (?:\.\d*)? | \.\d+) \s* \)+  # (word:1.3)
    | (?<!\() \({2,} [^()]+ \){2,}                                    # ((word))
    | \( [^()]+ \) (?: \d | \.\d | [+-] ) [\d.+-]*                    # (word)1.3 and (word)++
    | (?<!\w) \w+ \+{2,}                                              # word++
    | (?<!\[) \[{2,} [^\[\]]+ \]{2,}                                  # [[word]]
    | \[ [^\[\]:|]* [:|] [^\[\]]* \]                                 # [from:to:0.5] and [one|other]
    | \{ [^{}|]* \| [^{}]* \}                                         # {one|other}
    | \b __ \w+ __ \b                     # __wildcard__
    | \b BREAK \b
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class PromptWarning:
    """What is not heard, and why: a code, a sentence, and the pieces of the prompt that it is about."""

    code: str
    message: str
    words: tuple[str, ...]


def spelled_out(prompt: str, identifier: str) -> str:
    """``prompt`` as the text encoder sees it: the rare token in place of ``[V]``."""
    return _PLACEHOLDER.sub(lambda _: identifier, prompt)


class PromptChecker:
    """Checks prompts for one model."""

    def __init__(self, description: ModelDescription) -> None:
        self._identifier = description.config.identifier
        self._encoders = [(_opened(each.text), each.length) for each in description.tokenizers]

    @property
    def length(self) -> int:
        """How many tokens a prompt may have, without its start and end."""
        return min(length - each.num_special_tokens_to_add(is_pair=False) for each, length in self._encoders)

    def kept(self, prompt: str) -> str:
        """The part of the prompt that the model reads: all of it, or what is before the first word that is cut."""
        text = spelled_out(prompt, self._identifier)
        places = [place for encoder in self._encoders if (place := _cut(*encoder, text)) is not None]
        return prompt if not places else prompt[: self._start_of_word(prompt, min(places))]

    def check(self, prompt: str) -> list[PromptWarning]:
        """All that is to be said of a prompt, at most one warning of each code."""
        return [*self._cut_words(prompt), *_syntax(prompt), *self._unknown(prompt)]

    def _cut_words(self, prompt: str) -> Iterator[PromptWarning]:
        dropped = prompt[len(self.kept(prompt)) :].strip(" ,;")
        words = tuple(_WORD.findall(dropped))
        if words:
            yield PromptWarning(
                "words-dropped",
                f"The model reads {self.length} tokens of a prompt. What comes after them was dropped: "
                f'"{dropped}". Say it shorter, or put first what matters.',
                words,
            )

    def _start_of_word(self, prompt: str, place: int) -> int:
        """Where the word begins that is at a place of the text that is spelled out."""
        longer = 0
        for match in _WORD.finditer(prompt):
            spelled = spelled_out(match[0], self._identifier)
            if place < match.end() + longer + len(spelled) - len(match[0]):
                return match.start()
            longer += len(spelled) - len(match[0])
        return len(prompt)

    def _unknown(self, prompt: str) -> Iterator[PromptWarning]:
        text = spelled_out(prompt, self._identifier)
        unknown = dict.fromkeys(each for encoder, _ in self._encoders for each in _spelled_in_bytes(encoder, text))
        if unknown:
            scripts = ", ".join(dict.fromkeys(_script(each) for each in unknown))
            words = tuple(dict.fromkeys(w for w in _WORD.findall(prompt) if not unknown.keys().isdisjoint(w)))
            yield PromptWarning(
                "characters-unknown",
                f"The model has no tokens for these characters ({scripts}): {' '.join(unknown)}. It reads them as "
                "bytes that mean nothing to it; say it in words that it knows.",
                words or tuple(unknown),
            )


def _opened(text: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _cut(tokenizer: tokenizers.Tokenizer, length: int, text: str) -> int | None:
    """The place in the text where the first token begins that is too many."""
    most = length - tokenizer.num_special_tokens_to_add(is_pair=False)
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return offsets[most][0] if len(offsets) > most else None


def _spelled_in_bytes(tokenizer: tokenizers.Tokenizer, text: str) -> list[str]:
    """The characters that take several tokens each, none of which is a character."""
    places: Sequence[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
    return [text[start:end] for (start, end), count in Counter(places).items() if count > 1 and end > start]


def _script(character: str) -> str:
    return unicodedata.name(character[0], "unnamed").split()[0].lower()


def _syntax(prompt: str) -> Iterator[PromptWarning]:
    if networks := tuple(_NETWORKS.findall(prompt)):
        yield PromptWarning(
            "network-ignored",
            f"{', '.join(networks)}: no other network is loaded, and this is read as text. Leave it out; the person "
            "is [V].",
            networks,
        )
    weights = tuple(match[0].strip() for match in _SYNTAX.finditer(_NETWORKS.sub(" ", prompt)))
    if weights:
        yield PromptWarning(
            "syntax-ignored",
            f"{', '.join(weights)}: weights, alternatives and wildcards of other programs have no effect here, and "
            "are read as text. Use plain words; guidance_scale says how strictly the prompt is followed.",
            weights,
        )
