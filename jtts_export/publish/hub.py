"""The Hugging Face Hub, as far as publishing asks for it: huggingface_hub's own calls, with one patience for all.

The client retries some requests itself, with pauses that nobody bounds, and others not at all. So its HTTP client is
given to it here: whatever may pass is raised at once as Trouble, which the client does not know and lets through.

Files go to the hub by git-LFS, never by xet: of that, the client sends a file together with a hash that it does not
look at again, and no Python is asked for the bytes.
"""

from __future__ import annotations

import hashlib
import ssl
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    _http,  # set_client_factory() takes a factory, and tells nobody which was there before
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
    hf_raise_for_status,
    logging,
    parse_ratelimit_headers,
    set_client_factory,
)

from jtts_export import __version__
from jtts_export.errors import JttsError, OutsideError
from jtts_export.redact import keep_secret, redacted
from jtts_export.report.facts import text

from .files import CheckedFile, Verified
from .patience import Patience, Trouble, within
from .plan import Remote

CONNECT_S, SILENCE_S = 10.0, 60.0  # a connection; a hub that says nothing
MANIFEST_MAX = 64 << 20  # bytes of a manifest.json from anywhere
PIECE = 1 << 20
MOST_WORDS = 400  # characters of an error
_CONFLICT = "another conflicting operation is in progress"  # which the client would retry for ever, without a pause

T = TypeVar("T")


class Refused(OutsideError):
    """The hub does not let this token do that: nothing that waiting helps."""


class NoBranch(OutsideError):
    """The repository is there, and the branch is not."""


class Moved(Trouble):
    """The branch is not where it was: somebody else has committed, or an earlier try of ours arrived."""

    def __init__(self) -> None:
        super().__init__("the hub calls its last commit old")


@dataclass(frozen=True)
class Head:
    """A branch's last commit, and whether the repository is private."""

    commit: str
    private: bool


@dataclass(frozen=True)
class PullRequest:
    """Its last commit, and where it is looked at."""

    commit: str
    url: str


