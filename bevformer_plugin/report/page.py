"""The page: views put into the template, with style and script, as one file that needs no other."""

from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import bevformer_plugin

from .blocks import View


def render_page(views: list[View], title: str, lead: str, footer: str) -> str:
    """Put views into one HTML page that needs neither network nor other files.

    Args:
        views: at least one; the first is shown at the beginning.
        title: of the page.
        lead: a sentence below the title.
        footer: words at the end.

    Returns:
        The page's text.
    """
    folder = resources.files('bevformer_plugin.report')
    files = {name: folder.joinpath(f'page.{name}').read_text(encoding='utf-8') for name in ('html', 'css', 'js')}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files['html']).render(
        views=views,
        title=title,
        lead=lead,
        footer=footer,
        version=bevformer_plugin.__version__,
        css=Markup(files['css']),
        js=Markup(files['js']),
    )
