"""The errors a user of the library can cause, and nothing else."""


def first_line(error: BaseException) -> str:
    """What another library's error says first, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class InterpToolkitError(ValueError):
    """Something the caller gave cannot be used; the text says what was expected, what came and what to do."""


class ContractError(InterpToolkitError):
    """An adapter meets a model, site or vector other than those it was trained for."""


class FileFormatError(InterpToolkitError):
    """A file or folder is missing, damaged, or not in a format that is known here."""