class Hub:
    """One repository. Every method may raise OutsideError: in one line, without a token."""

    def __init__(self, repo: str, revision: str, token: str | None, patience: Patience, threads: int) -> None:
        self.repo, self.revision, self.patience, self.threads = repo, revision, patience, threads
        self._api = HfApi(token=token or False, library_name="jtts-export", library_version=__version__)
        self.endpoint = self._api.endpoint
        self._additions: dict[str, CommitOperationAdd] = {}

    def head(self, revision: str = "") -> Head | None:
        """Of the branch, or of another. None where there is no such repository, or the token may not see it. Raises
        NoBranch where it has no such branch."""
        revision = revision or self.revision

        def once() -> Head | None:
            try:
                info = self._api.model_info(self.repo, revision=revision)
            except RepositoryNotFoundError:
                return None
            except RevisionNotFoundError:
                raise NoBranch(f"there is no branch {revision}") from None
            if not info.sha:
                raise OutsideError(f"there is no commit on {revision}")
            return Head(text(info.sha), bool(info.private))

        return self._ask("asking for the repository", once)

    def create(self, private: bool | None) -> None:
        """Make the repository. private: None leaves it to the hub's settings."""
        self._ask("making the repository", lambda: self._api.create_repo(self.repo, private=private, exist_ok=True))

    def create_branch(self) -> None:
        """Make the branch, where main is."""
        self._ask(
            "making the branch", lambda: self._api.create_branch(self.repo, branch=self.revision, exist_ok=True)
        )

    def tree(self, revision: str) -> dict[str, Remote]:
        """Every file of a commit, a tag or a branch."""

        def once() -> dict[str, Remote]:
            found = {}
            for entry in self._api.list_repo_tree(self.repo, recursive=True, revision=revision):
                if isinstance(entry, RepoFile):
                    sha256 = entry.lfs.sha256 if entry.lfs else None
                    found[entry.path] = Remote(entry.size, entry.blob_id, sha256)
            return found

        return self._ask("listing files", once)

    def tags(self) -> set[str]:
        """Names."""
        return self._ask("listing tags", lambda: {tag.name for tag in self._api.list_repo_refs(self.repo).tags})

    def create_tag(self, tag: str, commit: str) -> None:
        """Leaves one of that name as it is."""
        self._ask("tagging", lambda: self._api.create_tag(self.repo, tag=tag, revision=commit, exist_ok=True))

    def upload(self, contents: Sequence[Verified], pull_request: bool, moved: Callable[[int], None]) -> None:
        """Send what goes to LFS; nothing is visible yet. Raises GateFailed where a file has changed on disk."""
        pace = self.patience.pace(sum(content.size for content in contents))

        def sent(count: int) -> None:
            pace()
            moved(count)

        files = {content.name: CheckedFile(content) for content in contents}
        self._additions = {name: self._addition(name, file) for name, file in files.items()}
        for file in files.values():
            file.moved = sent  # from now on: an addition begins with a hash of its file
        for batch in _distinct(contents):
            additions = [self._additions[content.name] for content in batch]

            def once(additions: list[CommitOperationAdd] = additions) -> None:
                for file in files.values():
                    file.seek(0)  # which the client does not, where a request breaks off
                self._api.preupload_lfs_files(
                    self.repo,
                    additions,
                    revision=self.revision,
                    create_pr=pull_request,
                    num_threads=self.threads,
                    free_memory=False,
                )

            self._ask("uploading", once)
        ignored = [name for name, addition in self._additions.items() if addition._should_ignore]
        if ignored:
            raise OutsideError(f"the .gitignore of {self.repo} leaves out {ignored[0]}")

    def _addition(self, name: str, file: CheckedFile) -> CommitOperationAdd:
        return CommitOperationAdd(path_in_repo=name, path_or_fileobj=file)  # type: ignore[arg-type]

    def commit(
        self, title: str, description: str, deleted: Iterable[str], parent: str, pull_request: bool
    ) -> tuple[str, str]:
        """Make what was uploaded visible, in one commit on `parent`; its id, and the pull request's address.

        A single try: raises Trouble where it may or may not have arrived, Moved where the branch is not at `parent`.
        """
        for addition in self._additions.values():
            file = addition.path_or_fileobj
            assert isinstance(file, CheckedFile)
            file.seek(0)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *self._additions.values(),
            *(CommitOperationDelete(name, is_folder=False) for name in sorted(deleted)),
        ]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the hub's remarks on a model card
                made = self._api.create_commit(
                    self.repo,
                    operations,
                    commit_message=title,
                    commit_description=description,
                    revision=self.revision,
                    create_pr=pull_request,
                    parent_commit=parent,
                )
                return text(made.oid), text(redacted(made.pr_url or ""))
        except Exception as error:
            if trouble := within(error, Trouble):
                raise trouble from None
            refused = within(error, HfHubHTTPError)
            if refused is not None and refused.response.status_code in (409, 412):
                raise Moved() from None
            raise outside("committing", error) from None

    def since(self, commit: str, title: str) -> list[str]:
        """Commits of that title on the branch, newest first, that came after `commit`."""

        def once() -> list[str]:
            found = []
            for made in self._api.list_repo_commits(self.repo, revision=self.revision):
                if made.commit_id == commit:
                    break
                found += [made.commit_id] if made.title == title else []
            return found

        return self._ask("looking for the commit", once)

    def pull_requests(self, title: str) -> list[PullRequest]:
        """Open ones of that title."""

        def once() -> list[PullRequest]:
            given = {"discussion_type": "pull_request", "discussion_status": "open"}
            numbers = [
                discussion.num
                for discussion in self._api.get_repo_discussions(self.repo, **given)  # type: ignore[arg-type]
                if discussion.title == title
            ]
            found = []
            for number in numbers:
                head = self._api.model_info(self.repo, revision=f"refs/pr/{number}").sha
                url = f"{self.endpoint}/{self.repo}/discussions/{number}"
                found += [PullRequest(head, url)] if head else []
            return found

        return self._ask("looking for the pull request", once)

    def sha256(self, commit: str, name: str, size: int, moved: Callable[[int], None]) -> str:
        """Of what the hub gives for a file, up to a piece more than `size`."""

        def once() -> str:
            whole, count = hashlib.sha256(), 0
            pace = self.patience.pace(size)
            for piece in self._pieces(commit, name):
                pace()
                moved(len(piece))
                whole.update(piece)
                count += len(piece)
                if count > size:
                    break
            return whole.hexdigest()

        return self._ask(f"downloading {name}", once)

    def manifest(self, commit: str, name: str) -> bytes:
        """A small file's bytes; none of one that is too large to be what it should be."""

        def once() -> bytes:
            whole = b""
            for piece in self._pieces(commit, name):
                whole += piece
                if len(whole) > MANIFEST_MAX:
                    return b""
            return whole

        return self._ask(f"downloading {name}", once)

    def _pieces(self, commit: str, name: str) -> Iterator[bytes]:
        url = f"{self.endpoint}/{self.repo}/resolve/{quote(commit, safe='')}/{quote(name)}"
        headers = {**self._api._build_hf_headers(), "Accept-Encoding": "identity"}
        try:
            with get_session().stream("GET", url, headers=headers) as response:
                hf_raise_for_status(response)
                yield from response.iter_bytes(PIECE)
        except httpx2.TransportError as error:
            raise _trouble(error) from None

    def _ask(self, what: str, once: Callable[[], T]) -> T:
        try:
            return self.patience.run(what, once)
        except Exception as error:
            raise outside(what, error) from None


def outside(what: str, error: BaseException) -> JttsError:
    """An error that a library raised, as one of ours; ours as it is."""
    known = within(error, JttsError)
    return known or OutsideError(text(redacted(f"{what}: {type(error).__name__}: {error}"), MOST_WORDS))


