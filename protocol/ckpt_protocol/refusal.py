"""Refusals, each with one code and one text: the caller made a mistake, or the state forbids the request."""


class RequestError(Exception):
    """The request was refused and nothing was done.

    `code` is the SAF code; `index` the lowest element at fault, -1 for none.
    """

    def __init__(self, code: int, text: str = "", index: int = -1) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.index = index
