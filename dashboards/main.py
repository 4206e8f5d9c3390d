"""Entry point of `panel serve dashboards`; one app per browser session."""

from dashboards.app import session

session().servable()
