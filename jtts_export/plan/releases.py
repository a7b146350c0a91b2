"""Releases that come from a worker by way of a store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from jtts_export import artifact
from jtts_export.errors import JttsError, OutsideError
from jtts_export.pipeline import Job, Outcome, keys, locate_for
from jtts_export.remote import Remote
from jtts_export.store import Record, Store, record_of_files, what_of, writing

RELEASE = "release"


def name_of(job: Job, store: Store) -> dict[str, Any]:
    """What a job's release is called in a store: all that it depends on, but the machine that it is measured on."""
    return what_of(RELEASE, keys(job, locate_for(job, store), {}))


def send(remote: Remote, name: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """A release into a store. Returns what it is called there: one that is undecided does not stand for the job."""
    if outcome.validation["verdict"] == artifact.INCONCLUSIVE:
        name = {**name, "undecided": os.urandom(16).hex()}
    remote.keep(RELEASE, record_of_files(outcome.release, name), outcome.release)
    return name


def receive(remote: Remote, name: dict[str, Any], job: Job) -> Path:
    """A release out of a store, verified, into the job's folder. Nothing is read where it is there already. Raises
    OutsideError where the store has not what was sent."""
    artifact.prepare(job.out, job.model)
    record = remote.record(RELEASE, name)
    if record is None:
        raise OutsideError(f"store {remote.shown}: the release is not there any more")
    if there := _there(record, job):
        return there
    with writing(job.out):
        work = job.out / f".tmp-{os.getpid()}-{job.model}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir()
            if not remote.fetch(record, work):
                raise OutsideError(f"store {remote.shown}: the release is damaged there; build it with --force")
            return artifact.place(work, job.out, job.model)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _there(record: Record, job: Job) -> Path | None:
    """The release with these very files, where it lies in its place."""
    known = Store(job.cache).known
    for verdict in artifact.VERDICTS:
        release = artifact.release_path(job.out, job.model, verdict)
        try:
            artifact.verify(release, known.sha256)
            if known.sha256(release / artifact.MANIFEST) == record.files[artifact.MANIFEST].sha256:
                return release
        except (JttsError, KeyError):
            continue
    return None
