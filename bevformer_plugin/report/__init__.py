"""A page that shows why submissions score as they do: one HTML file that needs neither network nor other files.

Read in this order: :mod:`.analysis` (what is computed of each run), :mod:`.blocks` (what a page is made of), the
parts (:mod:`.headline`, :mod:`.classes`, :mod:`.slice_part`, :mod:`.causes`, :mod:`.reliability_part`,
:mod:`.frame_part`) and :mod:`.comparison`, :mod:`.charts` (inline SVG), :mod:`.page` (the template).
"""

from .analysis import RunAnalysis
from .report import analyse_submissions, terminal_table, write_page
from .track_part import TrackAnalysis, analyse_tracks

__all__ = ['RunAnalysis', 'TrackAnalysis', 'analyse_submissions', 'analyse_tracks', 'terminal_table', 'write_page']
