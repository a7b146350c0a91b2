"""Tasks of a plan: stages that several builds share are made once, before each build goes its own way.

Stages that the same builds share are one task, in one process; all else of a build is another, its last. So a plan of
builds that share nothing is a task for each, and one fp32 export serves every variant and profile of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jtts_export.models.source import Source
from jtts_export.pipeline import Job, keys

from .schema import Build


@dataclass(frozen=True)
class Task:
    """builds: names of those that wait for it. stages: those of `job` that it makes; of a build's last task, which
    makes all else and the release, those that other tasks make. needs: tasks before it."""

    name: str
    job: Job
    builds: tuple[str, ...]
    stages: tuple[str, ...]
    last: bool
    needs: tuple[str, ...]


def tasks(builds: Sequence[Build]) -> list[Task]:
    """In an order in which none comes before what it needs."""
    own = {build.name: _keys(build.job) for build in builds}
    users: dict[str, list[str]] = {}
    for name, stages in own.items():
        for key in stages.values():
            users.setdefault(key, []).append(name)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, stages in own.items():
        for stage, key in stages.items():
            if len(users[key]) > 1 and users[key][0] == name:
                groups.setdefault(tuple(users[key]), []).append(stage)
    jobs = {build.name: build.job for build in builds}
    made: list[Task] = []
    for group, shared in sorted(groups.items(), key=lambda item: -len(item[0])):
        # Whatever needs a stage needs what that stage needs: its builds are among those of the task before it.
        before = tuple(task.name for task in made if set(group) < set(task.builds))
        title = f"{'+'.join(shared)} of {group[0]} and {len(group) - 1} more"
        made.append(Task(title, jobs[group[0]], group, tuple(shared), False, before))
    for name, stages in own.items():
        elsewhere = tuple(stage for stage, key in stages.items() if len(users[key]) > 1)
        before = tuple(task.name for task in made if not task.last and name in task.builds)
        made.append(Task(name, jobs[name], (name,), elsewhere, True, before))
    return made


def _keys(job: Job) -> dict[str, str]:
    """By stage; equal where results are, as far as can be said without looking at the checkpoint."""
    return keys(job, Source(job.checkpoint, job.checkpoint), {})
