"""Names of parametrised tests."""


def shown(value: object) -> str:
    """What a value is, the same in every process: without its address."""
    return str(value).partition(" at 0x")[0]
