"""Reading a config, and refusing what cannot run before anything long starts."""
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

__all__ = ['DictAction', 'check_training', 'load_config', 'new_work_dir']


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and apply ``--cfg-options``; the registries are ready afterwards.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist; the released ones are in configs/')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    if 'model' not in cfg:
        raise ValueError(f'config {path} has no model; configs under _base_ are parts of others')
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return cfg


def check_training(cfg: Config) -> None:
    """Refuse a config that cannot train.

    Raises:
        ValueError: if a section is missing.
    """
    needed = ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'train_cfg')
    missing = [key for key in needed if cfg.get(key) is None]
    if missing:
        raise ValueError(f"config {cfg.filename} cannot train: it lacks {', '.join(missing)}")
    if not cfg.train_cfg.get('by_epoch', True):
        raise ValueError('train_cfg counts iterations (by_epoch=False); set max_epochs instead')


def new_work_dir(path: str, overwrite: bool, resume: bool) -> Path:
    """Create the folder of a run; an existing one needs ``overwrite`` or ``resume``.

    Raises:
        FileExistsError: if the folder has files of another run.
    """
    folder = Path(path)
    if folder.is_dir() and any(folder.iterdir()) and not (overwrite or resume):
        raise FileExistsError(f'{folder} has files of another run: continue it with --resume, replace it with '
                              '--overwrite, or give another --work-dir')
    folder.mkdir(parents=True, exist_ok=True)
    return folder
