"""Settings of version 0.1.0 that have another place today: those that only moved are taken over, with a warning."""

import logging
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.logging import print_log

from bevformer_plugin.errors import InputError

DETECTION = 'model.heads.detection'
PERSPECTIVE = 'model.heads.perspective'
ENCODER = 'model.bev_encoder'
HEAD = 'model.pts_bbox_head'
# Places today of each setting of version 0.1.0 whose meaning is the same; whatever lies below it moved along.
PLACES_TODAY = {
    f'{HEAD}.num_classes': (f'{DETECTION}.num_classes', f'{PERSPECTIVE}.num_classes'),
    f'{HEAD}.num_query': (f'{DETECTION}.queries.num_query',),
    f'{HEAD}.criterion': (f'{DETECTION}.criterion',),
    f'{HEAD}.box_coder': (f'{DETECTION}.box_coder',),
    f'{HEAD}.bev_embedding_std': (f'{ENCODER}.bev_embedding_std',),
    f'{HEAD}.positional_encoding_init': (f'{ENCODER}.positional_encoding_init',),
    **{
        f'{HEAD}.transformer.{name}': (f'{ENCODER}.{name}', f'{DETECTION}.{name}')
        for name in ('num_heads', 'feedforward_channels', 'dropout')
    },
    f'{HEAD}.transformer.num_feature_levels': (f'{ENCODER}.num_feature_levels',),
    f'{HEAD}.transformer.encoder': (f'{ENCODER}.encoder',),
    f'{HEAD}.transformer.decoder': (f'{DETECTION}.decoder',),
    'model.perspective_supervision.loss_heatmap': (f'{PERSPECTIVE}.loss_heatmap',),
    'model.perspective_supervision.loss_values': (f'{PERSPECTIVE}.loss_values',),
}
# Settings of version 0.1.0 that were removed, with the remedy.
REMEDIES = {
    HEAD: f'{DETECTION} is the head now, and {ENCODER} what builds its BEV',
    f'{HEAD}.embed_dims': 'the width is set by model.img_neck.out_channels',
    f'{HEAD}.proposals': f'set {DETECTION}.queries',
    'model.perspective_supervision': f'set {PERSPECTIVE}',
    'model.attention_backend': 'set the environment variable BEVFORMER_ATTENTION_BACKEND',
}


def take_over_moved_settings(cfg: Config) -> None:
    """Bring settings that a config has at their places of version 0.1.0 to those of today, and warn of each.

    Args:
        cfg: a config, which is changed.

    Raises:
        InputError: if a setting of version 0.1.0 has no place today.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        return
    roots = sorted({setting.split('.')[1] for setting in (*PLACES_TODAY, *REMEDIES)} & model.keys())
    settings = {f'model.{root}': model.pop(root) for root in roots}
    cfg.merge_from_dict(at_places_of_today(settings, cfg))


def at_places_of_today(settings: dict[str, object], cfg: Config) -> dict[str, object]:
    """Name settings by their places of today, and warn of each that moved.

    Args:
        settings: values by dotted key, as those of ``--cfg-options``.
        cfg: the config that they are for, which says what heads there are.

    Returns:
        The same values by today's keys; keys that version 0.1.0 did not have or that stayed are as they were.

    Raises:
        InputError: if a setting of version 0.1.0 has no place today.
    """
    today: dict[str, object] = {}
    for key, value in settings.items():
        for earlier, places, leaf in _moved(key, value):
            if earlier != key or places != (key,):
                places = tuple(place for place in places if _has_its_head(place, cfg))
                print_log(
                    f'{earlier} is a setting of version 0.1.0, taken over as {", ".join(places)}: set it there',
                    logger='current',
                    level=logging.WARNING,
                )
            today.update(dict.fromkeys(places, leaf))
    return today


def _moved(key: str, value: object) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """Yield each setting at or below ``key`` with its places of today and its value."""
    for earlier, places in PLACES_TODAY.items():
        if f'{key}.'.startswith(f'{earlier}.'):
            below = key[len(earlier) :]
            yield key, tuple(place + below for place in places), value
            return
    if isinstance(value, dict) and any(earlier.startswith(f'{key}.') for earlier in PLACES_TODAY):
        for name, child in value.items():
            yield from _moved(f'{key}.{name}', child)
        return
    owner = next((earlier for earlier in sorted(REMEDIES, key=len)[::-1] if f'{key}.'.startswith(f'{earlier}.')), None)
    if owner is not None:
        raise InputError(
            f'{key} is a setting of version 0.1.0 that has no place today: {REMEDIES[owner]}; see CHANGELOG.md'
        )
    yield key, (key,), value


def _has_its_head(place: str, cfg: Config) -> bool:
    """Tell whether a place lies in no head, or in one that the config has."""
    heads = cfg.model.get('heads') or {}
    return not place.startswith(f'{PERSPECTIVE}.') or heads.get('perspective') is not None
