"""Name the class of an image with an exported student: `python examples/predict.py student.onnx image.png`."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["dfnas"])
channels, height, width = about["input_shape"]
image = Image.open(sys.argv[2]).convert("L" if channels == 1 else "RGB").resize((width, height))
pixels = np.asarray(image, np.float32).reshape(1, height, width, channels).transpose(0, 3, 1, 2) / 255
logits = np.asarray(session.run(["logits"], {"pixels": pixels})[0]).ravel()
probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(f"{about['class_names'][logits.argmax()]} ({probabilities.max():.1%})")
