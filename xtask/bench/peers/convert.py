"""Unpacks a GGUF file: into a Hugging Face folder in bf16, or into GGUF files of plain numbers.

    python convert.py FILE.gguf --folder OUT
    python convert.py FILE.gguf --type bf16 --output OUT.gguf

Either way every side computes with the same weights, those that the blocks of the file stand for.
"""

import argparse
from pathlib import Path


def to_folder(file: Path, folder: Path) -> None:
    """Model, tokenizer and chat template, as transformers reads them from the file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    if not tokenizer.chat_template:
        raise SystemExit(f"{file} brings no chat template")
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # It is none of the plain folder's business how the numbers were kept before.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def to_plain(file: Path, kind: str, output: Path) -> None:
    """The same tensors under the same names and keys; vectors stay in f32."""
    import gguf

    types = gguf.GGMLQuantizationType
    wanted = types[kind.upper()]
    reader = gguf.GGUFReader(file)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(output, architecture)
    for field in reader.fields.values():
        # The writer writes these itself.
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name in ("general.file_type", "general.quantization_version"):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}" if kind != "f32" else "ALL_F32"])
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        own = types.F32 if len(tensor.shape) < 2 else wanted
        writer.add_tensor(tensor.name, gguf.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--type", choices=["bf16", "f16", "f32"])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.folder:
        to_folder(arguments.file, arguments.folder)
    if arguments.type:
        to_plain(arguments.file, arguments.type, arguments.output)


main()
