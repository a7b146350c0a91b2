"""`jtts-export build`: read a plan, build it, publish what passed, and say what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jtts_export.artifact import PASS
from jtts_export.errors import BadInput, JttsError, bug_line
from jtts_export.redact import keep_log, redacted
from jtts_export.store import default_root, writing

from . import schema, summary
from .events import Journal, journal
from .run import Done, Local, Workers, run
from .task import BUG


@dataclass(frozen=True)
class Options:
    """How a plan is built. See the command's help."""

    out: Path
    jobs: int = 1
    fail_fast: bool = False
    cache: Path | None = None
    store: str | None = None
    scheduler: str | None = None
    publish: bool = False
    report: Path | None = None
    log: Path | None = None
    only: Collection[str] = ()
    force: bool = False


def build_plan(plan: Path, options: Options) -> list[Done]:
    """What came of each build, in the plan's order; also what went wrong with it. Raises BadInput for a plan or
    options that cannot be, and OutsideError where a store, a scheduler or a folder is out of reach."""
    if options.scheduler and not options.store:
        raise BadInput("--scheduler needs a --store that every worker reaches, as s3://bucket/path or file:///shared")
    cache = options.cache or default_root()
    builds = schema.read(
        plan, options.out.absolute(), cache.absolute(), store=options.store, force=options.force, only=options.only
    )
    if options.report:
        with writing(options.report):
            options.report.mkdir(parents=True, exist_ok=True)
    with journal(options.log) as told:
        if options.publish and not any(build.repo for build in builds):
            raise BadInput(f"plan {plan.name}: --publish, and no build has a repo")
        told({"event": "plan_started", "plan": str(plan), "builds": [build.name for build in builds]})
        done = run(builds, lambda: _workers(options, cache), told, options.fail_fast)
        for one in done:
            _keep_details(one)
            if options.publish:
                _publish(one, told)
        if options.report:
            summary.write(done, plan.stem, options.report)
        told({"event": "plan_done", "plan": str(plan), "exit_code": summary.exit_code(done)})
    return done


def _workers(options: Options, cache: Path) -> Workers:
    if options.store:
        from jtts_export.remote import Remote

        Remote(options.store).check()
    if options.scheduler:
        from .cluster import Cluster

        assert options.store
        return Cluster(options.scheduler, options.store, cache)
    return Local(options.jobs)


def _keep_details(done: Done) -> None:
    """The traceback of a bug, where its error says."""
    if done.details:
        done.error = f"{done.error}; traceback in {keep_log(done.details)}"


def _publish(done: Done, told: Journal) -> None:
    """A build that passed, to its repository."""
    repo = done.build.repo
    if not repo or not done.release or done.verdict != PASS:
        return
    from jtts_export.publish import publish

    try:
        done.published = str(publish(done.release, repo))
        told({"event": "published", "build": done.build.name, "repo": repo, "published": done.published})
        return
    except JttsError as error:
        why, done.code = error.line, error.exit_code
    except Exception as error:  # a bug, and still no reason not to publish the others
        why, done.code = bug_line(error), BUG
    done.published = f"not published: {redacted(why)}"
    told({"event": "publish_failed", "build": done.build.name, "repo": repo, "error": done.published})