def _distinct(contents: Iterable[Verified]) -> list[list[Verified]]:
    """In batches without two of the same bytes: the client would read one file for both, from two threads."""
    batches: list[dict[str, Verified]] = []
    for content in contents:
        batch = next((batch for batch in batches if content.sha256 not in batch), None)
        if batch is None:
            batches.append(batch := {})
        batch[content.sha256] = content
    return [list(batch.values()) for batch in batches]


@contextmanager
def connected(repo: str, revision: str, needs_token: bool, patience: Patience, threads: int) -> Iterator[Hub]:
    """A hub to talk to. Raises OutsideError where there is no token, or none that could be one."""
    if constants.is_offline_mode():
        raise OutsideError("HF_HUB_OFFLINE is set; publishing needs the hub")
    token = _token(needs_token)
    verbosity, quiet = logging.get_verbosity(), are_progress_bars_disabled()
    factory = _http._GLOBAL_CLIENT_FACTORY
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the environment wants progress bars
        disable_progress_bars()
    set_client_factory(lambda: _Client(constants.ENDPOINT, token is not None, patience.limit_s))
    try:
        yield Hub(repo, revision, token, patience, threads)
    finally:
        set_client_factory(factory)
        logging.set_verbosity(verbosity)
        if not quiet:
            enable_progress_bars()


def _token(needed: bool) -> str | None:
    try:
        token = get_token()
    except Exception as error:  # a login that has expired, a file that may not be read
        raise outside("reading the token", error) from None
    if token is None:
        if needed:
            raise OutsideError("publishing needs a token: set HF_TOKEN, or run `hf auth login`")
        return None
    keep_secret(token)
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise OutsideError("the token has characters that no token has; set HF_TOKEN again, or run `hf auth login`")
    return token


class _Client(httpx2.Client):
    """Raises Trouble for what may pass, Refused for a token that is not enough, and shows the token to nobody but the
    hub."""

    def __init__(self, endpoint: str, has_token: bool, limit_s: float) -> None:
        silence = min(SILENCE_S, limit_s)
        timeout = httpx2.Timeout(silence, connect=min(CONNECT_S, limit_s))
        super().__init__(verify=_certificates(), follow_redirects=True, timeout=timeout)
        self._endpoint, self._origin, self._has_token = endpoint, _origin(httpx2.URL(endpoint)), has_token

    def send(self, request: httpx2.Request, **given: Any) -> httpx2.Response:
        if _origin(request.url) != self._origin:
            request.headers.pop("Authorization", None)
        request.extensions = {**request.extensions, "timeout": self.timeout.as_dict()}  # some calls ask for none
        try:
            response = super().send(request, **given)
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            address = self._endpoint if _origin(request.url) == self._origin else f"https://{request.url.host}"
            raise OutsideError(redacted(f"{text(address)} is not the address of a hub: {error}")) from None
        except httpx2.TransportError as error:
            raise _trouble(error) from None
        status = response.status_code
        if status in (401, 403):
            self._refuse(response)
        if status in (408, 425, 429) or status >= 500:
            response.close()
            raise Trouble(f"the hub answers {status}", _wait_s(response))
        if status == 409 and _CONFLICT in _body(response):
            raise Trouble("the hub is busy with another change")
        return response

    def _refuse(self, response: httpx2.Response) -> None:
        said = text(redacted(response.headers.get("X-Error-Message") or ""))
        reason = f" ({response.status_code}{': ' if said else ''}{said})"
        if _origin(response.url) != self._origin:
            raise Refused(f"the store of large files, which sees no token, refuses this{reason}: publish again")
        if not self._has_token:
            raise Refused(f"the hub shows this to nobody without a token{reason}: set HF_TOKEN, or `hf auth login`")
        if response.status_code == 401:
            raise Refused(
                f"the hub does not accept the token{reason}: make one that may write, in the settings of "
                "your account, then set HF_TOKEN or run `hf auth login`"
            )
        raise Refused(f"the token may not do this{reason}: it needs to be one that may write to this repository")


@cache
def _certificates() -> ssl.SSLContext:
    """Of the hub's kin; reading them takes as long as several requests."""
    return httpx2.create_ssl_context()


def _trouble(error: httpx2.TransportError) -> Trouble:
    kind = type(error).__name__
    known = {
        "ConnectError": "the hub cannot be reached",
        "ConnectTimeout": "the hub cannot be reached",
        "ReadTimeout": "the hub does not answer",
        "WriteTimeout": "the hub does not take what is sent",
    }
    return Trouble(known.get(kind, f"the connection broke off ({kind})"))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _body(response: httpx2.Response) -> str:
    response.read()
    return response.text[:1000]


def _wait_s(response: httpx2.Response) -> float | None:
    """How long the hub asks to wait: in seconds, as a date, or as the time until a limit is set back."""
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    given = response.headers.get("Retry-After", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        until, now = parsedate_to_datetime(given), parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None
