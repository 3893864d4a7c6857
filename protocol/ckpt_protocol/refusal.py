"""A caller's mistake, or a state that does not allow what was asked: one code and one text."""


class Refusal(Exception):
    """Nothing was done. `code` is the SAF code; `index` the lowest element at fault, -1 for none."""

    def __init__(self, code: int, text: str = "", index: int = -1) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.index = index
