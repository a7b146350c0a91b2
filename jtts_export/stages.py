"""The bodies of the pipeline's stages, on one checkpoint. Each writes its result into the folder it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, artifact, card
from .errors import JttsError
from .exporters.coreml.build import INTERFACE, SCHEMES
from .exporters.coreml.convert import SUFFIX
from .exporters.coreml.swift import page
from .licences import licence_of
from .models import MODELS
from .models.source import Source
from .profiles.schema import Profile
from .provenance import tool
from .runtime.names import COREML, COREML_INT8, graph_file
from .store import check, files_under, tool_versions

if TYPE_CHECKING:
    import onnx_ir as ir

    from .exporters.coreml.convert import About
    from .exporters.coreml.stage import Export, Target
    from .exporters.coreml.stage import Stage as CoremlStage
    from .exporters.model import Loaded, Model
    from .quantize.calibration import Calibration
    from .quantize.schemes import Recipe
    from .validate.parity import Metrics
    from .validate.spread import Spread
    from .validate.subject import Packages

GRAPHS, SPREAD, RECIPE, CLIENTS = "graphs", "spread.json", "recipe.json", "clients"
CALIBRATION, SEEDED = "calibration", "seeded.sha256"
REPORT, SAMPLES = "report", "samples"
UNCHANGED_DB = 90  # a rewrite may change rounding, and nothing else
UNCHANGED_AMPLIFIED_DB = 60  # of stages that may make much of rounding


class Stages:
    """Loads the checkpoint once, when the first stage that needs it runs. licence: to say of it, if not its own."""

    def __init__(
        self,
        name: str,
        source: Source,
        profile: Profile,
        opset: int,
        sentences: Sequence[str],
        tell: Callable[[str], None],
        licence: str | None = None,
    ) -> None:
        self.name, self.source, self.profile, self.opset, self.tell = name, source, profile, opset, tell
        self.sentences, self._licence = sentences, licence
        self._checked = False

    @cached_property
    def model(self) -> Model:
        return MODELS[self.name].load()

    @cached_property
    def loaded(self) -> Loaded:
        self.tell("loading the checkpoint")
        return self.model.load(self.source)

    @cached_property
    def licence(self) -> str:
        """The checkpoint's, an SPDX expression."""
        return self._licence or licence_of(self.source, MODELS[self.name])

    @property
    def seeded(self) -> str | None:
        """Of a checkpoint without files, the sha256 of its weights: a seed may give others elsewhere."""
        from .models.fingerprint import sha256

        return None if self.source.seed is None else sha256(self.loaded)

    def check(self, variants: Iterable[str]) -> None:
        """What can be refused before any work: a variant's schemes, and a sentence that cannot be said."""
        from .profiles.schema import check_schemes

        if self._checked:
            return
        self._checked = True
        for variant in variants:
            check_schemes(self.profile, variant, self.model.recipes[variant])
        if self.sentences:
            self.model.spoken(self.loaded.config, self.loaded.voices, self.sentences)

    def export(self, out: Path) -> None:
        """The fp32 graphs as traced, and the files that clients need beside them."""
        (out / CLIENTS).mkdir()
        self.model.client_files(out / CLIENTS, self.loaded.config, self.loaded.voices)
        if seeded := self.seeded:
            (out / SEEDED).write_text(seeded, encoding="utf-8")
        self.tell("tracing")
        self.model.export(self.loaded, out / GRAPHS, self.opset)

    def spread(self, out: Path) -> None:
        """How far the reference lies from itself."""
        from .validate.measure import spread_of

        spread = spread_of(self.model, self.loaded, self.profile.threads)
        _write(out / SPREAD, spread.metrics)

    def optimize(self, exported: Path, out: Path, prove: bool = True) -> None:
        """Rewrites, and proof that they changed nothing."""
        import onnx_ir as ir

        from .optimize import REWRITES, optimize

        graphs = {name: ir.load(path) for name, path in graph_paths(exported, self.model.graphs).items()}
        counts = {name: optimize(graph) for name, graph in graphs.items()}
        self._save(graphs, out, "fp32")
        same = all(
            not any(c[r.__name__] for r in REWRITES) and c["nodes_before"] == c["nodes_after"]
            for c in counts.values()
        )
        metrics = self._compare(exported, out) if prove and not same else {}
        _write(out / "rewrites.json", {"counts": counts, "metrics": metrics})

    def _compare(self, exported: Path, out: Path) -> Metrics:
        """Taps before and after. Raises JttsError where they differ by more than rounding."""
        from .validate.parity import compare, reference_taps

        self.tell("comparing before and after")
        parity, threads = self.model.parity, self.profile.threads
        config, voices = self.model.assets(exported / CLIENTS)
        cases = self.model.cases(config, voices, "search")[:1]
        before, after = (
            self.model.runner(graph_paths(folder, self.model.graphs), threads, True) for folder in (exported, out)
        )
        metrics, _ = compare(parity, reference_taps(parity, before, cases), after, cases)
        least = {s.name: UNCHANGED_DB if s.name in parity.fp64 else UNCHANGED_AMPLIFIED_DB for s in parity.stages}
        if any(metrics[f"parity_{name}_snr_db"] < limit for name, limit in least.items()):
            raise JttsError(f"the graph rewrites changed the graph: {metrics}")
        return metrics

    def quantize(self, variant: str, exported: Path, optimized: Path, spread: Path, out: Path) -> None:
        """One variant: its recipe, promoted as far as this checkpoint needs."""
        from .profiles.schema import check_schemes
        from .quantize import calibration
        from .quantize.build import build_variant
        from .quantize.schemes import Recipe

        config, voices = self.model.assets(exported / CLIENTS)
        graphs, report, found = build_variant(
            self.model,
            graph_paths(optimized, self.model.graphs),
            self.model.recipes[variant],
            config,
            voices,
            self.profile.gates_for(self.name, variant),
            read_spread(spread),
            self.profile.threads,
            self.tell,
        )
        check_schemes(self.profile, variant, Recipe.model_validate(report["recipe"]))  # promotions included
        self._save(graphs, out, variant)
        if found:
            calibration.write(found, out / calibration_file(variant))
            report["calibration"] = calibration_file(variant)
        _write(out / RECIPE, report)

    def requantize(self, variant: str, recipe: Recipe, found: Calibration, optimized: Path, out: Path) -> None:
        """One variant from a recipe as it ended, and what calibration found for it."""
        from .quantize.build import rebuild_variant

        self.tell("quantizing")
        graphs = rebuild_variant(graph_paths(optimized, self.model.graphs), recipe, found)
        self._save(graphs, out, variant)

    def calibrate(self, recipe: Recipe, exported: Path, optimized: Path) -> Calibration:
        """What calibration finds here for a recipe as it ended."""
        from .quantize.build import calibrate

        config, voices = self.model.assets(exported / CLIENTS)
        graphs = graph_paths(optimized, self.model.graphs)
        return calibrate(self.model, graphs, recipe, config, voices, self.profile.threads, self.tell)

    def coreml(self, target: Target, out: Path) -> None:
        """Packages of every stage, for a target."""
        from .exporters.coreml.build import build

        build(self._coreml(), self._coreml().stages(self.loaded, target), target, self._about(), out, self.tell)

    def coreml_int8(self, target: Target, made: Path, out: Path) -> None:
        """The same with weights in 8 bits, each stage's held as closely as its gate asks for."""
        from .exporters.coreml.build import build_int8
        from .validate import coreml
        from .validate.parity import reference_taps

        coreml_stages = self._coreml().stages(self.loaded, target)
        self.tell("speaking by modules")
        cases = self.model.cases(self.loaded.config, self.loaded.voices, "brief")
        parity = self.model.parity
        expected = reference_taps(parity, self.model.reference(self.loaded, self.profile.threads, 0, False), cases)
        calls, _ = coreml.record(self._coreml(), coreml_stages, self.loaded, parity, expected, cases)

        def judge(stage: CoremlStage, package: Path) -> float:
            return float(coreml.stage_row(stage, package, calls[stage.name], ("exact",), 1)["exact_snr_db"])

        gates = self.profile.gates_for(self.name, COREML_INT8)
        least_db = max((gate.limit for gate in gates if gate.metric == "coreml_stage_snr_db"), default=0.0)
        build_int8(coreml_stages, target, self._about(), made, judge, least_db, out, self.tell)

    def coreml_requantize(self, target: Target, schemes: Mapping[str, str], made: Path, out: Path) -> None:
        """coreml_int8() with each stage's scheme given."""
        from .exporters.coreml.build import rebuild_int8

        rebuild_int8(self._coreml().stages(self.loaded, target), self._about(), made, schemes, out, self.tell)

    def _coreml(self) -> Export:
        assert self.model.coreml is not None
        return self.model.coreml

    def _about(self) -> About:
        from .exporters.coreml.convert import About

        author = f"weights: sha256 {self.source.sha256}; converted by jtts-export"
        return About(MODELS[self.name].title, author, self.licence, __version__)

    def _save(self, graphs: Mapping[str, ir.Model], out: Path, variant: str) -> None:
        from .exporters.onnx import save

        whole = {**graphs, **self.model.derive(graphs)}
        for name, path in graph_paths(out, whole, variant).items():
            save(whole[name], path, name in self.model.external)

    def validate(
        self, exported: Path, made: Mapping[str, Path], spread: Path, packed: Mapping[str, Path], out: Path
    ) -> None:
        """Every variant's files against the reference and its gates."""
        from .validate.measure import validate
        from .validate.subject import Subject

        names = (*self.model.graphs, *self.model.derived)
        subject = Subject(
            name=self.name,
            model=self.model,
            loaded=self.loaded,
            files={variant: graph_paths(folder, names, variant) for variant, folder in made.items()},
            clients=exported / CLIENTS,
            profile=self.profile,
            spread=read_spread(spread),
            sentences=self.sentences,
            packages=_packages(packed),
        )
        measured = validate(subject, self.tell, out / REPORT / SAMPLES)
        content = {
            "schema_version": artifact.SCHEMA_VERSION,
            "tool_version": __version__,
            "model": self.name,
            "checkpoint": self.source.describe(),
            "profile": self.profile.model_dump(),
            "sentences": self.sentences,
            "machine": artifact.machine(),
            **measured,
        }
        _write(out / artifact.VALIDATION, content)

    def validation(self, validated: Path) -> str:
        """The text of validation.json."""
        return (validated / artifact.VALIDATION).read_text(encoding="utf-8")

    def is_inconclusive(self, validated: Path) -> bool:
        """Whether the machine was too busy to judge."""
        return json.loads(self.validation(validated))["verdict"] == artifact.INCONCLUSIVE

    def report(self, validated: Path, out: Path) -> None:
        """What was measured, for people and for CI."""
        from . import report

        report.write(json.loads(self.validation(validated)), validated / REPORT / SAMPLES, out / REPORT)

    def page(self, packed: Mapping[str, Path]) -> str:
        """What an app must know of packages, in Markdown."""
        return page(MODELS[self.name].title, _interface(packed[COREML]))

    def _entry(self, name: str) -> dict[str, Any]:
        """A file of the checkpoint, for the manifest."""
        return {"sha256": self.source.hashes[name], "size": self.source.files[name].stat().st_size}

    def package(
        self,
        exported: Path,
        made: Mapping[str, Path],
        spread: Path,
        packed: Mapping[str, Path],
        validated: Path,
        reported: Path,
        out: Path,
    ) -> tuple[Path, dict[str, Any]]:
        """The release folder, from the files that were measured. Nothing is written where it is there already."""
        text = self.validation(validated)
        validation = json.loads(text)
        release = artifact.release_path(out, self.name, validation["verdict"])
        if artifact.is_current(release, text):
            return release, validation
        for folder in (exported, *made.values(), spread, *packed.values(), validated, reported):
            check(folder)
        parts = release_parts(exported, made, packed)
        for folder in (validated, reported):
            parts |= {f"{REPORT}/{name}": path for name, path in _parts(folder / REPORT).items()}
        spoken = card.languages(self.source.readme)
        readme = card.render(validation, MODELS[self.name], self.licence, spoken, parts)
        texts = {artifact.VALIDATION: text, "README.md": readme}
        if packed:
            texts[f"{COREML}/README.md"] = self.page(packed)
        return artifact.write(out, parts, texts, self.manifest(exported, made, packed, validation)), validation

    def manifest(
        self, exported: Path, made: Mapping[str, Path], packed: Mapping[str, Path], validation: Mapping[str, Any]
    ) -> dict[str, Any]:
        """manifest.json but for its files."""
        recipes = {v: json.loads((f / RECIPE).read_text()) for v, f in made.items() if (f / RECIPE).exists()}
        return {
            "schema_version": artifact.SCHEMA_VERSION,
            "tool_version": __version__,
            "tool": tool(),
            "model": self.name,
            "checkpoint": {**self.source.describe(), "seeded_sha256": _seeded(exported)},
            "checkpoint_files": {name: self._entry(name) for name in self.source.files},
            "licence": self.licence,
            "opset": self.opset,
            "profile": self.profile.model_dump(),
            "verdict": validation["verdict"],
            "variants": {v: {"files": list(validation["variants"][v]["files"]), **recipes.get(v, {})} for v in made},
            "coreml": _coreml_entry(packed),
            "versions": tool_versions(),
            "machine": artifact.machine(),
        }


