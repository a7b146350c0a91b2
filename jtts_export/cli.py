"""The command line: parse, call, print. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import JttsError, bug_line
from .exporters.coreml.stage import DEFAULT_TARGET, TARGETS, Target
from .exporters.graph import DEFAULT_OPSET, OPSETS
from .models import MODELS
from .models.source import DEMO, choices
from .redact import keep_log, redacted
from .runtime.names import VARIANT_SUFFIX

_VARIANTS = {
    "int8": "an int8 variant: refused unless smaller, faster, and the same speech",
    "int8-fast": "an int8 variant with fewer scales: faster yet, less precise",
    "int4": "a variant of 4-bit weights: refused unless it speaks like the others",
    "fp16": "a variant with weights stored as fp16",
}

LINE, UNBROKEN = 140, 100_000  # columns of a table with prose that nobody sees on a terminal; more than any has
PROSE = 30  # columns that prose gets at least
INTERRUPTED = 130  # exit code after Ctrl-C, as of a shell's commands

EPILOG = """\b
Exit codes: 0 passed; 1 a bug (the traceback is in a log file); 2 usage;
3 a gate failed; 4 the outside world (checkpoint, hub, file, disk); 130 Ctrl-C."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Export text-to-speech models to ONNX and int8; let nothing leave that was not measured and passed.

    \b
    jtts-export kokoro --int8 --checkpoint demo      a small voice that comes along, to ./release/kokoro
    jtts-export kokoro --int8                        from the hub
    jtts-export speecht5 --int8                      the same for SpeechT5, with its vocoder
    jtts-export t3 --int8                            the same for T3, Chatterbox's language model
    jtts-export kokoro --int8 --checkpoint FOLDER    from the authors' files
    jtts-export say release/kokoro "Hello there." -o hello.wav
    jtts-export tokens release/t3 "Hello there."
    jtts-export publish release/kokoro --repo ORG/NAME
    jtts-export build plan.toml                      many at once, from one file
    """


def _as_json(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout.")(command)


def _sentences(command: Any) -> Any:
    return click.option(
        "--sentences",
        type=click.Path(path_type=Path),
        help="Validate on these, one a line, and not on the built-in ones.",
    )(command)


def _read_sentences(path: Path | None) -> tuple[str, ...]:
    from . import sentences

    return tuple(sentences.read(path)) if path else ()


def _export(name: str, summary: str) -> None:
    """Add the command that exports one model."""
    choice = "with #FILE behind either to choose its weights, " if choices(MODELS[name].files) else ""
    demo = f"{DEMO} (small; it speaks, and comes along), " if MODELS[name].demo else ""
    options = [
        *(click.option(f"--{v}", is_flag=True, help=f"Also {_VARIANTS[v]}.") for v in MODELS[name].variants),
        click.option(
            "--profile", default="cpu", show_default=True, help="Target and gates: a built-in name or a .toml file."
        ),
        click.option(
            "--checkpoint",
            help=f"hub:ORG/REPO[@REVISION], a local folder, {choice}{demo}or random:SEED.  "
            "[default: the official one]",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=Path("release"),
            show_default=True,
            help="Where the release goes.",
        ),
        click.option(
            "--opset",
            type=click.IntRange(*OPSETS),
            default=DEFAULT_OPSET,
            show_default=True,
            help="ONNX operator set.",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            help="Where stage results are kept.  [default: the user's cache]",
        ),
        click.option("--force", is_flag=True, help="Run every stage again."),
        click.option("--coreml", is_flag=True, help="Also CoreML packages, with --int8 in 8 bits too."),
        click.option(
            "--coreml-target",
            type=click.Choice(TARGETS),
            default=DEFAULT_TARGET,
            show_default=True,
            help="The oldest system that loads them.",
        ),
        _sentences,
        _as_json,
    ]

    def command(**given: Any) -> None:
        _build(name, **given)

    command.__doc__ = f"{summary}: checkpoint to verified release, with every stage cached."
    for option in reversed(options):
        command = option(command)
    example = f"jtts-export {name} --int8 --checkpoint {DEMO if MODELS[name].demo else 'random:0'} --out release"
    cli.command(name=name, epilog=f"\b\nExample: {example}")(command)


_export("kokoro", "Export Kokoro")
_export("speecht5", "Export SpeechT5 and its HiFi-GAN vocoder")
_export("t3", "Export T3, Chatterbox's language model of speech tokens")


def _build(
    model: str,
    profile: str,
    checkpoint: str | None,
    out: Path,
    opset: int,
    cache: Path | None,
    force: bool,
    sentences: Path | None,
    coreml: bool,
    coreml_target: Target,
    as_json: bool,
    **variants: bool,
) -> None:
    from .pipeline import Job, build
    from .profiles.schema import load_profile
    from .progress import Progress
    from .store import default_root

    target = load_profile(profile)
    job = Job(
        model=model,
        checkpoint=checkpoint or MODELS[model].checkpoint,
        variants=target.variants_for(model, [v for v in MODELS[model].variants if variants[v.replace("-", "_")]]),
        profile=target,
        out=out,
        cache=cache or default_root(),
        opset=opset,
        force=force,
        sentences=_read_sentences(sentences),
        coreml=coreml_target if coreml else None,
    )
    outcome = build(job, Progress())
    _conclude(outcome.validation, outcome.release, as_json)


def _conclude(validation: dict[str, Any], release: Path, as_json: bool) -> None:
    """Print the verdict; exit 3 unless it is a pass."""
    from . import card

    verdict = validation["verdict"]
    if as_json:
        click.echo(json.dumps({"release": str(release), **validation}, indent=2))
    else:
        if open_gates := [row for row in card.gate_rows(validation) if row[-1] != "pass"]:
            _table(["variant", "metric", "measured", "limit", ""], open_gates)
        _table(*card.table(validation))
        for line in card.error_lines(validation):
            click.echo(line)
        click.echo(f"{card.VERDICTS[verdict]}: {release}")
    if verdict != "pass":
        sys.exit(3)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table. Figures are never cut, however narrow the terminal; prose goes over several lines."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    prose = any(" " in row[-1] for row in rows)
    for i, title in enumerate(header):
        wraps = prose and i == len(header) - 1
        table.add_column(Text(title), justify="left" if i == 0 or wraps else "right", no_wrap=not wraps)
    for row in rows:
        table.add_row(*map(Text, row))  # a name in brackets is no markup
    console = Console(highlight=False, width=UNBROKEN, height=1)
    if prose:
        whole, last = console.measure(table).maximum, max(cell_len(row[-1]) for row in (header, *rows))
        room = Console().width if sys.stdout.isatty() else LINE
        table.columns[-1].max_width = max(PROSE, room - (whole - last))
    console.print(table)


@cli.command("build", epilog="\b\nExample: jtts-export build plan.toml --jobs 2 --report report --log build.jsonl")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("release"),
    show_default=True,
    help="Where releases go: OUT/NAME/MODEL.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Builds at a time; what is timed runs alone."
)
@click.option(
    "--keep-going/--fail-fast", default=True, show_default=True, help="After a failure, finish the others or stop."
)
@click.option("--only", multiple=True, metavar="NAME", help="This build alone; may be given more than once.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where stage results are kept.  [default: the user's cache]"
)
@click.option("--store", metavar="URL", help="Share stage results with other machines, as s3://bucket/path.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Build on a Dask cluster; needs --store.")
@click.option("--publish", is_flag=True, help="Then publish what passed and has a repo.")
@click.option("--report", type=click.Path(path_type=Path), help="Write report.md and junit.xml here.")
@click.option("--log", type=click.Path(path_type=Path), help="Append what happens to this file, as JSON lines.")
@click.option("--force", is_flag=True, help="Run every stage again.")
@_as_json
def build_plan(plan: Path, keep_going: bool, as_json: bool, **given: Any) -> None:
    """Build many models, checkpoints, variants and profiles, as a PLAN.toml lists them.

    What builds have in common is made once. One that fails stops no other. The same command again resumes: what is
    finished is left alone.
    """
    from .plan import command, summary

    done = command.build_plan(plan, command.Options(fail_fast=not keep_going, **given))
    if as_json:
        click.echo(json.dumps(summary.as_json(done), indent=2))
    else:
        _table(summary.HEADER, summary.table(done))
    sys.exit(summary.exit_code(done))


RELEASE = click.argument("release", type=click.Path(path_type=Path))
VARIANT = click.option(
    "--variant",
    type=click.Choice(VARIANT_SUFFIX),
    help="Of those in the release.  [default: int8, or else what there is]",
)


@cli.command(epilog="\b\nExample: jtts-export validate release/kokoro --profile cpu-streaming --report report")
@RELEASE
@click.option("--profile", help="Judge for another profile than the one it was built for.")
@click.option("--checkpoint", help="Where the checkpoint lies now, if not where it was.")
@click.option("--report", type=click.Path(path_type=Path), help="Write index.html, report.md and junit.xml here.")
@_sentences
@_as_json
def validate(
    release: Path,
    profile: str | None,
    checkpoint: str | None,
    report: Path | None,
    sentences: Path | None,
    as_json: bool,
) -> None:
    """Measure a release again, from its own bytes, against its checkpoint.

    Checksums are verified first. The release itself is not changed.
    """
    from .progress import Progress
    from .revalidate import revalidate

    validation = revalidate(release, profile, checkpoint, _read_sentences(sentences), report, Progress())
    _conclude(validation, release, as_json)


@cli.command(epilog="\b\nExample: jtts-export reproduce release/kokoro --checkpoint kokoro-82m")
@RELEASE
@click.option("--checkpoint", help="Where the checkpoint lies now, if not where it was.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave what is made in this folder.")
@_as_json
def reproduce(release: Path, checkpoint: str | None, keep: Path | None, as_json: bool) -> None:
    """Make a release again from its manifest and checkpoint, and compare every file's sha256.

    Nothing is searched for and nothing timed: recipes and calibration are applied as recorded. Exits with 3 where a
    file comes out otherwise, saying where it differs.
    """
    from .progress import Progress
    from .reproduce import GOOD
    from .reproduce import reproduce as make_again

    made = make_again(release, checkpoint, keep, Progress())
    for what, (then, now) in made.otherwise.items():
        click.echo(f"jtts-export: note: {what} was {then}, and is {now} here", err=True)
    if as_json:
        click.echo(json.dumps(made.as_json(), indent=2))
    else:
        rows = sorted(made.files, key=lambda file: file.result in GOOD)
        _table(["file", "result", "where"], [[file.name, file.result, file.detail] for file in rows])
        click.echo(f"{'the same' if made.same else 'NOT the same'}: {release}")
    if not made.same:
        sys.exit(3)


@cli.command(epilog="\b\nExample: jtts-export compare release/kokoro candidate/kokoro --report report")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path), help="Write index.html, report.md and junit.xml here.")
@_as_json
def compare(a: Path, b: Path, report: Path | None, as_json: bool) -> None:
    """Put two releases of a model side by side: figures, gates, and speech.

    Checksums of both are verified first. What is compared is what was measured when each was made.
    """
    from .compare import compare_releases

    made = compare_releases(a, b, report)
    if as_json:
        click.echo(json.dumps(made.content, indent=2))
    else:
        _table(made.header, made.rows)


@cli.command(epilog="\b\nExample: jtts-export inspect release/kokoro --layers")
@RELEASE
@click.option("--layers", is_flag=True, help="List each variant's layers by the error that they add.")
@_as_json
def inspect(release: Path, layers: bool, as_json: bool) -> None:
    """Verify a release's checksums and show what it holds: figures, gates, recipe, promotions."""
    from . import artifact, card

    manifest, validation = artifact.verify(release)
    if as_json:
        click.echo(json.dumps({"manifest": manifest.model_dump(), "validation": validation}, indent=2))
        return
    if layers:
        _table(*card.layers(validation))
        return
    click.echo(f"{manifest.model} from {manifest.checkpoint['source']}, profile {manifest.profile['name']}")
    _table(*card.table(validation))
    _table(["variant", "metric", "measured", "limit", ""], card.gate_rows(validation))
    for line in card.error_lines(validation):
        click.echo(line)
    for variant, made in manifest.variants.items():
        for line in (*card.scheme_lines(variant, made), *card.ladder_lines(variant, made)):
            click.echo(line)
    tool = manifest.tool
    commit = f", commit {tool['commit'][:12]}{' with changes' if tool['dirty'] else ''}" if tool.get("commit") else ""
    click.echo(f"made by jtts-export {manifest.tool_version}{commit}; the checkpoint's licence: {manifest.licence}")
    click.echo(f"verdict: {manifest.verdict}; {len(manifest.files)} files, checksums verified")


