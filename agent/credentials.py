"""Secrets, from the environment or from a file, and never from YAML."""

from pathlib import Path

from pydantic import SecretStr

from agent.errors import UserError


def secret(key: str, given: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret: the first line of its ``file``, if there is one, or what was ``given``.

    Args:
        key: the setting that names the file, for the error's sentence.
        given: from the environment.
        file: read anew at each call, so that the secret can be rotated under a running agent.

    Raises:
        UserError: the file cannot be read, or has no secret in it.

    """
    if file is None:
        return None if given is None else given.get_secret_value()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is not text"
        raise UserError(f"{key}: cannot use {file}: {reason}") from None
    if not any(lines[:1]):
        # Under systemd, this is also what a credential looks like that nobody has written.
        raise UserError(f"{key}: {file} is empty: write the secret into it, or leave the key out")
    return lines[0]
