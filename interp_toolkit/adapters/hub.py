"""Adapters on the Hugging Face hub: finding them there, and putting them there in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp_toolkit.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from interp_toolkit.errors import FileFormatError, InterpToolkitError

if TYPE_CHECKING:
    import torch
    from huggingface_hub import CommitInfo, EvalResult, HfApi

    from interp_toolkit.adapters.adapter import Adapter
    from interp_toolkit.results import Table

CARD_FILE = "README.md"
# A file of a repository with one of these endings is an adapter by itself; any other name is a folder's.
_ENDINGS = (".safetensors", ".pt", ".json")


def locate(path: str | Path, filename: str | None = None, revision: str | None = None) -> Path:
    """Return where an adapter lies on this machine, fetched from the hub where ``path`` is an id there.

    Args:
        path: a file or folder, ``"org/name"``, or ``"org/name/file"``.
        filename: a file or folder within it.
        revision: branch, tag or commit on the hub.

    Raises:
        FileFormatError: neither a path nor something that the hub has.
    """
    _check_name("filename", filename, FileFormatError)
    _check_name("revision", revision, FileFormatError)
    local = Path(path).expanduser()
    if local.exists():
        if filename is None:
            return local
        if not (local / filename).exists():
            raise FileFormatError(f"no adapter at {local / filename}: the folder holds no such file")
        return local / filename
    names = str(path).split("/")
    is_path = isinstance(path, Path) or str(path).startswith((".", "/", "~"))
    if is_path or len(names) < 2 or not all(names) or ".." in names:
        raise FileFormatError(f"no adapter at {path}: no such file or folder (a hub id looks like 'org/name')")
    names += filename.split("/") if filename else []
    repo_id, within = "/".join(names[:2]), "/".join(names[2:])
    # The hub's client raises errors of its own, of its HTTP library, and of the disk; nothing else runs here.
    try:
        fetched = _fetch(repo_id, within, revision)
    except Exception as error:
        reason = describe_error(error, repo_id, revision, within)
        raise FileFormatError(f"no adapter at {path}: no such folder here, and {reason}") from error
    if not fetched.exists() or (fetched.is_dir() and not (fetched / CONFIG_FILE).is_file()):
        place = f"the folder {within} of {repo_id}" if within else repo_id
        raise FileFormatError(
            f"no adapter at {path}: on the hub {place} holds no {CONFIG_FILE}; name one of its files or folders with "
            f"filename=..."
        )
    return fetched


@dataclass(frozen=True, eq=False)
class Draft:
    """What a commit is to hold.

    Attributes:
        adapter: with its contract.
        dtype: of the numbers in the file.
        card: text of ``README.md``; None to have it written.
        evaluation: what was measured of the adapter, see `Adapter.push_to_hub`.
    """

    adapter: Adapter
    dtype: torch.dtype
    card: str | None = None
    evaluation: Table | Sequence[EvalResult] | None = None

    def write(self, folder: Path, repo_id: str, revision: str | None) -> list[str]:
        """Write the files to a new folder and return their names.

        Args:
            folder: to write.
            repo_id: which the card names.
            revision: which the card names.

        Raises:
            InterpToolkitError: no contract, or a card or evaluation that cannot be used.
        """
        from interp_toolkit.adapters.cards import adapter_card, with_results  # only here: it needs pandas

        self.adapter.save_pretrained(folder, self.dtype)
        if self.card is None:
            # Of what was written, whose numbers may have been rounded.
            written = self.adapter.from_pretrained(folder)
            card = adapter_card(written, repo_id, revision=revision, evaluation=self.evaluation)
        else:
            card = with_results(self.card, repo_id, self.evaluation)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
        return [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]


def push(
    draft: Draft,
    repo_id: str,
    revision: str | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> CommitInfo:
    """Upload an adapter with its card in one commit, whole or not at all.

    Args:
        draft: what the commit is to hold.
        repo_id: ``"user/name"``; the repository is created where there is none.
        revision: a branch, created where there is none.
        private: whether others cannot see it; a repository that is there must be so already.
        token: of a user who may write.
        commit_message: title of the commit.

    Raises:
        InterpToolkitError: an adapter, card or evaluation that cannot be used, or the hub refuses or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    _check_id(repo_id)
    _check_name("revision", revision, InterpToolkitError)
    api = HfApi(token=token, library_name="interp-toolkit")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "adapter"
        names = draft.write(folder, repo_id, revision)
        try:
            _prepare(api, repo_id, revision, private)
            # `HfApi.upload_folder` may make several commits of one folder; this makes one or none.
            return api.create_commit(
                repo_id,
                [CommitOperationAdd(name, folder / name) for name in names],
                commit_message=commit_message or "Upload adapter",
                revision=revision,
            )
        except InterpToolkitError:
            raise
        except Exception as error:  # as in `locate`
            reason = describe_error(error, repo_id, revision)
            raise InterpToolkitError(f"the adapter was not pushed to {repo_id}: {reason}") from error