def release_parts(exported: Path, made: Mapping[str, Path], packed: Mapping[str, Path]) -> dict[str, Path]:
    """What folders of stages hold for a release: its path there -> file. made, packed: folders of graphs and of
    packages by variant."""
    parts = _parts(exported / CLIENTS)
    for folder in made.values():
        parts |= _parts(folder / GRAPHS)
        parts |= {f"{CALIBRATION}/{name}": path for name, path in _parts(folder / CALIBRATION).items()}
    stages = _interface(packed[COREML])["stages"] if packed else ()
    for variant, folder in packed.items():
        for stage in stages:
            package = f"{stage}{SUFFIX}"
            parts |= {f"{variant}/{package}/{n}": path for n, path in _parts(folder / package).items()}
    return parts


def calibration_file(variant: str) -> str:
    """Where a release keeps what calibration found for a variant."""
    return f"{CALIBRATION}/{variant}.safetensors"


def graph_paths(folder: Path, names: Iterable[str], variant: str = "fp32") -> dict[str, Path]:
    """Graph -> file in the folder of a stage that made a variant's graphs, under the name it has in a release."""
    return {name: folder / GRAPHS / graph_file(name, variant) for name in names}


def _packages(packed: Mapping[str, Path]) -> Packages | None:
    """Those in the folders of the stages that made them."""
    from .exporters.coreml.build import packages
    from .validate.subject import Packages

    if not packed:
        return None
    made = _coreml_entry(packed)
    return Packages(made["target"], {variant: packages(folder, made["stages"]) for variant, folder in packed.items()})


def _coreml_entry(packed: Mapping[str, Path]) -> dict[str, Any]:
    """What the manifest says of packages: what an app must know, and how each variant holds weights."""
    if not packed:
        return {}
    schemes = {v: f / SCHEMES for v, f in packed.items()}
    held = {v: json.loads(path.read_text(encoding="utf-8")) if path.exists() else {} for v, path in schemes.items()}
    return {**_interface(packed[COREML]), "variants": held}


def _interface(folder: Path) -> dict[str, Any]:
    """What an app must know of the packages in a folder."""
    return dict(json.loads((folder / INTERFACE).read_text(encoding="utf-8")))


def _seeded(exported: Path) -> str | None:
    """See Stages.seeded."""
    path = exported / SEEDED
    return path.read_text(encoding="utf-8") if path.exists() else None


def _parts(folder: Path) -> dict[str, Path]:
    """Path below a folder -> file."""
    return {path.relative_to(folder).as_posix(): path for path in files_under(folder)}


def read_spread(folder: Path) -> Spread:
    """What the stage of that name wrote."""
    from .validate.spread import Spread

    return Spread({k: float(v) for k, v in json.loads((folder / SPREAD).read_text()).items()})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    from .validate.gates import finite

    path.write_text(json.dumps(finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
