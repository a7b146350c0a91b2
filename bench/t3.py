"""T3's sections of docs/benchmarks.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from bench.common import PROFILE, THREADS, say, table
from bench.outliers import plant_t3
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.t3 import MODEL, STEP_POSITION, stepping, weight_bytes
from jtts_export.models.source import Source
from jtts_export.models.t3.model import T3, Cache
from jtts_export.models.t3.reference import Reference
from jtts_export.quantize.build import build_variant
from jtts_export.runtime.names import graph_file, stored
from jtts_export.runtime.t3 import GRAPHS, LANGUAGE_MODEL, TOKENS_PER_SECOND, Engine
from jtts_export.validate.calls import call_metrics
from jtts_export.validate.parity import Metrics, compare, reference_taps
from jtts_export.validate.probe import REPEATS, probe, save_cases
from jtts_export.validate.runner import Case
from jtts_export.validate.speed import interleave
from jtts_export.validate.spread import Spread
from jtts_export.validate.steps import Feed, step_times

VARIANTS = ("int8", "int8-fast", "int4")
CALLED = ("int8", "int8-fast")
GREEDY_TOKENS = 200
OUTLIERS, OUTLIER_FACTOR = 17, 60.0
Files = Mapping[str, Path]


def variants(folder: Path, rounds: int) -> list[str]:
    """Parity, size and speed of every variant, full size, beside PyTorch."""
    loaded = MODEL.load(Source("random:0", "", seed=0))
    made = build(folder / "t3", loaded)
    cases = MODEL.cases(loaded.config, loaded.voices, "validation")
    reference = Reference(loaded.module.model, THREADS)
    say("t3: reference")
    expected = reference_taps(MODEL.parity, reference, cases)
    parity = []
    for name, files in made.items():
        say(f"t3: parity of {name}")
        found, _ = compare(MODEL.parity, expected, MODEL.runner(files, THREADS, True), cases)
        parity.append(_parity_row(name, files, found))
    say("t3: greedy decoding")
    equal, first = _greedy(reference, made["fp32"], cases[0])
    timed = MODEL.cases(loaded.config, loaded.voices, "timed")
    engines = {name: Engine(files, THREADS) for name, files in made.items()}
    steps = _steps(loaded.module.model, engines, made, timed[0])
    whole = _whole(reference, engines, timed[-1], rounds)
    return [
        "## T3 (Chatterbox), full size, seeded weights",
        "",
        "520 M parameters, guidance on: two rows. Logits along speech tokens that PyTorch sampled; KL in nats, mean "
        "over tokens; alignment: the attention by which the authors' analyzer follows the text.",
        "",
        *table(
            ["variant", "MB", "KL", "logits dB", "largest difference", "likeliest token =", "alignment dB"], parity
        ),
        "",
        f"Greedy decoding of {GREEDY_TOKENS} tokens, fp32 ONNX against PyTorch: {equal} equal"
        + ("." if first is None else f", the first difference at {first}."),
        "",
        f"One step at about {STEP_POSITION} tokens of speech, {THREADS} threads, contenders by turns, medians. "
        "PyTorch is our dense module, transformers its LlamaModel as the authors run it, both eager with a cache. "
        "GB/s: weights, keys and values that a step reads, over its time; the same machine added up a large array at "
        "the rate under *probe* in the same run.",
        "",
        *steps,
        "",
        f"A whole utterance of {timed[-1].name}: text, voice and every step, sampling included; {rounds} interleaved "
        "rounds, the voice known from earlier calls.",
        "",
        *whole,
    ]


def build(folder: Path, loaded: Loaded, names: tuple[str, ...] = VARIANTS) -> dict[str, Files]:
    """Graph files of fp32 and of variants."""
    MODEL.export(loaded, folder, 17)
    made = files_of(folder, names)
    for variant in names:
        gates = PROFILE.gates_for("t3", variant)
        recipe, files = MODEL.recipes[variant], made["fp32"]
        graphs, _, _ = build_variant(
            MODEL, files, recipe, loaded.config, loaded.voices, gates, Spread({}), THREADS, say
        )
        for name, graph in graphs.items():
            save(graph, made[variant][name], name in MODEL.external)
    return made


def files_of(folder: Path, names: tuple[str, ...]) -> dict[str, Files]:
    """Where build() puts them."""
    return {v: {name: folder / graph_file(name, v) for name in GRAPHS} for v in ("fp32", *names)}


def _parity_row(name: str, files: Files, found: Metrics) -> list[str]:
    size = sum(path.stat().st_size for graph in files.values() for path in stored(graph))
    return [
        name,
        f"{size / 1e6:.1f}",
        f"{found['parity_logits_kl']:.2g}",
        f"{found['parity_logits_snr_db']:.1f}",
        f"{found['parity_logits_max_abs']:.2g}",
        f"{found['parity_logits_top1_ratio']:.3f}",
        f"{found['parity_alignment_snr_db']:.1f}",
    ]


def _greedy(reference: Reference, files: Files, case: Case) -> tuple[int, int | None]:
    """How many tokens are equal, and the first that is not."""
    count = np.array(GREEDY_TOKENS)
    inputs = {**case.inputs, "min_tokens": count, "max_tokens": count, "temperature": np.zeros(())}
    expected, made = reference.speak(inputs), Engine(files, THREADS).speak(inputs)
    differing = np.flatnonzero(expected != made)
    return int((expected == made).sum()), int(differing[0]) if len(differing) else None


def _steps(model: T3, engines: Mapping[str, Engine], files: Mapping[str, Files], case: Case) -> list[str]:
    with ExitStack() as stack:
        feeds, position, past = stepping(stack, engines, case)
        feeds = {**_eager(model, past), **feeds}
        say("t3: steps")
        seconds, read = step_times(feeds, 1, position, THREADS)
    rows = []
    for name, taken in seconds.items():
        step = float(np.median(taken))
        swept = ""
        if name in files:
            kept = past * engines[name].bytes_per_position
            swept = f"{(weight_bytes(files[name][LANGUAGE_MODEL]) + kept) / step / 1e9:.1f}"
        ratios = [f"{np.median(seconds[over] / taken):.2f}" for over in ("PyTorch", "fp32")]
        rows.append([name, f"{1e3 * step:.1f}", f"{step * TOKENS_PER_SECOND:.3f}", *ratios, swept])
    rows.append(["probe", "", "", "", "", f"{read / 1e9:.1f}"])
    return table(["contender", "ms", "RTF", "PyTorch / it", "fp32 / it", "GB/s"], rows)


def _eager(model: T3, past: int) -> dict[str, Feed]:
    """A step in PyTorch after `past` positions, which stay as many."""
    config = model.config
    peer = _llama(model)
    with torch.no_grad():
        prompt = torch.randn(2, past, config.hidden_size, generator=torch.Generator().manual_seed(0))
        cache, theirs = Cache(), DynamicCache()
        model(prompt, cache)
        peer(inputs_embeds=prompt, past_key_values=theirs, use_cache=True)
    kept = list(cache.layers)

    @torch.no_grad()
    def ours(token: int, position: int) -> object:
        cache.layers = list(kept)
        embeds = model.embed_speech(torch.tensor([[token]] * 2), torch.tensor([position]))
        return model.speech_head(model(embeds, cache))

    @torch.no_grad()
    def transformers(token: int, position: int) -> object:
        if (added := theirs.get_seq_length() - past) > 0:
            theirs.crop(-added)
        embeds = model.embed_speech(torch.tensor([[token]] * 2), torch.tensor([position]))
        return model.speech_head(peer(inputs_embeds=embeds, past_key_values=theirs, use_cache=True)[0])

    return {"PyTorch": ours, "transformers": transformers}


def _llama(model: T3) -> LlamaModel:
    """transformers' on the same tensors."""
    c = model.config
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=c.hidden_size,
        intermediate_size=c.ffn_size,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.heads,
        head_dim=c.head_size,
        rms_norm_eps=c.rms_eps,
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": c.rope_theta,
            "factor": c.rope_factor,
            "low_freq_factor": c.rope_low_freq_factor,
            "high_freq_factor": c.rope_high_freq_factor,
            "original_max_position_embeddings": c.rope_original_positions,
        },
    )
    peer = LlamaModel(config).eval()
    peer.load_state_dict(model.tfmr.state_dict(), assign=True)
    return peer