def describe_error(error: Exception, repo_id: str, revision: str | None, file: str = "") -> str:
    """What an error of the hub's client means, and what to do, as a clause.

    Args:
        error: of the client.
        repo_id: which repository it is about.
        revision: which branch, tag or commit.
        file: which file or folder of the repository, where one was to be read.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.HF_HUB_OFFLINE and isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return "the hub is not reached while HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split())[:300] or type(error).__name__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"the hub has {repo_id} for those alone who were let in; ask for access on its page"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} on the hub has no branch, tag or commit {revision!r}; look at the names on its page"
    if isinstance(error, EntryNotFoundError):
        return f"{repo_id} on the hub has no file {file!r} at {revision or 'main'}; look at the names on its page"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return (
            f"the hub has no {repo_id} that you may see; check the name, and, if it is private, log in with "
            f"'hf auth login'"
        )
    if status == 401:
        return "the hub wants a valid token; log in with 'hf auth login', or set HF_TOKEN"
    if status == 403:
        return f"the token has no permission for this on {repo_id}; use one that has, of a user who may"
    if status is not None and isinstance(error, HfHubHTTPError):
        message = " ".join((error.server_message or "").split())[:200]
        return f"the hub answered {status}{f' ({message})' if message else ''}; try again later"
    is_local = isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError))
    if is_local or isinstance(error, ValueError):
        return f"the hub's client says: {text}"
    return f"the hub at {constants.ENDPOINT} could not be reached ({text}); check the network, then try again"


def _fetch(repo_id: str, within: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    name = within.rsplit("/", 1)[-1]
    if within.endswith(_ENDINGS) and name not in (CONFIG_FILE, WEIGHTS_FILE):
        return Path(hf_hub_download(repo_id, within, revision=revision))
    # Two files that are read together, and perhaps one of them is named.
    folder = within.removesuffix(name).rstrip("/") if name in (CONFIG_FILE, WEIGHTS_FILE) else within
    both = [f"{folder}/{file}".lstrip("/") for file in (CONFIG_FILE, WEIGHTS_FILE)]
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=both), within)


def _check_name(called: str, name: str | None, error: type[InterpToolkitError]) -> None:
    """Refuse a name by which something outside of the repository and its cache would be read or written."""
    if name is not None and {"", ".", ".."} & set(name.split("/")):
        raise error(f"expected a {called} such as 'a' or 'a/b', without '..', got {name!r}")


def _check_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        fault = "" if repo_id.count("/") == 1 else "it names no user or organization."
    except HFValidationError as error:
        fault = str(error)
    if fault:
        raise InterpToolkitError(f"expected a hub id like 'user/my-adapter', got {repo_id!r}: {fault}")


def _prepare(api: HfApi, repo_id: str, revision: str | None, private: bool | None) -> None:
    """Create the repository and the branch where they are missing."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    # The argument says nothing to a repository that was there before.
    if private is not None and (is_private := api.repo_info(repo_id).private) != private:
        raise InterpToolkitError(
            f"{repo_id} is there already and is {'private' if is_private else 'public'}, not what private={private} "
            f"asks for; change that on its settings page, or leave the argument out"
        )
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
