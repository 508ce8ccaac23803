"""The same with PyTorch: `python examples/predict_safetensors.py student.safetensors image.png`."""

import sys

import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from tasks.export import load_exported

model, about = load_exported(sys.argv[1])
channels, height, width = about["input_shape"]
image = Image.open(sys.argv[2]).convert("L" if channels == 1 else "RGB").resize((width, height))
pixels = functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True)
probabilities = model(pixels.unsqueeze(0)).softmax(dim=1)[0]
print(f"{about['class_names'][int(probabilities.argmax())]} ({float(probabilities.max()):.1%})")
