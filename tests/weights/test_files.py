"""Files that are no checkpoint, and weights that cannot be loaded, each with its own message."""

import gzip
import pathlib
import re

import pytest
import torch
from torch import nn

from bevformer_plugin.weights import load_weights, publish_checkpoint, read_checkpoint


def flipped(path: pathlib.Path) -> bytes:
    """Content of a checkpoint with a few bytes in the middle of its one tensor changed."""
    content = bytearray(path.read_bytes())
    middle = content.index(bytes(range(64, 128)))
    content[middle : middle + 8] = bytes(8)
    return bytes(content)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files that people take for checkpoints."""
    folder = tmp_path_factory.mktemp('files')
    torch.save({'weight': torch.arange(1024).to(torch.uint8)}, folder / 'whole.pth')
    whole = (folder / 'whole.pth').read_bytes()
    (folder / 'empty.pth').write_bytes(b'')
    (folder / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    (folder / 'flipped.pth').write_bytes(flipped(folder / 'whole.pth'))
    (folder / 'page.pth').write_text('<!DOCTYPE html><html><title>Sign in</title></html>')
    (folder / 'pointer.pth').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
    (folder / 'packed.pth').write_bytes(gzip.compress(whole))
    (folder / 'text.pth').write_text('not a checkpoint')
    torch.save(nn.Linear(2, 3), folder / 'module.pth')
    torch.save([torch.zeros(1)], folder / 'list.pth')
    (folder / 'run').mkdir()
    (folder / 'run' / 'last.ckpt').write_bytes(whole)
    (folder / 'nothing').mkdir()
    return folder


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('none.pth', 'none.pth does not exist'),
        ('run', 'run is a folder: give a file, it has last.ckpt'),
        ('nothing', 'nothing is a folder: give a file, there is none with .ckpt or .pth in it'),
        ('empty.pth', 'empty.pth is empty: writing or downloading it was interrupted'),
        ('cut.pth', 'cut.pth is damaged or no checkpoint: PytorchStreamReader failed reading zip archive'),
        ('flipped.pth', 'flipped.pth is damaged: the checksum of whole/data/0 in it is wrong'),
        ('page.pth', 'page.pth is a web page'),
        ('pointer.pth', 'pointer.pth is a Git LFS pointer, the file itself was not fetched: run git lfs pull'),
        ('packed.pth', 'packed.pth is compressed with gzip: unpack it with gunzip'),
        ('text.pth', 'text.pth is damaged or no checkpoint: Unsupported operand'),
        ('module.pth', 'module.pth is damaged or no checkpoint: it holds an object of torch.nn.modules.linear.Linear'),
        ('list.pth', 'list.pth holds a list, not a checkpoint or a state dict'),
    ],
)
def test_what_is_no_checkpoint_is_named(folder, name, message):
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
        read_checkpoint(str(folder / name))
    assert '\n' not in str(caught.value)


def test_a_whole_file_is_read(folder):
    content = read_checkpoint(str(folder / 'whole.pth'))
    assert torch.equal(content['weight'], torch.arange(1024).to(torch.uint8))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'optimizer': {}, 'epoch': 3}, 'holds no weights: found optimizer, epoch'),
        ({}, 'holds no weights: found nothing'),
        ({'state_dict': {}}, 'holds no weights: found state_dict'),
        ({'weight': torch.full((3, 2), torch.nan), 'bias': torch.zeros(3)}, 'in 1 of 2 tensors (first: weight)'),
        ({'weight': torch.zeros(3, 2), 'bias': torch.tensor([0, 1, torch.inf])}, 'in 1 of 2 tensors (first: bias)'),
        ({'weight': torch.zeros(3, 2, dtype=torch.int8), 'bias': torch.zeros(3)}, '1 of another type (first: weight'),
        ({'weight': torch.zeros(3, 2)}, '1 missing (first: bias)'),
        ({'can_bus_mlp.norm.bias': torch.zeros(3)}, 'is in the published layout: convert it'),
    ],
)
def test_weights_that_cannot_be_loaded_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / 'weights.pth')
    model = nn.Linear(2, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        load_weights(model, str(tmp_path / 'weights.pth'))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_that_are_not_finite_are_not_published(tmp_path):
    torch.save({'state_dict': {'weight': torch.full((2,), torch.nan)}, 'meta': {}}, tmp_path / 'last.ckpt')
    with pytest.raises(ValueError, match='its training had failed'):
        publish_checkpoint(str(tmp_path / 'last.ckpt'), str(tmp_path / 'published.pth'))
    assert not (tmp_path / 'published.pth').exists()


def test_weights_of_a_step_that_failed_are_not_published(tmp_path):
    kept = {'state_dict': nn.Linear(2, 3).state_dict(), 'samples': ['a'], 'global_step': 7, 'meta': {}}
    torch.save(kept, tmp_path / 'not_finite.ckpt')
    with pytest.raises(ValueError, match='was kept for inspection'):
        publish_checkpoint(str(tmp_path / 'not_finite.ckpt'), str(tmp_path / 'published.pth'))
    assert not (tmp_path / 'published.pth').exists()


@pytest.mark.parametrize(('kind', 'said'), [('half', 'float16'), ('bfloat16', 'bfloat16'), ('double', 'float64')])
def test_other_precisions_are_converted_and_said(tmp_path, log, kind, said):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {name: getattr(value, kind)() for name, value in source.state_dict().items()}
    torch.save({f'module.{name}': value for name, value in state.items()}, tmp_path / 'weights.pth')
    load_weights(target, str(tmp_path / 'weights.pth'))
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, state['weight'].float())
    assert f'loaded, converted from {said}' in log.text


def test_weights_kept_for_inspection_are_said_to_be_so(tmp_path, log):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    kept = {'state_dict': source.state_dict(), 'samples': ['a'], 'global_step': 7, 'meta': {}}
    torch.save(kept, tmp_path / 'not_finite.ckpt')
    load_weights(target, str(tmp_path / 'not_finite.ckpt'))
    assert torch.equal(target.weight, source.weight)
    assert 'kept for inspection: it holds the weights before step 7, in which a loss or gradient' in log.text
