"""Defects that models share, each made for one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from jtts_export.runtime.names import data_file, stored

from . import signals
from .defect import Defect, Files, Planting, linked_graphs
from .graph_file import GraphFile, Step, rewrite
from .weights import Damage

NOISE = 0.01  # -40 dB re full scale


def in_graph(suffix: str, damage: Damage) -> Callable[[Planting], None]:
    """Damage to the graph whose name ends so."""

    def plant(planting: Planting) -> None:
        with planting.graph(suffix) as graph:
            damage(graph)

    return plant


def of_audio(model: str, suffix: str, variants: Sequence[str], sample_rate_hz: int) -> list[Defect]:
    """What can be wrong with samples, behind the waveform of a graph."""

    def samples(seconds: float) -> int:
        return round(seconds * sample_rate_hz)

    wrong: list[tuple[str, str, list[Step]]] = [
        ("tail of 5 % missing", "the last 5 % of the samples", signals.truncate_share(5)),
        ("tail of 20 ms missing", "the last 20 ms", signals.truncate(samples(0.02))),
        ("segment repeated", "150 ms in the middle are said twice", signals.repeat(samples(0.15))),
        ("segment dropped", "150 ms in the middle are missing", signals.drop(samples(0.15))),
        ("resampled", "everything is 1 % longer and lower", signals.resample(1.01)),
        ("DC offset", "0.01 is added", signals.offset(0.01)),
        ("clipped", "at 70 % of the peak", signals.clip(0.7)),
        ("noise", "-40 dB re full scale", signals.noise(NOISE)),
        ("gain", "1.5 dB louder", signals.gain(1.5)),
        ("polarity", "the sign of every sample", signals.invert()),
    ]
    return [
        Defect(name, model, variant, what, in_graph(suffix, lambda graph, s=steps: signals.behind(graph, s)))  # type: ignore[misc]
        for variant in variants
        for name, what, steps in wrong
    ]


def gaps_at_joins(milliseconds: float, sample_rate_hz: int) -> Callable[[Planting], None]:
    """The runtime hands out silence ahead of every chunk but the first."""

    def plant(planting: Planting) -> None:
        good = planting.model.speaker
        silence = np.zeros(round(milliseconds / 1e3 * sample_rate_hz), np.float32)

        def speaker(*args: object) -> Callable[[], Iterator[np.ndarray]]:
            speak = good(*args)  # type: ignore[arg-type]

            def gapped() -> Iterator[np.ndarray]:
                for number, chunk in enumerate(speak()):
                    yield np.concatenate([silence, chunk]) if number else chunk

            return gapped

        planting.model = replace(planting.model, speaker=speaker)

    return plant


def of_streams(model: str, variant: str, sample_rate_hz: int) -> list[Defect]:
    return [
        Defect(
            f"gap of {ms:g} ms at joins",
            model,
            variant,
            f"{ms:g} ms of silence between the chunks of stream()",
            gaps_at_joins(ms, sample_rate_hz),
        )
        for ms in (10, 5)
    ]


def without_metadata(key: str) -> Damage:
    def damage(graph: GraphFile) -> None:
        kept = [entry for entry in graph.proto.metadata_props if entry.key != key]
        assert len(kept) < len(graph.proto.metadata_props)
        del graph.proto.metadata_props[:]
        graph.proto.metadata_props.extend(kept)

    return damage


def with_metadata(key: str, change: Callable[[str], str]) -> Damage:
    def damage(graph: GraphFile) -> None:
        (entry,) = (entry for entry in graph.proto.metadata_props if entry.key == key)
        entry.value = change(entry.value)

    return damage


def in_json(name: str, change: Callable[[dict], None]) -> Callable[[Planting], None]:
    """A client's JSON file with another content."""

    def plant(planting: Planting) -> None:
        path = planting.clients / name
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        rewrite(path, json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n")

    return plant


def one_character(name: str, old: str, new: str) -> Callable[[Planting], None]:
    """The first occurrence of `old` in a client's file."""

    def plant(planting: Planting) -> None:
        path = planting.clients / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        rewrite(path, text.replace(old, new, 1).encode())

    return plant


def shifted(name: str, *keys: str) -> Callable[[Planting], None]:
    """Every id of a vocabulary, below these keys of a client's JSON file, is the next one."""

    def change(content: dict) -> None:
        *parents, last = keys
        for key in parents:
            content = content[key]
        vocabulary = content[last]
        if isinstance(vocabulary, list):  # of a unigram model, ids are places
            content[last] = [*vocabulary[1:], vocabulary[0]]
            return
        ids = sorted(vocabulary.values())
        after = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
        content[last] = {token: after[i] for token, i in vocabulary.items()}

    return in_json(name, change)


def swapped(pattern: str) -> Callable[[Planting], None]:
    """The first two client files that match, each under the other's name."""

    def plant(planting: Planting) -> None:
        first, second = sorted(planting.clients.glob(pattern))[:2]
        a, b = first.read_bytes(), second.read_bytes()
        assert a != b
        rewrite(first, b)
        rewrite(second, a)

    return plant


def other_variant(other: str) -> Callable[[Planting], None]:
    """The graphs of another variant under this one's names."""
    return lambda planting: _put(planting, planting.good[other])


def other_checkpoint(planting: Planting) -> None:
    """The graphs of the same variant, made from another seed."""
    _put(planting, planting.other(planting.variant))


def _put(planting: Planting, files: Files) -> None:
    """Graphs name the file of their weights: it comes along under its own name."""
    for graph, path in planting.graphs.items():
        for old in stored(path):
            old.unlink()
        source = files[graph]
        linked = linked_graphs({graph: source}, path.parent / ".other")[graph]
        for part in stored(linked):
            (path.parent / part.name).unlink(missing_ok=True)
            part.rename(path.parent / part.name if part == data_file(linked) else path)


def truncated_data(suffix: str, share: float = 0.9) -> Callable[[Planting], None]:
    """The end of a file of weights is missing."""

    def plant(planting: Planting) -> None:
        (path,) = (path for name, path in planting.graphs.items() if name.endswith(suffix))
        data = data_file(path)
        rewrite(data, data.read_bytes()[: round(share * data.stat().st_size)])

    return plant
