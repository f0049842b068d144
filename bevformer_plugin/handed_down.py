"""Settings that a module hands down to its parts: each is set for the module and may not be set again below it."""

from typing import Any

from bevformer_plugin.errors import InputError


def with_handed_down(config: dict[str, Any], values: dict[str, Any], part: str, owner: str) -> dict[str, Any]:
    """Complete the config of a part with the values that its owner decides.

    Args:
        config: the config that the user wrote for the part.
        values: the settings that the owner hands down.
        part: name of the part in the config, for the message.
        owner: name of the owner, for the message.

    Raises:
        InputError: if the config of the part sets a value that the owner hands down, which would have no effect.
    """
    repeated = sorted(config.keys() & values.keys())
    if repeated:
        raise InputError(
            f'{part} sets {", ".join(repeated)}, which {owner} hands down to it: the setting would have no effect. '
            f'Leave it out and set it for {owner}'
        )
    return {**config, **values}