def _whole(reference: Reference, engines: Mapping[str, Engine], case: Case, rounds: int) -> list[str]:
    calls: dict[str, list[Callable[[], object]]] = {"PyTorch": [lambda: reference.speak(case.inputs)]}
    calls |= {name: [lambda e=engine: e.speak(case.inputs)] for name, engine in engines.items()}
    seconds = int(case.inputs["max_tokens"]) / TOKENS_PER_SECOND
    whole = interleave(calls, [seconds], rounds, lambda: say("t3: round"))
    first = {name: [lambda e=engine: next(e.tokens(case.inputs))] for name, engine in engines.items()}
    begun = interleave(first, [seconds], rounds, lambda: None)
    rows = [
        [
            name,
            f"{whole.rtf(name, 0.5):.3f}",
            f"{whole.speedup(name, 'PyTorch'):.2f}",
            f"{whole.speedup(name, 'fp32'):.2f}",
            f"{1e3 * np.median(begun.seconds[name]):.0f}" if name in begun.seconds else "",
        ]
        for name in calls
    ]
    return table(["contender", "RTF", "PyTorch / it", "fp32 / it", "first token, ms"], rows)


def calls(folder: Path, _: int) -> list[str]:
    """Whether the twentieth call costs what the second does."""
    loaded = MODEL.load(Source("random:0", "", seed=0))
    here = folder / "t3"
    made = files_of(here, CALLED) if here.exists() else build(here, loaded, CALLED)
    short = MODEL.cases(loaded.config, loaded.voices, "timed")[:1]
    cases = MODEL.cases(loaded.config, loaded.voices, "sequence")
    del loaded
    fed, rows = folder / "t3-cases.npz", []
    save_cases([*short, *cases], fed)
    for name in made:
        say(f"t3: calls of {name}")
        found = probe("t3", made[name], fed, THREADS)
        repeated, later = found["repeated"]["seconds"], found["calls"]
        m = call_metrics(later["seconds"], later["rss_mb"], later["samples"], later["given"])
        rows.append(
            [
                name,
                f"{found['load_ms']:.0f}",
                f"{1e3 * repeated[0]:.0f}",
                f"{1e3 * np.median(repeated[1:]):.0f}",
                f"{m['call_mean_ms']:.0f}",
                f"{m['call_slope_ms']:+.1f} ± {m['call_slope_margin_ms']:.1f}",
                f"{m['rss_slope_mb']:+.2f} ± {m['rss_slope_margin_mb']:.2f}",
                f"{found['rss_peak_mb']:.0f}",
            ]
        )
    return [
        "## T3: call after call",
        "",
        f"One call {REPEATS} times, the first of which takes in the voice, then {len(cases)} of different lengths, "
        "on one loaded model in a process of its own. Slopes are of these, the first (the longest) apart, by least "
        "squares with the lengths of text and speech beside; ± at 95 % confidence.",
        "",
        *table(
            [
                *("variant", "load, ms", "call 1, ms", "again, ms", "of many lengths, mean ms", "ms a call"),
                *("RSS: MB a call", "peak MB"),
            ],
            rows,
        ),
    ]


