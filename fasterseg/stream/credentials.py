"""Secrets in URLs by name: `${NAME}` stands for what nobody else may read on a command line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fasterseg.errors import UsageError

DIRECTORY_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd says that a service's credentials are (`LoadCredential=NAME:FILE`)."""

DEFAULT_DIRECTORY: Final = "/run/secrets"
"""Where containers have theirs."""

PLACEHOLDER: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

# Whole user parts of URLs (`scheme://user:password@`) with a name in them, or single names.
_PARTS: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^\s/?#@|]*\$\{[^\s/?#@|]*)@|"
    + PLACEHOLDER.pattern
)
_STANDS_IN_URLS: Final = "!$&'()*+,;=:~"


def filled_in(uri: str) -> str:
    """The URI with the values of its `${NAME}`; the one way from a name to its secret.

    A value is the file `NAME` in `$CREDENTIALS_DIRECTORY` (else `/run/secrets`), without the end
    of its line, or else the environment variable. Where it is a user name or password, before the
    `@` of a URL, it is the secret itself, with nothing escaped; elsewhere it is put in as it is.

    To be called where the URI is opened, and for nothing else: names, messages and records are
    made of what the user wrote. The values of other names in a value are not looked for.

    Args:
        uri: a URL, or `gst:` and a pipeline.

    Raises:
        UsageError: there is no such variable, or its file cannot be read.
    """

    def part(match: re.Match[str]) -> str:
        if match["user"] is None:
            return _secret(match[3])
        user = PLACEHOLDER.sub(escaped, match["user"])
        return f"{match['scheme']}://{user}@"

    def escaped(match: re.Match[str]) -> str:
        return quote(_secret(match[1]), safe=_STANDS_IN_URLS)

    return _PARTS.sub(part, uri)


def _secret(name: str) -> str:
    path = Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY) / name
    secret = _content(path, name)
    if secret is None:
        secret = os.environ.get(name)
    if secret is None:
        raise UsageError(
            f"${{{name}}} has no value: set the environment variable {name}, or write it into the "
            f"file {path}"
        )
    if not secret:
        raise UsageError(f"${{{name}}} is empty: give it a value")
    return secret


def _content(path: Path, name: str) -> str | None:
    """What the file of a secret holds; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is no UTF-8 text"
    # Out here no other error hangs on it: Python's repeats what it could not decode.
    raise UsageError(f"cannot read the value of ${{{name}}} from {path}: {reason}; mend the file")
