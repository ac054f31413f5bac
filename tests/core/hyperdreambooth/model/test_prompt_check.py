"""What is said of prompts, and that it is what the text encoder gets: generated prompts, tokenizers of any length."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.hyperdreambooth.model.config import BundleConfig
from core.hyperdreambooth.model.description import ModelDescription, Tokenizer, _clip, describe_folder
from core.hyperdreambooth.model.prompt_check import PromptChecker, spelled_out
from core.hyperdreambooth.model.prompts import tokenize
from core.lab.testing import random_bundle
from core.lab.training.portable import make_portable
from core.lab.training.tokenizer import train_tokenizer
from core.settings import EMBEDDED_BUNDLE

WORDS = ["a", "pencil", "sketch", "of", "face", "wearing", "navy", "suit", "in", "the", "rain", "neon", "old", "hat"]
some_words = st.lists(st.sampled_from([*WORDS, "[V]", "[v]", "unheard", "x,y", "don't", "12"]), max_size=60)
separators = st.sampled_from([" ", "  ", ", "])
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@cache
def checker(length, identifier="sks"):
    tokenizer = train_tokenizer([*WORDS, identifier], length=length).backend_tokenizer
    return PromptChecker(described(tokenizer.to_str(), length, identifier)), tokenizer


def described(text, length, identifier="sks"):
    config = BundleConfig(name="x", identifier=identifier)
    return ModelDescription(config, False, 16, (Tokenizer(text, length),))


def is_heard(tokenizer, text, length):
    """Whether all words of a text are; what stands after the last one does not matter."""
    return len(tokenizer.encode(re.sub(r"[\s,;]+$", "", text)).ids) <= length


@settings(deadline=None, max_examples=60)
@given(some_words, separators, st.sampled_from([5, 24, 40, 77]), st.sampled_from(["sks", "unheard", "x-y"]))
def test_what_is_kept_is_what_the_encoder_hears_and_the_rest_is_named(words, separator, length, identifier):
    prompt = separator.join(words)
    checks, tokenizer = checker(length, identifier)
    kept, spelled = checks.kept(prompt), spelled_out(prompt, identifier)
    assert prompt.startswith(kept)
    assert is_heard(tokenizer, spelled_out(kept, identifier), length)
    assert (kept == prompt) == is_heard(tokenizer, spelled, length)
    warned = [each for each in checks.check(prompt) if each.code == "words-dropped"]
    assert bool(warned) == (kept != prompt)
    for warning in warned:
        assert " ".join(warning.words) == " ".join(re.split(r"[\s,;]+", prompt[len(kept) :].strip(" ,")))
        assert f"{checks.length} tokens" in warning.message
        one, other = (tokenizer.encode(text).ids[: length - 1] for text in (spelled, f"{spelled} more words"))
        assert one == other, "the end changes nothing"


@settings(deadline=None, max_examples=80)
@given(any_text)
def test_any_text_is_checked_without_an_error_and_cut_where_the_encoder_cuts(text):
    checks, tokenizer = checker(24)
    kept = checks.kept(text)
    assert text.startswith(kept)
    assert (kept == text) == is_heard(tokenizer, spelled_out(text, "sks"), 24)
    for warning in checks.check(text):
        assert warning.message
        assert warning.words


@pytest.mark.parametrize(
    ("prompt", "codes", "words"),
    [
        ("a [V] face", [], []),
        ("a [V] face (old), in the rain: neon", [], []),
        ("a [V] face, 12 hats, don't smile", [], []),
        ("a (smiling:1.3) [V] face", ["syntax-ignored"], ["(smiling:1.3)"]),
        ("a (smiling hat: .5) [V]", ["syntax-ignored"], ["(smiling hat: .5)"]),
        ("((old:1.2)) [V]", ["syntax-ignored"], ["((old:1.2))"]),
        ("((old)) [V]", ["syntax-ignored"], ["((old))"]),
        ("[[old]] [V]", ["syntax-ignored"], ["[[old]]"]),
        ("(old)1.3 [V]", ["syntax-ignored"], ["(old)1.3"]),
        ("(old)++ hat-- [V]", ["syntax-ignored"], ["(old)++"]),
        ("old++ [V]", ["syntax-ignored"], ["old++"]),
        ("[old:hat:0.5] [V]", ["syntax-ignored"], ["[old:hat:0.5]"]),
        ("[old|hat] [V]", ["syntax-ignored"], ["[old|hat]"]),
        ("{old|hat} [V]", ["syntax-ignored"], ["{old|hat}"]),
        ("__hats__ [V]", ["syntax-ignored"], ["__hats__"]),
        ("old BREAK [V]", ["syntax-ignored"], ["BREAK"]),
        ("<lora:add_detail:0.8> [V]", ["network-ignored"], ["<lora:add_detail:0.8>"]),
        ("<lyco:x> <hypernet:y:1> [V]", ["network-ignored"], ["<lyco:x>", "<hypernet:y:1>"]),
        ("embedding:easynegative [V]", ["network-ignored"], ["embedding:easynegative"]),
        ("<lora:a:1> (b:2) [V]", ["network-ignored", "syntax-ignored"], ["<lora:a:1>", "(b:2)"]),
        ("[V], 日本", ["characters-unknown"], ["日本"]),
        ("[V] пейзаж, old", ["characters-unknown"], ["пейзаж"]),
        ("[V] صورة", ["characters-unknown"], ["صورة"]),
        ("[V] café 😀", ["characters-unknown"], ["café", "😀"]),
    ],
)
def test_what_has_no_effect_is_named(prompt, codes, words):
    found = checker(77)[0].check(prompt)
    assert [each.code for each in found] == codes
    assert [word for each in found for word in each.words] == words
    assert all(word in each.message or each.code == "characters-unknown" for each in found for word in each.words)


@pytest.mark.parametrize("piece", ["(", "((", "[", "[:", "(:", "(:1", "{|", "<a:", "a+", "__", "1", ":1", "(a)"])
def test_a_long_prompt_of_syntax_is_checked_at_once(piece):
    checks, _ = checker(24)
    checks.check(piece * (1000 // len(piece)))  # a regular expression that tries everything would not come back


def test_of_two_encoders_the_shorter_counts():
    long, short = (checker(length)[1].to_str() for length in (40, 24))
    both = ModelDescription(BundleConfig(name="x"), False, 16, (Tokenizer(long, 40), Tokenizer(short, 24)))
    assert PromptChecker(both).length == 22
    assert PromptChecker(both).kept("a " * 30) == "a " * 22


def test_the_bundle_hears_the_same(tmp_path):
    bundle = random_bundle(with_hypernetwork=False)
    checks = PromptChecker(described(bundle.tokenizer.backend_tokenizer.to_str(), bundle.tokenizer.model_max_length))
    prompt = "a [V] old hat and more"
    kept = checks.kept(prompt)
    assert kept != prompt
    assert tokenize(bundle, [prompt]).tolist() == tokenize(bundle, [f"{prompt} still"]).tolist()


@settings(deadline=None, max_examples=60)
@given(st.one_of(any_text, some_words.map(" ".join)))
def test_a_tokenizer_of_two_files_is_the_same_as_that_of_one(text):
    one, two = both_ways()
    assert one.kept(text) == two.kept(text)
    assert [each.encode(text).ids for each, _ in one._encoders] == [each.encode(text).ids for each, _ in two._encoders]


@cache
def both_ways():
    found = describe_folder(Path(EMBEDDED_BUNDLE), "x").tokenizers[0]
    older = Tokenizer(_clip(Path(EMBEDDED_BUNDLE) / "tokenizer"), found.length)
    return tuple(PromptChecker(described(each.text, each.length)) for each in (found, older))


def test_a_folder_is_described_as_the_bundle_is(tmp_path):
    from core.hyperdreambooth.model.loading import load_bundle
    from core.lab.testing import random_pipeline

    random_pipeline().save_pretrained(tmp_path)
    make_portable(tmp_path)
    bundle = load_bundle(tmp_path, device="cpu")
    found = describe_folder(tmp_path, "called")
    assert (found.config.name, found.config.resolution) == ("called", bundle.resolution)
    assert found.pixels_multiple == bundle.pixels_multiple
    assert [each.length for each in found.tokenizers] == [bundle.tokenizer.model_max_length]
    assert ModelDescription.from_json(found.to_json()) == found
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    (older,) = describe_folder(tmp_path, "called").tokenizers
    assert json.loads(older.text)["model"]["vocab"] == json.loads(found.tokenizers[0].text)["model"]["vocab"]
