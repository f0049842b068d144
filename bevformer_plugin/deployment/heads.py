"""Which heads of a detector are in use once it is trained."""

from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer, DetectionHead, MapHead


def heads_of(detector: BEVFormer) -> tuple[DetectionHead | None, MapHead | None]:
    """Return the head that detects objects and the one that predicts the map, None for one that the detector lacks.

    Raises:
        InputError: the detector has neither.
    """
    heads = list(detector.heads.values())
    detection = next((head for head in heads if isinstance(head, DetectionHead)), None)
    of_map = next((head for head in heads if isinstance(head, MapHead)), None)
    if detection is None and of_map is None:
        kinds = ', '.join(f'{name} ({type(head).__name__})' for name, head in detector.heads.items())
        raise InputError(
            f'the detector predicts neither boxes nor a map, its heads are {kinds}: give it a DetectionHead or a '
            'MapHead'
        )
    return detection, of_map