@cli.command(epilog="\b\nExample: jtts-export publish release/kokoro --repo ORG/NAME --dry-run")
@RELEASE
@click.option("--repo", required=True, help="ORG/NAME; made if it is missing.")
@click.option("--profile", help="That it must have passed.  [default: the one that it was built for]")
@click.option("--revision", default="main", show_default=True, help="The branch; made if it is missing.")
@click.option("--pr", is_flag=True, help="Propose the commit as a pull request.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; the hub is read and not written to.")
@click.option("--private/--public", default=None, help="Of a new repository.  [default: as the hub has it]")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=600,
    show_default=True,
    help="Seconds that may be lost to a busy hub and broken connections, all together.",
)
@_as_json
def publish(
    release: Path,
    repo: str,
    profile: str | None,
    revision: str,
    pr: bool,
    dry_run: bool,
    private: bool | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Put a release that passed on the Hugging Face Hub, in one commit, and verify every byte of it there.

    Nothing is sent unless every file is the one that was measured, and every gate of its profile holds. What the last
    publication left is deleted; files of others stay. The token comes from HF_TOKEN or from `hf auth login`.
    """
    from .progress import Progress
    from .publish import publish as put

    done = put(
        release,
        repo,
        profile=profile,
        revision=revision,
        pull_request=pr,
        dry_run=dry_run,
        private=private,
        timeout_s=timeout,
        progress=Progress(),
    )
    if as_json:
        click.echo(json.dumps(done.as_json(), indent=2))
        return
    if done.changes:
        _table(["", "MB", "file"], [[o.kind, f"{o.size / 1e6:.3f}", o.name] for o in done.changes])
    click.echo(str(done))


@cli.command(epilog='\b\nExample: jtts-export say release/kokoro "Hello there." --voice af_heart -o hello.wav')
@RELEASE
@click.argument("text", required=False, default="")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("speech.wav"),
    show_default=True,
    help="Where the WAV file goes.",
)
@VARIANT
@click.option(
    "--voice", help="A voice or speaker of the release, or a speaker's x-vector file.  [default: the first]"
)
@click.option("--speed", type=float, help="2 is twice as fast (Kokoro).  [default: 1]")
@click.option("--language", help="Language of the text, as espeak-ng names it (Kokoro).  [default: en-us]")
@click.option("--phonemes", help="Phonemes instead of a text; needs no phonemizer (Kokoro).")
@_as_json
def say(release: Path, text: str, output: Path, variant: str | None, as_json: bool, **request: Any) -> None:
    """Speak TEXT with a release and write a WAV file."""
    from .say import say_to_file

    result = say_to_file(release, text, output, variant, **request)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(
            f"{result['output']}: {result['audio_s']:.2f} s of audio in {result['seconds']:.2f} s "
            f"({result['variant']}, {result['voice']})"
        )


@cli.command(epilog='\b\nExample: jtts-export tokens release/t3 "Hello there." --seed 1 -o tokens.npy')
@RELEASE
@click.argument("text")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Also write them here, as int64 .npy.")
@VARIANT
@click.option("--voice", help="A voice of the release, or a .pt or .safetensors file.  [default: the first]")
@click.option("--language", help="Of a multilingual release, as fr.  [default: en]")
@click.option("--exaggeration", type=float, help="Strength of emotion.  [default: the voice's]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random draws.")
@click.option("--max-tokens", type=int, help="25 last a second.  [default: 1000]")
@click.option("--temperature", type=float, help="0 takes the likeliest token.  [default: 0.8]")
@click.option("--cfg-weight", type=float, help="Guidance by the text; 0 is faster.  [default: 0.5]")
@click.option(
    "--repetition-penalty", type=float, help="Against tokens already said; 1 is none.  [default: 1.2; multilingual 2]"
)
@click.option("--min-p", type=float, help="Least probability, over the highest.  [default: 0.05]")
@click.option("--top-p", type=float, help="Probability that is chosen among.  [default: 1]")
@click.option(
    "--analyze/--no-analyze",
    default=None,
    help="End speech that repeats itself or lingers, and none early.  [default: if multilingual]",
)
@_as_json
def tokens(release: Path, text: str, output: Path | None, variant: str | None, as_json: bool, **request: Any) -> None:
    """Print the speech tokens that a T3 release makes of TEXT, as they come."""
    from .tokens import make_tokens

    def tell(token: int) -> None:
        if not as_json:
            click.echo(f"{token} ", nl=False)

    made = make_tokens(release, text, output, variant, tell, **request)
    if as_json:
        click.echo(json.dumps(made))
    else:
        click.echo()
        click.echo(
            f"{len(made['tokens'])} tokens, {made['speech_s']:.2f} s of speech in {made['seconds']:.2f} s, "
            f"the first after {made['first_ms']:.0f} ms ({made['variant']}, {made['voice']})",
            err=True,
        )


@cli.command(epilog="\b\nExample: jtts-export models --json")
@_as_json
def models(as_json: bool) -> None:
    """List the models that can be exported."""
    if as_json:
        click.echo(json.dumps({m.name: asdict(m) for m in MODELS.values()}, indent=2))
    else:
        _table(
            ["name", "title", "default checkpoint"],
            [[m.name, m.title, m.checkpoint] for m in MODELS.values()],
        )


@cli.group(invoke_without_command=True, epilog="\b\nExample: jtts-export profiles --json")
@_as_json
@click.pass_context
def profiles(context: click.Context, as_json: bool) -> None:
    """List the built-in profiles; `profiles show NAME` prints one with its gates."""
    from .profiles.schema import built_in, load_profile

    context.obj = as_json  # may stand ahead of `show`
    if context.invoked_subcommand:
        return
    found = [load_profile(name) for name in built_in()]
    if as_json:
        click.echo(json.dumps({p.name: p.model_dump() for p in found}, indent=2))
    else:
        _table(["name", "description"], [[p.name, p.description] for p in found])


@profiles.command(epilog="\b\nExample: jtts-export profiles show cpu-streaming --json")
@click.argument("name")
@_as_json
@click.pass_obj
def show(ahead: bool, name: str, as_json: bool) -> None:
    """Print a profile's gates, and what each metric means."""
    from .profiles.schema import load_profile, rows

    profile = load_profile(name)
    if as_json or ahead:
        click.echo(profile.model_dump_json(indent=2))
        return
    click.echo(f"{profile.name}: {profile.description}")
    click.echo(f"runtime {profile.runtime}, {profile.provider}; threads {profile.threads}")
    click.echo(
        f"variants {', '.join(profile.variants) or 'fp32 alone'}; schemes {', '.join(profile.schemes) or 'none'}"
    )
    _table(["model", "variant", "metric", "limit", "meaning"], rows(profile))


def main() -> None:
    """Entry point: errors a user can act on become one line and an exit code."""
    try:
        sys.exit(cli(standalone_mode=False))  # in its own mode, click exits with 1 after Ctrl-C
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stopped:
        if isinstance(stopped.__cause__, EOFError):  # which click takes for Ctrl-D at a prompt; there is none here
            sys.exit(_bug(stopped.__cause__))
        click.echo("Aborted!", err=True)
        sys.exit(INTERRUPTED)
    except JttsError as error:
        click.echo(f"jtts-export: {_line(str(error))}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        sys.exit(_bug(error))


def _line(words: str) -> str:
    """On one line, without tokens, and without what would do something to a terminal."""
    line = " ".join(redacted(words).split())
    return "".join(char if char.isprintable() else "\ufffd" for char in line)


def _bug(error: Exception) -> int:
    import traceback

    log = keep_log("".join(traceback.format_exception(error)))
    click.echo(f"jtts-export: {_line(bug_line(error))}; traceback in {log}", err=True)
    return 1


if __name__ == "__main__":
    main()
