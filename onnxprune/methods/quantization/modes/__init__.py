"""The modes of `quantize`, one file each; `table.py` says what each one is and needs."""
