"""The part that a run begins with: NDS, mAP and the five errors with their intervals, and what is known of the run."""

from bevformer_plugin.evaluation.bootstrap import Bootstrap, Interval

from .analysis import RunAnalysis
from .blocks import Card, Cards, Facts, Paragraph, Part, count_text, interval_text
from .charts import Axis, axis_from_zero, interval_bar, share_axis

LABELS = {  # figures of the headline -> what they are
    'NDS': 'nuScenes detection score',
    'mAP': 'mean average precision',
    'mATE': 'translation, m',
    'mASE': 'size, 1 - IoU',
    'mAOE': 'orientation, rad',
    'mAVE': 'velocity, m/s',
    'mAAE': 'attribute, 1 - acc.',
}
HIGHER_IS_BETTER = ('NDS', 'mAP')
FEW_SCENES = 20  # below so many, intervals over scenes are rough
# Of 3 scenes, 3.7 % of draws hold a certain one alone, so an interval would end at the scores of single scenes.
FEWEST_SCENES = 4
NOT_RECORDED = 'not recorded'


def headline_part(run: RunAnalysis) -> Part:
    """Return the part with the headline of a run."""
    cards = tuple(_card(name, interval) for name, interval in run.bootstrap.headline.items())
    lead = 'Higher is better for NDS and mAP, lower for the five errors of found boxes.'
    blocks = (Cards(cards), Paragraph(interval_words(run.bootstrap)), Facts(_facts(run)))
    return Part('headline', 'Headline', lead, blocks)


def interval_words(bootstrap: Bootstrap) -> str:
    """Say in a sentence or two what the intervals are, and how far they can be trusted."""
    if bootstrap.scenes < 2:
        return 'No intervals: they come from drawing scenes with replacement, and there is only one scene.'
    words = (
        f'Intervals hold the scores of 95 % of {count_text(bootstrap.draws)} draws of the {bootstrap.scenes} scenes '
        f'with replacement (seed {bootstrap.seed}).'
    )
    if bootstrap.scenes < FEWEST_SCENES:
        words += ' They only reach from scene to scene: so few say nothing about others.'
    elif bootstrap.scenes < FEW_SCENES:
        words += ' From so few scenes they are rough, and too narrow rather than too wide.'
    return words


def axis_of(name: str, highest: float) -> Axis:
    """Return the axis for a figure of the headline: 0 to 1, longer for an error that is larger."""
    return share_axis(name) if name in HIGHER_IS_BETTER or not highest > 1 else axis_from_zero(name, highest)


def _card(name: str, interval: Interval) -> Card:
    ends = (interval.low, interval.high)
    below = interval_text(ends)
    highest = max(interval.value, interval.high) if below else interval.value
    note = f'{name} {interval.value:.4f}' + (f', 95 % interval {below}' if below else '')
    bar = interval_bar(interval.value, ends, axis_of(name, highest), note)
    return Card(name, LABELS[name], interval.value, below or 'no interval', bar, name in HIGHER_IS_BETTER)


def _facts(run: RunAnalysis) -> dict[str, str]:
    """Say what is known of a run, and what is not."""
    record, boxes = run.record, run.boxes
    facts = {'submission': str(boxes.path)}
    if record is None:
        facts['command, config, checkpoint'] = (
            f'{NOT_RECORDED}: tools/test.py --out leaves a record beside a submission; this one has none, or has '
            'changed since'
        )
    else:
        facts['command'] = record.command
        facts['config'] = record.config
        facts['checkpoint'] = f'{record.checkpoint}, SHA-256 {record.checkpoint_sha256}'
        facts['made with'] = ', '.join(f'{name} {version}' for name, version in record.versions.items())
    facts['split'] = (
        f'{boxes.split}: {count_text(len(boxes.keyframes.tokens))} keyframes in '
        f'{len(boxes.keyframes.scene_names)} scenes'
    )
    facts['true boxes'] = (
        f"{count_text(len(boxes.truth))} scored (rule '{boxes.true_boxes}'), {count_text(len(boxes.left_out_truth))} "
        'left out by range or as bicycles in racks'
    )
    facts['predicted boxes'] = (
        f'{count_text(len(boxes.predictions))} scored, {count_text(len(boxes.left_out_predictions))} left out likewise'
    )
    return facts
