"""From the trained model to a folder that onnxruntime-genai loads."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.export import Dim

from scripts.train_shapes_vision import tokenizer as language
from scripts.train_shapes_vision.model import CROP, Model, decoder_config

VISION, EMBEDDING, TEXT = "vision.onnx", "embedding.onnx", "text.onnx"
PROCESSOR = {
    "processor": {
        "name": "phi-3-image-processor",
        "transforms": [
            {"operation": {"name": "decode_image", "type": "DecodeImage", "attrs": {"color_space": "BGR"}}},
            {"operation": {"name": "convert_to_rgb", "type": "ConvertRGB"}},
            {
                "operation": {
                    "name": "phi3_image_transform",
                    "type": "Phi3ImageTransform",
                    "attrs": {"num_crops": 16, "num_img_tokens": 144},
                }
            },
        ],
    }
}


def export(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the whole folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    language.save(tokenizer, folder)
    _text(model, folder)
    _vision(model, folder / VISION)
    _embedding(model, folder / EMBEDDING)
    config = json.loads((folder / "genai_config.json").read_text())
    (folder / "genai_config.json").write_text(json.dumps(_genai(config), indent=2) + "\n")
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")


def _text(model: Model, folder: Path) -> None:
    """Build the decoder's graph with onnxruntime-genai's own model builder."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, built = Path(scratch, "checkpoint"), Path(scratch, "built")
        model.decoder.save_pretrained(checkpoint)
        decoder_config(model.size).save_pretrained(checkpoint)
        language.save(Tokenizer.from_file(str(folder / "tokenizer.json")), checkpoint)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", built]
        command += ["-p", "fp32", "-e", "cpu", "-c", Path(scratch, "cache")]
        command += ["--extra_options", "exclude_embeds=true", f"filename={TEXT}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name in ("genai_config.json", TEXT, f"{TEXT}.data"):
            (folder / name).write_bytes((built / name).read_bytes())


def _vision(model: Model, path: Path) -> None:
    pixels = torch.zeros(2, 5, 3, CROP, CROP)
    sizes = torch.tensor([[2 * CROP, 2 * CROP], [CROP, 3 * CROP]])
    images, crops = Dim("num_images"), Dim("max_num_crops")
    torch.onnx.export(
        model.vision,
        (pixels, sizes),
        path,
        input_names=["pixel_values", "image_sizes"],
        output_names=["image_features"],
        dynamic_shapes={"pixel_values": {0: images, 1: crops}, "image_sizes": {0: images}},
        external_data=False,
        verbose=False,
    )


def _embedding(model: Model, path: Path) -> None:
    torch.onnx.export(
        model.embedding,
        (torch.tensor([[1, -1, -1, 2]]), torch.zeros(2, model.size.hidden)),
        path,
        input_names=["input_ids", "image_features"],
        output_names=["inputs_embeds"],
        dynamic_shapes={"input_ids": {1: Dim("tokens")}, "image_features": {0: Dim("num_image_tokens")}},
        external_data=False,
        verbose=False,
    )


def _genai(config: dict[str, Any]) -> dict[str, Any]:
    """Make of the text model's configuration the whole model's."""
    names = {
        "embedding": (EMBEDDING, ("input_ids", "image_features"), "inputs_embeds"),
        "vision": (VISION, ("pixel_values", "image_sizes"), "image_features"),
    }
    for part, (filename, inputs, output) in names.items():
        config["model"][part] = {
            "filename": filename,
            "inputs": {name: name for name in inputs},
            "outputs": {output: output},
        }
    config["model"]["type"] = "phi3v"
    config["model"]["eos_token_id"] = [language.END_OF_TEXT, language.END]
    return config
