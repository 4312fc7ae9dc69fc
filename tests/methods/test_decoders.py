"""Decoders with 4-bit weights: what goes of them, and 20 steps with the cache against the masked original."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.group import cli
from onnxprune.evidence.dropped import masked_original
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.trim import TrimOptions, trim
from tests import decoders

STEPS, FEW = 20, 20
WORDS = np.random.default_rng(5).integers(0, FEW, (2, STEPS))
"""Of the first few words of the vocabulary."""

CASES = {
    "feed-forward layers": {"ratio": 0.5, "exact_only": True},
    "heads with their caches": {"ratio": 0.5, "resize_io": ("past*",)},
    "a whole layer": {"drop": ("attention1", "feed1")},
    "a layer of two, and widths": {"drop": ("attention1", "feed1"), "ratio": 0.5, "resize_io": ("past*",)},
    "one attention and one feed-forward layer": {"drop": ("attention0", "feed1"), "ratio": 0.5},
    "the first layer": {"drop": ("attention0", "feed0"), "ratio": 0.5, "resize_io": ("past*",)},
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_of_a_packed_decoder_give_what_the_masked_original_gives(case: str) -> None:
    model = decoders.packed()
    result = prune(model, PruneOptions(align=1, compensate="none", **CASES[case]))
    assert result.model.size_bytes < 0.85 * len(model.SerializeToString())
    expected = decoders.decoded(masked_original(result.channels, result.keep, result.short).proto, WORDS)
    found = decoders.decoded(result.model.proto, WORDS)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_half_of_the_heads_are_half_of_the_cache() -> None:
    options = PruneOptions(ratio=0.5, align=1, compensate="none", resize_io=("past*",))
    result = prune(decoders.packed(), options).model.proto
    heads = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in result.graph.input}
    assert {n: size for n, size in heads.items() if n.startswith("past")} == {
        f"past_key_values.{layer}.{kind}": decoders.SHARED // 2 for layer in range(2) for kind in ("key", "value")
    }


@pytest.mark.parametrize("way", ["narrow", "spread", "inside"])
def test_a_packed_decoder_of_a_smaller_vocabulary_gives_what_it_gave(way: str) -> None:
    model = decoders.packed()
    more = {"narrow": {"keep": {"logits:2": "tokens"}}, "spread": {"scatter": ["logits:2"]}, "inside": {}}[way]
    result = trim(model, TrimOptions(tokens={"input_ids": f"0-{FEW - 1}"}, **more))
    found, expected = decoders.decoded(result.model.proto, WORDS), decoders.decoded(model, WORDS)
    assert found.shape[2] == (FEW if way == "narrow" else decoders.WORD_ROWS)
    assert np.array_equal(found[..., :FEW], expected[..., :FEW])


def test_a_cut_decoder_generates_in_onnxruntime_genai(tmp_path) -> None:  # type: ignore[no-untyped-def]
    genai = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    path = tmp_path / "model.onnx"
    onnx.save(decoders.packed(), path)
    config = decoders.configuration("model.onnx")
    part = config["model"]["decoder"]
    part |= {"hidden_size": decoders.PACKED_WIDTH, "num_attention_heads": decoders.PACKED_HEADS}
    part["inputs"] |= {"attention_mask": "attention_mask", "position_ids": "position_ids"}
    config["model"] |= {"vocab_size": decoders.WORD_ROWS, "context_length": 64, "pad_token_id": 0, "eos_token_id": 63}
    config["search"] = {"max_length": 24, "do_sample": False}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    (tmp_path / "cut").mkdir()
    words = ["prune", path, "--ratio", "0.5", "--align", "1", "--compensate", "none", "--resize-io", "past*"]
    words += ["--drop", "attention1", "--drop", "feed1", "-o", tmp_path / "cut" / "model.onnx"]
    assert CliRunner().invoke(cli, [str(word) for word in words]).exit_code == 0
    for folder in (tmp_path, tmp_path / "cut"):
        model = genai.Model(str(folder))
        asked = genai.GeneratorParams(model)
        asked.set_search_options(max_length=24, min_length=24)
        generator = genai.Generator(model, asked)
        generator.append_tokens(np.array([[1, 2, 3, 4]], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        assert len(generator.get_sequence(0)) == 24
