"""An earlier run is kept until its successor has a checkpoint, and two runs do not share a folder."""

import multiprocessing

import pytest

from bevformer_plugin.training import RunStart, check_work_dir
from bevformer_plugin.training.work_dir import occupied
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.training.plants import CtrlC, CtrlCBefore, Kill, NotFinite

FFN = 'heads.detection.decoder.layers.0.ffn'
EARLIER = (
    'last.ckpt',
    'best_NDS.ckpt',
    'best_paper_mIoU@0.5.ckpt',
    'best_map_paper_mIoU@0.5_epoch_3.pth',
    'not_finite.ckpt',
    'train.log',
    'config.py',
    'epoch_3.pth',
)


@pytest.fixture()
def earlier(tmp_path):
    """Work dir with files of an earlier run of either engine, and with some of the user's."""
    folder = tmp_path / 'run'
    folder.mkdir()
    for name in (*EARLIER, 'mine.txt'):
        (folder / name).write_text(f'{name} of a week')
    for name in ('csv', 'csv_resumed_1', 'tensorboard', '20261126_120000', 'pictures'):
        (folder / name).mkdir()
        (folder / name / 'file').write_text(f'{name} of a week')
    return folder


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
@pytest.mark.parametrize(
    'change',
    [
        'train_dataloader.dataset.data_root=/no/such/folder',
        'val_evaluator.version=v1.0-trainval',
        'model.img_backbone.depth=19',
        'load_from=/no/such/file.pth',
        'model.num_cameras=5',
    ],
)
def test_a_run_that_cannot_start_leaves_the_earlier_one_as_it_was(earlier, engine, change, small_options):
    before = contents(earlier)
    done = run_tool(
        'train',
        NANO,
        '--engine',
        engine,
        '--work-dir',
        earlier,
        '--overwrite',
        '--cfg-options',
        *small_options,
        change,
    )
    assert done.returncode == 1, done.output
    # What the new one left, if it came so far, is in a folder of its own.
    after = {name: text for name, text in contents(earlier).items() if not name.startswith('failed/')}
    assert after == before
    assert 'Traceback' not in done.output


def test_a_run_that_fails_before_its_first_checkpoint_gives_the_folder_back(earlier, small_options):
    before = contents(earlier)
    plant = NotFinite('output', FFN, step=1)
    overwrite = ('train', NANO, '--work-dir', earlier, '--overwrite', '--cfg-options', *small_options)
    done = run_tool(*overwrite, plant=plant)
    assert done.returncode == 1 and done.last_line.startswith(f'error: the output of {FFN}')
    assert f'what it left is in {earlier / "failed"}' in done.output
    assert read_checkpoint(str(earlier / 'failed' / 'not_finite.ckpt'))['global_step'] == 1
    after = {name: text for name, text in contents(earlier).items() if not name.startswith('failed/')}
    assert after == before
    done = run_tool(*overwrite, plant=CtrlCBefore('DetectorModule', 'on_fit_start'))
    assert done.returncode == 130
    after = {name: text for name, text in contents(earlier).items() if not name.startswith('failed/')}
    assert after == before


def test_the_first_checkpoint_replaces_the_earlier_run_and_nothing_else(earlier, small_options):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        earlier,
        '--overwrite',
        '--cfg-options',
        *small_options,
        plant=CtrlC(epoch=0, batch=0),
    )
    assert done.returncode == 130, done.output
    assert sorted(path.name for path in earlier.iterdir()) == [
        'config.py',
        'csv',
        'last.ckpt',
        'mine.txt',
        'pictures',
        'tensorboard',
        'train.log',
    ]
    assert read_checkpoint(str(earlier / 'last.ckpt'))['global_step'] == 1


def test_a_killed_successor_leaves_the_earlier_run_to_be_found(earlier, small_options):
    before = contents(earlier)
    run = ('train', NANO, '--work-dir', earlier)
    options = ('--cfg-options', *small_options)
    assert run_tool(*run, '--overwrite', *options, plant=Kill(epoch=0, batch=2)).returncode == -9
    assert (earlier / '.replaced' / 'last.ckpt').read_text() == 'last.ckpt of a week'
    done = run_tool(*run, '--resume', *options)
    assert done.returncode == 1 and f'{earlier / ".replaced"}' in done.last_line
    done = run_tool(*run, '--overwrite', *options, plant=CtrlCBefore('DetectorModule', 'on_fit_start'))
    assert done.returncode == 130
    after = {name: text for name, text in contents(earlier).items() if not name.startswith('failed/')}
    assert after == before


def test_a_move_that_was_cut_short_is_taken_back(earlier):
    before = contents(earlier)
    (earlier / '.moving').mkdir()
    (earlier / 'best_NDS.ckpt').rename(earlier / '.moving' / 'best_NDS.ckpt')
    with pytest.raises(RuntimeError), occupied(RunStart(earlier, overwrite=True), 'bevformer_nano.py'):
        assert not list(earlier.glob('*.ckpt'))
        raise RuntimeError
    assert contents(earlier) == before


def test_mmengines_first_checkpoint_replaces_the_earlier_run(earlier, small_options):
    done = run_tool(
        'train',
        NANO,
        '--engine',
        'mmengine',
        '--work-dir',
        earlier,
        '--overwrite',
        '--cfg-options',
        *small_options,
        'train_cfg.val_begin=2',
    )
    assert done.returncode == 0, done.output
    left = {path.name for path in earlier.iterdir()}
    assert {'epoch_1.pth', 'last_checkpoint', 'mine.txt', 'pictures'} <= left
    assert not left & {'.replaced', 'last.ckpt', 'best_NDS.ckpt', 'epoch_3.pth', 'csv'}


def hold(folder, held, release):
    with occupied(RunStart(folder), 'bevformer_nano.py'):
        held.set()
        release.wait(60)


def test_two_runs_do_not_share_a_folder(tmp_path):
    context = multiprocessing.get_context('spawn')
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    with (
        pytest.raises(FileExistsError, match=rf'is in use: process {other.pid} on .* trains there'),
        occupied(RunStart(tmp_path, resume='newest'), 'bevformer_nano.py'),
    ):
        pass
    other.kill()
    other.join()
    with occupied(RunStart(tmp_path, resume='newest'), 'bevformer_nano.py'):
        pass
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_a_work_dir_are_refused(tmp_path):
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(FileExistsError, match='is a file, not a folder: give another --work-dir'):
        check_work_dir(RunStart(file))
    with pytest.raises(FileExistsError, match='--resume, replace it with --overwrite'):
        check_work_dir(RunStart(tmp_path))
    (tmp_path / 'last.ckpt').touch()
    with pytest.raises(FileExistsError, match='has checkpoints of its own, which the run that goes on with'):
        check_work_dir(RunStart(tmp_path, resume=str(tmp_path.parent / 'other' / 'last.ckpt')))
    check_work_dir(RunStart(tmp_path, resume=str(tmp_path / 'last.ckpt')))
    check_work_dir(RunStart(tmp_path, resume='newest'))
    with pytest.raises(OSError, match=r'/proc/run cannot be written to .* another --work-dir'):
        check_work_dir(RunStart(type(tmp_path)('/proc/run')))
