"""Imports the history of AT Protocol accounts into Postgres through Dagster.

Everything an application needs is here, as `__init__.pyi` lists it; what is not there may change with any version.
Names are loaded when they are first used, so that `import parity_dagster` costs next to nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