def outliers(folder: Path, _: int) -> list[str]:
    """int8 on weights with planted outlier channels, which change no output in fp32."""
    rows = []
    for planted in (False, True):
        loaded = MODEL.load(Source("random:0", "", seed=0))
        if planted:
            plant_t3(loaded.module.model, OUTLIER_FACTOR, OUTLIERS)
        here = folder / f"t3-outliers-{planted}"
        made = build(here, loaded, ("int8", "int8-fast"))
        cases = MODEL.cases(loaded.config, loaded.voices, "validation")
        expected = reference_taps(MODEL.parity, MODEL.reference(loaded, THREADS, 0, False), cases)
        del loaded
        for name, files in made.items():
            say(f"t3: {name}, planted: {planted}")
            found, _ = compare(MODEL.parity, expected, MODEL.runner(files, THREADS, True), cases)
            kl, db = found["parity_logits_kl"], found["parity_logits_snr_db"]
            rows.append(["planted" if planted else "as they are", name, f"{kl:.2g}", f"{db:.1f}"])
        shutil.rmtree(here)
    return [
        "## T3: outlier channels",
        "",
        f"{OUTLIERS} channels times {OUTLIER_FACTOR:.0f} wherever a layer's scale is free (behind each norm, values, "
        "the feed-forward network's inside), undone where they are used.",
        "",
        *table(["weights", "variant", "KL", "logits dB"], rows),
    ]


SECTIONS = {"t3": variants, "t3-calls": calls, "t3-outliers": outliers}
