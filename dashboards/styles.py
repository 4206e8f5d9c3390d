"""Look of all pages: Panel's Bootstrap design with the room given to the pictures instead of to paddings."""

from __future__ import annotations

from panel.theme.base import Inherit
from panel.theme.bootstrap import Bootstrap
from panel.viewable import Viewable

_CONTROLS = """
:host { --bs-card-cap-padding-y: .25rem }
.bk-input { padding: .16rem .5rem !important; font-size: 13px !important }
select.bk-input { padding-right: 1.5rem !important }
.bk-btn { --bs-btn-padding-y: .2rem !important; --bs-btn-padding-x: .6rem !important }
.bk-btn { --bs-btn-font-size: 13px !important }
.bk-input-group > label, label { font-size: 12px }
.bk-header .bk-tab, .bk-tab { padding: .25rem .8rem !important }
.card-header { padding: .2rem .6rem !important; min-height: 0 !important; text-align: left }
.card-title { text-align: left !important } .card-title h3 { font-size: 13px; margin: 2px 0; text-align: left }
:focus-visible { outline: 2px solid #0a84d0; outline-offset: 1px }
"""
PAGE = """
#header { padding: 0 !important; min-height: 0 } #header .title { font-size: 1.05em; line-height: 1.9em }
#header .pn-busy-container { transform: scale(.7) } #main { padding: 2px 6px !important }
"""
HEADER = "#1b1f24"


class Compact(Bootstrap):
    """Bootstrap with low controls."""

    modifiers = {Viewable: {"stylesheets": [Inherit, _CONTROLS]}}
