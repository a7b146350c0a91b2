"""Publishing, step by step: check, plan, upload, commit, verify, tag."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jtts_export.artifact import MANIFEST
from jtts_export.errors import BadInput, GateFailed, OutsideError, first_line
from jtts_export.progress import Progress
from jtts_export.report.facts import text

from .files import Verified
from .local import Passed, check
from .patience import Patience, Trouble
from .plan import Operation, Tree, as_json, bytes_to_send, changes, is_there, listed, plan, summary

if TYPE_CHECKING:
    from .hub import Head, Hub, PullRequest

MAIN = "main"
TIMEOUT_S = 600.0
THREADS = 4  # files that are on their way at a time
SHOWN = 1_000_000  # bytes whose upload takes long enough to be watched
MOST_DOWNLOADS = 3  # of a file whose content is wrong
_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REPO = re.compile(f"{_PART}/{_PART}", re.ASCII)
_BRANCH = re.compile(rf"{_PART}(?:/\w(?:[\w.-]*\w)?)*", re.ASCII)


@dataclass(frozen=True)
class Published:
    """What became of a publication. commit: that holds the release, None if only planned for a repository that is
    not there yet; committed: whether it was made now; tag: None of a pull request."""

    repo: str
    revision: str
    operations: tuple[Operation, ...]
    commit: str | None
    committed: bool
    tag: str | None
    pull_request: str | None
    dry_run: bool

    @property
    def changes(self) -> list[Operation]:
        """All but what is there already."""
        return changes(self.operations)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **{key: getattr(self, key) for key in ("repo", "revision", "commit", "committed", "tag")},
            "pull_request": self.pull_request,
            "dry_run": self.dry_run,
            "bytes": bytes_to_send(self.operations),
            "operations": as_json(self.operations),
        }

    def __str__(self) -> str:
        if self.dry_run:
            return f"{self.repo}: {summary(self.operations)}; nothing was sent"
        where = self.pull_request or f"{self.repo}@{self.revision}"
        what = "published" if self.committed else "unchanged, and verified"
        return f"{what}: {where}, commit {self.commit}{f', tag {self.tag}' if self.tag else ''}"


@dataclass
class Publication:
    """One release on its way to one repository. said: what is on the hub so far, for an error."""

    passed: Passed
    hub: Hub
    progress: Progress
    proposed: bool  # as a pull request
    said: str = "no file was sent"

    @property
    def contents(self) -> list[Verified]:
        return list(self.passed.files.values())


def publish(
    release: Path,
    repo: str,
    *,
    profile: str | None = None,
    revision: str = MAIN,
    pull_request: bool = False,
    dry_run: bool = False,
    private: bool | None = None,
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
    patience: Patience | None = None,
    threads: int = THREADS,
) -> Published:
    """Publish a release that passed, in one commit, and verify every byte of it on the hub.

    profile: the one that it must have passed; revision: the branch, made if missing; pull_request: propose the commit
    only; dry_run: read and plan; private: of a repository that is not there yet, None for the hub's default;
    timeout_s: that may be lost to trouble with the hub (see patience.py).

    Raises GateFailed where the release did not pass or is not what did, or changes meanwhile, and nothing is visible
    then; OutsideError where the hub fails, saying what is on it; BadInput for a name or profile that cannot be.
    """
    _check_names(repo, revision)
    progress = progress or Progress()
    with progress.stage("check"):
        passed = check(release, profile)

    try:
        from .hub import connected
    except (ValueError, TypeError) as error:  # huggingface_hub's, where HF_ENDPOINT is no address
        raise OutsideError(f"the hub's address cannot be read: {first_line(error)}") from error

    patience = patience or Patience(timeout_s, progress.step)
    with connected(repo, revision, not dry_run, patience, threads) as hub:
        publication = Publication(passed, hub, progress, pull_request)
        try:
            return (_planned if dry_run else _published)(publication, private)
        except (GateFailed, OutsideError) as error:
            raise type(error)(f"{error} ({repo}: {publication.said})") from None


def _check_names(repo: str, revision: str) -> None:
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96:
        raise BadInput(f"'{repo}' is not the name of a repository, as ORG/NAME")
    if not _BRANCH.fullmatch(revision) or ".." in revision or revision.startswith("refs/"):
        raise BadInput(f"'{revision}' is not the name of a branch")


def _planned(p: Publication, private: bool | None) -> Published:
    """What would be done; the hub is only read."""
    from .hub import NoBranch

    with p.progress.stage("plan"):
        try:
            head = p.hub.head()
        except NoBranch:
            head = p.hub.head(MAIN)  # where the branch would be made
        _tell_public(p, head, private)
        tree = p.hub.tree(head.commit) if head else {}
        operations = plan(p.contents, tree, _left(p, head, tree))
    return _result(p, operations, head.commit if head else None, dry_run=True)


def _published(p: Publication, private: bool | None) -> Published:
    with p.progress.stage("plan"):
        head = _head(p, private)
        _tell_public(p, head, private)
        tree = p.hub.tree(head.commit)
        operations = plan(p.contents, tree, _left(p, head, tree))
        p.progress.step(summary(operations))
    p.said = f"{p.hub.revision} is as it was, at commit {head.commit}"
    changed = changes(operations)
    if not changed:
        return _unchanged(p, operations, head.commit)
    if p.proposed:
        return _pull_request(p, operations, head.commit)
    _upload(p, changed)
    with p.progress.stage("commit"):
        commit = _commit(p, changed, tree, head.commit)
    p.said = f"commit {commit} is on {p.hub.revision}, and is not verified"
    _verify(p, commit)
    _tag(p, commit)
    return _result(p, operations, commit, committed=True, tag=p.passed.name)


def _unchanged(p: Publication, operations: Sequence[Operation], commit: str) -> Published:
    """Nothing to commit: what an earlier publication may lack is verification, and its tag behind that."""
    p.said = f"commit {commit} has these files, and is not verified"
    tag = None if p.proposed else p.passed.name
    if tag is None or tag not in p.hub.tags() or not is_there(p.contents, p.hub.tree(tag)):
        _verify(p, commit)
        if tag:
            _tag(p, commit)
    return _result(p, operations, commit, tag=tag)


def _pull_request(p: Publication, operations: Sequence[Operation], parent: str) -> Published:
    """Propose the commit; one that an earlier run proposed is verified, and not proposed again."""
    made = _open(p)
    if committed := made is None:
        _upload(p, changes(operations))
        with p.progress.stage("commit"):
            made = _propose(p, changes(operations), parent)
    p.said = f"{made.url} proposes commit {made.commit}, which is not verified"
    _verify(p, made.commit)
    return _result(p, operations, made.commit, committed=committed, pull_request=made.url)


def _result(
    p: Publication,
    operations: Sequence[Operation],
    commit: str | None,
    committed: bool = False,
    tag: str | None = None,
    pull_request: str | None = None,
    dry_run: bool = False,
) -> Published:
    return Published(p.hub.repo, p.hub.revision, tuple(operations), commit, committed, tag, pull_request, dry_run)


# --- before anything is sent -------------------------------------------------------------------------------------


def _head(p: Publication, private: bool | None) -> Head:
    """The branch's last commit, of a repository and a branch that are made if they are missing."""
    from .hub import NoBranch

    try:
        head = p.hub.head()
    except NoBranch:
        if p.proposed:
            raise
        p.hub.create_branch()
        head = p.hub.head()
    if head is None:
        p.hub.create(private)
        p.said = "the repository was made, and is empty"
        if p.hub.revision != MAIN:
            p.hub.create_branch()
        head = p.hub.head()
    if head is None:
        raise OutsideError("there is such a repository, but this token may not see it")
    return head


