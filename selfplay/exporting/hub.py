"""Uploads a dataset folder to the Hugging Face Hub: the card and the data, and nothing else that may lie there."""

from __future__ import annotations

from pathlib import Path

from selfplay.errors import SelfplayError, UsageError
from selfplay.terminal import one_line


def check(repo: str) -> None:
    """What can be told before the work is done.

    Raises:
        UsageError: No repository can have that name, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"--push-to-hub {repo}: {one_line(error)}") from None
    if get_token() is None:
        raise UsageError("--push-to-hub needs a token: set HF_TOKEN, or log in with `hf auth login`")


def push(folder: Path, repo: str, files: list[str], public: bool = False) -> str:
    """Uploads in one commit, to a repository that is made if it is not there, private unless `public`.

    Args:
        files: What to upload, by path in `folder`.

    Returns:
        The address of the commit.

    Raises:
        SelfplayError: It failed.
    """
    import httpx
    from huggingface_hub import HfApi

    api = HfApi(library_name="selfplay")
    try:
        made = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=files,
            commit_message="Dataset written by selfplay export",
        )
    except (OSError, ValueError, httpx.HTTPError) as error:  # the library's own errors are kinds of these
        raise SelfplayError(f"{folder} is written, but the upload to {repo} failed: {one_line(error)}") from None
    return str(commit.commit_url)
