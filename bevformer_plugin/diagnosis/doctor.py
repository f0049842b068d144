"""One page on machine, installation, data and checkpoint, and on whether they fit together."""

from pathlib import Path

from bevformer_plugin.datasets.infos.nuscenes_tables import CATEGORIES

from .alignment import examine_boxes, examine_motion, examine_standing, read_scans, scans_of
from .checkpoint import examine_checkpoint, examine_config, examine_test_data
from .data_check import versions
from .dataroot import InfoFile, entries_of_tables, examine_dataroot
from .image_alignment import examine_cameras
from .installation import examine_installation
from .page import Line, Page, note


def examine(
    root: str | None = None, version: str | None = None, config: str | None = None, checkpoint: str | None = None
) -> Page:
    """Examine machine and installation, and what else is given.

    What cannot be used is a line of the page, never an error.

    Args:
        root: nuScenes dataroot.
        version: name of its folder of tables; None takes all of them, and for comparisons the first.
        config: path or name of a config.
        checkpoint: file of a checkpoint.
    """
    page = Page(examine_installation())
    if root is not None:
        folder = Path(root)
        lines, files = examine_dataroot(folder, version)
        entries, categories = _entries(files), files[0].infos['metainfo']['categories'] if files else CATEGORIES
        names = [version] if version else versions(folder)
        if not files and names and not any(line.verdict.value == 'WRONG' for line in lines):
            found, entries = entries_of_tables(folder, names[0])
            lines += found
        page.sections[f'data in {root}'] = lines
        if entries:
            page.sections['alignment'] = examine_alignment(folder, entries, categories)
    cfg = detector = dataset = None
    if config is not None:
        lines, cfg, detector = examine_config(config)
        if cfg is not None and root is not None:
            found, dataset = examine_test_data(cfg, Path(root))
            lines += found
        page.sections['config'] = lines
    if checkpoint is not None:
        page.sections[f'checkpoint {checkpoint}'] = examine_checkpoint(checkpoint, cfg, detector, dataset)
    return page


def _entries(files: list[InfoFile]) -> list[dict]:
    """Return the entries of all info files."""
    return [entry for file in files for entry in file.infos['data_list']]


def examine_alignment(root: Path, entries: list[dict], categories: dict[str, int]) -> list[Line]:
    """Hold true boxes, LiDAR points, images and poses of some keyframes against each other.

    Args:
        root: dataroot.
        entries: in this plugin's format, scene by scene and in time order.
        categories: label of each class name.
    """
    lines = [examine_standing(entries, categories)]
    pairs = read_scans(root, entries)
    if not pairs:
        text = 'no two successive keyframes have points, so boxes, poses and images are not compared'
        return [*lines, note('LiDAR', f'{text}: look at them with tools/visualize.py')]
    return [examine_boxes(pairs), examine_motion(pairs), *lines, *examine_cameras(root, scans_of(pairs))]
