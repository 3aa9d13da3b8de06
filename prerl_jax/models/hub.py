"""Repositories of the Hugging Face hub: a revision becomes a commit, and files come from the cache or the network.

`huggingface_hub` does the work, and its environment variables hold: HF_HOME and HF_HUB_CACHE (where the cache is),
HF_HUB_OFFLINE=1 (only the cache), HF_TOKEN (for private and gated repositories), HF_ENDPOINT (another hub). Where a
connection breaks, the download goes on from there; where the process dies, the next one takes up the files that are not
complete. What the errors here say never contains a token.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

MODEL, DATASET = "model", "dataset"
COMMIT = re.compile("[0-9a-f]{40}")
FIRST = {MODEL: "config.json", DATASET: "README.md"}
"""The file of a repository that is always needed. It is fetched together with the list of all files."""
_NOR_LOCAL = {MODEL: ", and there is no such local path", DATASET: ""}
_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?")


@dataclasses.dataclass(frozen=True)
class Repo:
    """A repository of the hub.

    Attributes:
      name: "owner/name".
      revision: a branch, a tag or a commit.
      kind: MODEL or DATASET.
    """

    name: str
    revision: str = "main"
    kind: str = MODEL

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"

    def pinned(self) -> Repo:
        """The repository at the commit that the revision names now; itself where the revision is a commit.

        Without a network it is the commit that the cache last saw under this name; huggingface_hub logs that.

        Raises OSError, which says what is wrong and what to do, as the other methods do.
        """
        if COMMIT.fullmatch(self.revision):
            return self
        with _explained(self):
            from huggingface_hub import HfApi

            found = HfApi().resolve_revision(self.name, repo_type=self.kind, revision=self.revision)
        return dataclasses.replace(self, revision=found.resolved)

    def files(self) -> tuple[str, ...]:
        """The sorted names of all files at a commit, from the cache where it has the list."""
        from huggingface_hub import get_cached_repo_tree, snapshot_download
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        with _explained(self):
            listed = functools.partial(get_cached_repo_tree, self.name, repo_type=self.kind, revision=self.revision)
            try:
                found = listed()
            except CachedRepoTreeNotFoundError:
                first = FIRST[self.kind]
                snapshot_download(self.name, repo_type=self.kind, revision=self.revision, allow_patterns=first)
                found = listed()
        return tuple(sorted(file.path for file in found))

    def fetch(self, names: Sequence[str]) -> Path:
        """Downloads those of these files that the cache lacks; returns the folder that holds them under their names.

        Args:
          names: names of files at a commit, as `files` gives them.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        download = functools.partial(
            snapshot_download,
            self.name,
            repo_type=self.kind,
            revision=self.revision,
            allow_patterns=[glob.escape(name) for name in names],
        )
        with _explained(self):
            with contextlib.suppress(LocalEntryNotFoundError):
                return Path(download(local_files_only=True))
            return Path(download())


def repo_of(text: str, kind: str = MODEL) -> Repo | None:
    """The repository that "owner/name" or "owner/name@REVISION" names; None where the text is neither."""
    found = _ID.fullmatch(text)
    return None if found is None else Repo(found["name"], found["revision"] or "main", kind)


@contextlib.contextmanager
def _explained(repo: Repo) -> Iterator[None]:
    """Turns what huggingface_hub raises into an OSError that says what to do.

    Its own messages are not repeated: they hold what a server or a header said, and that may be a token.
    """
    from huggingface_hub import errors, get_token

    token = get_token()
    if token and not (token.isascii() and token.isprintable()):
        raise PermissionError("the token in HF_TOKEN, or in the token file, has characters that no token has")
    sent = "the token of this machine was sent" if token else "no token is set"
    what = f"{repo.kind} repository {repo.name!r}"
    try:
        yield
    except errors.GatedRepoError:
        raise PermissionError(
            f"the {what} is gated ({sent}): accept its terms at {_page(repo)}, and set HF_TOKEN to a token of the "
            "account that accepted them"
        ) from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"there is no {what} at {_endpoint()}, or it is private ({sent}){_NOR_LOCAL[repo.kind]}: correct its name, "
            "or set HF_TOKEN to a token of an account that may read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(
            f"the {what} has no revision {repo.revision!r}: name a branch, a tag or a whole commit, or leave the "
            "revision out"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            refusal = f"{_endpoint()} refuses to show the {what} ({status}, {sent})"
            raise PermissionError(f"{refusal}: set HF_TOKEN to a valid token that may read it") from None
        raise ConnectionError(f"{_endpoint()} answered {status} for the {what}: try again later") from None
    except (
        errors.CachedRepoTreeNotFoundError,
        errors.LocalEntryNotFoundError,
        errors.RevisionResolutionError,
        errors.HTTPError,
    ) as error:
        raise ConnectionError(_not_here(repo, error)) from None


def _not_here(repo: Repo, error: Exception) -> str:
    """The message that the cache lacks a repository, or a part of it, and why that is not downloaded."""
    from huggingface_hub import constants

    kind_of_error = type(error.__cause__ or error).__name__
    offline = constants.is_offline_mode()
    why = "HF_HUB_OFFLINE is set" if offline else f"{_endpoint()} does not answer, or broke off: {kind_of_error}"
    kind = " --repo-type dataset" if repo.kind == DATASET else ""
    revision = f" --revision {repo.revision}" if repo.revision != "main" else ""
    return (
        f"the {repo.kind} repository {repo.name!r} cannot be downloaded ({why}), the cache {constants.HF_HUB_CACHE} "
        f"lacks it or a part of it{_NOR_LOCAL[repo.kind]}. Give the path of local files. Or fill the cache where "
        f"there is a network, with `hf download {repo.name}{kind}{revision}`, and set HF_HUB_CACHE to its folder"
    )


def _endpoint() -> str:
    """The address of the hub, without a user or password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _page(repo: Repo) -> str:
    return f"{_endpoint()}/{'datasets/' if repo.kind == DATASET else ''}{repo.name}"
