"""Write the table of structures anew, after a change of transformers or of the named checkpoints."""

from importlib.resources import files
from pathlib import Path

from polyvex_hf.named import named_options
from polyvex_hf.table import FILE, write_table

if __name__ == "__main__":
    path = Path(str(files("polyvex_hf").joinpath(FILE)))
    path.write_text(write_table(named_options()), encoding="utf-8")
    print(f"wrote {path}")
