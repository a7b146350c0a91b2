"""PLAN.toml: which builds there are. Every mistake in it is one line that says what could stand there instead."""

from __future__ import annotations

import itertools
import re
import string
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jtts_export import sentences
from jtts_export.errors import BadInput
from jtts_export.exporters.coreml.stage import DEFAULT_TARGET, TARGETS, Target
from jtts_export.exporters.graph import DEFAULT_OPSET, OPSETS
from jtts_export.models import MODELS
from jtts_export.models.source import is_local
from jtts_export.pipeline import Job
from jtts_export.profiles.known import check_known
from jtts_export.profiles.schema import Profile, load_profile

DEFAULT_PROFILE = "cpu"
MOST_BUILDS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PLURAL = {"models": "model", "checkpoints": "checkpoint", "profiles": "profile"}


class Defaults(BaseModel):
    """Keys of a build that may stand in [defaults] too. variants: names, or lists of names, each of which is a build
    of its own; coreml: true, or the oldest system that shall load the packages."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    models: list[str] | None = None
    checkpoint: str | None = None
    checkpoints: list[str] | None = None
    profile: str | None = None
    profiles: list[str] | None = None
    variants: list[str] | list[list[str]] | None = None
    coreml: bool | str | None = None
    opset: int | None = None
    sentences: str | None = None
    repo: str | None = None

    @model_validator(mode="after")
    def _one_or_several(self) -> Defaults:
        for plural, singular in _PLURAL.items():
            several = getattr(self, plural)
            if several is not None and getattr(self, singular) is not None:
                raise ValueError(f"{singular} and {plural}: one of them")
            if several == []:
                raise ValueError(f"{plural}: it is empty")
        return self


class Entry(Defaults):
    """A [[build]]: one build, or one for each combination. name, repo: may hold {model}, {profile}, {checkpoint} and
    {variants}, repo {name} too."""

    name: str | None = None


class File(BaseModel):
    """PLAN.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    defaults: Defaults = Defaults()
    build: list[Entry]


@dataclass(frozen=True)
class Build:
    """A release to be made. repo: where it is published, if it is."""

    name: str
    job: Job
    repo: str | None


