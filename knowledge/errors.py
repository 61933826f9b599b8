"""The one exception that means "the user's input is wrong": printed as a line, exit code 2."""


class BadInput(Exception):
    """What is wrong, where, and how to mend it, in one readable line.

    Args:
        where: the file, key or option that holds the mistake, e.g. `softmax.yaml: target`.
        what: what is wrong with it.
        mend: what to write instead.
    """

    def __init__(self, where: str, what: str, mend: str = "") -> None:
        self.where = where
        self.what = what
        self.mend = mend
        super().__init__(f"{where}: {what}{' ' + mend if mend else ''}")
