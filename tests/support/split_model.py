"""A real model in several files, made of one that is whole."""

from __future__ import annotations

from pathlib import Path

import gguf


def split_model(source: Path, stem: Path, tensors: int) -> list[Path]:
    """The files, `STEM-00001-of-0000N.gguf` and so on, of up to so many tensors each."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(
        stem.with_name(f"{stem.name}.gguf"), architecture, split_max_tensors=tensors
    )
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(stem.parent.glob(f"{stem.name}-*-of-*.gguf"))
