"""Write the table of structures anew, after a change of timm or of the named checkpoints."""

from importlib.resources import files
from pathlib import Path

from polyvex_timm.named import CHECKPOINTS
from polyvex_timm.table import FILE, write_table

if __name__ == "__main__":
    path = Path(str(files("polyvex_timm").joinpath(FILE)))
    path.write_text(write_table(CHECKPOINTS.values()), encoding="utf-8")
    print(f"wrote {path}")
