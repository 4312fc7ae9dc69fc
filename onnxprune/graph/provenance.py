"""What an output says about its origin, in metadata keys of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx

from onnxprune.version import __version__

_KEYS = ("onnxprune.version", "onnxprune.options", "onnxprune.source_sha256")


def with_provenance(proto: onnx.ModelProto, source_sha256: str, options: Mapping[str, object]) -> onnx.ModelProto:
    """Return a copy that records version, options and source; our own earlier keys are replaced, no other is touched.

    Args:
        options: what was asked for, without paths; written as canonical JSON.
    """
    copy = without_provenance(proto)
    canonical = json.dumps(dict(options), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for key, value in zip(_KEYS, (__version__, canonical, source_sha256), strict=True):
        copy.metadata_props.add(key=key, value=value)
    return copy


def without_provenance(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without our keys."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for index in reversed(range(len(copy.metadata_props))):
        if copy.metadata_props[index].key in _KEYS:
            del copy.metadata_props[index]
    return copy