def read(
    path: Path, out: Path, cache: Path, *, store: str | None = None, force: bool = False, only: Collection[str] = ()
) -> list[Build]:
    """The builds of a plan, each into a folder of its own name below `out`. only: names of those that are wanted.

    Paths in the plan are relative to its folder. Raises BadInput naming the key at fault.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        file = File.model_validate(content)
    except OSError as error:
        raise BadInput(f"plan {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"plan {path.name} cannot be read: {error}") from error
    except ValidationError as error:
        raise BadInput(f"plan {path.name}: {_said(error)}") from error
    found: list[Build] = []
    for number, entry in enumerate(file.build, 1):
        whole = _with_defaults(entry, file.defaults)
        try:
            for choice in _choices(whole):
                found.append(_build(whole, choice, path.parent, Place(out, cache, store, force)))
                if len(found) > MOST_BUILDS:
                    raise ValueError(f"more than {MOST_BUILDS} builds")
        except (ValueError, BadInput) as error:
            raise BadInput(f"plan {path.name}: build {number}{_called(whole)}: {error}") from error
    _check_names(path, found)
    return _only(path, found, only)


@dataclass(frozen=True)
class Place:
    """Where results go, as Job has it."""

    out: Path
    cache: Path
    store: str | None
    force: bool


@dataclass(frozen=True)
class Choice:
    """A combination. words: what tells it from the others of its entry, by placeholder."""

    model: str
    checkpoint: str | None
    profile: str
    variants: tuple[str, ...] | None
    varied: tuple[str, ...]


def _with_defaults(entry: Entry, defaults: Defaults) -> Entry:
    """`models` of an entry also takes the place of `model` among the defaults, and the other way round."""
    own = entry.model_dump(exclude_none=True)
    given = defaults.model_dump(exclude_none=True)
    for plural, singular in _PLURAL.items():
        if plural in own or singular in own:
            given.pop(plural, None)
            given.pop(singular, None)
    return Entry.model_validate({**given, **own})


def _choices(entry: Entry) -> Iterable[Choice]:
    models = _listed(entry.model, entry.models)
    if not models:
        raise ValueError(f"model is missing; models: {', '.join(MODELS)}")
    checkpoints: Sequence[str | None] = _listed(entry.checkpoint, entry.checkpoints) or (None,)
    profiles = _listed(entry.profile, entry.profiles) or (DEFAULT_PROFILE,)
    variants = _variants(entry)
    several = {"model": models, "checkpoint": checkpoints, "profile": profiles, "variants": variants}
    varied = tuple(what for what, of in several.items() if len(of) > 1)
    for model, checkpoint, profile, some in itertools.product(models, checkpoints, profiles, variants):
        yield Choice(model, checkpoint, profile, some, varied)


def _listed(one: str | None, several: list[str] | None) -> tuple[str, ...]:
    return tuple(several or ()) or (() if one is None else (one,))


def _variants(entry: Entry) -> Sequence[tuple[str, ...] | None]:
    given = entry.variants
    if given is None:
        return (None,)
    if given and isinstance(given[0], list):
        return [tuple(some) for some in given]
    return (tuple(map(str, given)),)


def _build(entry: Entry, choice: Choice, folder: Path, place: Place) -> Build:
    check_known("model", choice.model, MODELS)
    info = MODELS[choice.model]
    for variant in choice.variants or ():
        check_known("variant", variant, info.variants, f"of {choice.model}")
    profile = _profile(choice.profile, folder)
    checkpoint = choice.checkpoint or info.checkpoint
    variants = profile.variants_for(choice.model, tuple(dict.fromkeys(choice.variants or ())))
    words = {
        "model": choice.model,
        "profile": profile.name,
        "checkpoint": _word(checkpoint),
        "variants": "-".join(variants) or "fp32",
    }
    name = _filled("name", entry.name or _default_name(choice), words)
    repo = entry.repo and _filled("repo", entry.repo, {**words, "name": name})
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: '{name}' is not safe as a folder's: letters, digits, '.', '_' and '-' are")
    if repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo: '{repo}' is not of the form ORG/NAME")
    job = Job(
        model=choice.model,
        checkpoint=_checkpoint(checkpoint, folder),
        variants=variants,
        profile=profile,
        out=place.out / name,
        cache=place.cache,
        opset=_opset(entry.opset),
        force=place.force,
        sentences=tuple(sentences.read(_path(entry.sentences, folder))) if entry.sentences else (),
        coreml=_coreml(entry.coreml),
        store=place.store,
    )
    return Build(name, job, repo or None)


def _profile(name: str, folder: Path) -> Profile:
    return load_profile(str(_path(name, folder)) if name.endswith(".toml") else name)


def _checkpoint(source: str, folder: Path) -> str:
    """A local one by its whole path, for it is located from elsewhere."""
    return str(_path(source, folder)) if is_local(source) else source


def _path(name: str, folder: Path) -> Path:
    try:
        return (folder / Path(name).expanduser()).absolute()
    except RuntimeError as error:  # the home folder of nobody
        raise ValueError(f"'{name}': {error}") from error


def _opset(opset: int | None) -> int:
    least, most = OPSETS
    if opset is not None and not least <= opset <= most:
        raise ValueError(f"opset: {opset} is not in {least} to {most}")
    return DEFAULT_OPSET if opset is None else opset


def _coreml(given: bool | str | None) -> Target | None:
    if not given:
        return None
    if given is True:
        return DEFAULT_TARGET
    check_known("target", given, TARGETS, where="coreml")
    return next(target for target in TARGETS if target == given)


def _default_name(choice: Choice) -> str:
    return "-".join(f"{{{what}}}" for what in dict.fromkeys(("model", *choice.varied)))


def _word(checkpoint: str) -> str:
    """A checkpoint as part of a name: hub:ORG/REPO@REVISION -> REPO-REVISION, FOLDER/LAST -> LAST."""
    last = checkpoint if checkpoint.startswith("random:") else PurePosixPath(checkpoint.replace("\\", "/")).name
    return _UNSAFE.sub("-", last).strip("-._") or "checkpoint"


def _filled(key: str, template: str, words: Mapping[str, str]) -> str:
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"{key}: '{template}': {error}") from error
    for field in fields:
        check_known("placeholder", field, words, where=key)
    for field in fields:
        template = template.replace(f"{{{field}}}", words[field])
    return template


def _called(entry: Entry) -> str:
    return f" ('{entry.name}')" if entry.name else ""


def _check_names(path: Path, builds: Iterable[Build]) -> None:
    seen: dict[str, str] = {}
    for build in builds:
        if other := seen.get(build.name.lower()):  # some file systems do not tell them apart
            raise BadInput(
                f"plan {path.name}: two builds are called '{build.name}'"
                + (f" or '{other}'" if other != build.name else "")
                + "; names may hold {model}, {profile}, {checkpoint}, {variants}"
            )
        seen[build.name.lower()] = build.name


def _only(path: Path, builds: list[Build], only: Collection[str]) -> list[Build]:
    if not builds:
        raise BadInput(f"plan {path.name} has no build")
    for name in only:
        try:
            check_known("build", name, [build.name for build in builds])
        except ValueError as error:
            raise BadInput(f"plan {path.name}: {error}") from error
    return [build for build in builds if not only or build.name in only]


def _said(error: ValidationError) -> str:
    """Of several mistakes the first; alternatives of a type are one."""
    first = error.errors()[0]
    unknown_key = first["type"] == "extra_forbidden"
    place = [part for part in first["loc"] if isinstance(part, int) or part in _KEYS]
    if unknown_key:
        place = list(first["loc"][:-1])
    elif "variants" in place:
        place = place[: place.index("variants") + 1]
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    if unknown_key:
        key, known = str(first["loc"][-1]), _keys_at(first["loc"])
        try:
            check_known("key", key, known, where=where)
        except ValueError as unknown:
            return str(unknown)
    if "variants" in place:
        return f"{where}: names of variants are wanted, or lists of names"
    if first["type"] == "missing":
        return f"{where} is missing"
    said = first["msg"].removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


_KEYS = {*Entry.model_fields, *File.model_fields}


def _keys_at(place: Sequence[int | str]) -> Collection[str]:
    if place[0] == "build" and len(place) > 1:
        return Entry.model_fields
    return Defaults.model_fields if place[0] == "defaults" and len(place) > 1 else File.model_fields