def _tell_public(p: Publication, head: Head | None, private: bool | None) -> None:
    """What will be seen, and by whom, if that may be unexpected."""
    if p.passed.folder:
        p.progress.step(f"{MANIFEST} names the folder {text(p.passed.folder)}, which will be seen with it")
    if head is not None and private is not None and head.private != private:
        there, asked = ("private", "public") if head.private else ("public", "private")
        p.progress.step(f"{p.hub.repo} is {there} and stays so; its settings on the hub make it {asked}")


def _left(p: Publication, head: Head | None, tree: Tree) -> set[str]:
    """Names of what the last publication left, by the manifest that it left."""
    return listed(p.hub.manifest(head.commit, MANIFEST)) if head and MANIFEST in tree else set()


# --- sending -----------------------------------------------------------------------------------------------------


def _upload(p: Publication, changed: Sequence[Operation]) -> None:
    files = [p.passed.files[operation.name] for operation in changed if operation.kind != "delete"]
    with p.progress.stage("upload"):
        try:
            p.hub.upload(files, p.proposed, _meter(p, files))
        except BaseException:  # Ctrl-C too: what other threads have begun would go on to its end
            p.hub.patience.end()
            raise


def _meter(p: Publication, files: Sequence[Verified]) -> Callable[[int], None]:
    """Tells how many of the bytes of these have moved, a tenth at a time."""
    total, done, shown = sum(file.size for file in files), 0, 0

    def moved(count: int) -> None:
        nonlocal done, shown
        done += count
        if total > SHOWN and (tenths := min(10, 10 * done // total)) > shown:
            shown = tenths
            p.progress.step(f"{min(done, total) / 1e6:.1f} of {total / 1e6:.1f} MB")

    return moved


def _commit(p: Publication, changed: Sequence[Operation], tree: Tree, parent: str) -> str:
    """One commit, whatever becomes of the answers; its id.

    A commit names its parent, and so the hub takes a second one of the same only where the first did not arrive.
    Raises OutsideError where somebody else has committed to the same files, or twice to others.
    """
    first, tries, moves = parent, 0, 0
    while True:
        started = p.hub.patience.clock()
        try:
            return p.hub.commit(p.passed.title, p.passed.description, _deleted(changed), parent, False)[0]
        except Trouble as error:
            trouble = error
        p.said = f"whether the commit is on {p.hub.revision} is not known; publish again to find out"
        if mine := _arrived(p, first):
            return mine
        head = p.hub.head()
        p.said = f"{p.hub.revision} is as it was, at commit {parent}"
        if head is None or head.commit == parent:
            tries += 1
            p.hub.patience.wait("committing", trouble, tries, started)
            continue
        moves += 1
        now = p.hub.tree(head.commit)
        _check_unrelated(p, changed, tree, now, head.commit, moves)
        p.progress.step(f"somebody else committed {head.commit} meanwhile, to other files")
        parent, tree = head.commit, now


def _arrived(p: Publication, first: str) -> str | None:
    """A commit of ours behind `first` that holds the release, if there is one."""
    made = p.hub.since(first, p.passed.title)
    return next((commit for commit in made if is_there(p.contents, p.hub.tree(commit))), None)


def _check_unrelated(
    p: Publication, changed: Sequence[Operation], before: Tree, now: Tree, commit: str, moves: int
) -> None:
    names = {*p.passed.files, *(operation.name for operation in changed)}
    touched = sorted(name for name in names if before.get(name) != now.get(name))
    p.said = f"{p.hub.revision} is at somebody else's commit {commit}; nothing of this release is in it"
    if touched:
        raise OutsideError(f"somebody else committed {commit} meanwhile, which changed {touched[0]}; publish again")
    if moves > 1:
        raise OutsideError(f"somebody else keeps committing, now {commit}; publish again")


def _deleted(changed: Sequence[Operation]) -> list[str]:
    return [operation.name for operation in changed if operation.kind == "delete"]


def _open(p: Publication) -> PullRequest | None:
    """An open pull request that proposes this very release."""
    found = p.hub.pull_requests(p.passed.title)
    return next((made for made in found if is_there(p.contents, p.hub.tree(made.commit))), None)


def _propose(p: Publication, changed: Sequence[Operation], parent: str) -> PullRequest:
    """A pull request, and no second one where the first one's answer was lost."""
    from .hub import PullRequest

    tries = 0
    while True:
        started = p.hub.patience.clock()
        try:
            return PullRequest(*p.hub.commit(p.passed.title, p.passed.description, _deleted(changed), parent, True))
        except Trouble as error:
            trouble = error
        p.said = "whether there is a pull request is not known; publish again to find out"
        if made := _open(p):
            return made
        p.said = f"there is no pull request, and {p.hub.revision} is as it was"
        tries += 1
        p.hub.patience.wait("proposing", trouble, tries, started)


# --- behind the commit -------------------------------------------------------------------------------------------


def _verify(p: Publication, commit: str) -> None:
    """Download every file of a commit and compare. Raises OutsideError naming the first that is not the release's."""
    with p.progress.stage("verify"):
        tree = p.hub.tree(commit)
        if missing := next((name for name in p.passed.files if name not in tree), None):
            raise OutsideError(f"{missing} is missing on the hub")
        moved = _meter(p, p.contents)
        with ThreadPoolExecutor(p.hub.threads) as pool:
            checks = [pool.submit(_check_file, p, commit, content, moved) for content in p.contents]
            try:
                for done in checks:
                    done.result()
            except BaseException:  # Ctrl-C too
                p.hub.patience.end()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _check_file(p: Publication, commit: str, content: Verified, moved: Callable[[int], None]) -> None:
    for _ in range(MOST_DOWNLOADS):
        found = p.hub.sha256(commit, content.name, content.size, moved)
        if found == content.sha256:
            return
        p.progress.step(f"{content.name} came back with other bytes")
    raise OutsideError(f"{content.name} on the hub is not the file that was sent: its sha256 is {found}")


def _tag(p: Publication, commit: str) -> None:
    """Name the commit, now that it is verified. Raises OutsideError where the name is taken by something else."""
    p.said = f"commit {commit} is verified, and not tagged"
    p.hub.create_tag(p.passed.name, commit)
    if not is_there(p.contents, p.hub.tree(p.passed.name)):
        raise OutsideError(f"the tag {p.passed.name} is there already, and holds something else")
