"""Run the measurements by name: `python -m bench`, `python -m bench burst race`."""

import importlib
import pkgutil
import signal
import sys

import bench

# An exit like any other, so that servers are stopped.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

names = [m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_")]
chosen = sys.argv[1:] or names
for name in chosen:
    if name not in names:
        sys.exit(f"there is no measurement {name!r}; there are {', '.join(names)}")
for name in chosen:
    print(f"\n== {name}", flush=True)
    importlib.import_module(f"bench.{name}").main()
