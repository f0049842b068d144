"""The part about slices: how scores differ by distance, speed, weather and so on."""

from math import isfinite

from bevformer_plugin.evaluation.slices import Slice, Slicing

from .analysis import RunAnalysis
from .blocks import Block, Cell, Paragraph, Part, Row, Table, count_cell, number, number_cell
from .charts import interval_bar, share_axis
from .classes import ERROR_COLUMNS


def slice_part(run: RunAnalysis) -> Part:
    """Return the part about the slices of a run."""
    blocks: list[Block] = []
    for slicing in run.slices:
        blocks += [
            Paragraph(slicing.name.capitalize() if slicing.name.islower() else slicing.name, is_title=True),
            Paragraph(slicing.rule),
            slice_table(slicing),
        ]
    lead = (
        'Every true box is in one slice of each table. The AP of a slice is over the classes that have true boxes in '
        'it, so compare slices of one table with care, and mind the counts: few boxes say little.'
    )
    return Part('slices', 'Slices', lead, tuple(blocks))


def slice_table(slicing: Slicing) -> Table:
    """Return the table of one way of slicing; where only the truth is known, recall stands in for AP."""
    of_truth = slicing.of_truth_only
    head = ('slice', 'true', *(() if of_truth else ('predicted',)), 'recall 2 m' if of_truth else 'mAP', '')
    head = (*head, *(() if of_truth else ('recall 2 m',)), *ERROR_COLUMNS)
    return Table(slice_key(slicing), head, tuple(_row(part, of_truth) for part in slicing.slices))


def slice_key(slicing: Slicing) -> str:
    """Return the name of a slicing for links and tests, such as ``slices-camera-seam``."""
    return 'slices-' + slicing.name.lower().replace(' ', '-')


def main_score(part: Slice) -> float:
    """Return the mAP of a slice, or its recall where only the truth is known."""
    return part.recall if part.mean_ap is None else part.mean_ap


def _row(part: Slice, of_truth: bool) -> Row:
    score = main_score(part)
    bar = interval_bar(score, None, share_axis(''), f'{part.name}: {number(score)}')
    counts = [count_cell(int(part.true_counts.sum()))]
    if part.predicted_counts is not None:
        counts.append(count_cell(int(part.predicted_counts.sum())))
    return Row(
        part.name,
        (
            *counts,
            number_cell(score),
            Cell(kind='bar-cell', drawing=bar) if isfinite(score) else Cell(),
            *(() if of_truth else (number_cell(part.recall),)),
            *map(number_cell, part.mean_errors.tolist()),
        ),
    )
